"""Between the devices and this host: the rows of a batch that live here, and sums over all hosts."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils


def host_rows(tree: Any) -> Any:
    """This process's rows of arrays that are split over their first axis, as NumPy arrays in row order."""

    def one(x: jax.Array) -> np.ndarray:
        if jax.process_count() == 1:
            return np.asarray(x)
        # Devices along the tensor axis hold copies of the same rows.
        pieces = {shard.index[0].start or 0: np.asarray(shard.data) for shard in x.addressable_shards}
        return np.concatenate([pieces[start] for start in sorted(pieces)])

    return jax.tree.map(one, tree)


def sum_over_hosts(values: np.ndarray) -> np.ndarray:
    """The elementwise sum of `values` over all processes; every process gets it."""
    if jax.process_count() == 1:
        return values
    return np.asarray(multihost_utils.process_allgather(values)).sum(axis=0)
