"""TrainState: everything of a run that lives on the devices, and how a gradient moves it."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from infimmr_jax.config import OptimizerSection
from infimmr_jax.grpo.advantages import EstimatorState
from infimmr_jax.model.qwen2_5_vl import Params
from infimmr_jax.parallel.mesh import parameter_shardings, replicated


@struct.dataclass
class TrainState:
    """Parameters, optimiser moments, estimator state and (only when a KL term needs it) the reference policy."""

    step: Int[Array, ""]
    params: Params
    moments: optax.OptState
    estimator: EstimatorState
    reference: Params | None = None


def make_optimizer(section: OptimizerSection) -> optax.GradientTransformation:
    """AdamW's direction after global-norm clipping; the learning rate is applied outside: phases change it."""
    return optax.chain(
        optax.clip_by_global_norm(section.max_grad_norm),
        optax.scale_by_adam(b1=section.beta1, b2=section.beta2, eps=section.epsilon),
        optax.add_decayed_weights(section.weight_decay, mask=_decayed),
    )


def _decayed(params: Params) -> Any:
    """Weight decay acts on matrices, not on norm scales and biases."""
    return jax.tree_util.tree_map_with_path(lambda path, _: str(path[-1].key) in ("kernel", "embedding"), params)


def apply_gradient(
    state: TrainState, gradient: Params, optimizer: optax.GradientTransformation, learning_rate: Float[Array, ""]
) -> tuple[TrainState, dict[str, Array]]:
    """One optimiser step; a gradient that is not finite leaves parameters and moments as they are, and is reported."""
    norm = optax.global_norm(gradient)
    finite = jnp.isfinite(norm)
    gradient = jax.tree.map(lambda g: jnp.where(finite, g, 0), gradient)
    updates, moments = optimizer.update(gradient, state.moments, state.params)
    params = jax.tree.map(lambda p, u: (p - learning_rate * u).astype(p.dtype), state.params, updates)

    def keep(new: Any, old: Any) -> Any:
        return jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, old)

    state = dataclasses.replace(
        state, step=state.step + 1, params=keep(params, state.params), moments=keep(moments, state.moments)
    )
    return state, {"policy/grad_norm": norm, "policy/skipped": (~finite).astype(jnp.float32)}


def state_shardings(state: TrainState, mesh: Mesh) -> TrainState:
    """NamedShardings of a (possibly abstract) TrainState: parameters and moments by the rule table, the rest whole."""
    everywhere: Any = replicated(mesh)
    return TrainState(
        step=everywhere,
        params=parameter_shardings(state.params, mesh),
        moments=parameter_shardings(state.moments, mesh),
        estimator=jax.tree.map(lambda _: everywhere, state.estimator),
        reference=None if state.reference is None else parameter_shardings(state.reference, mesh),
    )
