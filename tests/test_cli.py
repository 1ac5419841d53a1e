"""The command line as a person meets it: help, versions, and errors that are one sentence."""

import json
import subprocess
import sys

import pytest

from infimmr_jax import __version__


def infimmr(*arguments: str, timeout: int = 240) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "infimmr_jax.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)


def test_help_names_every_command_without_loading_jax():
    code = "import sys, infimmr_jax.cli; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    shown = infimmr("--help")
    assert shown.returncode == 0
    for command in ("train", "report", "grade", "doctor", "caption", "difficulty", "prepare"):
        assert command in shown.stdout


def test_version():
    assert infimmr("--version").stdout.strip() == __version__


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--config", "nowhere.yaml"], "there is no configuration file nowhere.yaml"),
        (["--config", "configs/nano.yaml", "--set", "rollot.temperature=1"], "did you mean 'rollout'?"),
        (["--config", "configs/nano.yaml", "--set", "model.path=/no/model"], "/no/model is not a model directory"),
        (["--config", "configs/real_small.yaml", "--set", "data.root=/no/data"], "/no/data"),
    ],
)
def test_mistakes_are_one_sentence_and_exit_code_2(arguments, sentence, tmp_path):
    done = infimmr("train", *arguments, "--set", f"output={tmp_path}/run")
    assert done.returncode == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_grade_scores_a_file(tmp_path):
    rows = [
        {"question": "?", "answer": "1/2", "answer_type": "math", "response": "<think>a</think>\\boxed{0.5}", "my": 1},
        {"question": "?", "answer": "B", "answer_type": "choice", "choices": ["x", "y"], "response": "\\boxed{A}"},
    ]
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = infimmr("grade", str(source), "--out", str(out))
    assert done.returncode == 0, done.stderr
    graded = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["accuracy"] for row in graded] == [1.0, 0.0]
    assert [row["format"] for row in graded] == [1.0, 0.0]
    assert graded[0]["my"] == 1
