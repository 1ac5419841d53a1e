"""The update as a whole: against a plain second path, over micro-batches, over eight devices."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from devices import on_eight_devices
from small import ALLOWED, prompts, rewards, rollouts, settings, train_state, with_layers

from infimmr_jax.config import GrpoSection, OptimizerSection
from infimmr_jax.objectives.schedules import Clock, coefficients
from infimmr_jax.objectives.step import grpo_update
from infimmr_jax.objectives.train_state import make_optimizer

P, G, R = 8, 4, 6
MODEL = with_layers(1)
OPTIMIZER = OptimizerSection(learning_rate=1e-3)


def update(grpo: GrpoSection, reference: bool = False, state=None, **changes):
    run = functools.partial(grpo_update, settings=settings(grpo, MODEL), optimizer=make_optimizer(OPTIMIZER))
    given = {"batch": prompts(P), "rollouts": rollouts(P, G, R), "executed": np.int32(R), "rewards": rewards(P, G)}
    given |= changes
    state = train_state(grpo, OPTIMIZER, reference, MODEL) if state is None else state
    scheduled = coefficients(grpo, Clock(0, 10, 0, 10))
    return jax.jit(run)(state, *given.values(), ALLOWED, jnp.float32(1e-3), scheduled, jax.random.key(0))


def largest_difference(a, b) -> float:
    return max(float(jnp.abs(x - y).max()) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def first_moment(state):
    return next(part.mu for part in state.moments if hasattr(part, "mu"))


def plain_loss(params, batch, sampled, scores):
    """GRPO written down once more: every response with its own prompt, whole logits, no shared code but the layers."""
    total = np.asarray(scores.total, np.float64)
    spread = total.std(axis=1, ddof=1, keepdims=True)
    advantage = (total - total.mean(axis=1, keepdims=True)) / (spread + 1e-6)
    loss = 0.0
    for g in range(G):
        one = jnp.asarray(sampled.tokens[:, g : g + 1])
        trunk = MODEL.trunk(params, batch)
        scored = MODEL.logits(params, MODEL.branch(params, trunk, one))
        log_probs = jax.nn.log_softmax(jnp.where(ALLOWED, scored, -jnp.inf), axis=-1)
        picked = jnp.take_along_axis(log_probs, one[..., None], axis=-1)[:, 0, :, 0]
        loss -= jnp.sum(jnp.where(sampled.mask[:, g], picked, 0.0) * advantage[:, g : g + 1])
    return loss / sampled.mask.sum()


def test_the_gradient_is_that_of_plain_grpo_with_a_prompt_for_every_response():
    batch, sampled, scores = prompts(P), rollouts(P, G, R), rewards(P, G)
    state = train_state(GrpoSection(), OPTIMIZER, model=MODEL)
    expected = jax.jit(jax.grad(lambda params: plain_loss(params, batch, sampled, scores)))(state.params)
    moved, metrics = update(GrpoSection())
    norm = float(jnp.sqrt(sum(jnp.sum(g**2) for g in jax.tree.leaves(expected))))
    assert float(metrics["policy/grad_norm"]) == pytest.approx(norm, rel=1e-5)
    clipped = jax.tree.map(lambda g: 0.1 * g * min(1.0, 1.0 / norm), expected)
    assert largest_difference(first_moment(moved), clipped) < 1e-6


@pytest.mark.parametrize(
    "section",
    [
        {},
        {"aggregation": "sequence_mean", "kl": {"coefficient": 0.1}},
        {"kl": {"coefficient": 0.1, "place": "reward"}, "estimator": "rloo"},
        {"aggregation": "constant", "objective": "cispo", "entropy": {"coefficient": 0.01}},
        {"updates_per_batch": 2, "minibatches": 2, "perception": {"coefficient": 0.02}, "objective": "gspo"},
    ],
)
def test_micro_batches_do_not_change_the_update(section):
    whole, whole_metrics = update(GrpoSection(**section), reference=True)
    split, split_metrics = update(GrpoSection(**section, micro_batches=4), reference=True)
    # Adam's first moment is the gradient; its first step is the gradient's sign, which rounding may turn.
    assert largest_difference(first_moment(whole), first_moment(split)) < 1e-7
    for name, value in whole_metrics.items():
        np.testing.assert_allclose(split_metrics[name], value, rtol=2e-5, atol=1e-6, err_msg=name)


def test_groups_without_signal_leave_the_policy_where_it_is():
    same = dataclasses.replace(rewards(P, G), total=np.ones((P, G), np.float32))
    moved, metrics = update(GrpoSection(), rewards=same)
    assert float(metrics["policy/grad_norm"]) == 0
    assert float(metrics["policy/skipped"]) == 0
    assert float(metrics["response/signal_groups"]) == 0
    assert largest_difference(moved.params, train_state(GrpoSection(), OPTIMIZER, model=MODEL).params) == 0


def test_a_gradient_that_is_not_finite_is_skipped_and_counted():
    start = train_state(GrpoSection(), OPTIMIZER, model=MODEL)
    start.params["decoder"]["norm"]["scale"] = start.params["decoder"]["norm"]["scale"].at[0].set(jnp.nan)
    moved, metrics = update(GrpoSection(), state=start)
    assert float(metrics["policy/skipped"]) == 1
    for before, after in zip(jax.tree.leaves(start.params), jax.tree.leaves(moved.params), strict=True):
        np.testing.assert_array_equal(before, after)
    assert all(not x.any() for x in jax.tree.leaves(first_moment(moved)))
    assert all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves(moved.moments))


def test_first_update_on_policy_has_ratio_one_and_no_divergence():
    _, metrics = update(GrpoSection())
    assert float(metrics["policy/ratio"]) == pytest.approx(1.0)
    assert float(metrics["policy/kl_old"]) == 0
    assert float(metrics["policy/clip_share"]) == 0


EIGHT_DEVICES = """
import functools
import jax, jax.numpy as jnp, numpy as np
from small import *
from infimmr_jax.config import GrpoSection, MeshSection, OptimizerSection
from infimmr_jax.objectives.schedules import Clock, coefficients
from infimmr_jax.objectives.train_state import make_optimizer, state_shardings
from infimmr_jax.objectives.step import grpo_update
from infimmr_jax.parallel.mesh import make_mesh, replicated, shard_batch
from infimmr_jax.rollout.sampler import sample
from infimmr_jax.rollout.state import SampleSettings

