"""TrainState: everything of a run that lives on the devices, and how a gradient moves it."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Array, Float, Int, PyTree

from infimmr_jax.config import OptimizerSection
from infimmr_jax.model.trunk import Params
from infimmr_jax.objectives.advantages import EstimatorState
from infimmr_jax.objectives.trainable import Factors, moved_moments, moved_only
from infimmr_jax.parallel.mesh import parameter_shardings, parameter_spec, path_of, replicated, work_spec


@struct.dataclass
class TrainState:
    """Parameters, optimiser moments, estimator state and (only when a KL term needs it) the reference policy."""

    step: Int[Array, ""]
    params: Params
    moments: optax.OptState
    estimator: EstimatorState
    reference: Params | None = None


def make_optimizer(section: OptimizerSection, moving: PyTree = None) -> optax.GradientTransformation:
    """The direction of a step after global-norm clipping; the learning rate is applied outside: phases change it.

    `moving` is a tree of booleans like the parameters (default: all True); the others get no moments.

    Muon (Jordan et al., 2024) takes the matrices inside the network and scales its direction as Liu et al.
    (arXiv 2502.16982, section 2.2), 0.2 sqrt(max(in, out)): a root mean square like AdamW's.
    """
    direction = optax.scale_by_adam(b1=section.beta1, b2=section.beta2, eps=section.epsilon)
    if section.kind == "muon":
        momentum = 0.95 if section.momentum is None else section.momentum
        muon = optax.chain(
            _over_all_devices(optax.contrib.scale_by_muon(beta=momentum, weight_dimension_numbers=_matrices)),
            optax.stateless(lambda updates, _: jax.tree.map(lambda u: u * 0.2 * max(u.shape[-2:]) ** 0.5, updates)),
        )
        direction = optax.partition({"muon": muon, "adam": direction}, _optimizer_of)
    if moving is not None and not all(jax.tree.leaves(moving)):
        direction = optax.masked(direction, moving)
    return optax.chain(
        optax.clip_by_global_norm(section.max_grad_norm),
        direction,
        optax.add_decayed_weights(section.weight_decay, mask=_decayed),
    )


def _over_all_devices(direction: optax.GradientTransformation) -> optax.GradientTransformation:
    """`direction` with its products split over `data` too: left alone, every copy of a parameter makes all of them."""

    def update(updates: PyTree, state: optax.OptState, params: Params | None = None) -> tuple[PyTree, optax.OptState]:
        mesh = jax.sharding.get_abstract_mesh()
        if mesh.empty or mesh.shape["data"] == 1:
            return direction.update(updates, state, params)

        def split(path: tuple, leaf: Array) -> Array:
            return jax.lax.with_sharding_constraint(leaf, work_spec(path_of(path), leaf.shape, mesh))

        return direction.update(jax.tree_util.tree_map_with_path(split, updates), state, params)

    return optax.GradientTransformation(direction.init, update)


def _decayed(params: Params) -> PyTree:
    """Weight decay acts on matrices, not on norm scales and biases."""
    return jax.tree_util.tree_map_with_path(lambda path, _: _name(path) in ("kernel", "embedding"), params)


def _optimizer_of(params: Params) -> PyTree:
    """`muon` for the matrices inside the network; embeddings, heads, norms and biases stay with Adam."""

    def one(path: tuple, _: object) -> str:
        return "muon" if _name(path) == "kernel" and _name(path[:-1]) != "lm_head" else "adam"

    return jax.tree_util.tree_map_with_path(one, params)


def _matrices(params: Params) -> PyTree:
    """Which axes are in and out; an axis before them numbers the layers."""
    return jax.tree.map(lambda leaf: optax.contrib.MuonDimensionNumbers(leaf.ndim - 2, leaf.ndim - 1), params)


def _name(path: tuple) -> str:
    return str(path[-1].key)


@jax.named_scope("optimizer")
def apply_gradient(
    state: TrainState,
    gradient: Params,
    optimizer: optax.GradientTransformation,
    learning_rate: Float[Array, ""],
    factors: Factors | None = None,
    loss: Float[Array, ""] | float = 0.0,
) -> tuple[TrainState, dict[str, Array]]:
    """One optimiser step; a gradient or `loss` that is not finite leaves parameters and moments as they are.

    `factors` on the learning rate, by `trainable.learning_factors`; where they are 0, parameters (weight decay
    included) and moments stay exactly as they are. `policy/skipped` reports a step that was left out.
    """
    factors = jax.tree.map(lambda _: 1.0, gradient) if factors is None else factors
    norm = optax.tree.norm(gradient)
    finite = jnp.isfinite(norm) & jnp.isfinite(loss)
    gradient = jax.tree.map(lambda g: jnp.where(finite, g, 0), gradient)
    updates, moments = optimizer.update(gradient, state.moments, state.params)
    moments = moved_moments(moments, state.moments, factors)

    def moved(old: PyTree, update: PyTree, factor: PyTree) -> PyTree:
        return moved_only((old - learning_rate * factor * update).astype(old.dtype), old, factor)

    params = jax.tree.map(moved, state.params, updates, factors)

    def keep(new: PyTree, old: PyTree) -> PyTree:
        return jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, old)

    state = dataclasses.replace(
        state, step=state.step + 1, params=keep(params, state.params), moments=keep(moments, state.moments)
    )
    return state, {"policy/grad_norm": norm, "policy/skipped": (~finite).astype(jnp.float32)}


def state_shardings(state: TrainState, mesh: Mesh) -> TrainState:
    """NamedShardings of a (possibly abstract) TrainState: parameters and moments by the rule table, the rest whole."""
    everywhere: PyTree = replicated(mesh)
    return TrainState(
        step=everywhere,
        params=parameter_shardings(state.params, mesh),
        moments=_moment_shardings(state.moments, mesh),
        estimator=jax.tree.map(lambda _: everywhere, state.estimator),
        reference=None if state.reference is None else parameter_shardings(state.reference, mesh),
    )


def _moment_shardings(moments: optax.OptState, mesh: Mesh) -> PyTree:
    """Moments lie where their parameters lie; only these sit in dicts, so counters and constants are whole."""

    def one(path: tuple, leaf: PyTree) -> PyTree:
        if not isinstance(path[-1], jax.tree_util.DictKey):
            return replicated(mesh)
        names = [str(part.key) for part in path if isinstance(part, jax.tree_util.DictKey)]
        return NamedSharding(mesh, parameter_spec("/".join(names), leaf.shape, mesh))

    return jax.tree_util.tree_map_with_path(one, moments)
