"""Annotation files survive a kill and are put on problems; a second run makes only what is missing."""

import json

import numpy as np
import pytest
from PIL import Image

from infimmr_jax.config import DataSection, FilterSection, SourceSection
from infimmr_jax.data.annotation import annotate, measure_pass_rates, read_captions, read_pass_rates
from infimmr_jax.data.readers import read_source
from infimmr_jax.data.records import DataError
from infimmr_jax.data.selection import left_out, select_problems
from infimmr_jax.data.synthetic import SyntheticSource
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


def test_annotating_again_makes_only_what_a_kill_left_out(tmp_path):
    path, asked = tmp_path / "captions.jsonl", []

    def describe(problems):
        asked.append([problem.id for problem in problems])
        return [{"caption": f"of {problem.id}"} for problem in problems]

    assert annotate(made(7), path, describe, batch_size=3) == 7
    assert [len(batch) for batch in asked] == [3, 3, 1]
    path.write_bytes(path.read_bytes()[:-20])  # the kill: the last line is cut
    finished = []
    assert annotate(made(9), path, describe, batch_size=3, progress=finished.append) == 3
    assert asked[3:] == [[problem.id for problem in made(9)[6:9]]]
    assert finished == [3]
    assert read_captions(path) == {problem.id: f"of {problem.id}" for problem in made(9)}


def test_a_batch_of_another_size_is_an_error(tmp_path):
    with pytest.raises(DataError, match="0 annotations came back for 2"):
        annotate(made(2), tmp_path / "a.jsonl", lambda problems: [], batch_size=4)


def test_pass_rates_are_the_share_of_right_samples_and_become_levels(tmp_path):
    right = np.array([[1, 0, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]], bool)
    blind = np.array([[0, 0, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]], bool)
    path = tmp_path / "rates.jsonl"
    assert measure_pass_rates(made(3), path, lambda p: right, "step 40", 8, lambda p: blind) == 3
    rates = read_pass_rates(path)
    assert [rates[problem.id]["pass_rate"] for problem in made(3)] == [0.25, 1.0, 0.0]
    assert json.loads(path.read_text().splitlines()[0])["checkpoint"] == "step 40"
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
