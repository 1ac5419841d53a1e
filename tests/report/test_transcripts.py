"""Selection, pictures and distributions of transcripts."""

import base64
import dataclasses
import io
import json
import tracemalloc

import pytest
from fake_runs import make_run
from PIL import Image

from infimmr_jax.report.html import write_report
from infimmr_jax.report.page_data import embed_json
from infimmr_jax.report.reading import read_run
from infimmr_jax.report.transcript_file import TranscriptFile
from infimmr_jax.report.transcripts import data_uri, distributions, pack_transcripts


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return read_run(make_run(tmp_path_factory.mktemp("transcripts") / "run", steps=50, sft_steps=0))


def test_everything_is_packed_when_it_fits(run):
    packed = pack_transcripts(run)
    assert len(packed["items"]) == packed["found"] == 30
    assert [item["step"] for item in packed["items"]] == [row["step"] for row in run.transcripts]
    item, row = packed["items"][12], run.transcripts[12]
    assert [one["text"] for one in item["responses"]] == [one["text"] for one in row["responses"]]
    uri = packed["images"][item["images"][0]]
    assert base64.b64decode(uri.partition(",")[2]) == (run.directory / row["images"][0]).read_bytes()


def test_a_budget_keeps_a_selection_over_all_phases_and_the_last(run):
    packed = pack_transcripts(run, budget=60_000)
    assert len(json.dumps(packed)) < 66_000
    assert packed["found"] == 30
    steps = [item["step"] for item in packed["items"]]
    assert steps == sorted(steps)
    assert {step // 50 for step in steps} == {0, 1, 2}
    assert steps[-1] == 145


def test_one_transcript_is_shown_whatever_the_budget(run):
    assert len(pack_transcripts(run, budget=10)["items"]) == 1


def test_a_picture_used_twice_is_stored_once(run):
    row = run.transcripts[12]
    packed = pack_transcripts(dataclasses.replace(run, transcripts=[row, row]))
    assert len(packed["images"]) == 1


def test_rows_with_missing_keys_are_shown_as_far_as_they_go(run):
    rows = [{"step": 1, "responses": [{"text": "a", "tokens": ["a"], "logprobs": []}, None]}]
    (item,) = pack_transcripts(dataclasses.replace(run, transcripts=rows))["items"]
    assert item["question"] is None
    assert [one["text"] for one in item["responses"]] == ["a"]
    assert "tokens" not in item["responses"][0]


def test_large_pictures_are_scaled_and_damaged_ones_are_missing(tmp_path):
    Image.effect_noise((800, 400), 90).save(tmp_path / "big.png")
    (tmp_path / "torn.png").write_bytes((tmp_path / "big.png").read_bytes()[:500])
    uri = data_uri(tmp_path, "big.png")
    with Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))) as picture:
        assert picture.size == (384, 192)
    assert uri.startswith("data:image/webp;base64,")
    assert data_uri(tmp_path, "torn.png") is None
    assert data_uri(tmp_path, "none.png") is None


def test_paths_out_of_the_run_directory_are_not_followed(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "secret.png")
    (tmp_path / "run").mkdir()
    assert data_uri(tmp_path / "run", "../secret.png") is None
    assert data_uri(tmp_path / "run", str(tmp_path / "secret.png")) is None


def test_distributions_count_every_response_once(run):
    reward, length = distributions(run)
    assert reward["bins"] == ["1", "0.9", "0.1", "0"]
    assert sum(column["count"] for column in reward["columns"]) == 30 * 8
    assert all(sum(column["shares"]) == pytest.approx(1.0, abs=1e-3) for column in reward["columns"])
    assert reward["phases"] == [{"name": name, "span": 6} for name in ("1 text", "2 image + caption", "3 image alone")]
    right = [sum(one["total"] == 1.0 for one in row["responses"]) for row in run.transcripts[:2]]
    assert reward["columns"][0]["shares"][0] == pytest.approx(sum(right) / 16, abs=1e-4)
    assert len(length["bins"]) == 8


def test_no_distribution_without_training_transcripts(run):
    rows = [{**row, "kind": "eval"} for row in run.transcripts]
    assert distributions(dataclasses.replace(run, transcripts=rows)) == []


def test_only_pictures_of_known_formats_are_opened(tmp_path, monkeypatch):
    # Pillow hands EPS to Ghostscript.
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
    (tmp_path / "x.png").write_bytes(eps)
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *_, **__: pytest.fail("Ghostscript was started"))
    assert data_uri(tmp_path, "x.png") is None


def test_long_texts_are_shortened_and_say_so(run):
    row = run.transcripts[12]
    long = {**row["responses"][0], "text": "a" * 50_000 + "end", "tokens": ["a"] * 50_000, "logprobs": [0.0] * 50_000}
    (item,) = pack_transcripts(dataclasses.replace(run, transcripts=[{**row, "responses": [long] * 70}]))["items"]
    shown = item["responses"][0]
    assert len(shown["text"]) < 12_100
    assert "more characters, in transcripts.jsonl" in shown["text"]
    assert shown["text"].endswith("end")
    assert "tokens" not in shown
    assert (len(item["responses"]), item["left_out"]) == (64, 6)


def test_numbers_that_are_none_do_not_reach_the_page(tmp_path):
    path = tmp_path / "transcripts.jsonl"
    text = '{"step": 1, "responses": [{"text": "a", "total": %s, "tokens": ["a"], "logprobs": [%s]}]}\n'
    path.write_text("".join(text % (x, x) for x in ("1e400", "NaN", "1" + "0" * 310, "0.5")))
    rows = TranscriptFile(path, [])
    assert [one.values["total"] for one in rows.summaries] == [(), (), (), (0.5,)]
    assert [row["responses"][0]["total"] for row in rows][:2] == [None, None]


def test_a_large_file_is_neither_held_in_memory_nor_put_on_the_page(tmp_path):
    directory = make_run(tmp_path / "run", steps=5, sft_steps=0)
    path = directory / "transcripts.jsonl"
    row = json.loads(path.read_text().splitlines()[0])
    row["responses"] = [{**row["responses"][0], "text": "<x>&" * 1000}] * 8
    line = (json.dumps(row) + "\n").encode()
    with path.open("ab") as file:
        for _ in range(600):
            file.write(line)
        file.write(b'{"responses": ["' + b"x" * 33_000_000 + b'"]}\n' + line)
    tracemalloc.start()
    run = read_run(directory)
    assert len(run.transcripts) == 604
    assert any("1 row of more than 32 MB left out" in note for note in run.notes)
    packed = pack_transcripts(run)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 90_000_000  # one line that is too long, and what is packed
    # Escaped as on the page, where < takes six bytes.
    assert 3_000_000 < len(embed_json(packed)) < 3_600_000
    assert write_report([directory], tmp_path / "report.html").stat().st_size < 4_000_000
