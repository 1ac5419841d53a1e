"""Annotation files survive a kill and are put on problems; a second run makes only what is missing."""

import json

import pytest
from PIL import Image

from infimmr_jax.config import DataSection, FilterSection, SourceSection
from infimmr_jax.data.annotation import read_captions, read_pass_rates
from infimmr_jax.data.readers import read_source
from infimmr_jax.data.records import DataError
from infimmr_jax.data.selection import left_out, select_problems
from infimmr_jax.data.synthetic import SyntheticSource
from infimmr_jax.files import append_rows
from infimmr_jax.rewards.golds import GoldCheck


def made(count):
    return SyntheticSource(["bars"], "plain", "train", 0, count, "image")


def test_a_caption_file_keeps_the_last_line_of_an_id_and_forgives_a_cut_end(tmp_path):
    path = tmp_path / "captions.jsonl"
    whole = [{"id": "a", "caption": "old"}, {"id": 5, "caption": "five"}, {"id": "a", "caption": "new"}]
    path.write_text("".join(json.dumps(line) + "\n" for line in whole) + '{"id": "b", "cap')
    assert read_captions(path) == {"a": "new", "5": "five"}


@pytest.mark.parametrize(
    "text", ['{"id": "a"}\n', '{"id": "a", "caption": 3}\n', '{"id\n{"id": "a", "caption": "x"}\n', "x\n"]
)
def test_a_caption_file_with_another_fault_is_an_error_with_its_row(tmp_path, text):
    path = tmp_path / "captions.jsonl"
    path.write_text(text)
    with pytest.raises(DataError, match=r"captions\.jsonl"):
        read_captions(path)


def test_captions_from_a_file_stand_in_for_missing_ones(tmp_path):
    Image.new("RGB", (30, 30)).save(tmp_path / "p.png")
    row = {"question": "?", "answer": "1", "answer_type": "math", "images": ["p.png"]}
    rows = [row | {"id": "a"}, row | {"id": "b", "caption": "own"}, row | {"id": "c"}]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (tmp_path / "c.jsonl").write_text('{"id": "a", "caption": "filed"}\n{"id": "b", "caption": "filed too"}\n')
    source = SourceSection(reader="jsonl", path="t.jsonl", captions="c.jsonl")
    problems, rejected = read_source(source, "caption", DataSection(root=tmp_path), GoldCheck())
    assert [(p.id, p.caption) for p in problems] == [("a", "filed"), ("b", "filed too")]
    assert [r.id for r in rejected] == ["c"]


def test_pass_rates_become_levels(tmp_path):
    path = tmp_path / "rates.jsonl"
    rates = zip(made(3), (0.25, 1.0, 0.0), (0.0, 1.0, 0.0), strict=True)
    append_rows(path, [{"id": p.id, "pass_rate": rate, "pass_rate_text": blind} for p, rate, blind in rates])
    Image.new("RGB", (30, 30)).save(tmp_path / "p.png")
    rows = [{"id": p.id, "question": "?", "answer": "1", "answer_type": "math", "images": ["p.png"]} for p in made(4)]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    source = SourceSection(reader="jsonl", path="t.jsonl", pass_rates="rates.jsonl")
    options = {"phase": "p", "filters": FilterSection(max_pass_rate=0.9)}
    kept, report = select_problems(source, "image", DataSection(root=tmp_path), golds=GoldCheck(), **options)
    assert [problem.level for problem in kept] == [0.75, 1.0]
    assert report.filtered == {"pass rate above 0.9": 1, "no pass rate, but the phase filters by it": 1}
    gap = FilterSection(min_image_gap=0.2)
    assert [left_out(p, gap) for p in kept] == ["", "image gap below 0.2"]


@pytest.mark.parametrize("value", [1.5, -0.1, "0.5", True])
def test_a_pass_rate_outside_its_range_is_an_error(tmp_path, value):
    path = tmp_path / "rates.jsonl"
    path.write_text(json.dumps({"id": "a", "pass_rate": value}) + "\n")
    with pytest.raises(DataError, match="not a number from 0 to 1"):
        read_pass_rates(path)


def test_one_row_that_makes_a_filter_or_the_check_fail_is_rejected_alone(tmp_path):
    rows = [{"id": p.id, "question": "?", "answer": "1", "answer_type": "math", "pass_rate": 0.5} for p in made(4)]
    rows[1]["pass_rate"] = "half"
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def check(problem, modality):
        return {}[problem.id] if problem.row == 3 else None

    source, filters = SourceSection(reader="jsonl", path="t.jsonl"), FilterSection(max_pass_rate=0.9)
    options = {"phase": "p", "filters": filters, "check": check, "golds": GoldCheck()}
    kept, report = select_problems(source, "text", DataSection(root=tmp_path), **options)
    assert [problem.row for problem in kept] == [1, 4]
    assert [loss.row for loss in report.rejected] == [2, 3]
    assert "can not be read (TypeError" in report.rejected[0].reason
    assert "can not be read (KeyError" in report.rejected[1].reason
