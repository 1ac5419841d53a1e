import jax
import jax.numpy as jnp
import numpy as np
import pytest

from infimmr_jax.config import ImportanceSection
from infimmr_jax.objectives.importance import importance_weights, mismatch


def sample():
    rng = np.random.default_rng(0)
    lp, mask = -rng.random((2, 3, 5)), rng.random((2, 3, 5)) < 0.6
    behaviour = np.where(mask, lp + rng.normal(size=lp.shape), np.nan)
    return jnp.asarray(lp), jnp.asarray(behaviour), jnp.asarray(mask)


@pytest.mark.parametrize("level", ["token", "sequence"])
@pytest.mark.parametrize("mode", ["truncate", "mask"])
def test_weights_are_the_formula(x64, level, mode):
    lp, behaviour, mask = sample()
    config = ImportanceSection(level=level, mode=mode, low=0.6, high=1.7)
    expected = np.ones(lp.shape)
    for p, g in np.ndindex(2, 3):
        gaps = np.array([lp[p, g, t] - behaviour[p, g, t] if mask[p, g, t] else 0.0 for t in range(5)])
        w = np.exp(gaps if level == "token" else np.full(5, gaps.sum()))
        inside = (w >= 0.6) & (w <= 1.7)
        expected[p, g] = np.clip(w, 0.6, 1.7) if mode == "truncate" else w * inside
    found = importance_weights(lp, behaviour, mask, config)
    np.testing.assert_allclose(np.asarray(found)[mask], expected[mask], rtol=1e-12)
    assert np.isfinite(found).all()
    slope = jax.grad(lambda x: importance_weights(x, behaviour, mask, config).sum())(lp)
    np.testing.assert_array_equal(slope, 0)


def test_mismatch_is_the_absolute_difference(x64):
    lp, behaviour, mask = sample()
    np.testing.assert_allclose(mismatch(lp, behaviour, mask), np.where(mask, np.abs(lp - behaviour), 0))
