"""Reading run directories that are whole, unfinished or damaged."""

import json

import pytest
from fake_runs import make_run

from infimmr_jax.report.reading import ReportError, config_differences, flatten, read_run


def test_a_whole_run(tmp_path):
    run = read_run(make_run(tmp_path / "run", steps=4, sft_steps=3))
    assert (len(run.sft), len(run.grpo), len(run.evals), len(run.transcripts)) == (3, 12, 12, 3)
    assert run.phases[1] == ("2 image + caption", "caption", 4)
    assert run.steps_planned == 12
    assert run.notes == ()


def test_torn_lines_and_missing_files_are_noted_not_fatal(tmp_path):
    directory = make_run(tmp_path / "run", steps=4, sft_steps=0)
    for name in ("config.yaml", "environment.json", "evals.jsonl"):
        (directory / name).unlink()
    with (directory / "metrics.jsonl").open("a") as file:
        file.write('[1]\n{"kind": "grpo", "st')
    run = read_run(directory)
    assert len(run.grpo) == 12
    assert run.evals == []
    assert [name for name, _, _ in run.phases] == ["1 text", "2 image + caption", "3 image alone"]
    assert run.steps_planned is None
    notes = " ".join(run.notes)
    assert "metrics.jsonl: 2 lines could not be read" in notes
    assert "config.yaml is missing" in notes
    assert "environment.json is missing" in notes


def test_damaged_config_and_environment(tmp_path):
    directory = make_run(tmp_path / "run", steps=1, sft_steps=0)
    (directory / "config.yaml").write_text("a: [1")
    (directory / "environment.json").write_text("{")
    run = read_run(directory)
    assert run.config == {}
    assert run.config_text == "a: [1"
    assert any("config.yaml is not valid YAML" in note for note in run.notes)
    assert any("environment.json is not valid JSON" in note for note in run.notes)


def test_nan_of_other_writers_becomes_null(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"kind": "grpo", "step": 0, "loss": NaN}\n')
    assert read_run(tmp_path).grpo == [{"kind": "grpo", "step": 0, "loss": None}]


def test_no_run_is_an_error(tmp_path):
    with pytest.raises(ReportError, match=r"there is no run directory .*nowhere"):
        read_run(tmp_path / "nowhere")
    with pytest.raises(ReportError, match="holds no rows of a run"):
        read_run(tmp_path)


def test_flatten_and_config_differences(tmp_path):
    assert flatten({"a": [{"b": 1}, 2], "c": {}, "d": None}) == {"a.0.b": 1, "a.1": 2, "c": {}, "d": None}
    first = read_run(make_run(tmp_path / "a", steps=1, sft_steps=0))
    second = read_run(make_run(tmp_path / "b", steps=1, sft_steps=0, seed=1, learning_rate=3e-3))
    assert config_differences([first, second]) == [
        ("seed", ["0", "1"]),
        ("optimizer.learning_rate", ["0.001", "0.003"]),
    ]
    assert config_differences([first, first]) == []
    shorter = read_run(make_run(tmp_path / "c", steps=1, sft_steps=0))
    del shorter.config["phases"][1:]
    assert config_differences([first, shorter]) == [
        ("phases.1", ["2 image + caption: caption, 1 steps", "-"]),
        ("phases.2", ["3 image alone: image, 1 steps", "-"]),
    ]
    del second.config["optimizer"]
    assert config_differences([first, second])[1] == ("optimizer.learning_rate", [json.dumps(1e-3), "-"])
