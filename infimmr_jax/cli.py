"""The front door: `infimmr COMMAND`. Errors that a person can mend are one sentence on stderr and exit code 2."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from infimmr_jax import __version__
from infimmr_jax.config import ConfigError, load_config
from infimmr_jax.data.records import DataError

# Commands import what they need when they run: `--help` must not wait for JAX.
app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
app.info.help = "Infi-MMR in JAX: curriculum reinforcement learning for reasoning in small vision-language models."

ConfigOption = Annotated[Path, typer.Option("--config", "-c", help="YAML file of the run.")]
SetOption = Annotated[list[str], typer.Option("--set", "-s", help="Override one value: a.b.0.c=value. Repeatable.")]
RunDirs = Annotated[list[Path], typer.Argument(help="Run directories; several are compared.")]


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    if version:
        print(__version__)
        raise typer.Exit


@app.command()
def train(
    config: ConfigOption = Path("configs/nano.yaml"),
    overrides: SetOption = [],  # noqa: B006  (typer copies it)
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest checkpoint of the run.")] = False,
) -> None:
    """Run a curriculum: cold start (if configured), then GRPO phase after phase; ends with a table and a report."""
    settings = load_config(config, overrides)
    from infimmr_jax.parallel.startup import join_processes, use_compilation_cache

    use_compilation_cache()
    join_processes()
    from infimmr_jax.training.run import run_and_report

    run_and_report(settings, resume)


@app.command()
def report(
    runs: RunDirs,
    out: Annotated[Path | None, typer.Option(help="Where to write; default report.html in the first run.")] = None,
) -> None:
    """Write one self-contained HTML page with curves, tables and transcripts of one or several runs."""
    from infimmr_jax.report.html import write_report

    print(write_report(runs, out or runs[0] / "report.html"))


@app.command()
def grade(
    file: Annotated[Path, typer.Argument(help="JSONL of {question, answer, answer_type, choices?, response}.")],
    out: Annotated[Path, typer.Option(help="JSONL to write: every row with its scores.")],
    config: Annotated[Path | None, typer.Option("--config", "-c", help="Take reward and format from this run.")] = None,
    overrides: SetOption = [],  # noqa: B006
) -> None:
    """Score stored responses by the rules of training; writes what was extracted and which rule decided."""
    from infimmr_jax.config import parse_config
    from infimmr_jax.rewards.grade_file import grade_file

    plain = {
        "phases": [{"name": "none", "modality": "text", "steps": 1, "sources": [{"reader": "jsonl", "path": "-"}]}]
    }
    from infimmr_jax.config import apply_overrides

    settings = load_config(config, overrides) if config else parse_config(apply_overrides(plain, overrides))
    print(grade_file(file, out, settings))


@app.command()
def doctor() -> None:
    """Say what this machine and installation can do: versions, devices, memory, caches, grader processes."""
    from infimmr_jax.training.doctor import examine

    raise typer.Exit(0 if examine(Console()) else 1)


def main() -> None:
    """Entry point of the `infimmr` command."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        app()
    except (ConfigError, DataError) as error:
        Console(stderr=True, highlight=False, soft_wrap=True).print(f"[red]error:[/] {_plain(str(error))}")
        sys.exit(2)


def _plain(text: str) -> str:
    return text.replace("[", "\\[")


if __name__ == "__main__":
    main()
