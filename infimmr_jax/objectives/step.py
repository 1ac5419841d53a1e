"""The GRPO update: from rollouts and rewards to a new TrainState, one pure function that is compiled once.

Prompt and image are computed once per group, their gradient is the sum over the group's branches.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jaxtyping import Array, Bool, Float, Int, PyTree

from infimmr_jax.config import GrpoSection, KlSection, TrainableSection
from infimmr_jax.model.family import Model
from infimmr_jax.model.logprobs import token_logprobs
from infimmr_jax.model.trunk import Params
from infimmr_jax.names import JsonObject
from infimmr_jax.objectives.advantages import advantages, has_signal
from infimmr_jax.objectives.group_weights import weigh_advantages
from infimmr_jax.objectives.kl import kl_sample_weights, penalty_to_go
from infimmr_jax.objectives.metrics import Metrics, add_metrics, finish_metrics
from infimmr_jax.objectives.micro import micro_batches
from infimmr_jax.objectives.objective import Denominators, denominators, policy_loss, training_mask
from infimmr_jax.objectives.perception import mask_patches
from infimmr_jax.objectives.schedules import Coefficients
from infimmr_jax.objectives.train_state import TrainState, apply_gradient
from infimmr_jax.objectives.trainable import EVERYTHING, frozen_stopped, learning_factors
from infimmr_jax.parallel.sequence import collected, dealt, shares_of
from infimmr_jax.preprocess.batching import PromptBatch
from infimmr_jax.preprocess.images import MEAN, STD
from infimmr_jax.rollout.state import Rollouts


@dataclasses.dataclass(frozen=True)
class UpdateSettings:
    """Static settings of the update: the model, the GRPO section, and names of tasks.

    Of the scheduled coefficients only whether they are 0 matters here: their values are given with every step.
    """

    model: Model
    grpo: GrpoSection
    reward_weights: tuple[tuple[str, float], ...]
    temperature: float
    task_names: tuple[str, ...] = ()
    trainable: TrainableSection = EVERYTHING


@struct.dataclass
class Rewards:
    """Rewards of P groups, float32 [P, G]: weighted total and components; and the number [P] of each prompt's task.

    Groups that are not `usable` (bool [P]) had a reward that is no number or far too large: their rewards are 0, and no
    statistic over the batch sees them.
    """

    total: PyTree
    components: JsonObject
    task: PyTree
    usable: PyTree


@struct.dataclass
class _Micro:
    """What one micro-batch needs."""

    batch: PromptBatch
    rollouts: Rollouts
    mask: Bool[Array, "P G R"]
    advantages: Float[Array, "P G"] | Float[Array, "P G R"]
    kl_weights: Float[Array, "P G"]
    old: Float[Array, "P G R"]
    reference: Float[Array, "P G R"] | None
    masked_image: Float[Array, "P G R"] | None
    dark: Float[Array, "P I N X"] | None


def needs_reference(grpo: GrpoSection) -> bool:
    """Whether a reference policy is needed: without a KL term there is neither a copy nor a forward of it."""
    return grpo.kl.used


def averaged(reference: Params, params: Params, kl: KlSection) -> Params:
    """The moving average of the policy that `kl.reference: ema` keeps, one step on."""
    decay = 0.99 if kl.ema_decay is None else kl.ema_decay
    return jax.tree.map(lambda r, p: (decay * r + (1 - decay) * p).astype(r.dtype), reference, params)


def response_logprobs(
    params: Params,
    settings: UpdateSettings,
    batch: PromptBatch,
    tokens: Int[Array, "P G R"],
    allowed: Bool[Array, "V"],
) -> tuple[Float[Array, "P G R"], Float[Array, "P G R"]]:
    """Log-probs and entropies of responses under the policy at the sampling temperature: one trunk, G branches."""
    parts = shares_of(tokens.shape[1])
    model = settings.model
    trunk = model.trunk(params, batch).dealt(parts)
    tokens = dealt(tokens, parts)
    hidden, kernel = model.branch(params, trunk, tokens), model.head_kernel(params)
    chunk = settings.grpo.chunk_for(allowed.shape[0])
    found = token_logprobs(hidden, kernel, tokens, allowed, settings.temperature or 1.0, chunk)
    return collected(found, parts)


def grpo_update(
    state: TrainState,
    batch: PromptBatch,
    rollouts: Rollouts,
    executed: Int[Array, ""],
    rewards: Rewards,
    allowed: Bool[Array, "V"],
    learning_rate: Float[Array, ""],
    scheduled: Coefficients,
    key: Array,
    *,
    settings: UpdateSettings,
    optimizer: optax.GradientTransformation,
) -> tuple[TrainState, dict[str, Array]]:
    """All optimiser steps on a batch of groups; returns the new state and scalar metrics.

    The batch is split into `minibatches` prompt by prompt, and passed over `updates_per_batch` times. The first step is
    on policy: its ratio is 1 and needs no second forward; for the others the old log-probs are those the sampler
    recorded, or with `importance` those of one forward before the first step: the sampler's are what it corrects for.
    Advantages are computed once, over the whole batch. Micro-batches, devices and hosts do not change the
    loss: every one divides by the denominators of the whole step. `executed`, rows times steps of sampling, is
    for the metrics. `scheduled` are the coefficients of this step.
    """
    P, G, R = rollouts.tokens.shape
    parts = micro_batches(settings.grpo, P // settings.grpo.minibatches, batch.tokens.shape[1], G, R)
    settings = dataclasses.replace(settings, grpo=settings.grpo.model_copy(update={"micro_batches": parts}))
    grpo = settings.grpo
    finished = rollouts.finished | ~batch.row_mask[:, None]
    mask = training_mask(rollouts.mask, ~finished, grpo)
    steps = grpo.updates_per_batch * grpo.minibatches

    def before(params: Params, batch: PromptBatch) -> Float[Array, "P G R"]:
        return _before_the_first_step(params, settings, batch, rollouts.tokens, allowed)

    old = rollouts.logprobs
    if grpo.importance.level != "none" and steps > 1:
        old = before(state.params, batch)
    weights, usable = dict(settings.reward_weights), rewards.usable & batch.row_mask
    values, estimator = advantages(
        rewards.total, rewards.components, weights, grpo, state.estimator, rewards.task, usable
    )
    values = weigh_advantages(
        values, rewards.components, rollouts.lengths, grpo.group_weight, rewards.task, settings.task_names
    )
    kl_weights = jnp.ones_like(values)
    if grpo.kl.sample_weight != "none":
        kl_weights = kl_sample_weights(values, rewards.components[grpo.group_weight.component], grpo)
    given, reference = values, None
    if grpo.kl.in_reward:
        assert state.reference is not None
        reference = before(state.reference, batch)
        penalty = penalty_to_go(old, reference, rollouts.mask, grpo, scheduled.kl)
        given = values[..., None] - jnp.where(usable[:, None, None], penalty, 0.0)
    dark = masked_image = None
    if grpo.perception.used:
        black = -jnp.asarray(MEAN) / jnp.asarray(STD)
        dark = mask_patches(batch.patches, batch.patch_mask, key, grpo.perception.masked_share, black)
        if not grpo.perception.differentiate_masked:
            masked_image, dark = before(state.params, dataclasses.replace(batch, patches=dark)), None
    whole_batch = _Micro(batch, rollouts, mask, given, kl_weights, old, reference, masked_image, dark)
    minis = _split(whole_batch, grpo.minibatches)
    factors = learning_factors(state.params, settings.trainable)

    def move(state: TrainState, number: Array | int, on_policy: bool) -> tuple[TrainState, dict[str, Array]]:
        mini: _Micro = jax.tree.map(lambda x: x[number], minis)
        whole = denominators(mini.mask)

        def loss_of(params: Params, micro: _Micro) -> tuple[Array, Metrics]:
            params = frozen_stopped(params, factors)
            return _micro_loss(params, state, settings, micro, allowed, whole, scheduled, on_policy)

        micros = _split(mini, grpo.micro_batches)
        gradient, loss, metrics = _whole_gradient(loss_of, state.params, micros, grpo.micro_batches)
        state, moved = apply_gradient(state, gradient, optimizer, learning_rate, factors, loss)
        return state, {"loss": loss, **moved, **finish_metrics(metrics)}

    state, report = move(dataclasses.replace(state, estimator=estimator), 0, True)
    if steps > 1:
        numbers = jnp.arange(1, steps) % grpo.minibatches
        state, reports = jax.lax.scan(lambda state, number: move(state, number, False), state, numbers)
        report = {name: _over_updates(name, value, reports[name]) for name, value in report.items()}
    if state.reference is not None and grpo.kl.used and grpo.kl.reference == "ema":
        state = dataclasses.replace(state, reference=averaged(state.reference, state.params, grpo.kl))
    report["policy/advantage_std"] = jnp.std(values)
    return state, {**report, **_batch_metrics(batch, rollouts, executed, rewards)}


def _over_updates(name: str, first: Array, later: Float[Array, "U"]) -> Array:
    """One number for several updates: the largest of maxima, the mean of all else."""
    if name.startswith("policy/mismatch"):
        # Later steps have no log-probs of their own for the policy that sampled.
        return first
    both = jnp.concatenate([first[None], later])
    return both.max() if name.endswith("_max") else both.mean()


def _whole_gradient(
    loss_of: Callable, params: Params, micros: _Micro, parts: int
) -> tuple[Params, Float[Array, ""], Metrics]:
    """Gradient, loss and metrics summed over the micro-batches."""

    def add(carry: tuple[Params, Array, Metrics], micro: _Micro) -> tuple[tuple[Params, Array, Metrics], None]:
        gradient, loss, metrics = carry
        (part, seen), found = _gradient_of(loss_of)(params, micro)
        return (jax.tree.map(jnp.add, gradient, found), loss + part, add_metrics(metrics, seen)), None

    first = jax.tree.map(lambda x: x[0], micros)
    if parts == 1:
        (loss, metrics), gradient = _gradient_of(loss_of)(params, first)
        return gradient, loss, metrics
    shapes = jax.eval_shape(loss_of, params, first)[1]
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), (params, shapes))
    return jax.lax.scan(add, (zeros[0], jnp.zeros(()), zeros[1]), micros)[0]


def _gradient_of(function: Callable) -> Callable:
    return jax.value_and_grad(function, has_aux=True)


def _batch_metrics(
    batch: PromptBatch, rollouts: Rollouts, executed: Int[Array, ""], rewards: Rewards
) -> dict[str, Array]:
    """Means over the real prompts of the whole batch, whatever the number of hosts; of rewards over usable groups."""
    rows = batch.row_mask[:, None]
    count = jnp.maximum(jnp.sum(batch.row_mask), 1)
    rated = batch.row_mask & rewards.usable

    def mean(values: Array, real: Array = batch.row_mask) -> Array:
        return jnp.sum(jnp.where(real[:, None], values, 0)) / (jnp.maximum(jnp.sum(real), 1) * values.shape[1])

    tokens = jnp.sum(jnp.where(rows, rollouts.lengths, 0))
    return {
        "reward/total": mean(rewards.total, rated),
        **{f"reward/{name}": mean(values, rated) for name, values in rewards.components.items()},
        "reward/total_std": mean(jnp.std(rewards.total, axis=1, keepdims=True), rated),
        "response/length": mean(rollouts.lengths),
        "response/truncated": mean(~rollouts.finished),
        "response/signal_groups": jnp.sum(has_signal(rewards.total) & rated) / count,
        "rollout/efficiency": tokens / executed,
        "rollout/tokens": tokens.astype(jnp.float32),
    }


def _micro_loss(
    params: Params,
    state: TrainState,
    settings: UpdateSettings,
    micro: _Micro,
    allowed: Array,
    whole: Denominators,
    scheduled: Coefficients,
    on_policy: bool,
) -> tuple[Array, Metrics]:
    grpo, rollouts = settings.grpo, micro.rollouts
    logprobs, entropies = response_logprobs(params, settings, micro.batch, rollouts.tokens, allowed)
    reference, masked = micro.reference, micro.masked_image
    if grpo.kl.in_loss:
        assert state.reference is not None
        reference, _ = response_logprobs(state.reference, settings, micro.batch, rollouts.tokens, allowed)
    if micro.dark is not None:
        unseen = dataclasses.replace(micro.batch, patches=micro.dark)
        masked = response_logprobs(params, settings, unseen, rollouts.tokens, allowed)[0]
    return policy_loss(
        logprobs,
        None if on_policy else micro.old,
        micro.advantages,
        micro.mask,
        grpo,
        denominators=whole,
        coefficients=scheduled,
        reference_logprobs=reference,
        entropies=entropies,
        behaviour_logprobs=rollouts.logprobs if grpo.importance.level == "none" else rollouts.behaviour,
        kl_weights=micro.kl_weights,
        masked_image_logprobs=masked,
    )


def _split(tree: PyTree, parts: int) -> PyTree:
    """Prompts dealt out to `parts` micro-batches in turn, so that each device keeps its own rows in every part."""

    def one(x: Array) -> Array:
        if x.ndim == 0:
            return jnp.broadcast_to(x, (parts,))
        return jnp.moveaxis(x.reshape(x.shape[0] // parts, parts, *x.shape[1:]), 1, 0)

    return jax.tree.map(one, tree)


def _before_the_first_step(
    params: Params, settings: UpdateSettings, batch: PromptBatch, tokens: Int[Array, "P G R"], allowed: Array
) -> Float[Array, "P G R"]:
    """Log-probs of the whole batch without gradient, in micro-batches as small as those of the steps."""

    def one(micro: tuple[PromptBatch, Array]) -> Array:
        return response_logprobs(params, settings, *micro, allowed)[0]

    pieces = jax.lax.map(one, _split((batch, tokens), settings.grpo.micro_batches * settings.grpo.minibatches))
    return jax.lax.stop_gradient(jnp.moveaxis(pieces, 0, 1).reshape(-1, *pieces.shape[2:]))
