import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy_formulas import ema_std, estimator

from infimmr_jax.config import GrpoSection
from infimmr_jax.objectives.advantages import ESTIMATORS, advantages, has_signal, init_estimator_state
from infimmr_jax.rewards.bad_groups import LARGEST_REWARD

WEIGHTS = {"accuracy": 0.9, "format": 0.1}
STATELESS = sorted(set(ESTIMATORS) - {"ema_std"})


def scores(seed=0, prompts=6, group=5):
    rng = np.random.default_rng(seed)
    parts = {name: rng.integers(0, 3, (prompts, group)) / 2 for name in WEIGHTS}
    parts["accuracy"][1] = parts["format"][1] = 0.5
    return sum(WEIGHTS[k] * parts[k] for k in WEIGHTS), parts


def run(name, rewards, parts, task=None, state=None, usable=None, **keys):
    config = GrpoSection(estimator=name, **keys)
    task = jnp.zeros(len(rewards), jnp.int32) if task is None else jnp.asarray(task)
    state = init_estimator_state(4) if state is None else state
    step = jax.jit(lambda r, c, s, t: advantages(r, c, WEIGHTS, config, s, t, usable))
    return step(jnp.asarray(rewards), {k: jnp.asarray(v) for k, v in parts.items()}, state, task)


@pytest.mark.parametrize("name", STATELESS)
def test_each_estimator_is_its_formula(x64, name):
    rewards, parts = scores()
    found, state = run(name, rewards, parts)
    np.testing.assert_allclose(found, estimator(name, rewards, parts, WEIGHTS), rtol=1e-9, atol=1e-9)
    assert all(not leaf.any() for leaf in jax.tree.leaves(state))


def test_epsilon_is_the_configured_one(x64):
    rewards, parts = scores()
    found, _ = run("grpo", rewards, parts, std_epsilon=0.3)
    np.testing.assert_allclose(found, estimator("grpo", rewards, parts, WEIGHTS, eps=0.3), rtol=1e-9, atol=1e-9)


def test_ema_std_follows_its_formula_over_steps_with_tasks_that_come_and_go(x64):
    rng = np.random.default_rng(1)
    batches = [rng.normal(size=(5, 4)) * scale for scale in (1.0, 0.2, 3.0)]
    batches[2][0] = [100.0, 0, 0, 0]  # beyond the limit: falls back to its own spread
    tasks = [np.array([0, 0, 1, 1, 1]), np.array([0, 2, 2, 0, 0]), np.array([1, 1, 2, 0, 2])]
    expected, state = ema_std(batches, tasks), None
    for batch, task, wanted in zip(batches, tasks, expected, strict=True):
        found, state = run("ema_std", batch, {}, task, state)
        np.testing.assert_allclose(found, wanted, rtol=1e-8, atol=1e-9)
    np.testing.assert_array_equal(state.seen, [3, 2, 2, 0])
    assert abs(found[0]).max() < 2


@pytest.mark.parametrize("name", sorted(ESTIMATORS))
def test_advantages_do_not_see_a_constant_added_to_every_reward(x64, name):
    rewards, parts = scores()
    moved = {k: v + 7.25 for k, v in parts.items()}
    np.testing.assert_allclose(run(name, rewards, parts)[0], run(name, rewards + 7.25, moved)[0], rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("name", sorted(ESTIMATORS))
@settings(max_examples=10, deadline=None)
@given(value=st.floats(-1e6, 1e6, width=32), group=st.integers(2, 9))
def test_a_group_of_equal_rewards_gets_exactly_nothing(name, value, group):
    rewards = np.full((3, group), value, np.float32)
    rewards[2, 0] += 1 + abs(value)
    found, _ = run(name, rewards, {"accuracy": rewards, "format": rewards})
    np.testing.assert_array_equal(found[:2], 0)
    assert np.isfinite(found).all()
    np.testing.assert_array_equal(has_signal(jnp.asarray(rewards)), [False, False, True])


@pytest.mark.parametrize("name", sorted(ESTIMATORS))
@pytest.mark.parametrize("sign", [1, -1])
def test_one_huge_outlier_stays_finite(name, sign):
    rewards = np.zeros((4, 6), np.float32)
    # The square of 1e30 is beyond float32; ema_std keeps squares, so its rewards end where check_rewards stops them.
    rewards[0, 0], rewards[1, :3] = sign * (LARGEST_REWARD if name == "ema_std" else 1e30), 1
    found, state = run(name, rewards, {"accuracy": rewards, "format": rewards})
    assert np.isfinite(found).all()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))
    if name == "grpo":
        assert abs(found).max() == pytest.approx(5 / np.sqrt(6), rel=1e-5)  # (G - 1) / sqrt(G), whatever its size


def test_advantage_clip_bounds_the_result():
    rewards = np.zeros((1, 9), np.float32)
    rewards[0, 0] = 50
    assert abs(run("no_std", rewards, {}, advantage_clip=2.0)[0]).max() == 2


def test_a_weighted_component_that_no_grader_gave_is_named():
    rewards, parts = scores()
    with pytest.raises(ValueError, match=r"'gdpo' needs the reward components \['format'\]"):
        run("gdpo", rewards, {"accuracy": parts["accuracy"]})


def test_component_estimators_refuse_weights_that_cancel():
    parts = {k: jnp.asarray(v) for k, v in scores()[1].items()}
    rewards = parts["accuracy"]
    config = GrpoSection(estimator="component_mean")
    with pytest.raises(ValueError, match="positive sum"):
        advantages(rewards, parts, {"accuracy": 0.0}, config, init_estimator_state(1), jnp.zeros(6, jnp.int32))


def test_the_soft_penalty_is_refused_where_it_would_be_lost():
    with pytest.raises(ValueError, match=r"set overlong.mode: mask"):
        GrpoSection(estimator="gdpo", overlong={"mode": "soft", "buffer": 4})


@pytest.mark.parametrize("name", sorted(ESTIMATORS))
@pytest.mark.parametrize("bad", [1e8, np.nan])
def test_a_group_that_is_not_usable_is_as_if_it_were_not_there(x64, name, bad):
    rewards, parts = scores()
    task = np.array([0, 1, 0, 1, 0, 1])
    usable = np.arange(6) != 2
    kept = {k: v[usable] for k, v in parts.items()}
    expected, state = run(name, rewards[usable], kept, task[usable])
    rewards[2, 1] = parts["accuracy"][2, 1] = bad
    found, after = run(name, rewards, parts, task, usable=usable)
    np.testing.assert_array_equal(found[2], 0)
    np.testing.assert_allclose(found[usable], expected, rtol=1e-9, atol=1e-12)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9), after, state)


@pytest.mark.parametrize("name", sorted(ESTIMATORS))
def test_a_batch_without_any_usable_group_moves_nothing_and_is_not_remembered(name):
    rewards, parts = scores()
    found, state = run(name, rewards, parts, usable=np.zeros(6, bool))
    np.testing.assert_array_equal(found, 0)
    assert all(not leaf.any() for leaf in jax.tree.leaves(state))
