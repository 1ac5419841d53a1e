import jax
import jax.numpy as jnp
import numpy as np
import numpy_formulas as formulas
import pytest

from infimmr_jax.config import GrpoSection
from infimmr_jax.objectives.kl import KL_ESTIMATORS, kl_estimate, kl_sample_weights, penalty_to_go


@pytest.mark.parametrize("kind", sorted(KL_ESTIMATORS))
def test_each_estimate_and_its_gradient_are_the_formula(x64, kind):
    rng = np.random.default_rng(0)
    lp, ref = -rng.random((2, 3, 4)), -rng.random((2, 3, 4))
    lp, ref, mask = jnp.asarray(lp), jnp.asarray(ref), jnp.asarray(rng.random((2, 3, 4)) < 0.7)
    expected = np.where(mask, formulas.kl(kind, lp, ref), 0)
    np.testing.assert_allclose(kl_estimate(lp, ref, mask, kind), expected, rtol=1e-12, atol=1e-15)
    slope = {"k1": 1.0, "k2": lp - ref, "k3": 1 - np.exp(ref - lp)}[kind]
    found = jax.grad(lambda x: kl_estimate(x, ref, mask, kind).sum())(jnp.asarray(lp))
    np.testing.assert_allclose(found, np.where(mask, slope, 0), rtol=1e-10)


def test_the_estimates_agree_with_the_exact_divergence_of_two_distributions(x64):
    rng = np.random.default_rng(0)
    p, q = rng.dirichlet(np.ones(6)), rng.dirichlet(np.ones(6) * 3)
    exact = float((p * np.log(p / q)).sum())
    for kind in ("k1", "k3"):
        mean = (p * kl_estimate(jnp.log(p), jnp.log(q), jnp.ones(6, bool), kind)).sum()
        assert mean == pytest.approx(exact, rel=1e-12)


def test_k3_is_exact_for_tiny_differences_in_float32():
    d = np.float32(1e-3)
    found = kl_estimate(jnp.zeros(1), jnp.full(1, d), jnp.ones(1, bool), "k3")[0]
    assert found == pytest.approx(np.expm1(float(d)) - float(d), rel=1e-3)


@pytest.mark.parametrize("gap", [-1e4, 1e4, -np.inf])
def test_a_token_far_from_the_reference_stays_finite(gap):
    found, slope = jax.value_and_grad(lambda x: kl_estimate(x, jnp.zeros(1), jnp.ones(1, bool), "k3").sum())(
        jnp.full(1, gap, jnp.float32)
    )
    assert np.isfinite(found)
    assert slope == 0


def test_penalty_in_the_reward_is_the_sum_from_each_token_to_the_end(x64):
    rng = np.random.default_rng(1)
    lp, ref = -rng.random((2, 3, 4)), -rng.random((2, 3, 4))
    lp, ref, mask = jnp.asarray(lp), jnp.asarray(ref), jnp.asarray(rng.random((2, 3, 4)) < 0.7)
    config = GrpoSection(kl={"coefficient": 0.2, "place": "reward", "estimator": "k1"})
    gaps = np.where(mask, lp - ref, 0)
    expected = np.stack([0.2 * gaps[..., t:].sum(-1) for t in range(4)], axis=-1)
    np.testing.assert_allclose(penalty_to_go(lp, ref, mask, config, 0.2), expected, rtol=1e-12, atol=1e-15)
    slope = jax.grad(lambda x: penalty_to_go(x, ref, mask, config, 0.2).sum())(jnp.asarray(lp))
    np.testing.assert_array_equal(slope, 0)


def test_apo_eases_the_divergence_of_good_answers_to_hard_questions(x64):
    accuracy = np.array([[1, 0, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1], [0, 0, 0, 0]], float)
    advantages = np.where(accuracy > 0, 1.0, -1.0)
    config = GrpoSection(kl={"coefficient": 0.1, "sample_weight": "apo"})
    expected = np.ones((4, 4))
    for row, right in ((0, 1), (1, 3)):
        d = 1 - right / 4
        expected[row, :right] = 1 - np.exp(-np.e * (1 - d))
    found = kl_sample_weights(jnp.asarray(advantages), jnp.asarray(accuracy), config)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert found[0, 0] < found[1, 0] < 1
    np.testing.assert_array_equal(kl_sample_weights(jnp.asarray(advantages), jnp.asarray(accuracy), GrpoSection()), 1)
