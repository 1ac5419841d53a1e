"""The output directory of a run: who may write there, whether there is something to go on from, what went wrong."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import jax
import numpy as np

from infimmr_jax.config import ConfigError, RunConfig
from infimmr_jax.errors import StoppedError
from infimmr_jax.parallel.hosts import largest_over_hosts
from infimmr_jax.training.checkpoints import checkpoint_directory, has_checkpoint
from infimmr_jax.training.guards import TRY_AGAIN, disk_trouble, lost_host
from infimmr_jax.training.place import Place
from infimmr_jax.training.sinks import ROW_FILES


def check_directory(config: RunConfig, resume: bool | Literal["auto"]) -> bool:
    """Whether the run goes on from what is in its output directory; all processes do what process 0 finds.

    Raises ConfigError when the directory can not be written, holds a run that was not to be resumed, or holds none.
    """
    found, message = 0, ""
    if jax.process_index() == 0:
        try:
            found = int(_goes_on(config, resume))
        except ConfigError as error:
            found, message = 2, str(error)
    found = int(largest_over_hosts(np.asarray([found]))[0])
    if found == 2:
        raise ConfigError(message or f"process 0 can not use {config.output}; its message says why")
    return bool(found)


def resumed(complete: bool, place: Place, names: Sequence[str], lengths: Sequence[int], config: RunConfig) -> str:
    """Return a line that says from where a resumed run goes on; `names` and planned steps are those of the stages."""
    directory = checkpoint_directory(config.checkpoint, config.output)
    if not complete:
        return f"resumed from the start: {directory} holds no complete checkpoint yet"
    where = f"now in {names[place.stage]}" if place.stage < len(names) else "all stages are done"
    made = place.steps_made(lengths)
    return f"resumed from checkpoint {place.number(lengths)} of {directory}: {made} steps are made, {where}"


@contextlib.contextmanager
def translated(run_dir: Path) -> Iterator[None]:
    """Say what happened in a sentence when a disk takes no more or another process of the job is lost."""
    try:
        yield
    except (OSError, ValueError, RuntimeError) as error:
        if isinstance(error, ConfigError | StoppedError):
            raise
        trouble = disk_trouble(error)
        if trouble is not None:
            raise StoppedError(
                f"{trouble} while writing to {run_dir} or its checkpoints: every complete checkpoint is still there; "
                "make room, and go on with --resume"
            ) from error
        if lost_host(error):
            raise StoppedError(
                "another process of the job is lost: this one ends too; start all of them again with --resume "
                "(launch/restart.sh does), they go on from the newest checkpoint",
                TRY_AGAIN,
            ) from error
        raise


def _goes_on(config: RunConfig, resume: bool | Literal["auto"]) -> bool:
    run_dir = config.output
    files = [run_dir / f"{name}.jsonl" for name in ROW_FILES]
    begun = (run_dir / "checkpoints").exists() or any(file.exists() for file in files)
    # A start that failed before its first row (no key for a tracker, say) left nothing that a new one could harm.
    holds = any(file.exists() and file.stat().st_size for file in files) or has_checkpoint(config.checkpoint, run_dir)
    started = begun or holds
    if holds and not resume:
        raise ConfigError(
            f"{run_dir} already holds a run: continue it with --resume, or give another directory with --set output=DIR"
        )
    if not started and resume is True:
        raise ConfigError(f"{run_dir} holds no run to resume: start it without --resume, or with --auto-resume")
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        probe = run_dir / f".writable-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ConfigError(f"the output directory {run_dir} can not be written: {error.strerror}") from error
    return started and bool(resume)
