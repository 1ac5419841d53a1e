"""Costs of a program on one chip and what bounds them: compute, memory or links."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from infimmr_jax.plan.chips import Chip


@dataclasses.dataclass(frozen=True)
class Part:
    """A part of a program on one chip: floating-point operations, bytes from and to memory, bytes sent over links."""

    name: str
    flops: float
    bytes: float
    sent: float

    def seconds(self, chip: Chip) -> dict[str, float]:
        """Time that each resource needs at its peak."""
        return {
            "compute": self.flops / chip.flops,
            "memory": self.bytes / chip.bandwidth,
            "links": self.sent / chip.links,
        }

    def bound(self, chip: Chip) -> str:
        """The resource that takes longest."""
        times = self.seconds(chip)
        return max(times, key=lambda name: times[name])

    def least(self, chip: Chip) -> float:
        """Seconds that this part takes at least: all resources busy at once, at their peak."""
        return max(self.seconds(chip).values())


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes on one chip while a program runs; `activations` is all that is neither state, gradient nor cache."""

    parameters: float
    optimizer: float
    reference: float
    gradients: float
    caches: float
    activations: float

    @property
    def total(self) -> float:
        return sum(dataclasses.astuple(self))


@dataclasses.dataclass(frozen=True)
class ProgramCost:
    """One program: its parts, its memory, its collectives by kind (times, bytes sent).

    `compile_seconds` and `kernels`, the Pallas kernels in it, are of a compiled one.
    """

    name: str
    parts: tuple[Part, ...]
    memory: Memory
    peak: float
    collectives: dict[str, tuple[float, float]]
    compile_seconds: float | None = None
    kernels: int | None = None

    def least(self, chip: Chip) -> float:
        """Seconds at least."""
        return sum(part.least(chip) for part in self.parts)

    @property
    def flops(self) -> float:
        return sum(part.flops for part in self.parts)

    @property
    def sent(self) -> float:
        return sum(part.sent for part in self.parts)


def merged(parts: Iterable[Part]) -> tuple[Part, ...]:
    """Parts of equal names added up, in the order of their first appearance."""
    sums: dict[str, Part] = {}
    for part in parts:
        old = sums.get(part.name, Part(part.name, 0.0, 0.0, 0.0))
        sums[part.name] = Part(part.name, old.flops + part.flops, old.bytes + part.bytes, old.sent + part.sent)
    return tuple(sums.values())
