"""The command line as a person meets it: help, versions, and errors that are one sentence."""

import errno
import json
import subprocess
import sys

import pytest

from infimmr_jax import __version__, cli
from infimmr_jax.parallel import startup


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
def test_mistakes_in_a_run_are_one_sentence_and_exit_code_2(arguments, sentence, tmp_path):
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


@pytest.fixture
def files(tmp_path):
    """Files that are there, and nonsense."""

    def lines(name, *rows):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))

    (tmp_path / "folder").mkdir()
    (tmp_path / "text.txt").write_text("hello")
    (tmp_path / "bytes.jsonl").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "bytes.parquet").write_bytes(b"\xff\xfe\x00" * 20)
    (tmp_path / "empty.jsonl").write_text("")
    lines("scalars.jsonl", 1, 2)
    lines("math.jsonl", *({"problem": f"1+{i}", "answer": str(i + 1), "unique_id": str(i)} for i in range(2)))
    lines("good.jsonl", *({"id": str(i), "response": "a"} for i in range(2)))
    lines("missing.jsonl", {"id": "0", "response": "a"})
    lines("unequal.jsonl", {"id": "0", "responses": ["a", "b"]}, {"id": "1", "responses": ["a"]})
    lines("foreign.jsonl", {"id": "z", "response": "a"})
    lines("textless.jsonl", {"id": "0", "response": {"txt": "a"}})
    lines("answers.jsonl", {"question": "?", "answer": "2", "answer_type": "math", "response": "\\boxed{2}"})
    (tmp_path / "asked").mkdir()
    (tmp_path / "asked" / "request.json").write_text('{"benchmark": "math500", "model": "some/model"}')
    return tmp_path


