"""How things are measured: medians of wall and processor seconds, compilations, memory, and this machine's ceilings."""

from __future__ import annotations

import dataclasses
import os
import resource
import statistics
import time
from collections.abc import Callable
from importlib import metadata
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from infimmr_jax.model.config import ModelConfig
from infimmr_jax.names import JsonObject

PACKAGES = ("jax", "jaxlib", "flax", "optax", "transformers", "numpy")


@dataclasses.dataclass
class Timer:
    """Compiles and times programs; remembers how many it compiled and how long that took."""

    repeats: int
    compiled: int = 0
    compile_seconds: float = 0.0
    parts: dict[str, JsonObject] = dataclasses.field(default_factory=dict)

    def compile(self, function: Callable, *args: PyTree, donate: tuple[int, ...] = ()) -> PyTree:
        """`function` compiled for these arguments."""
        began = time.perf_counter()
        program = jax.jit(function, donate_argnums=donate).lower(*args).compile()
        self.compile_seconds += time.perf_counter() - began
        self.compiled += 1
        return program

    def time(
        self, name: str, call: Callable[[], PyTree], program: Any = None, flops: float = 0.0, moved: float = 0.0
    ) -> PyTree:
        """Call once to warm up and `repeats` times more, timing each; returns the last result."""
        result = jax.block_until_ready(call())
        wall, processor = [], []
        for _ in range(self.repeats):
            began = time.perf_counter(), time.process_time()
            result = jax.block_until_ready(call())
            wall.append(time.perf_counter() - began[0])
            processor.append(time.process_time() - began[1])
        self.record(name, wall, processor, program, flops, moved)
        return result

    def record(
        self,
        name: str,
        wall: list[float],
        processor: list[float],
        program: Any = None,
        flops: float = 0.0,
        moved: float = 0.0,
    ) -> None:
        """Note the seconds of a part; `flops` are those it needs, `moved` the bytes it must read (0: not counted)."""
        part: JsonObject = {"wall_seconds": _spread(wall), "cpu_seconds": _spread(processor)}
        if flops:
            part["gflop"] = round(flops / 1e9, 3)
            part["gflop_per_second"] = round(flops / 1e9 / self.seconds(part), 2)
        if moved:
            part["gbyte"] = round(moved / 1e9, 3)
            part["gbyte_per_second"] = round(moved / 1e9 / self.seconds(part), 2)
        if program is not None:
            part["memory_mb"] = program_memory(program)
        self.parts[name] = part

    @staticmethod
    def seconds(part: JsonObject) -> float:
        """What rates are divided by: processor seconds on a single core of a CPU, wall seconds elsewhere."""
        one_core = jax.default_backend() == "cpu" and len(os.sched_getaffinity(0)) == 1
        return max(1e-5, part["cpu_seconds" if one_core else "wall_seconds"]["median"])


def program_memory(program: Any) -> dict[str, float]:
    """What the compiler says a program needs, in MB: arguments, results, and temporaries at their peak."""
    found = program.memory_analysis()
    names = {
        "arguments": "argument_size_in_bytes",
        "results": "output_size_in_bytes",
        "temporaries": "temp_size_in_bytes",
    }
    return {name: round(getattr(found, key) / 2**20, 1) for name, key in names.items()}


def peak_memory() -> dict[str, float]:
    """Peak memory so far in MB: of this process, and of the first device where it keeps count."""
    found = {"process_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)}
    stats = jax.devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in stats:
        found["device_mb"] = round(stats["peak_bytes_in_use"] / 2**20, 1)
    return found


def matmul_rate(rows: int, inner: int, outer: int, dtype: Any, repeats: int = 5) -> float:
    """FLOP/s of bare matrix products [rows, inner] x [inner, outer] and back, of one device."""
    numbers = np.random.default_rng(0)
    up = jnp.asarray(numbers.normal(size=(inner, outer)), dtype)
    down = jnp.asarray(numbers.normal(size=(outer, inner)), dtype)
    count = max(1, int(2e9 / (4 * rows * inner * outer)) if jax.default_backend() == "cpu" else 64)

    @jax.jit
    def products(x: PyTree) -> PyTree:
        return jax.lax.fori_loop(0, count, lambda _, x: ((x @ up) @ down) * jnp.asarray(1e-3, dtype), x)

    timer = Timer(repeats)
    x = jnp.asarray(numbers.normal(size=(rows, inner)), dtype)
    timer.time("products", lambda: products(x))
    return 4.0 * count * rows * inner * outer / timer.seconds(timer.parts["products"])


def bandwidth(repeats: int = 5) -> float:
    """Bytes/s of reading a large array once, of one device."""
    size = 2**26 if jax.default_backend() == "cpu" else 2**30
    x = jnp.ones(size, jnp.float32)
    total = jax.jit(lambda x: jnp.sum(x.reshape(-1, 1024), axis=0))
    timer = Timer(repeats)
    timer.time("read", lambda: total(x))
    return 4.0 * size / timer.seconds(timer.parts["read"])


def ceilings_of(config: ModelConfig, dtype: Any, tokens: int, rows: int) -> dict[str, float]:
    """One device's own limits: matrix products of the decoder's feed-forward shape with as many rows as an update has
    tokens and as decoding has rows, and reading memory."""
    shape = config.text.hidden_size, config.text.intermediate_size, dtype
    return {
        "matmul_gflop_per_second": round(matmul_rate(min(8192, tokens), *shape) / 1e9, 1),
        "matmul_gflop_per_second_decode_rows": round(matmul_rate(rows, *shape) / 1e9, 1),
        "read_gbyte_per_second": round(bandwidth() / 1e9, 1),
    }


def machine() -> JsonObject:
    """Where this was measured."""
    device = jax.devices()[0]
    return {
        "device": device.device_kind,
        "platform": device.platform,
        "devices": jax.device_count(),
        "cores": len(os.sched_getaffinity(0)),
        "load_average": [round(value, 2) for value in os.getloadavg()],
        "versions": {name: metadata.version(name) for name in PACKAGES},
    }


def _spread(seconds: list[float]) -> JsonObject:
    return {
        "median": round(statistics.median(seconds), 5),
        "min": round(min(seconds), 5),
        "max": round(max(seconds), 5),
        "repeats": len(seconds),
        "each": [round(value, 5) for value in seconds],
    }