assert jax.device_count() == 8
model = with_layers(1)
grpo, section = GrpoSection(micro_batches=2), OptimizerSection(learning_rate=1e-3)
run = functools.partial(grpo_update, settings=settings(grpo, model), optimizer=make_optimizer(section))
draw = functools.partial(sample, model=model, settings=SampleSettings(4, 6))
found = []
for mesh in (
    make_mesh(MeshSection(), jax.devices()[:1]),
    make_mesh(MeshSection(), jax.devices()),
    make_mesh(MeshSection(data=2, fsdp=2, tensor=2), jax.devices()),
):
    jax.set_mesh(mesh)
    state = train_state(grpo, section, model=model)
    state = jax.device_put(state, state_shardings(state, mesh))
    rows = shard_batch((prompts(16), rewards(16, 4)), mesh)
    sampled = jax.jit(draw)(state.params, batch=rows[0], allowed=ALLOWED, key=jax.random.key(3))
    numbers = (jnp.float32(1e-3), coefficients(grpo, Clock(0, 10, 0, 10)), jax.random.key(0))
    moved, metrics = jax.jit(run)(state, rows[0], *sampled, rows[1], ALLOWED, *numbers)
    gradient = next(part.mu for part in moved.moments if hasattr(part, "mu"))
    found.append(jax.device_get((sampled, gradient, metrics)))
for other in found[1:]:
    assert np.array_equal(found[0][0][0].tokens, other[0][0].tokens), "other devices sampled other tokens"
    for one, two in zip(jax.tree.leaves(found[0][1:]), jax.tree.leaves(other[1:]), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-6)
print("equal")
"""


def test_eight_devices_sample_and_update_like_one():
    assert "equal" in on_eight_devices(EIGHT_DEVICES)
