"""`infimmr bench PART`: measure one part and return one JSON object."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from infimmr_jax.bench.curriculum_step import bench_curriculum
from infimmr_jax.bench.part_options import refuse_unread
from infimmr_jax.bench.parts import PARTS, Ask, check
from infimmr_jax.bench.timing import Timer, ceilings_of, machine, peak_memory
from infimmr_jax.bench.work import Size, load_work
from infimmr_jax.names import JsonObject


def bench(
    part: str,
    size: Size,
    ask: Ask,
    *,
    model: Path | None = None,
    config: Path | None = None,
    overrides: list[str] | None = None,
    shape: str = "small",
    dtype: str | None = None,
    remat: str = "none",
    ceilings: bool = True,
) -> JsonObject:
    """Measure `part` and return what `infimmr bench` prints; see `work.load_work` for what is measured.

    Raises ConfigError for an unknown part, and for what can not be measured in this size.
    """
    refuse_unread(part, ("prompts", "repeats"))
    check(size, ask)
    work = load_work(size, model=model, config=config, overrides=overrides, shape=shape, dtype=dtype, remat=remat)
    timer = Timer(ask.repeats)
    found = PARTS[part](work, ask, timer)
    memory = peak_memory()
    limits: dict[str, float] = {}
    if ceilings:
        tokens = size.prompts * size.prompt_tokens + size.rows * size.new_tokens
        limits = ceilings_of(work.model.config, work.model.options.compute_dtype, tokens, size.rows)
    for measured in timer.parts.values():
        _add_shares(measured, limits)
    return {
        "bench": part,
        "size": dataclasses.asdict(size),
        "asked": dataclasses.asdict(ask),
        "model": str(model or config or shape),
        "dtype": work.model.options.compute_dtype.name,
        **found,
        "parts": timer.parts,
        "compile": {"count": timer.compiled, "seconds": round(timer.compile_seconds, 2)},
        "peak_memory": memory,
        "ceilings": limits,
        "machine": machine(),
    }


def _add_shares(part: JsonObject, limits: dict[str, float]) -> None:
    """Shares of this machine's ceilings; on an accelerator the first is the model FLOPs utilisation (MFU)."""
    if "gflop_per_second" in part and limits:
        part["share_of_matmul_rate"] = round(part["gflop_per_second"] / limits["matmul_gflop_per_second"], 3)
    if "gbyte_per_second" in part and limits:
        part["share_of_bandwidth"] = round(part["gbyte_per_second"] / limits["read_gbyte_per_second"], 3)
        share = part["gflop_per_second"] / limits["matmul_gflop_per_second_decode_rows"]
        part["share_of_matmul_rate_decode_rows"] = round(share, 3)


__all__ = ["Ask", "Size", "bench", "bench_curriculum", "refuse_unread"]
