"""The table of efficiencies is computed as the sampler moves from shape to shape."""

import jax
import numpy as np
import pytest
from small import ALLOWED, EOS, prompts, with_layers

from infimmr_jax.bench.work import Size, lognormal_limits
from infimmr_jax.rollout.sampler import sample
from infimmr_jax.rollout.state import SampleSettings
from studies.compaction_efficiency import efficiency, executed_steps


def test_it_is_the_samplers_own_count():
    model = with_layers(1)
    limits = lognormal_limits(Size(prompts=4, group=4, new_tokens=32), 8.0)
    settings = SampleSettings(4, 32, compactions=2)
    allowed = ALLOWED & (np.arange(len(ALLOWED)) != EOS)

    def run(params, batch, key):
        return sample(params, model, settings, batch, allowed, key, limits)[1]

    executed = jax.jit(run)(jax.jit(model.init)(jax.random.key(0)), prompts(4), jax.random.key(1))
    assert executed == executed_steps(limits, 2) < 16 * 32


@pytest.mark.parametrize(("compactions", "share"), [(0, 0.18), (2, 0.55), (6, 0.79), (16, 0.90)])
def test_the_documented_column(compactions, share):
    assert efficiency(Size(prompts=8, group=8, new_tokens=400), 8.0, compactions, 5) == pytest.approx(share, abs=0.005)
