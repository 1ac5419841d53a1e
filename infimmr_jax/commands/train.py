"""What `infimmr train` does around the loop: the model in Hugging Face layout, the final table, the HTML report."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import jax
from rich.console import Console

from infimmr_jax.config import RunConfig
from infimmr_jax.training.loop import train
from infimmr_jax.training.progress import final_table


def run_and_report(
    config: RunConfig, resume: bool | Literal["auto"], write_report: Callable[[Sequence[Path], Path], Path]
) -> None:
    """Train, then print the table of all stages and where the report and the model lie.

    `write_report` makes the page of run directories at a path.
    """
    train(config, resume)
    if jax.process_index() != 0:
        return
    run_dir = config.output
    lines = (run_dir / "evals.jsonl").read_text(encoding="utf-8").splitlines()
    console = Console()
    if lines:
        console.print(final_table([json.loads(line) for line in lines]))
    page = write_report([run_dir], run_dir / "report.html")
    console.print(f"Report: {page}\nModel:  {run_dir / 'model'} (Hugging Face layout)", highlight=False)
