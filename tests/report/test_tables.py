"""Texts and numbers of the report's tables."""

import dataclasses

import pytest
from fake_runs import make_run

from infimmr_jax.report.reading import read_run
from infimmr_jax.report.tables import comparison_table, health_notes, results_table, setup_rows, status, tiles


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return read_run(make_run(tmp_path_factory.mktemp("tables") / "run", steps=4, planned=6, sft_steps=10))


def test_results_table(run):
    table = results_table(run)
    assert [column["name"] for column in table["columns"]] == ["text", "image + caption", "image alone"]
    assert table["columns"][0]["problems"] == "256"
    assert [row["stage"] for row in table["rows"]] == ["cold start", "1 text", "2 image + caption", "3 image alone"]
    # 51 of 256 after the cold start, 143 of 256 after the last phase.
    cell = table["rows"][0]["cells"][2]
    assert (cell["accuracy"], cell["interval"], cell["formed"]) == ("19.9%", "15.5–25.2", "90%")
    assert table["gains"][2] == {"text": "+35.9 points", "tone": "up"}


def test_gains_count_from_the_end_of_the_cold_start(run):
    earlier = {**run.evals[2], "stage": "worked solutions", "stage_index": -1, "accuracy": 0.9}
    longer = dataclasses.replace(run, evals=[earlier, *run.evals])
    table = results_table(longer)
    assert table["rows"][0]["stage"] == "worked solutions"
    assert table["base"] == "cold start"
    assert table["gains"][2]["text"] == "+35.9 points"
    assert tiles(longer)[0]["value"] == "19.9 → 55.9%"
    assert comparison_table([longer], ["a"])["rows"][0]["cells"][2]["gain"] == "+35.9 points"


def test_an_unfinished_table_has_gaps(run):
    table = results_table(dataclasses.replace(run, evals=run.evals[:4]))
    assert table["rows"][1]["cells"][1:] == [None, None]
    assert table["gains"][1] == {"text": "–", "tone": ""}
    assert results_table(dataclasses.replace(run, evals=run.evals[:3]))["gains"] == []
    assert results_table(dataclasses.replace(run, evals=[])) is None


def test_tiles_and_status(run):
    values = {tile["label"]: tile["value"] for tile in tiles(run)}
    assert values["image alone: held-out accuracy"] == "19.9 → 55.9%"
    assert values["GRPO steps in 3 phases"] == "12 / 18"
    assert values["responses sampled and graded"] == f"{12 * 32 * 8:,}"
    assert status(run) == "nano · model made from scratch · seed 0 · not finished: 12 of 18 GRPO steps so far"
    assert status(dataclasses.replace(run, config={})) == "12 GRPO steps so far"


def test_comparison_table(run):
    other = dataclasses.replace(run, evals=run.evals[:6])
    table = comparison_table([run, other], ["a", "b"])
    assert [row["stage"] for row in table["rows"]] == ["after 3 image alone", "after 1 text"]
    assert table["rows"][1]["cells"][0]["gain"] == "+12.1 points"
    assert comparison_table([dataclasses.replace(run, evals=[])], ["c"])["rows"][0]["stage"] == "not evaluated yet"


def test_health_notes_speak_only_when_something_is_odd(run):
    assert health_notes(run) == []
    odd = {"response/truncated": 0.4, "response/signal_groups": 0.02, "policy/mismatch": 0.2, "loss": None}
    notes = " ".join(health_notes(dataclasses.replace(run, grpo=[{**row, **odd} for row in run.grpo])))
    for words in ("12 metrics rows hold a value that is not finite", "40% of the latest", "Only 2% of", "0.200 nats"):
        assert words in notes


def test_setup_rows():
    rows = setup_rows({"devices": ["cpu:0", "cpu:1"], "versions": {"jax": "0.10"}, "git": None})
    assert rows == [("devices", "cpu:0, cpu:1"), ("versions.jax", "0.10"), ("git", "None")]


def test_a_change_is_coloured_only_where_the_intervals_do_not_overlap(tmp_path):
    run = read_run(make_run(tmp_path / "run", steps=2, sft_steps=0))
    first, last = ({"stage": s, "stage_index": i, "modality": "text"} for i, s in enumerate("ab"))

    def tones(*rows):
        changed = dataclasses.replace(run, evals=[first | rows[0], last | rows[1]])
        return results_table(changed)["gains"][0]["tone"], tiles(changed)[0]["tone"]

    def at(accuracy, low, high):
        return {"accuracy": accuracy, "low": low, "high": high}

    assert tones(at(0.5, 0.44, 0.56), at(0.45, 0.39, 0.51)) == ("", "")
    assert tones(at(0.5, 0.44, 0.56), at(0.3, 0.25, 0.36)) == ("down", "down")
    assert tones(at(0.5, 0.44, 0.56), at(0.7, 0.64, 0.75)) == ("up", "up")
    assert tones({"accuracy": 0.5}, {"accuracy": 0.4}) == ("down", "down")


def test_what_went_wrong_is_worth_knowing(tmp_path):
    run = read_run(make_run(tmp_path / "run", steps=4, sft_steps=2))
    assert health_notes(run) == []
    counts = {"grading/judge_failures": 7, "grading/bad_rewards": 2, "grading/timeouts": 1, "policy/skipped": 1.0}
    rows = [row | (counts if row["step"] == 3 else {}) for row in run.grpo]
    assert health_notes(dataclasses.replace(run, grpo=rows)) == [
        "1 of 14 updates were skipped: their loss or gradient was not finite.",
        "The judge gave no verdict on 7 answers (in 1 of 12 steps).",
        "Graders ran out of time on 1 answers, which scored 0 (in 1 of 12 steps).",
        "2 rewards were no numbers or far too large, and their groups taken out of training (in 1 of 12 steps).",
    ]


def test_why_a_run_ended_is_worth_knowing(tmp_path):
    directory = make_run(tmp_path / "run", steps=4, planned=9)
    assert health_notes(read_run(directory)) == []
    assert "not finished: 12 of 27" in status(read_run(directory))
    (directory / "ended.json").write_text('{"status": 75, "reason": "stopped by signal 15 after step 12"}')
    assert health_notes(read_run(directory)) == ["The run ended with status 75: stopped by signal 15 after step 12"]
    # A phase that was promoted makes fewer steps than planned.
    (directory / "ended.json").write_text('{"status": 0, "reason": "finished"}')
    assert health_notes(read_run(directory)) == []
    assert "finished: 12 steps" in status(read_run(directory))
