"""Selection, pictures and distributions of transcripts."""

import base64
import dataclasses
import io
import json

import pytest
from fake_runs import make_run
from PIL import Image

from infimmr_jax.report.reading import read_run
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
