"""A run's bookkeeping: updates without a number are counted, and too many in a row stop it with its state saved."""

import json
import signal
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny import tiny_config

from infimmr_jax.errors import StoppedError
from infimmr_jax.objectives.train_state import TrainState, apply_gradient
from infimmr_jax.training.place import Place
from infimmr_jax.training.running import Preempted, Run, Signals


class Recorder:
    """Stands for the parts of a run that only take notes; `log` has the calls in order."""

    def __init__(self, log):
        self._log = log

    def __getattr__(self, name):
        def call(*arguments):
            self._log.append((name, *arguments))
            return {}

        return call


@pytest.fixture
def run(tmp_path):
    log = []
    setup = SimpleNamespace(config=tiny_config(tmp_path, "guards.max_nonfinite=2"), run_dir=tmp_path)
    inputs = SimpleNamespace(setup=setup, sinks=Recorder(log))
    made = Run(
        inputs=inputs,
        progress=Recorder(log),
        checkpoints=Recorder(log),
        guard=Recorder(log),
        signals=Signals(),
        state=None,
        place=Place(),
        lengths=(0, 10),
        evaluation=None,
    )
    made.log = log
    return made


def write(run, step, loss=1.0, skipped=0.0):
    row = {"kind": "grpo", "step": step, "loss": loss, "policy/skipped": skipped}
    evidence = {"batch": np.arange(3)}, {"problems": ["a"]}
    run.unread = SimpleNamespace(finished=lambda: (row, 0.0), evidence=lambda: evidence)
    run.settle()


def test_a_single_broken_update_is_counted_and_forgotten(run):
    write(run, 0, loss=float("nan"))
    assert run.place.memory.broken == 1
    write(run, 1)
    assert run.place.memory.broken == 0
    assert [call[0] for call in run.log] == ["metrics", "update", "beat"] * 2
    assert not (run.inputs.setup.run_dir / "nonfinite").exists()


def test_too_many_in_a_row_stop_with_the_evidence_and_the_state(run):
    write(run, 0, skipped=1.0)
    with pytest.raises(StoppedError, match=r"of 2 updates in a row .* grpo step 1: they were skipped, the state is"):
        write(run, 1, loss=float("inf"))
    assert run.place.memory.broken == 0
    assert [call[0] for call in run.log][-4:] == ["update", "position", "save", "wait"]
    where = run.inputs.setup.run_dir / "nonfinite" / "grpo-000001-process-0"
    assert json.loads((where / "row.json").read_text())["problems"] == ["a"]
    with np.load(where / "arrays.npz", allow_pickle=False) as saved:
        assert saved["batch"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("keep", [True, False])
def test_a_state_that_was_evaluated_is_a_candidate_for_the_best(run, tmp_path, keep):
    if keep:
        run.inputs.setup.config = tiny_config(tmp_path, "checkpoint.keep_best={metric: image/accuracy}")
    run.advance(step=1)
    run.after_step({"image/accuracy": 0.5})
    assert [call[-1] for call in run.log if call[0] == "save"] == [{"image/accuracy": 0.5}] * keep


def test_a_signal_saves_and_stops(run):
    run.advance(step=1)
    run.after_step()
    assert "save" not in [call[0] for call in run.log]
    run.signals.got.append(signal.SIGTERM)
    with pytest.raises(Preempted) as stopped:
        run.after_step()
    assert stopped.value.code == 75
    assert [call[0] for call in run.log] == ["position", "save", "wait", "note"]


@pytest.mark.parametrize(
    ("gradient", "loss", "moves"), [(1.0, 1.0, True), (1.0, np.nan, False), (np.nan, 1.0, False), (1.0, np.inf, False)]
)
def test_a_loss_or_gradient_that_is_no_number_changes_nothing(gradient, loss, moves):
    optimizer = optax.scale_by_adam()
    params = {"kernel": jnp.ones(3)}
    state = TrainState(step=jnp.int32(0), params=params, moments=optimizer.init(params), estimator=())
    found = {"kernel": jnp.asarray([1.0, gradient, 0.5])}
    after, report = apply_gradient(state, found, optimizer, jnp.float32(0.1), loss=jnp.float32(loss))
    assert bool((after.params["kernel"] != 1.0).any()) is moves
    assert bool((after.moments.mu["kernel"] != 0.0).any()) is moves
    assert float(report["policy/skipped"]) == (not moves)
