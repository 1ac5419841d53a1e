"""Warm-up: the batch, rollouts and rewards it makes up are those of a real step in the largest bucket."""

import jax
import numpy as np
import pytest
from tiny import tiny_tree

from infimmr_jax.config import parse_config
from infimmr_jax.rewards.pool import GraderPool
from infimmr_jax.training.programs import Programs
from infimmr_jax.training.setup import prepare
from infimmr_jax.training.warm_up import warm_up


class Recorded(Programs):
    """Programs that are traced and not run; they remember what they were given."""

    def start(self):
        self.calls = []
        return self.abstract_state()

    def sample_in_stages(self, params, batch, settings, key):
        self.calls.append(("sample", batch, settings))
        with self._mesh():
            found = jax.eval_shape(self.sampler(settings), params, batch, np.asarray(self.setup.allowed), key)
        return [found[0]], found[1]

    def update(self, state, batch, rollouts, executed, rewards, phase, rate, clock):
        self.calls.append(("update", batch, rewards))
        return state, np.zeros(())


def test_the_largest_bucket_of_the_largest_phase_comes_first(tmp_path):
    tree = tiny_tree(tmp_path)
    tree["data"] |= {"prompt_buckets": [64, 88]}
    tree["phases"][2] |= {"max_response": 20}
    with GraderPool() as pool:
        setup = prepare(parse_config(tree), tmp_path, pool)
        step = next(iter(setup.curriculum.dataset))
    programs = Recorded(setup)
    said = []
    assert warm_up(setup, programs, said.append) == 2
    assert len(said) == 3
    assert [name for name, *_ in programs.calls] == ["sample", "update"] * 2
    assert [call[2].max_response for call in programs.calls[::2]] == [20, 12]
    batch, rewards = programs.calls[1][1:]
    real = setup.collate(step.prompts, len(step.prompts), step.prompts)
    for name in vars(real):
        made, found = getattr(batch, name), getattr(real, name)
        assert made.dtype == found.dtype, name
        assert made.ndim == found.ndim, name
    assert batch.tokens.shape == (8, 88)
    assert batch.patches.shape == (8, 1, 64, 1176)
    assert not batch.row_mask.any()
    assert set(rewards.components) == {"accuracy", "format"}
    assert rewards.total.shape == (8, 2)


@pytest.mark.parametrize(("change", "runs"), [({}, 0), ({"group_size": 4}, 2), ({"max_response": 20}, 2), (None, 1)])
def test_only_where_the_first_step_is_the_largest_there_is_no_warm_up(tmp_path, change, runs):
    tree = tiny_tree(tmp_path)
    if change is not None:
        tree |= {"sft": None}
        tree["phases"][2] |= change
    with GraderPool() as pool:
        setup = prepare(parse_config(tree), tmp_path, pool)
    assert warm_up(setup, Recorded(setup), lambda _: None) == runs
