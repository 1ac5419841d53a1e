"""Stages in a curriculum: supervised phases among the others, evaluations that a signal ends, phases made longer."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from tiny import source, tiny_tree

from infimmr_jax.config import ConfigError, apply_overrides, parse_config
from infimmr_jax.config.stage_specs import stage_lengths, stage_specs
from infimmr_jax.training import loop
from infimmr_jax.training.loop import Preempted, train

TIMES = ("time", "tokens_per_second", "compile/")
SFT_PHASE = {
    "kind": "sft",
    "name": "again",
    "steps": 3,
    "sources": {"text": [source(seed=5)]},
    "batch_size": 8,
    "learning_rate": 1e-3,
    "trainable": {"vision": False},
}


def rows(run: Path, name: str = "metrics") -> list[dict]:
    found = [json.loads(line) for line in (run / f"{name}.jsonl").read_text().splitlines()]
    return [{key: row[key] for key in row if not key.startswith(TIMES)} for row in found]


def weights(run: Path) -> dict[str, np.ndarray]:
    return load_file(run / "model" / "model.safetensors")


def config(output: Path, *overrides: str):
    """A cold start of 3 steps, a text phase of 2, a supervised phase of 3, an image phase of 2."""
    tree = tiny_tree(output)
    tree["phases"] = [tree["phases"][0], SFT_PHASE, tree["phases"][2]]
    return parse_config(apply_overrides(tree, list(overrides)))


def stop_when(monkeypatch, name: str, when) -> None:
    """Send the signal when a method of the run is called for the first time in a place."""
    called, sent = getattr(loop.Run, name), []

    def stop(self, *arguments):
        if not sent and when(self):
            sent.append(self.place)
            self.signals.got.append(15)
        called(self, *arguments)

    monkeypatch.setattr(loop.Run, name, stop)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    run = tmp_path_factory.mktemp("stages") / "run"
    train(config(run))
    return run


def same(run: Path, other: Path) -> None:
    for name in ("metrics", "evals", "transcripts"):
        assert rows(run, name) == rows(other, name)
    assert all(np.array_equal(value, weights(run)[name]) for name, value in weights(other).items())


def test_a_supervised_phase_stands_among_the_others(unbroken):
    made = [(row["kind"], row["phase"], row["step"]) for row in rows(unbroken)]
    assert made == [
        *(("sft", "cold start", step) for step in range(3)),
        *(("grpo", "text", step) for step in range(2)),
        *(("sft", "again", step) for step in range(3, 6)),
        *(("grpo", "image", step) for step in range(2, 4)),
    ]
    stages = dict.fromkeys((row["stage"], row["stage_index"]) for row in rows(unbroken, "evals"))
    assert list(stages) == [("cold start", 0), ("text", 1), ("again", 2), ("image", 3)]


def test_the_order_of_stages_and_what_they_count():
    specs = stage_specs(config(Path("nowhere")))
    assert [(spec.kind, spec.number, spec.first, spec.after) for spec in specs] == [
        ("sft", 0, 0, ""),
        ("grpo", 0, 0, "sft"),
        ("sft", 1, 0, "grpo"),
        ("grpo", 1, 2, "sft"),
    ]
    assert stage_lengths(config(Path("nowhere"), "sft=null")) == (0, 2, 3, 2)


@pytest.mark.parametrize("steps", [6, 8])
def test_a_run_stopped_in_or_after_a_supervised_phase_resumes_to_the_same_numbers(
    unbroken, tmp_path, monkeypatch, steps
):
    run = tmp_path / "run"
    stop_when(monkeypatch, "after_step", lambda self: self.steps_made == steps)
    with pytest.raises(Preempted):
        train(config(run))
    monkeypatch.undo()
    train(config(run), resume=True)
    same(run, unbroken)


def test_a_signal_in_an_evaluation_between_two_steps_ends_it_and_only_that_is_made_again(
    unbroken, tmp_path, monkeypatch
):
    run = tmp_path / "run"
    stop_when(monkeypatch, "leave_judgement", lambda self: self.place.stage == 1)
    with pytest.raises(Preempted):
        train(config(run))
    assert [row["kind"] for row in rows(run)] == ["sft"] * 3 + ["grpo"], "the row of the step it interrupted waits"
    monkeypatch.undo()
    train(config(run), resume=True)
    same(run, unbroken)


def test_a_finished_run_goes_on_where_it_ended_when_its_last_phase_is_made_longer(tmp_path):
    longer, unbroken = tmp_path / "longer", tmp_path / "unbroken"
    train(config(longer))
    train(config(longer, "phases.2.steps=4", "checkpoint.may_change=[phases.2.steps]"), resume=True)
    train(config(unbroken, "phases.2.steps=4"))
    assert rows(longer) == rows(unbroken), "the data go on, too"
    assert [row["stage"] for row in rows(longer, "evals")][-4:] == ["image"] * 4, "the new end is evaluated"
    assert rows(longer, "evals")[-2:] == rows(unbroken, "evals")[-2:]
    assert all(np.array_equal(value, weights(longer)[name]) for name, value in weights(unbroken).items())


def test_a_curriculum_may_be_supervised_alone(tmp_path):
    tree = tiny_tree(tmp_path / "run") | {"phases": [SFT_PHASE]}
    del tree["sft"]
    train(parse_config(tree))
    assert [row["step"] for row in rows(tmp_path / "run")] == [0, 1, 2]
    assert [row["stage"] for row in rows(tmp_path / "run", "evals")] == ["again"] * 2


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"kind": "sftt"}, "phases.1.kind: 'sftt' is unknown; did you mean 'sft'?"),
        ({"group_size": 4}, "phases.1.group_size: 'group_size' belongs to kind 'grpo', the kind is 'sft'"),
        ({"sources": {}}, "there is nothing to learn from"),
        ({"warmup_steps": 3}, "warmup_steps 3 must be fewer than the 3 steps of the phase"),
        ({"stepz": 4}, "phases.1.stepz: unknown key; did you mean 'steps'?"),
    ],
)
def test_mistakes_in_a_supervised_phase_are_named(change, sentence):
    tree = tiny_tree(Path("nowhere"))
    tree["phases"][1] = SFT_PHASE | change
    with pytest.raises(ConfigError) as refused:
        parse_config(tree)
    assert sentence in str(refused.value)