SCORE = "evaluate --benchmark math500 --data {}/math.jsonl"
NANO = "--config configs/nano.yaml"


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("report /nowhere", "there is no run directory /nowhere"),
        ("report {}/text.txt", "there is no run directory"),
        ("report {}/folder", "holds no rows of a run"),
        ("grade /nowhere.jsonl --out {}/out", "/nowhere.jsonl can not be read: No such file"),
        ("grade {}/bytes.jsonl --out {}/out", "bytes.jsonl, line 1: not valid UTF-8"),
        ("grade {}/scalars.jsonl --out {}/out", "scalars.jsonl, line 1: the row is a int"),
        ("grade {}/answers.jsonl --out {}/text.txt/out", "text.txt: "),
        ("grade {}/answers.jsonl --out {}/folder", "folder: Is a directory; correct the path"),
        ("grade {}/answers.jsonl --out {}/out --config {}/folder", "folder: Is a directory"),
        ('grade {}/answers.jsonl --out {}/out --set reward.weights={{"no:f":1.0}}', "no:f"),
        ("generate hi --model /nowhere", "/nowhere is not a model directory"),
        ("generate hi --model {}/text.txt", "text.txt is not a model directory: it has no config.json"),
        ("generate hi --model {}/folder --dtype float7", "float7"),
        ("convert /nowhere {}/out", "/nowhere is not a model directory"),
        ("convert {}/text.txt {}/out", "text.txt is not a model directory: it has no config.json"),
        (f"rejection-sample {NANO} --out {{}}/out", "model.path is null"),
        (f"rejection-sample {NANO} --out {{}}/out --model /nowhere", "/nowhere is not a model directory"),
        ("prepare --config /nowhere.yaml --output {}/out", "there is no configuration file /nowhere.yaml"),
        (f"prepare {NANO} --output {{}}/text.txt", "text.txt"),
        (f"caption {NANO} --model /nowhere", "/nowhere is not a model directory"),
        (f"caption {NANO} --from /nowhere.jsonl", "there is no file /nowhere.jsonl"),
        (f"caption {NANO} --from {{}}/scalars.jsonl", "scalars.jsonl, row 1: the row is a int"),
        (f"difficulty {NANO} --model /nowhere", "/nowhere is not a model directory"),
        ("difficulty --config {}/folder", "folder: Is a directory"),
        ("bench nonsense", "there is no part 'nonsense'"),
        ("bench rollout --model /nowhere", "/nowhere is not a model directory"),
        ("bench rollout --shape giant", "shape 'giant' is unknown"),
        ("bench curriculum --config /nowhere.yaml", "there is no configuration file /nowhere.yaml"),
        (f"plan {NANO} --topology nonsense", "topology 'nonsense' is not known"),
        (f"plan {NANO} --topology v5e:1x1 --no-compile --json {{}}/text.txt/plan.json", "text.txt"),
        ("train --config {}/folder", "folder: Is a directory"),
        ("evaluate --benchmark nonsense --data {} --dry-run", "there is no benchmark 'nonsense'; known: mathverse"),
        ("evaluate --benchmark math500 --data /nowhere --dry-run", "there is no file or directory /nowhere"),
        ("evaluate --benchmark math500 --data {}/folder --dry-run", "holds no file of MATH-500"),
        ("evaluate --benchmark math500 --data {}/bytes.parquet --dry-run", "can not be read as parquet"),
        ("evaluate --benchmark math500 --data {}/scalars.jsonl --dry-run", "scalars.jsonl, row 1: "),
        (SCORE, "give exactly one of --model DIR, --responses FILE and --dry-run"),
        (f"{SCORE} --model /nowhere", "/nowhere is not a model directory"),
        (f"{SCORE} --responses {{}}/good.jsonl --judge nonsense", "--judge 'nonsense' is not of the form"),
        (f"{SCORE} --responses {{}}/good.jsonl --judge no:thing", "--judge 'no:thing' can not be loaded"),
        (f"{SCORE} --responses /nowhere.jsonl", "there is no file /nowhere.jsonl"),
        (f"{SCORE} --responses {{}}/text.txt", "text.txt is none of .jsonl, .json, .parquet"),
        (f"{SCORE} --responses {{}}/bytes.jsonl", "bytes.jsonl, row 1: not valid UTF-8"),
        (f"{SCORE} --responses {{}}/scalars.jsonl", "scalars.jsonl, row 1: the row is a int"),
        (f"{SCORE} --responses {{}}/textless.jsonl", "textless.jsonl, row 1: a response must be a text"),
        (f"{SCORE} --responses {{}}/empty.jsonl", "empty.jsonl holds no responses"),
        (f"{SCORE} --responses {{}}/foreign.jsonl", "no id is one of the benchmark's (found 'z'"),
        (f"{SCORE} --responses {{}}/missing.jsonl", "1 of 2 problems of MATH-500 have no response"),
        (f"{SCORE} --responses {{}}/unequal.jsonl", "different numbers of responses (1 to 2; fewest: '1')"),
        (f"{SCORE} --responses {{}}/good.jsonl --out {{}}/text.txt", "text.txt: File exists; correct the path"),
        (
            f"{SCORE} --responses {{}}/good.jsonl --out {{}}/asked",
            "asked holds responses of some/model: ",
        ),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(command, sentence, files, monkeypatch, capsys):
    arguments = [word.replace("{}", str(files)).replace("{{", "{").replace("}}", "}") for word in command.split()]
    if "evaluate" in command and "--out" not in command:
        arguments += ["--out", str(files / "out")]
    monkeypatch.setattr(sys, "argv", ["infimmr", *arguments])
    monkeypatch.setattr(startup, "use_compilation_cache", lambda: None)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert sentence in said
    assert said.count("\n") == 1 or "Usage:" in said


def test_a_full_disk_and_a_file_that_is_renamed_are_said(monkeypatch, capsys):
    def fails(error):
        def app():
            raise error

        monkeypatch.setattr(cli, "app", app)
        with pytest.raises(SystemExit):
            cli.main()
        return capsys.readouterr().err

    assert fails(OSError(errno.ENOSPC, "No space left on device", "a")).endswith("make room there\n")
    assert "error: b: Is a directory" in fails(IsADirectoryError(errno.EISDIR, "Is a directory", "a", None, "b"))


def test_other_errors_keep_their_traceback(monkeypatch):
    def app():
        raise ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")

    monkeypatch.setattr(cli, "app", app)
    with pytest.raises(ConnectionResetError):
        cli.main()
