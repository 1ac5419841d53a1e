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

from infimmr_jax.config import ConfigError
from infimmr_jax.parallel.startup import cache_directory, find_job
from infimmr_jax.rewards.pool import GraderPool
from infimmr_jax.rewards.verdict import Question
from infimmr_jax.training.provenance import environment

FREE_BYTES = 2 * 1024**3


class TroubleError(Exception):
    """A check that failed; the message says what is wrong and what to do."""


def examine(console: Console) -> bool:
    """Run every check and print a line for each; returns whether all passed."""
    checks: dict[str, Callable[[], str]] = {
        "versions": _versions,
        "job": _job,
        "devices": _devices,
        "arithmetic": _arithmetic,
        "memory": _memory,
        "disk": _disk,
        "compile cache": _cache,
        "graders": _graders,
    }
    healthy = True
    for name, check in checks.items():
        try:
            console.print(f"[green]ok[/]      {name}: {check()}", highlight=False)
        except TroubleError as trouble:
            healthy = False
            console.print(f"[red]trouble[/] {name}: {trouble}", highlight=False)
    return healthy


def _versions() -> str:
    found = environment()["packages"]
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
    devices = jax.devices()
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
