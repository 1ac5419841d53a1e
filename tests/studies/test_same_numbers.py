"""The study that compares two revisions: against a program that is a stand-in, and against real configurations."""

import json
import shutil
import subprocess
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from infimmr_jax.config import load_config
from studies.same_numbers import __main__ as command
from studies.same_numbers import cases
from studies.same_numbers.compare import compare, differences, programs_line, relative, rows_line, weights_line
from studies.same_numbers.programs import plain_text, product_flops
from studies.same_numbers.record import read_rows, record, without_clock

# `train` draws its numbers from VALUE and the clock; resuming goes on from the newest checkpoint, which holds a sum.
PROGRAM = """
import json, pathlib, sys, time
import numpy as np
from safetensors.numpy import save_file

VALUE, TENSOR, EXTRA, RESUMES = {value}, {tensor!r}, {extra}, {resumes}
run = pathlib.Path(next(word for word in sys.argv if word.startswith("output=")).removeprefix("output="))
folder, done, total = run / "checkpoints", 0, 0.0
if "--resume" in sys.argv:
    if not RESUMES:
        sys.exit("the checkpoint is of another form")
    done = max(int(path.name) for path in folder.iterdir())
    total = json.loads((folder / str(done) / "state").read_text())
rows = (run / "metrics.jsonl").read_text().splitlines()[:done] if done else []
for step in range(done + 1, 7):
    total += VALUE * step
    row = {{"step": step, "loss": total, "time": time.time(), "time/step": time.time(), "compile/count": time.time()}}
    rows.append(json.dumps(row | EXTRA))
    (folder / str(step)).mkdir(parents=True)
    (folder / str(step) / "state").write_text(json.dumps(total))
(run / "metrics.jsonl").write_text("\\n".join(rows) + "\\n")
for name in ("evals", "transcripts"):
    (run / f"{{name}}.jsonl").write_text(json.dumps({{"accuracy": 0.5, "nested": [{{"text": "so"}}]}}) + "\\n")
(run / "model").mkdir()
save_file({{TENSOR: np.array([1.0, total], np.float32)}}, run / "model" / "model.safetensors")
"""


def checkout(folder, value=0.1, tensor="w", extra=None, resumes=True):
    package = folder / "infimmr_jax"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "cli.py").write_text(
        textwrap.dedent(PROGRAM).format(value=value, tensor=tensor, extra=extra or {}, resumes=resumes)
    )
    shutil.copytree(command.ROOT / "configs", folder / "configs")
    return folder


@pytest.fixture(scope="module")
def before(tmp_path_factory):
    folder = tmp_path_factory.mktemp("before")
    record(folder / "record", checkout(folder / "checkout"), None, ["nano"])
    return folder / "record"


def after(folder, **changes):
    record(folder / "record", checkout(folder / "checkout", **changes), None, ["nano"])
    return folder / "record"


def test_a_record_holds_rows_without_the_clock_and_runs_stopped_inside(before):
    rows = read_rows(before / "rows" / "nano" / "metrics.jsonl")
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert all(row.keys() == {"step", "loss"} for row in rows)
    kept = {run.name: [path.name for path in (run / "checkpoints").iterdir()] for run in (before / "stopped").iterdir()}
    assert kept == {"cold_start": ["2"], "phase": ["5"]}
    assert not list((before / "runs").rglob("checkpoints"))


def test_the_same_program_again_is_equal_and_goes_on_with_the_stopped_run(before, tmp_path, capsys):
    assert compare(before, after(tmp_path)) == 0
    printed = capsys.readouterr().out
    assert "No number is different." in printed
    # Three files of rows, the weights and the programs; then rows and weights of two resumed runs.
    assert printed.count("equal") == 5 + 2 * 4


@pytest.mark.parametrize(
    ("changes", "tolerance", "status", "sentence"),
    [
        ({"value": 0.1 + 1e-9}, 0, 1, "row 0, loss: 0.1 -> 0.100000001 (1.0e-08 of it)"),
        ({"value": 0.1 + 1e-9}, 1e-7, 0, "equal to 1.0e-08"),
        ({"tensor": "v"}, 1, 1, "on one side only: v, w"),
        ({"extra": {"policy/new": 1}}, 0, 0, "equal bit for bit; new keys: policy/new"),
        ({"resumes": False}, 0, 1, "the checkpoint is of another form"),
    ],
)
def test_what_another_program_changed_is_said(before, tmp_path, capsys, changes, tolerance, status, sentence):
    assert compare(before, after(tmp_path, **changes), tolerance) == status
    assert sentence in capsys.readouterr().out


