"""What the update hands to its loss: every option against one plain loss, and several steps against single ones.

The plain loss makes whole logits of the whole batch, and all its options are arrays: it is compiled once.
`test_step.py` compares with a prompt for every response.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import ALLOWED, SHAPE, V, prompts, rewards, rollouts

from infimmr_jax.config import GrpoSection, ModelShape, OptimizerSection
from infimmr_jax.model.config import TokenIds, config_from_shape
from infimmr_jax.model.family import Model
from infimmr_jax.model.options import ModelOptions
from infimmr_jax.objectives.advantages import init_estimator_state
from infimmr_jax.objectives.perception import mask_patches
from infimmr_jax.objectives.schedules import Clock, coefficients
from infimmr_jax.objectives.step import UpdateSettings, grpo_update
from infimmr_jax.objectives.train_state import TrainState, make_optimizer
from infimmr_jax.preprocess.images import MEAN, STD

P, G, R = 4, 4, 5
RATE = 1e-3
KEY = jax.random.key(7)
# Without clipping by norm, Adam's first moment is a tenth of the gradient.
OPTIMIZER = OptimizerSection(max_grad_norm=1e9)
CONFIG = config_from_shape(
    ModelShape.model_validate(
        SHAPE.model_dump()
        | {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "num_kv_heads": 1, "intermediate_size": 16}
        | {"mrope_section": [1, 1, 2]}
        | {
            "vision": {
                "hidden_size": 16,
                "depth": 1,
                "num_heads": 2,
                "intermediate_size": 16,
                "fullatt_block_indexes": [0],
            }
        }
    ),
    V,
    TokenIds(pad=0, eos=1, vision_start=2, vision_end=3, image=4, video=5),
)
MODEL = Model(CONFIG, ModelOptions(scan=False))
ACCURACY = np.asarray([[1, 0, 0, 0], [1, 1, 1, 0], [1, 1, 0, 0], [0, 0, 0, 0]], np.float32)


def larger(key):
    """Weights that tell tokens and pictures apart; a fresh model hardly does."""
    return jax.tree.map(lambda x: 2 * x if x.ndim > 1 else x, jax.jit(MODEL.init)(jax.random.key(key)))


def scores(params, batch, tokens):
    """Log-probs of the tokens and entropies, from whole logits."""
    hidden = MODEL.branch(params, MODEL.trunk(params, batch), tokens)
    every = jax.nn.log_softmax(jnp.where(ALLOWED, MODEL.logits(params, hidden), -1e9), axis=-1)
    chosen = jnp.take_along_axis(every, tokens[..., None], axis=-1)[..., 0]
    return chosen, -jnp.sum(jnp.exp(every) * every, axis=-1)


def plain_loss(params, batch, dark, tokens, o):
    """Every term at once; a coefficient of 0 takes one out."""
    lp, entropy = scores(params, batch, tokens)
    seen = jnp.where(o["through"], scores(params, dark, tokens)[0], o["seen"])
    old = jnp.where(o["first"], jax.lax.stop_gradient(lp), o["old"])
    ratio = jnp.exp(lp - old)
    policy = jnp.maximum(-o["advantage"] * ratio, -o["advantage"] * jnp.clip(ratio, 0.8, 1.28)) * o["weight"]
    divergence = jnp.exp(o["reference"] - lp) - 1 - (o["reference"] - lp)
    gap = jnp.minimum(jnp.exp(seen - lp) - 1 - (seen - lp), 10.0)
    token = policy + o["kl"] * divergence - o["entropy"] * entropy - o["gamma"] * gap - o["h1"] * lp - o["h2"] * seen
    return jnp.sum(jnp.where(o["mask"], token, 0.0)) / jnp.sum(o["mask"])


plain_gradient = jax.jit(jax.grad(plain_loss))
plain_scores = jax.jit(scores)


@pytest.fixture(scope="module")
def world():
    """Parameters, a batch and its rollouts by a sampler that is a little off, and all that the plain loss needs."""
    params, reference = larger(0), larger(1)
    batch, sampled = prompts(P), rollouts(P, G, R)
    lp = np.asarray(plain_scores(params, batch, sampled.tokens)[0])
    noise = np.random.default_rng(0).normal(size=(2, P, G, R)).astype(np.float32)
    sampled = dataclasses.replace(sampled, logprobs=lp + 0.1 * noise[0], behaviour=lp + 0.5 * noise[1])
    patches = mask_patches(batch.patches, batch.patch_mask, KEY, 0.6, -jnp.asarray(MEAN) / jnp.asarray(STD))
    dark = dataclasses.replace(batch, patches=np.asarray(patches))
    given = {
        "reference": np.asarray(plain_scores(reference, batch, sampled.tokens)[0]),
        "seen": np.asarray(plain_scores(params, dark, sampled.tokens)[0]),
        "lp": lp,
    }
    form = rewards(P, G).components["format"]
    rated = dataclasses.replace(
        rewards(P, G), total=0.9 * ACCURACY + 0.1 * form, components={"accuracy": ACCURACY, "format": form}
    )
    return params, reference, batch, dark, sampled, rated, given


def updated(world, grpo, rated=None, clock=None):
    params, reference, batch, _, sampled, usual, _ = world
    clock = clock or Clock(0, 10, 0, 10)
    settings = UpdateSettings(MODEL, grpo, (("accuracy", 0.9), ("format", 0.1)), 1.0, ("math",))
    run = functools.partial(grpo_update, settings=settings, optimizer=make_optimizer(OPTIMIZER))
    state = TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        moments=make_optimizer(OPTIMIZER).init(params),
        estimator=init_estimator_state(1),
        reference=reference if grpo.kl.coefficient else None,
    )
    numbers = (jnp.float32(RATE), coefficients(grpo, clock), KEY)
    return jax.jit(run)(state, batch, sampled, np.int32(R), usual if rated is None else rated, ALLOWED, *numbers)


def group_advantage(total):
    total = np.asarray(total, np.float64)
    return (total - total.mean(1, keepdims=True)) / (total.std(1, ddof=1, keepdims=True) + 1e-6)


def options(world, **changes):
    """Plain GRPO for the plain loss, with what an option changes; `advantage` is [P, G] or [P, G, R]."""
    _, _, _, _, sampled, rated, given = world
    o = {name: np.float32(0) for name in ("kl", "entropy", "gamma", "h1", "h2")}
    o |= {"advantage": group_advantage(rated.total), "weight": 1.0, "mask": sampled.mask, "old": sampled.logprobs}
    o |= {"first": True, "through": False, "reference": given["reference"], "seen": given["seen"]} | changes
    if np.ndim(o["advantage"]) == 2:
        o["advantage"] = o["advantage"][..., None]
    for name in ("advantage", "weight", "kl", "first", "through"):
        kind = bool if name in ("first", "through") else np.float32
        o[name] = np.broadcast_to(np.asarray(o[name], kind), (P, G, R))
    return o


def assert_gradient(world, grpo, expected, **keys):
    params, _, batch, dark, sampled, *_ = world
    state, metrics = updated(world, grpo, **keys)
    wanted = plain_gradient(params, batch, dark, sampled.tokens, expected)
    moment = next(part.mu for part in state.moments if hasattr(part, "mu"))
    largest = max(float(jnp.abs(x).max()) for x in jax.tree.leaves(wanted))
    assert largest > 1e-3
    for found, want in zip(jax.tree.leaves(moment), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(10 * found, want, rtol=1e-3, atol=1e-4 * largest)
    return metrics


def k3(lp, reference):
    return np.exp(reference - lp) - 1 - (reference - lp)


def test_divergence_and_its_weights_reach_the_loss(world):
    share, advantage = ACCURACY.mean(1, keepdims=True), group_advantage(world[5].total)
    eased = np.where((share > 0) & (share < 1) & (advantage > 0), 1 - np.exp(-np.e * share), 1.0)
    grpo = GrpoSection(kl={"coefficient": 0.3, "sample_weight": "apo"})
    metrics = assert_gradient(world, grpo, options(world, kl=0.3 * eased[..., None]))
    sampled, given = world[4], world[6]
    expected = k3(given["lp"], given["reference"])[sampled.mask].mean()
    assert float(metrics["policy/kl"]) == pytest.approx(expected, rel=1e-3)


def test_group_weights_entropy_and_cut_responses(world):
    sampled, share = world[4], ACCURACY.mean(1, keepdims=True)
    advantage = group_advantage(world[5].total) * 4 * 1.8 * share * (1 - share)
    mask = sampled.mask & sampled.finished[..., None]
    assert 0 < mask.sum() < sampled.mask.sum()
    grpo = GrpoSection(group_weight={"kind": "observe_r1"}, overlong={"mode": "mask"}, entropy={"coefficient": 0.2})
    assert_gradient(world, grpo, options(world, advantage=advantage, mask=mask, entropy=0.2))


def test_divergence_in_the_reward_is_taken_from_every_token_after_the_group_weight(world):
    """Also where the rewards of a group are equal; never where a group was taken out."""
    sampled, rated, given = world[4], world[5], world[6]
    total = rated.total.copy()
    total[3] = 0.3
    rated = dataclasses.replace(rated, total=total, usable=np.asarray([True, True, False, True]))
    share = ACCURACY.mean(1, keepdims=True)
    advantage = (group_advantage(total) * 7.2 * share * (1 - share))[..., None] * np.ones(R)
    advantage[2:] = 0
    gap = np.where(sampled.mask, sampled.logprobs - given["reference"], 0).astype(np.float64)
    for row in (0, 1, 3):
        for t in range(R):
            advantage[row, :, t] -= 0.2 * gap[row, :, t:].sum(-1)
    grpo = GrpoSection(
        kl={"coefficient": 0.2, "place": "reward", "estimator": "k1"}, group_weight={"kind": "observe_r1"}
    )
    metrics = assert_gradient(world, grpo, options(world, advantage=advantage), rated=rated)
    expected = k3(given["lp"], given["reference"])[sampled.mask].mean()
    assert float(metrics["policy/kl"]) == pytest.approx(expected, rel=1e-3)
    assert float(metrics["response/signal_groups"]) == 0.5


@pytest.mark.parametrize("through", [False, True])
def test_the_masked_forward_sees_the_masked_picture(world, through):
    keys = {"coefficient": 0.4, "entropy_coefficient": 0.05, "differentiate_masked": through}
    keys |= {"masked_entropy_coefficient": 0.02} if through else {}
    # Half-way down its schedule, the entropy terms are halved as well.
    grpo = GrpoSection(perception=keys | {"schedule": "linear"})
    assert np.abs(world[6]["seen"] - world[6]["lp"])[::2].max() > 0.1
    expected = options(world, gamma=0.2, h1=0.025, h2=0.01 * through, through=through)
    assert_gradient(world, grpo, expected, clock=Clock(5, 10, 5, 10))


def test_statistics_over_the_batch_leave_out_groups_that_are_not_usable(world):
    total = world[5].total.copy()
    total[1] = np.nan
    usable = np.asarray([True, False, True, True])
    good = np.asarray(world[5].total, np.float64)[usable]
    advantage = np.zeros((P, G))
    advantage[usable] = (good - good.mean(1, keepdims=True)) / (good.std(ddof=1) + 1e-6)
    rated = dataclasses.replace(world[5], total=total, usable=usable)
    metrics = assert_gradient(
        world, GrpoSection(estimator="batch_std"), options(world, advantage=advantage), rated=rated
    )
    assert float(metrics["reward/total"]) == pytest.approx(good.mean(), rel=1e-5)
    assert float(metrics["policy/skipped"]) == 0


@pytest.mark.parametrize("importance", [False, True])
def test_minibatches_and_repeats_are_single_steps_on_slices(world, importance):
    """Prompts are dealt out in turn. Only the first step is on policy; later ones look back at the sampling policy."""
    params, _, batch, dark, sampled, _, given = world
    change = {"importance": {"level": "token", "high": 1.3}} if importance else {}
    state, metrics = updated(world, GrpoSection(minibatches=2, updates_per_batch=2, **change))
    gap = given["lp"] - (sampled.behaviour if importance else sampled.logprobs)
    weight = np.clip(np.exp(gap), 0, 1.3) if importance else 1.0
    base = options(world, weight=weight, old=given["lp"] if importance else sampled.logprobs)
    optimizer = make_optimizer(OPTIMIZER)
    moments = optimizer.init(params)
    for number in range(4):
        chosen = np.arange(P) % 2 == number % 2
        o = base | {"mask": sampled.mask & chosen[:, None, None], "first": np.full((P, G, R), number == 0)}
        gradient = plain_gradient(params, batch, dark, sampled.tokens, o)
        change, moments = optimizer.update(gradient, moments, params)
        params = jax.tree.map(lambda p, u: p - RATE * u, params, change)
    wanted = next(part.mu for part in moments if hasattr(part, "mu"))
    found = next(part.mu for part in state.moments if hasattr(part, "mu"))
    largest = max(float(jnp.abs(x).max()) for x in jax.tree.leaves(wanted))
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-2, atol=2e-3 * largest)
    first = sampled.mask & (np.arange(P) % 2 == 0)[:, None, None]
    assert float(metrics["policy/mismatch"]) == pytest.approx(np.abs(gap)[first].mean(), rel=1e-3)
    assert float(metrics["policy/mismatch_max"]) == pytest.approx(np.abs(gap)[first].max(), rel=1e-3)
