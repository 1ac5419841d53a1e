"""The command `infimmr plan`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from rich.console import Console

from infimmr_jax.config import RunConfig
from infimmr_jax.plan.chips import parse_topology


def plan(
    config: RunConfig,
    topology: str,
    effort: Literal["none", "quick", "thorough"],
    search: bool,
    out: Path | None,
    console: Console,
) -> bool:
    """Plan a run, print the tables, write JSON when asked; returns whether it fits.

    `effort` is the compiler's: none (arithmetic), quick (its least), thorough (as for a run). GPUs are always planned
    by arithmetic. Raises ConfigError for names and sizes that can not be.
    """
    described = parse_topology(topology)
    compiled = effort != "none" and described.chip.kind == "tpu"
    from infimmr_jax.plan.environment import prepare_compiler, prepare_process

    prepare_process()
    if compiled:
        prepare_compiler(quick=effort == "quick")
    from infimmr_jax.plan.planner import make_plan
    from infimmr_jax.plan.report import as_tree, show

    found = make_plan(config, described, compiled, search)
    show(found, console)
    if out is not None:
        out.write_text(json.dumps(as_tree(found), indent=1) + "\n", encoding="utf-8")
    return found.fits
