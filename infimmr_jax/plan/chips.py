"""What one chip can do, from its maker's tables, and what a name such as `v5e:4x4` or `gpu:h100x8` means."""

from __future__ import annotations

import dataclasses
import math
import re
from typing import Literal

from infimmr_jax.config import ConfigError

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """One accelerator: bfloat16 FLOP/s, bytes of memory and bytes/s to it, and bytes/s over its links to the others.

    `links` is the sum over the links of a chip, in one direction. `usable` is the memory that XLA hands out.
    """

    name: str
    kind: Literal["tpu", "gpu"]
    flops: float
    memory: float
    bandwidth: float
    links: float
    usable: float
    source: str


_TPU = "https://docs.cloud.google.com/tpu/docs/"
# The makers quote link bandwidth as the sum of both directions: here is half of that.
CHIPS: dict[str, Chip] = {
    "v4": Chip("v4", "tpu", 275e12, 32 * GIB, 1228e9, 300e9, 30.75 * GIB, _TPU + "v4"),
    "v5e": Chip("v5e", "tpu", 197e12, 16 * GIB, 819e9, 200e9, 15.75 * GIB, _TPU + "v6e (table v5e against v6e)"),
    "v5p": Chip("v5p", "tpu", 459e12, 95 * GIB, 2765e9, 600e9, 94.75 * GIB, _TPU + "v5p"),
    "v6e": Chip("v6e", "tpu", 918e12, 32 * GIB, 1640e9, 400e9, 31.25 * GIB, _TPU + "v6e"),
    "a100": Chip("a100", "gpu", 312e12, 80e9, 2039e9, 300e9, 74e9, "NVIDIA A100 80GB SXM data sheet"),
    "h100": Chip("h100", "gpu", 989e12, 80e9, 3350e9, 450e9, 74e9, "NVIDIA H100 SXM data sheet (dense)"),
    "h200": Chip("h200", "gpu", 989e12, 141e9, 4800e9, 450e9, 133e9, "NVIDIA H200 SXM data sheet (dense)"),
    "b200": Chip("b200", "gpu", 2250e12, 180e9, 7700e9, 900e9, 170e9, "NVIDIA HGX B200 data sheet (dense)"),
}


@dataclasses.dataclass(frozen=True)
class Topology:
    """Some chips of one kind; `shape` is the torus of TPU chips, (chips,) for GPUs."""

    chip: Chip
    shape: tuple[int, ...]

    @property
    def chips(self) -> int:
        return math.prod(self.shape)

    @property
    def name(self) -> str:
        """The name that `parse_topology` reads."""
        if self.chip.kind == "gpu":
            return f"gpu:{self.chip.name}x{self.chips}"
        return f"{self.chip.name}:{'x'.join(map(str, self.shape))}"


def parse_topology(name: str) -> Topology:
    """Read `v5e:4x4`, `v5p:2x2x2`, `v6e:2x4` (TPU slices) or `gpu:h100x8`; raises ConfigError for any other name."""
    gpu = re.fullmatch(r"gpu:([a-z]+\d+)x(\d+)", name)
    tpu = re.fullmatch(r"(v\d\w*):(\d+(?:x\d+){1,2})", name)
    chip = CHIPS.get((gpu or tpu)[1]) if gpu or tpu else None  # type: ignore[index]
    if chip is None or chip.kind != ("gpu" if gpu else "tpu"):
        known = ", ".join(CHIPS)
        raise ConfigError(
            f"topology {name!r} is not known: give a TPU slice such as v5e:4x4, v5p:2x2x2 or v6e:2x4, or GPUs such as "
            f"gpu:h100x8; chips: {known}"
        )
    shape = (int(gpu[2]),) if gpu else tuple(int(side) for side in tpu[2].split("x"))  # type: ignore[index]
    three = chip.name in ("v4", "v5p")
    if chip.kind == "tpu" and len(shape) != (3 if three else 2):
        raise ConfigError(f"topology {name!r}: slices of {chip.name} have {3 if three else 2} sides")
    if min(shape) < 1:
        raise ConfigError(f"topology {name!r} has no chips")
    return Topology(chip, shape)
