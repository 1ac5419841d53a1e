"""`infimmr doctor`: what this machine and installation can do, and what is wrong in words."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import psutil
from rich.console import Console
from rich.markup import escape

from infimmr_jax.commands.doctor_config import TroubleError, configured_checks
from infimmr_jax.commands.doctor_model import model_checks
from infimmr_jax.config import ConfigError, RunConfig
from infimmr_jax.data.records import DataError
from infimmr_jax.parallel.startup import cache_directory, find_job
from infimmr_jax.rewards.pool import GraderPool
from infimmr_jax.rewards.verdict import Question
from infimmr_jax.training.provenance import versions

# A check that would only say again what is wrong with another one.
NEEDS = {"arithmetic": "devices", **dict.fromkeys(["weights", "tokenizer", "pictures", "preset"], "model")}
FREE_BYTES = 2 * 1024**3


def examine(console: Console, config: RunConfig | None = None, model: Path | None = None) -> bool:
    """Run every check and print a line for each; returns whether all passed.

    With a configuration also those of what it names: model, sources, output and checkpoints; with a model directory
    those of its files. Nothing is written but a probe in the compile cache.
    """
    checks = machine_checks()
    if config is not None:
        checks |= configured_checks(config)
    if model is not None:
        checks |= model_checks(model)
    broken: set[str] = set()
    for name, check in checks.items():
        if NEEDS.get(name) in broken:
            continue
        try:
            mark, said = "[green]ok[/]     ", check()
        except Exception as trouble:  # a broken driver raises whatever it likes, and the other checks still tell much
            mark = "[red]trouble[/]"
            broken.add(name)
            known = isinstance(trouble, TroubleError | ConfigError | DataError)
            said = str(trouble) if known else f"{type(trouble).__name__}: {trouble}"
        console.print(f"{mark} {name}: {escape(said)}", highlight=False, emoji=False, soft_wrap=True)
    return not broken


def machine_checks() -> dict[str, Callable[[], str]]:
    """Give the checks of this machine and installation; each returns what it says, or raises."""
    return {
        "versions": _versions,
        "job": _job,
        "devices": _devices,
        "arithmetic": _arithmetic,
        "memory": _memory,
        "disk": _disk,
        "compile cache": _cache,
        "graders": _graders,
    }


def _versions() -> str:
    found = versions()
    missing = [name for name, version in found.items() if version == "not installed"]
    if missing:
        raise TroubleError(f"{', '.join(missing)} not installed: run `pip install -e .` in the project")
    return f"Python {sys.version.split()[0]}, " + ", ".join(f"{name} {version}" for name, version in found.items())


def _job() -> str:
    """How `infimmr train` would start here; nobody is joined."""
    try:
        return find_job().words
    except ConfigError as error:
        raise TroubleError(str(error)) from None


def _devices() -> str:
    try:
        devices = jax.devices()
    except Exception as error:
        asked = f"JAX_PLATFORMS={platforms}" if (platforms := os.environ.get("JAX_PLATFORMS")) else "no JAX_PLATFORMS"
        raise TroubleError(
            f"JAX can not start its devices ({asked}; {type(error).__name__}: {error}): install the extra for them "
            "(cuda or tpu), look at the driver (nvidia-smi), or set JAX_PLATFORMS=cpu"
        ) from error
    return f"{len(devices)} x {devices[0].device_kind} ({devices[0].platform}), {os.cpu_count()} CPU cores"


def _arithmetic() -> str:
    size = 1024 if jax.default_backend() == "cpu" else 8192
    dtype = jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16
    x = jnp.ones((size, size), dtype)
    product = jax.jit(lambda x: x @ x)
    value = float(product(x)[0, 0])
    if abs(value - size) > 0.01 * size:
        raise TroubleError(
            f"a product of ones gave {value} instead of {size}: the device or its driver computes wrongly"
        )
    began = time.perf_counter()
    for _ in range(5):
        out = product(x)
    out.block_until_ready()
    rate = 5 * 2 * size**3 / (time.perf_counter() - began)
    return f"{rate / 1e9:,.0f} GFLOP/s in {size} x {size} products of {x.dtype}"


def _memory() -> str:
    free = psutil.virtual_memory().available
    if free < FREE_BYTES:
        raise TroubleError(f"only {free / 1e9:.1f} GB of memory are free: close other programs")
    return f"{free / 1e9:.1f} GB free"


def _disk() -> str:
    free = shutil.disk_usage(Path.cwd()).free
    if free < FREE_BYTES:
        raise TroubleError(f"only {free / 1e9:.1f} GB are free in {Path.cwd()}: checkpoints need room")
    return f"{free / 1e9:.0f} GB free here"


def _cache() -> str:
    directory = cache_directory()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / ".writable").touch()
    except OSError as error:
        raise TroubleError(
            f"{directory} can not be written ({error.strerror}): set INFIMMR_CACHE to another place"
        ) from None
    size = sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
    return f"{directory}, {size / 1e6:.0f} MB"


def _graders() -> str:
    began = time.perf_counter()
    with GraderPool(workers=1, deadline_seconds=20.0) as pool:
        right, wrong = pool.verify([Question("math", "\\sqrt{8}", "2\\sqrt{2}"), Question("math", "\\sqrt{8}", "3")])
    if right.score != 1 or wrong.score != 0:
        raise TroubleError(f"a grader process judged 2√2 = √8 as {right} and 3 = √8 as {wrong}")
    return f"a process started and judged two answers in {time.perf_counter() - began:.1f} s"
