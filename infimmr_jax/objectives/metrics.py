"""Metrics of a loss that add up over micro-batches and devices: sums with their counts, and maxima."""

from __future__ import annotations

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array


@flax.struct.dataclass
class Metrics:
    """`sums[name] / counts[name]` is a mean over everything added so far; `maxima[name]` a maximum."""

    sums: dict[str, Array]
    counts: dict[str, Array]
    maxima: dict[str, Array]


def add_metrics(a: Metrics, b: Metrics) -> Metrics:
    """Metrics of two micro-batches together; both must have the same names."""
    return Metrics(
        sums=jax.tree.map(jnp.add, a.sums, b.sums),
        counts=jax.tree.map(jnp.add, a.counts, b.counts),
        maxima=jax.tree.map(jnp.maximum, a.maxima, b.maxima),
    )


def finish_metrics(metrics: Metrics) -> dict[str, Array]:
    """Means and maxima by name; a mean over nothing is 0."""
    means = {name: total / jnp.maximum(metrics.counts[name], 1) for name, total in metrics.sums.items()}
    return means | metrics.maxima


__all__ = ["Metrics", "add_metrics", "finish_metrics"]
