"""One run through phases that differ: programs, frozen parts, references, bad rewards, draws, early ends, resume."""

import json
import signal
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import orbax.checkpoint as ocp
import pytest
import yaml
from safetensors.numpy import load_file
from tiny import tiny_tree

from infimmr_jax.config import RunConfig, parse_config
from infimmr_jax.rewards.components import Group
from infimmr_jax.training import loop
from infimmr_jax.training.loop import Preempted, train
from infimmr_jax.training.programs import Programs

TIMES = ("time", "tokens_per_second", "compile/")
KL = {"coefficient": 0.1, "reference": "ema", "ema_decay": 0.5}


# What `hostile` did to the groups of later phases, in the order of grading.
SORTS: list[int] = []


def hostile(group: Group) -> Sequence[float]:
    """A coin by the text in the first phase; later by the problem: all equal, no number, an outlier, infinite."""
    if not group.problem.images:
        return [zlib.crc32(text.encode()) % 2 for text in group.responses]
    sort = zlib.crc32(group.problem.id.encode()) % 4
    SORTS.append(sort)
    rest = [0.0] * (len(group.responses) - 1)
    return [[0.5, *[0.5 for _ in rest]], [float("nan"), *rest], [1e8, *rest], [float("inf"), *rest]][sort]


def config(output: Path) -> RunConfig:
    tree = tiny_tree(output) | {"sft": None, "checkpoint": {"every_steps": 1, "keep_last": 20}}
    tree["evaluation"] = {"sources": {"text": tree["evaluation"]["sources"]["text"]}, "problems": 4, "batch_size": 4}
    tree["model"]["shape"] |= {"num_layers": 1}
    text, caption, image = tree["phases"]
    first = {
        "rollout": {"draws": {"at_most": 3, "drop": "equal"}},
        "promotion": {"kind": "accuracy", "at_least": 0.0, "every": 2, "problems": 4},
        "steps": 4,
    }
    # The same programs as the first: only what is given with every step differs.
    second = {
        "optimizer": {"learning_rate": 5e-4, "schedule": "linear", "span": "phase"},
        "grpo": {"kl": KL | {"coefficient": 0.2}},
        "promotion": {"kind": "plateau", "window": 1, "least_gain": 10.0, "min_steps": 3},
        "steps": 9,
    }
    third = {
        "trainable": {"vision": False, "merger": False},
        "grpo": {"minibatches": 2, "kl": {"reference": "phase_start", "ema_decay": None}},
        "promotion": {"kind": "tokens", "tokens": 1, "min_steps": 2},
        "steps": 5,
    }
    tree["phases"] = [text | first, caption | second, image | third]
    for phase in tree["phases"]:
        phase["prompts_per_step"] = 4
    reward = {"weights": {"accuracy": 0.5, "test_phases:hostile": 0.5}, "functions": {"where": "trainer"}}
    return parse_config(tree | {"reward": reward, "grpo": {"estimator": "ema_std", "kl": KL}})


def rows(run: Path, name: str = "metrics") -> list[dict]:
    found = [json.loads(line) for line in (run / f"{name}.jsonl").read_text().splitlines()]
    return [{key: row[key] for key in row if not key.startswith(TIMES)} for row in found]


def weights(run: Path) -> dict[str, np.ndarray]:
    return load_file(run / "model" / "model.safetensors")


def state(run: Path, number: int) -> dict:
    with ocp.CheckpointManager((run / "checkpoints").resolve()) as manager:
        return manager.restore(number, args=ocp.args.Composite(state=ocp.args.StandardRestore()))["state"]


@pytest.fixture(scope="module")
def programs() -> list[Programs]:
    """What the run below compiled."""
    return []


@pytest.fixture(scope="module")
def run(tmp_path_factory, programs):
    run = tmp_path_factory.mktemp("phases") / "run"

    class Remembered(Programs):
        def __init__(self, setup):
            super().__init__(setup)
            programs.append(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "Programs", Remembered)
        SORTS.clear()
        train(config(run))
    return run


@pytest.fixture(scope="module")
def sorts(run) -> list[int]:
    return SORTS[2:]  # before them the function is tried on a group of each phase with pictures


def test_phases_end_when_their_work_is_done_and_steps_keep_their_planned_numbers(run):
    steps = [(row["phase"], row["step"], row["step_in_phase"]) for row in rows(run)]
    assert steps == [("text", 0, 0), ("text", 1, 1)] + [("caption", 4 + i, i) for i in range(3)] + [
        ("image", 13 + i, i) for i in range(2)
    ]
    assert rows(run)[1]["promotion/accuracy"] >= 0
    assert rows(run)[4]["promotion/gain"] < 10
    assert rows(run)[6]["promotion/tokens"] == sum(row["rollout/tokens"] for row in rows(run)[5:]) > 0
    rates = [row["optimizer/learning_rate"] for row in rows(run)]
    assert rates == pytest.approx([1e-3, 1e-3, *(5e-4 * (1 - i / 9) for i in range(3)), 1e-3, 1e-3])


