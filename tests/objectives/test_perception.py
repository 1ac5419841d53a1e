import jax
import jax.numpy as jnp
import numpy as np
import pytest

from infimmr_jax.objectives.perception import mask_patches, perception_gap


def test_gap_is_papos_formula_with_its_bounds(x64):
    rng = np.random.default_rng(0)
    lp, masked = jnp.asarray(-rng.random((2, 3, 4))), jnp.asarray(-rng.random((2, 3, 4)))
    d = masked - lp
    np.testing.assert_allclose(perception_gap(lp, masked), np.exp(d) - d - 1, rtol=1e-10)
    assert perception_gap(jnp.zeros(1), jnp.full(1, 50.0))[0] == 10
    assert perception_gap(jnp.zeros(1), jnp.zeros(1))[0] == 0


def test_masked_patches_are_black_in_every_channel_and_the_rest_untouched():
    rng = np.random.default_rng(0)
    patches = rng.normal(size=(2, 2, 400, 12)).astype(np.float32)
    real = np.zeros((2, 2, 400), bool)
    real[:, 0] = True
    black = jnp.asarray([-1.5, -2.5, -3.5])
    found = np.asarray(mask_patches(jnp.asarray(patches), jnp.asarray(real), jax.random.key(0), 0.6, black))
    changed = (found != patches).any(-1)
    assert not changed[~real].any()
    assert changed[real].mean() == pytest.approx(0.6, abs=0.05)
    np.testing.assert_array_equal(found[changed], np.tile(np.repeat(black, 4), (changed.sum(), 1)))
    again = np.asarray(mask_patches(jnp.asarray(patches), jnp.asarray(real), jax.random.key(0), 0.6, black))
    np.testing.assert_array_equal(found, again)
