"""The benchmarks by name."""

from __future__ import annotations

from infimmr_jax.config import ConfigError
from infimmr_jax.evaluation import geometry3k, math500, mathverse, mathvision, mathvista, olympiadbench, wemath
from infimmr_jax.evaluation.items import Benchmark

BENCHMARKS: dict[str, Benchmark] = {
    module.BENCHMARK.name: module.BENCHMARK
    for module in (mathverse, mathvision, olympiadbench, mathvista, math500, geometry3k, wemath)
}


def benchmark_named(name: str) -> Benchmark:
    """The benchmark of a name; ConfigError with the known names."""
    if name not in BENCHMARKS:
        raise ConfigError(f"--benchmark: there is no benchmark {name!r}; known: {', '.join(BENCHMARKS)}")
    return BENCHMARKS[name]
