"""Between the devices and this host: which rows of a batch live here, and what all hosts must agree on."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from jaxtyping import PyTree

from infimmr_jax.config import ConfigError
from infimmr_jax.names import JsonObject
from infimmr_jax.parallel.mesh import batch_divisor, batch_sharding


@dataclasses.dataclass(frozen=True)
class RowShare:
    """This process's part of every batch: part `index` of `count` equal, consecutive parts.

    Processes hold the same part when one row's devices lie in several processes (a tensor axis longer than a host);
    `leader` is the lowest process of this part.
    """

    index: int = 0
    count: int = 1
    leader: int = 0

    def rows(self, total: int) -> range:
        """This process's rows of a batch of `total`, which `count` must divide."""
        if total % self.count:
            raise ValueError(f"{total} rows can not be divided over {self.count} processes")
        part = total // self.count
        return range(self.index * part, (self.index + 1) * part)

    @property
    def leads(self) -> bool:
        """Whether this process speaks for its rows, where several processes hold them."""
        return jax.process_index() == self.leader


def row_share(mesh: Mesh, process: int | None = None) -> RowShare:
    """The part of a batch that `process` (default: this one) holds on a mesh.

    Raises ConfigError when processes hold parts that overlap without being equal.
    """
    process = jax.process_index() if process is None else process
    parts: dict[int, set[int]] = {}
    held: dict[Any, Any] = dict(batch_sharding(mesh).devices_indices_map((batch_divisor(mesh),)))
    for device, (rows, *_) in held.items():
        parts.setdefault(device.process_index, set()).add(rows.start or 0)
    different = sorted({tuple(sorted(part)) for part in parts.values()})
    if [row for part in different for row in part] != list(range(batch_divisor(mesh))) or (
        len({len(part) for part in different}) != 1
    ):
        raise ConfigError(
            f"the mesh {dict(mesh.shape)} cuts a batch into parts that {len(parts)} processes hold unevenly: "
            "choose axes so that the devices of a process divide tensor (or tensor divides them)"
        )
    mine = tuple(sorted(parts[process]))
    holders = [other for other, part in parts.items() if tuple(sorted(part)) == mine]
    return RowShare(different.index(mine), len(different), min(holders))


def host_rows(tree: PyTree) -> PyTree:
    """This process's rows of arrays that are split over their first axis, as NumPy arrays in row order.

    Numbers without axes are the same everywhere.
    """

    def one(x: jax.Array | np.ndarray) -> np.ndarray:
        if isinstance(x, np.ndarray) or jax.process_count() == 1 or x.ndim == 0:
            return np.asarray(x)
        # Devices along the tensor axis hold copies of the same rows.
        pieces = {shard.index[0].start or 0: np.asarray(shard.data) for shard in x.addressable_shards}
        return np.concatenate([pieces[start] for start in sorted(pieces)])

    return jax.tree.map(one, tree)


def sum_over_hosts(values: np.ndarray, share: RowShare | None = None) -> np.ndarray:
    """The elementwise sum of `values` over all processes; every process gets it.

    With `share`, rows that several processes hold count once.
    """
    if jax.process_count() == 1:
        return values
    mine = values if share is None or share.leads else np.zeros_like(values)
    return np.asarray(multihost_utils.process_allgather(mine)).sum(axis=0)


def largest_over_hosts(values: np.ndarray) -> np.ndarray:
    """The elementwise maximum of `values` over all processes; every process gets it."""
    if jax.process_count() == 1:
        return values
    return np.asarray(multihost_utils.process_allgather(values)).max(axis=0)


def leaders_rows(tree: PyTree, share: RowShare) -> PyTree:
    """A tree of host arrays as the leader of this part has it.

    Processes that hold the same rows must put the same values on their devices, also when a grader of one of them ran
    out of time.
    """
    if share.count == jax.process_count():
        return tree
    return jax.tree.map(lambda values: np.asarray(values)[share.leader], multihost_utils.process_allgather(tree))


def gather_rows(rows: list[JsonObject]) -> list[JsonObject]:
    """JSON rows of all processes in the order of processes, on process 0; nothing on the others."""
    if jax.process_count() == 1:
        return rows
    text = np.frombuffer(json.dumps(rows).encode(), np.uint8)
    longest = int(largest_over_hosts(np.asarray([text.size]))[0])
    padded = np.full(longest, ord(" "), np.uint8)
    padded[: text.size] = text
    everyone = np.asarray(multihost_utils.process_allgather(padded))
    if jax.process_index() != 0:
        return []
    return [row for part in everyone for row in json.loads(part.tobytes())]


def wait_for_hosts(name: str) -> None:
    """Return when every process has come here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)