def test_draws_fill_the_step_with_groups_that_have_a_signal(run):
    for row in rows(run)[:2]:
        assert 1 <= row["sampling/draws"] <= 3
        assert row["response/signal_groups"] == pytest.approx(row["sampling/filled_share"])
        assert row["sampling/filled_share"] == 1 or row["sampling/draws"] == 3
        assert row["sampling/kept_share"] <= 1
    assert "sampling/draws" not in rows(run)[2]


def test_hostile_rewards_are_taken_out_counted_and_said(run, sorts):
    rated = [row for row in rows(run) if row["phase"] != "text"]
    assert {1, 2, 3} <= set(sorts)
    assert sum(row.get("grading/bad_rewards", 0) for row in rated) == sum(sort > 0 for sort in sorts)
    assert all(row["policy/skipped"] == 0 and np.isfinite(row["loss"]) for row in rated)
    assert all(np.isfinite(value).all() for value in weights(run).values())


def test_an_outlier_that_is_a_number_does_not_silence_its_task(run, sorts):
    """The running mean of squares would remember 1e8 for thousands of steps; other groups have at most 1."""
    assert 2 in sorts
    last = max(int(path.name) for path in (run / "checkpoints").iterdir() if path.name.isdigit())
    assert 0 < np.max(state(run, last)["estimator"]["square"]) <= 1


def test_phases_with_the_same_settings_share_their_programs(run, programs):
    """Two phases share the update, although one of them draws; the third freezes. All share the sampler."""
    (made,) = programs
    phases = made.setup.config.phases
    assert made.updater(phases[0]) is made.updater(phases[1]) is not made.updater(phases[2])
    assert [made.updater(phase)._cache_size() for phase in phases[1:]] == [1, 1]
    assert made.sampler(made.phase_settings(phases[0]))._cache_size() == 1


def test_the_written_phases_are_those_in_force(run):
    phases = yaml.safe_load((run / "phases.yaml").read_text())
    assert [phase["grpo"]["kl"]["coefficient"] for phase in phases] == [0.1, 0.2, 0.1]
    assert [phase["trainable"]["vision"] for phase in phases] == [1.0, 1.0, 0.0]


def test_a_frozen_tower_stays_and_references_are_what_they_are_called(run):
    numbers = sorted(int(path.name) for path in (run / "checkpoints").iterdir() if path.name.isdigit())
    states = {number: state(run, number) for number in numbers}
    last, before = states[numbers[-1]], states[numbers[-2]]
    leaf = ("decoder", "norm", "scale")
    assert int(last["step"]) == 2 + 3 + 2 * 2, "the third phase makes two optimiser steps a batch"

    def at(tree: dict, *path: str) -> np.ndarray:
        for key in path:
            tree = tree[key]
        return np.asarray(tree)

    vision = ("visual", "merger", "fc1", "kernel")
    end_of_caption = next(states[n] for n in numbers if n >= 14)
    assert np.array_equal(at(last["params"], *vision), at(end_of_caption["params"], *vision))
    assert not np.array_equal(at(last["params"], *leaf), at(end_of_caption["params"], *leaf))
    # The third phase looks back at its own start, the second at a moving average.
    assert np.array_equal(at(last["reference"], *leaf), at(end_of_caption["params"], *leaf))
    assert np.array_equal(at(last["reference"], *leaf), at(before["reference"], *leaf))
    one, two = states[7], states[8]  # two evaluations and 5 and 6 steps were made
    mixed = 0.5 * at(one["reference"], *leaf) + 0.5 * at(two["params"], *leaf)
    np.testing.assert_allclose(at(two["reference"], *leaf), mixed, rtol=1e-6)


def test_a_run_stopped_twice_resumes_to_the_same_draws_and_decisions(run, tmp_path, monkeypatch):
    stopped = tmp_path / "run"
    after_step = loop.Run.after_step

    def stop(self, *evaluated):
        if self.steps_made in (1, 6) and resumed != self.steps_made:
            self.signals.got.append(signal.SIGTERM)
        after_step(self, *evaluated)

    monkeypatch.setattr(loop.Run, "after_step", stop)
    for resumed in (0, 1):
        with pytest.raises(Preempted):
            train(config(stopped), resume=resumed > 0)
    monkeypatch.undo()
    train(config(stopped), resume=True)
    for name in ("metrics", "evals", "transcripts"):
        assert rows(stopped, name) == rows(run, name)
    assert all(np.array_equal(value, weights(stopped)[name]) for name, value in weights(run).items())