def test_a_difference_after_the_stop_alone_is_seen_in_the_resumed_run(before, tmp_path, capsys):
    changed = tmp_path / "changed"
    shutil.copytree(before, changed)
    program = checkout(tmp_path / "checkout", value=0.2)
    assert compare(before, changed, package=program) == 1
    printed = capsys.readouterr().out
    assert "different: resumed in the cold start: metrics, resumed in the cold start: weights" in printed


def test_a_part_that_was_not_recorded_and_another_surrounding_are_told(before, tmp_path, capsys):
    other = tmp_path / "other"
    shutil.copytree(before, other)
    shutil.rmtree(other / "rows" / "nano")
    facts = json.loads((other / "record.json").read_text()) | {"xla_flags": "--xla_other"}
    (other / "record.json").write_text(json.dumps(facts))
    (other / "configs" / "small.yaml").write_text("{}")
    assert compare(before, other, resume=False) == 1
    printed = capsys.readouterr().out
    assert "the part was not recorded" in printed
    assert "and is '--xla_other' after" in printed
    assert "configs/small.yaml is another one" in printed


def test_what_fails_is_said_with_the_programs_own_words(tmp_path):
    broken = checkout(tmp_path / "checkout")
    (broken / "infimmr_jax" / "cli.py").write_text("raise SystemExit('no such key: sft')")
    with pytest.raises(SystemExit, match=r"ended with status 1.*\n.*no such key: sft"):
        record(tmp_path / "record", broken, None, ["nano"])
    with pytest.raises(SystemExit, match="is not a checkout"):
        record(tmp_path / "other", tmp_path, None, ["nano"])
    with pytest.raises(SystemExit, match="there is no part 'nanno'"):
        record(tmp_path / "other", broken, None, ["nanno"])
    with pytest.raises(SystemExit, match="is not empty"):
        record(tmp_path / "record", broken, None, ["nano"])


def test_rows_are_compared_at_every_depth():
    old = {"a": 1, "b": [{"c": 2.0}, "x"], "gone": None}
    now = {"a": 1.0, "b": [{"c": 2.5}, "y"], "new": 3}
    found = {key: (was, value) for key, was, value in differences(old, now)}
    assert set(found) == {"a", "b.0.c", "b.1", "gone", "new"}
    assert relative(1, 1.0) == 0
    assert relative(2.0, 2.5) == pytest.approx(0.2)
    assert relative(True, 1) == relative(None, 0.0) == relative("x", "y") == float("inf")
    assert not rows_line("part", [old], [old, old], 1).same
    assert not rows_line("part", [{"gone": 1}], [{}], 1).same
    assert "gone: 1 -> (no such key)" in rows_line("part", [{"gone": 1}], [{}], 1).verdict
    assert not rows_line("part", [{"list": [1, 2]}], [{"list": [1]}], 1).same
    assert without_clock({"time/a": 1, "b": [{"tokens_per_second": 2, "c": 3}]}) == {"b": [{"c": 3}]}


def test_weights_are_compared_by_name_type_and_value():
    old = {"w": np.array([1.0, -4.0], np.float32), "v": np.zeros(2, np.float32)}
    near = {**old, "w": np.array([1.5, -4.0], np.float32)}
    line = weights_line("part", old, near, 0)
    assert not line.same
    assert line.verdict == "largest difference 1.2e-01 of w's largest value"
    assert weights_line("part", old, near, 0.2).same
    assert weights_line("part", old, dict(reversed(old.items())), 0).verdict == "equal bit for bit"
    wider = {**old, "w": old["w"].astype(np.float64)}
    assert weights_line("part", old, wider, 1).verdict == "w: float32[2] -> float64[2]"
    broken = {**old, "w": np.array([np.nan, -4.0], np.float32)}
    assert not weights_line("part", old, broken, 1).same


def compiled_text(function, *shapes):
    arrays = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return jax.jit(function).lower(*arrays).compile().as_text()


