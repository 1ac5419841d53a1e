import jax
import numpy as np
import pytest

from infimmr_jax.config import CoefficientSection, GrpoSection, OptimizerSection
from infimmr_jax.objectives.schedules import (
    Clock,
    coefficient_at,
    coefficients,
    learning_rate_at,
)

STEPS = np.arange(0, 130)


def curve(total=100, **keys):
    section = CoefficientSection(coefficient=0.04, **keys)
    return np.array(jax.jit(jax.vmap(lambda s: coefficient_at(section, s, total) + 0.0 * s))(STEPS))


def test_constant_stays():
    np.testing.assert_allclose(curve(), 0.04)


def test_linear_reaches_its_final_share_where_the_run_ends():
    np.testing.assert_allclose(curve(schedule="linear"), 0.04 * np.clip(1 - STEPS / 100, 0, 1), atol=1e-8)
    np.testing.assert_allclose(curve(schedule="linear", final_share=0.5)[[0, 50, 100]], [0.04, 0.03, 0.02], rtol=1e-6)


def test_cosine_is_visionary_r1s():
    """beta / 2 (1 + cos(pi epoch)), epoch from 0 to 1."""
    epoch = np.minimum(STEPS / 100, 1)
    np.testing.assert_allclose(curve(schedule="cosine"), 0.04 / 2 * (1 + np.cos(np.pi * epoch)), atol=1e-8)


def test_linear_then_flat_is_humanomnis():
    """beta (1 - 0.75 step / (T/2)) in the first half, 0.25 beta after it."""
    expected = np.where(STEPS < 50, 0.04 * (1 - 0.75 * STEPS / 50), 0.04 * 0.25)
    np.testing.assert_allclose(curve(schedule="linear_then_flat", end_step=50, final_share=0.25), expected, rtol=1e-5)


def test_a_late_start_holds_the_coefficient_until_then():
    found = curve(schedule="linear", start_step=50)
    np.testing.assert_allclose(found[:51], 0.04, rtol=1e-6)
    assert found[75] == pytest.approx(0.02, rel=1e-5)
    with pytest.raises(ValueError, match="curriculum has only 40 steps"):
        curve(total=40, schedule="linear", start_step=50)


def test_coefficients_of_a_step():
    config = GrpoSection(kl={"coefficient": 0.2, "schedule": "linear"}, entropy={"coefficient": 0.5})
    found = coefficients(config, Clock(5, 10, 2, 4))
    np.testing.assert_allclose([found.kl, found.entropy, found.perception], [0.1, 0.5, 0], rtol=1e-6)
    assert found.perception_share == 1


def test_papos_entropy_terms_fall_with_its_coefficient():
    """As in the release, which scales them by present over first coefficient."""
    config = GrpoSection(perception={"coefficient": 0.02, "schedule": "linear", "start_step": 5})
    found = [coefficients(config, Clock(step, 10, step, 10)) for step in (0, 5, 6, 10)]
    np.testing.assert_allclose([one.perception_share for one in found], [1, 1, 0.8, 0], rtol=1e-6)
    np.testing.assert_allclose([one.perception for one in found], [0.02, 0.02, 0.016, 0], rtol=1e-6)


@pytest.mark.parametrize("kind", ["constant", "linear", "cosine"])
def test_learning_rate_warms_up_from_above_zero_and_never_wastes_a_step(kind):
    section = OptimizerSection(learning_rate=2e-3, schedule=kind, warmup_steps=10)
    rate = np.array([learning_rate_at(section, Clock(step, 100, step, 100)) for step in range(100)])
    np.testing.assert_allclose(rate[:10], 2e-3 * np.arange(1, 11) / 10, rtol=1e-5)
    way = np.maximum(np.arange(100) - 10, 0) / 90
    fall = {"constant": 0 * way, "linear": way, "cosine": (1 - np.cos(np.pi * way)) / 2}[kind]
    np.testing.assert_allclose(rate[10:], (2e-3 * (1 - fall))[10:], rtol=1e-4, atol=1e-10)
    assert rate.min() > 0


def test_learning_rate_reaches_its_final_share():
    section = OptimizerSection(learning_rate=4e-7, schedule="linear", final_share=0.1)
    rates = [learning_rate_at(section, Clock(step, 50, step, 50)) for step in (0, 50)]
    np.testing.assert_allclose(rates, [4e-7, 4e-8], rtol=1e-5)


def test_a_span_counts_over_the_run_or_over_the_phase():
    clock = Clock(step=60, total=100, phase_step=10, phase_total=40)
    moving = {"schedule": "linear"}
    config = GrpoSection(kl={"coefficient": 1.0, **moving}, entropy={"coefficient": 1.0, **moving, "span": "phase"})
    found = coefficients(config, clock)
    np.testing.assert_allclose([found.kl, found.entropy], [0.4, 0.75], rtol=1e-6)
    rates = [learning_rate_at(OptimizerSection(learning_rate=1.0, **moving, span=s), clock) for s in ("run", "phase")]
    np.testing.assert_allclose(rates, [0.4, 0.75], rtol=1e-6)


def test_a_warm_up_longer_than_the_run_is_refused():
    with pytest.raises(ValueError, match="warmup_steps 25 leaves nothing of the 20 steps"):
        learning_rate_at(OptimizerSection(warmup_steps=25), Clock(0, 20, 0, 20))
    with pytest.raises(ValueError, match="does not fall"):
        OptimizerSection(final_share=0.5)
