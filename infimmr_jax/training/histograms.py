"""Distributions over the responses of a step, for the report's pictures of how they change."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float, Int

from infimmr_jax.names import JsonObject
from infimmr_jax.parallel.hosts import RowShare, largest_over_hosts, sum_over_hosts

BINS = 20


def histograms(
    lengths: Int[np.ndarray, "P G"], totals: Float[np.ndarray, "P G"], limit: int, share: RowShare
) -> dict[str, JsonObject]:
    """Counts in equal bins over all hosts: lengths in tokens over [0, limit], rewards over whole numbers around them.

    Rewards that are not finite are left out.
    """
    finite = totals[np.isfinite(totals)]
    ends = np.asarray([math.ceil(finite.max(initial=1.0)), -math.floor(finite.min(initial=0.0))])
    high, below = largest_over_hosts(ends).tolist()
    ranges = {"length": (lengths, 0, limit), "reward": (finite, -below, high)}
    counts = np.stack([np.histogram(values, BINS, (low, top))[0] for values, low, top in ranges.values()])
    summed = sum_over_hosts(counts, share).tolist()
    return {
        f"histogram/{name}": {"low": low, "high": top, "counts": row}
        for (name, (_, low, top)), row in zip(ranges.items(), summed, strict=True)
    }
