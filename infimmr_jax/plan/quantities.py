"""Units in which the numbers of a plan can be read, for models of millions and of billions of parameters."""

from __future__ import annotations

BINARY = (("GiB", 2.0**30), ("MiB", 2.0**20), ("KiB", 2.0**10))
BYTES = (("GB", 1e9), ("MB", 1e6), ("kB", 1e3))
WORK = (("TFLOP", 1e12), ("GFLOP", 1e9), ("MFLOP", 1e6))
TIME = (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6))


def count_words(count: float) -> str:
    """Say a number of parameters in billions, or in millions where it is small."""
    return f"{count / 1e9:.2f} billion" if count >= 1e8 else f"{count / 1e6:.2f} million"


def seconds_words(seconds: float) -> str:
    """Say a time in seconds, or in milliseconds where it is short."""
    return f"{seconds:.1f} s" if seconds >= 0.1 else f"{1e3 * seconds:.2f} ms"


def choose_unit(largest: float, units: tuple[tuple[str, float], ...]) -> tuple[str, float]:
    """Choose the first of the units, from large to small, of which the largest number is at least one."""
    return next((unit for unit in units if largest >= unit[1]), units[-1])
