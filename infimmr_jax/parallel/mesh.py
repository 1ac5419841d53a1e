"""The device mesh and the one table of sharding rules."""

from __future__ import annotations

import math
import re
from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import PyTree

from infimmr_jax.config import ConfigError, MeshSection

AXES = ("data", "fsdp", "sequence", "tensor")
BATCH = ("data", "fsdp")
BRANCHES = (*BATCH, "sequence")

# Path pattern -> axes of the parameter without its leading layer axis. The first pattern that matches counts.
# Columns of a projection that starts a block and rows of the one that ends it go over `tensor`, the other side over
# `fsdp`.
PARAMETER_RULES: tuple[tuple[str, P], ...] = (
    (r"embed/embedding$", P("tensor", "fsdp")),
    (r"lm_head/kernel$", P("fsdp", "tensor")),
    (r"(^|/)(q|k|v|qkv|gate|up|fc1)/kernel$", P("fsdp", "tensor")),
    (r"(^|/)(o|proj|down|fc2)/kernel$", P("tensor", "fsdp")),
    (r"(^|/)(q|k|v|qkv|gate|up|fc1)/bias$", P("tensor")),
    (r"patch_embed/kernel$", P(None, "fsdp")),
    (r"(scale|bias)$", P()),
)

# How arrays inside the model lie where `sequence` is more than 1: devices along it hold the same prompts.
ACTIVATION_RULES: dict[str, P] = {
    "tokens": P(BATCH, "sequence"),  # [P, S, ..] of a trunk: the residual stream, what is computed of it, queries
    "keys": P(BATCH, P.UNCONSTRAINED, None),  # [P, K, S, D] of a trunk: every query sees all before it
    "branches": P(BRANCHES),  # [P * n, G / n, ..], each device its part of a group; pictures [P * I, N, ..] too
}


def axis_size(mesh: Mesh | AbstractMesh, names: str | tuple[str, ...]) -> int:
    """The devices along one or several axes of a mesh; 1 for an axis that it does not have."""
    return math.prod(mesh.shape.get(name, 1) for name in ((names,) if isinstance(names, str) else names))


def mesh_sizes(section: MeshSection, count: int) -> tuple[int, ...]:
    """The axes of a mesh of `count` devices; raises ConfigError when the sizes do not divide."""
    fixed = section.fsdp * section.sequence * section.tensor
    data = count // fixed if section.data == -1 else section.data
    if data < 1 or data * fixed != count:
        raise ConfigError(
            f"mesh data={section.data} fsdp={section.fsdp} sequence={section.sequence} tensor={section.tensor} is not "
            f"{count} devices; the product of the axes must equal the number of devices"
        )
    return data, section.fsdp, section.sequence, section.tensor


def make_mesh(section: MeshSection, devices: list[Any] | None = None) -> Mesh:
    """A mesh over all devices with the axes AXES; raises ConfigError when the sizes do not divide."""
    devices = jax.devices() if devices is None else devices
    return Mesh(np.asarray(devices).reshape(mesh_sizes(section, len(devices))), AXES)


def parameter_spec(path: str, shape: tuple[int, ...], mesh: Mesh | AbstractMesh) -> P:
    """PartitionSpec of one parameter; an axis that the mesh does not divide stays whole."""
    for pattern, rule in PARAMETER_RULES:
        if re.search(pattern, path):
            axes = (None,) * (len(shape) - len(rule)) + tuple(rule)
            return P(*(a if a and size % mesh.shape[a] == 0 else None for a, size in zip(axes, shape, strict=True)))
    raise ConfigError(f"no sharding rule matches the parameter {path}; add one to PARAMETER_RULES")


def work_spec(path: str, shape: tuple[int, ...], mesh: Mesh | AbstractMesh) -> P:
    """PartitionSpec of an optimiser's products on one parameter: split over `data` too, where parameters lie in copies.

    By whole layers where `data` divides their number (these need nothing of each other), else along the axis that lies
    over `fsdp`; as the parameter lies when neither divides.
    """
    split: list[Any] = list(parameter_spec(path, shape, mesh))
    for axis in sorted(range(len(shape)), key=lambda axis: split[axis] is not None):
        names = ("data",) if split[axis] is None else (split[axis], "data")
        if split[axis] != "tensor" and shape[axis] % math.prod(mesh.shape[name] for name in names) == 0:
            split[axis] = names
            break
    return P(*split)


def path_of(path: tuple) -> str:
    """The names of a tree path, joined by slashes."""
    return "/".join(str(getattr(part, "key", getattr(part, "name", getattr(part, "idx", "")))) for part in path)


def parameter_shardings(tree: PyTree, mesh: Mesh) -> PyTree:
    """NamedShardings for a tree of parameters; also right for optimiser moments, whose paths end in the same names.

    Leaves without axes (step counters) are replicated.
    """

    def one(path: tuple, leaf: PyTree) -> NamedSharding:
        if len(leaf.shape) == 0:
            return NamedSharding(mesh, P())
        return NamedSharding(mesh, parameter_spec(path_of(path), leaf.shape, mesh))

    return jax.tree_util.tree_map_with_path(one, tree)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Prompts, groups and scores are split over their first axis."""
    return NamedSharding(mesh, P(BATCH))


def replicated(mesh: Mesh) -> NamedSharding:
    """The same value on every device."""
    return NamedSharding(mesh, P())


def shard_batch(tree: PyTree, mesh: Mesh) -> PyTree:
    """Put this process's rows of a batch on its devices; the global batch is the rows of all processes in order."""
    sharding = batch_sharding(mesh)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), tree)


def batch_divisor(mesh: Mesh | AbstractMesh) -> int:
    """The number that the prompts of a step must be a multiple of."""
    return mesh.shape["data"] * mesh.shape["fsdp"]
