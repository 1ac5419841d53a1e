"""The first line of a run: where its output goes, on what it runs, how large its model is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import jax


def opening_line(run_dir: Path, parameters: int, devices: Iterable[jax.Device], processes: int = 1) -> str:
    """Say where the output goes, how many `parameters` the model has and which `devices` train it."""
    kinds = Counter(device.device_kind for device in devices)
    named = ", ".join(f"{count} x {kind}" for kind, count in kinds.items())
    several = f" of {processes} processes" if processes > 1 else ""
    return f"{run_dir}: {_count(parameters)} parameters on {named}{several}"


def _count(number: int) -> str:
    for size, word in ((1e9, "billion"), (1e6, "million")):
        if number >= size:
            return f"{number / size:.3g} {word}"
    return f"{number:,}"


__all__ = ["opening_line"]
