"""`infimmr bench PART`: measure one part and return one JSON object."""

from __future__ import annotations

import dataclasses
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

from infimmr_jax.bench.parts import PARTS, Ask
from infimmr_jax.bench.timing import Timer, bandwidth, machine, matmul_rate, peak_memory
from infimmr_jax.bench.work import Size, Work, load_work
from infimmr_jax.config import ConfigError, load_config

NAMES = (*PARTS, "curriculum")


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
) -> dict[str, Any]:
    """Measure `part` and return what `infimmr bench` prints; see `work.load_work` for what is measured.

    Raises ConfigError for an unknown part.
    """
    if part not in PARTS:
        raise ConfigError(f"there is no part {part!r} to measure; choose one of {', '.join(NAMES)}")
    work = load_work(size, model=model, config=config, overrides=overrides, shape=shape, dtype=dtype, remat=remat)
    timer = Timer(ask.repeats)
    found = PARTS[part](work, ask, timer)
    memory = peak_memory()
    limits = measure_ceilings(work) if ceilings else {}
    for measured in timer.parts.values():
        _add_shares(measured, limits)
    return {
        "bench": part,
        "size": dataclasses.asdict(size),
        "asked": dataclasses.asdict(ask),
        "model": str(model or config or shape),
        "dtype": work.options.compute_dtype.name,
        **found,
        "parts": timer.parts,
        "compile": {"count": timer.compiled, "seconds": round(timer.compile_seconds, 2)},
        "peak_memory": memory,
        "ceilings": limits,
        "machine": machine(),
    }


def measure_ceilings(work: Work) -> dict[str, float]:
    """This device's own limits: matrix products of the decoder's feed-forward shape with as many rows as the update
    has tokens and as decoding has rows, and reading memory."""
    text, dtype = work.config.text, work.options.compute_dtype
    tokens = work.size.prompts * work.size.prompt_tokens + work.size.rows * work.size.new_tokens
    shape = text.hidden_size, text.intermediate_size, dtype
    return {
        "matmul_gflop_per_second": round(matmul_rate(min(8192, tokens), *shape) / 1e9, 1),
        "matmul_gflop_per_second_decode_rows": round(matmul_rate(work.size.rows, *shape) / 1e9, 1),
        "read_gbyte_per_second": round(bandwidth() / 1e9, 1),
    }


def bench_curriculum(config: Path, overrides: list[str]) -> dict[str, Any]:
    """Run a configuration in a directory of its own, and report the medians of its steps by phase.

    Steps during which something was compiled are left out of the medians.
    """
    from infimmr_jax.training.loop import train

    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "run"
        settings = load_config(config, [*overrides, f"output={output}", "logging.tensorboard=false"])
        train(settings)
        lines = (output / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    compiled = [0, *(row["compile/count"] for row in rows)]
    steady = [row for row, before in zip(rows, compiled, strict=False) if row["compile/count"] == before]
    phases: dict[str, Any] = {}
    for row in steady:
        phases.setdefault(row["phase"], []).append(row)
    return {
        "bench": "curriculum",
        "config": str(config),
        "overrides": overrides,
        "phases": {name: _medians(found) for name, found in phases.items()},
        "compile": {"count": rows[-1]["compile/count"], "seconds": round(rows[-1]["compile/seconds"], 2)},
        "peak_memory": peak_memory(),
        "machine": machine(),
    }


def _medians(rows: list[dict[str, Any]]) -> dict[str, float]:
    wanted = [key for key in rows[0] if key.startswith("time/") or key in ("tokens_per_second", "rollout/efficiency")]
    medians = {key: round(statistics.median(row[key] for row in rows if key in row), 5) for key in wanted}
    return {"steps": len(rows), **medians}


def _add_shares(part: dict[str, Any], limits: dict[str, float]) -> None:
    """Shares of this machine's ceilings; on an accelerator the first is the model FLOPs utilisation (MFU)."""
    if "gflop_per_second" in part and limits:
        part["share_of_matmul_rate"] = round(part["gflop_per_second"] / limits["matmul_gflop_per_second"], 3)
    if "gbyte_per_second" in part and limits:
        part["share_of_bandwidth"] = round(part["gbyte_per_second"] / limits["read_gbyte_per_second"], 3)
        share = part["gflop_per_second"] / limits["matmul_gflop_per_second_decode_rows"]
        part["share_of_matmul_rate_decode_rows"] = round(share, 3)
