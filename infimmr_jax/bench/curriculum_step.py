"""`infimmr bench curriculum`: a whole run of a configuration, its totals, and the medians of its steps by phase."""

from __future__ import annotations

import contextlib
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp

from infimmr_jax.bench.counts import token_flops
from infimmr_jax.bench.timing import ceilings_of, machine, peak_memory
from infimmr_jax.config import RunConfig, load_config
from infimmr_jax.model.config import ModelConfig
from infimmr_jax.model.family import read_model
from infimmr_jax.names import JsonObject

# A run that is measured belongs to nobody: it must not touch the checkpoints or curves of one that is not.
OWN = ("logging.tensorboard=false", "logging.wandb_project=null", "checkpoint.directory=null")


def bench_curriculum(config: Path, overrides: list[str]) -> JsonObject:
    """Run a configuration in a directory of its own; what the run says goes to stderr."""
    from infimmr_jax.training.loop import train
    from infimmr_jax.training.programs import Compilations

    compilations = Compilations()
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "run"
        settings = load_config(config, [*overrides, f"output={output}", *OWN])
        began = time.perf_counter()
        with contextlib.redirect_stdout(sys.stderr):
            evaluations = train(settings)
        total = time.perf_counter() - began
        rows = [json.loads(line) for line in (output / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        model = read_model(output / "model").config
    # Before the ceilings, which compile and allocate as well.
    compiled = {"count": compilations.count, "seconds": round(compilations.seconds, 2)}
    memory = peak_memory()
    limits = _ceilings(settings, model)
    return {
        "bench": "curriculum",
        "config": str(config),
        "overrides": overrides,
        "totals": totals(rows, evaluations, total),
        "phases": phases(rows, settings, model, limits["matmul_gflop_per_second"] * jax.device_count()),
        "compile": compiled,
        "peak_memory": memory,
        "ceilings": limits,
        "machine": machine(),
    }


def totals(rows: list[JsonObject], evaluations: list[JsonObject], total: float) -> dict[str, float]:
    """Seconds of the whole run and of its kinds of work, each with what was compiled during it.

    `rest` is everything between them: reading data, starting, compiling ahead, checkpoints, export.
    """
    spent = {"cold_start": "sft", "grpo": "grpo"}
    seconds = {name: sum(row["time/step"] for row in rows if row["kind"] == kind) for name, kind in spent.items()}
    inside = sum(row.get("time/heldout", 0.0) + row.get("time/promotion", 0.0) for row in rows)
    seconds["evaluation"] = inside + sum(row["time/evaluation"] for row in evaluations)
    rest = total - sum(seconds.values())
    return {f"{name}_seconds": round(value, 2) for name, value in {"total": total, **seconds, "rest": rest}.items()}


def phases(rows: list[JsonObject], settings: RunConfig, model: ModelConfig, limit: float) -> JsonObject:
    """Medians of the steps of every phase and cold-start stage; `limit` is the GFLOP/s that all devices could reach.

    Steps during which something was compiled are left out, unless there are no others: `compiling` says so. Counted
    are the matrix products of the responses' tokens (forward when sampled; forward and backward in every pass of an
    update); prompts and attention come on top, so the share is a lower bound.
    """
    before = [0, *(row["compile/count"] for row in rows)]
    found: dict[str, JsonObject] = {}
    for row, count in zip(rows, before, strict=False):
        entry = found.setdefault(row["phase"], {"steady": [], "all": []})
        entry["all"].append(row)
        if row["compile/count"] == count:
            entry["steady"].append(row)
    return {name: _medians(entry["steady"], entry["all"], settings, model, limit) for name, entry in found.items()}


def _medians(
    steady: list[JsonObject], every: list[JsonObject], settings: RunConfig, model: ModelConfig, limit: float
) -> JsonObject:
    rows = steady or every
    wanted = [key for key in rows[0] if key.startswith("time/") or key in ("tokens_per_second", "rollout/efficiency")]
    medians = {key: round(statistics.median(row[key] for row in rows if key in row), 5) for key in wanted}
    gflop = statistics.median(_response_flops(row, settings, model) for row in rows) / 1e9
    rate = gflop / max(1e-5, medians["time/step"])
    return {
        "steps": len(every),
        "measured_steps": len(rows),
        "compiling": not steady,
        **medians,
        "response_gflop": round(gflop, 3),
        "response_gflop_per_second": round(rate, 2),
        "share_of_matmul_rate_at_least": round(rate / limit, 4),
    }


def _response_flops(row: JsonObject, settings: RunConfig, model: ModelConfig) -> float:
    if row["kind"] == "sft":
        return 3 * token_flops(model, row["tokens_per_second"] * row["time/step"])
    passes = settings.grpo_phases[row["phase_index"]].grpo.updates_per_batch
    return (1 + 3 * passes) * token_flops(model, row["rollout/tokens"])


def _ceilings(settings: RunConfig, model: ModelConfig) -> dict[str, float]:
    largest = max(
        settings.grpo_phases, key=lambda phase: phase.prompts_per_step * phase.group_size * phase.max_response
    )
    rows = max(1, largest.prompts_per_step * largest.group_size // jax.device_count())
    given = settings.model.compute_dtype or ("float32" if jax.default_backend() == "cpu" else "bfloat16")
    return ceilings_of(model, jnp.dtype(given), rows * largest.max_response, rows)