def test_the_text_of_a_program_forgets_names_and_lines_and_keeps_what_is_computed():
    def attend(query, key):
        return jnp.einsum("bqd,bkd->bqk", jnp.sin(query), key)

    def renamed(first, second):
        """The same from another line."""
        return jnp.einsum("bqd,bkd->bqk", jnp.sin(first), second)

    def other(query, key):
        return jnp.einsum("bqd,bkd->bqk", jnp.cos(query), key)

    shapes = ((2, 3, 16), (2, 5, 16))
    texts = [compiled_text(function, *shapes) for function in (attend, renamed, other)]
    assert texts[0] != texts[1]
    plain = [plain_text(text) for text in texts]
    assert plain[0] == plain[1] != plain[2]
    assert "metadata" not in plain[0]
    assert [product_flops(text) for text in texts] == [2 * 2 * 3 * 5 * 16] * 3


def test_programs_of_other_sizes_are_told_with_their_sizes():
    old = {"name": "jit_update", "bytes": 100, "instructions": 10, "dots": 2, "flops": 1000, "digest": "a"}
    line = programs_line("part", [old], [old | {"flops": 1100, "digest": "b"}], 0.01)
    assert (line.verdict, line.same) == ("jit_update: flops 1,000 -> 1,100", False)
    assert programs_line("part", [old], [old | {"name": "jit_renamed"}], 0).verdict == "equal texts"
    assert programs_line("part", [old], [old | {"digest": "c"}], 0).same
    assert not programs_line("part", [old], [old, old | {"digest": "c"}], 1).same


def test_the_configurations_of_all_parts_are_ones_that_the_program_takes(tmp_path, monkeypatch):
    cases.write_configs(cases.find_configs(command.ROOT), tmp_path / "configs")
    cases.write_configs(tmp_path / "configs", tmp_path / "again")
    monkeypatch.chdir(tmp_path)
    for part in cases.PARTS:
        if part.run is None:
            continue
        (words,) = part.commands
        paths = [tmp_path / words[i + 1] for i, word in enumerate(words) if word == "--config"]
        config = load_config(paths, [words[-1]])
        assert sum(phase.prompts_per_step * phase.group_size * phase.steps for phase in config.phases) <= 3 * 4 * 64
        assert config.output.name == part.name
    dapo = load_config([tmp_path / "again" / f"{name}.yaml" for name in ("nano", "dapo_recipe", "dapo_scale")])
    assert dapo.phases[0].grpo.overlong.buffer == 8
    assert dapo == load_config([command.ROOT / "configs" / "nano.yaml", command.ROOT / "configs/recipes/dapo.yaml"])


def test_two_revisions_are_recorded_from_worktrees_that_are_removed_again(tmp_path, monkeypatch, capsys):
    repository = checkout(tmp_path / "repository")
    git = ["git", "-C", str(repository), "-c", "user.name=x", "-c", "user.email=x@example.org"]
    program = repository / "infimmr_jax" / "cli.py"
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "one"]):
        subprocess.run([*git, *words], check=True)
    program.write_text(program.read_text().replace("VALUE * step", "VALUE * (step + step % 2)"))
    (repository / "configs" / "nano.yaml").write_text("name: other\n")
    subprocess.run([*git, "commit", "-qam", "two"], check=True)
    monkeypatch.setattr(command, "ROOT", repository)
    assert command.main(["between", "HEAD~1", "HEAD", "--only", "nano", "--keep", str(tmp_path / "kept")]) == 1
    printed = capsys.readouterr().out
    assert "nano: metrics" in printed
    assert "row 0, loss: 0.1 -> 0.2" in printed
    # Both were recorded with the first one's configurations.
    assert "another one" not in printed
    assert (tmp_path / "kept" / "after" / "record.json").is_file()
    trees = subprocess.run([*git, "worktree", "list"], capture_output=True, text=True, check=True).stdout
    assert len(trees.splitlines()) == 1
    with pytest.raises(SystemExit, match=r"git worktree add .* nothing: "):
        command.main(["between", "HEAD", "nothing", "--only", "nano"])


@pytest.mark.slow
def test_the_evaluation_of_this_checkout_is_the_same_twice(tmp_path, capsys):
    for name in ("before", "after"):
        assert command.main(["record", str(tmp_path / name), "--only", "evaluation"]) == 0
    assert command.main(["compare", str(tmp_path / "before"), str(tmp_path / "after"), "--only", "evaluation"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["evaluation:", "math500/grades", "6", "rows", "equal", "bit", "for", "bit"] in lines
