"""How an attempt of a run ended, in `ended.json` of its directory."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path

from infimmr_jax.errors import StoppedError, UserError
from infimmr_jax.report.page_data import Json

ENDED = "ended.json"


@contextlib.contextmanager
def recorded_ending(run_dir: Path) -> Iterator[None]:
    """Write to `ended.json` of a run's directory why the attempt inside failed; the report reads it.

    An attempt that wrote no row has nothing to do with the run: the directory may be that of another one.
    """
    before = _rows_written(run_dir)
    try:
        yield
    except BaseException as error:
        if _rows_written(run_dir) != before:
            status = error.status if isinstance(error, StoppedError) else 2 if isinstance(error, UserError) else 1
            reason = str(error) if isinstance(error, StoppedError | UserError | OSError) else _name(error)
            with contextlib.suppress(OSError):
                record_ending(run_dir, status, reason)
        raise


def read_ending(run_dir: Path) -> Json | None:
    """Read how the last attempt of a run ended; None when it did not say, or another one has begun since."""
    try:
        text = (run_dir / ENDED).read_text(encoding="utf-8", errors="replace")
        ending = json.loads(text)
        later = (run_dir / "metrics.jsonl").stat().st_mtime > (run_dir / ENDED).stat().st_mtime + 1
    except (OSError, ValueError):
        return None
    known = isinstance(ending, dict) and isinstance(ending.get("status"), int) and "reason" in ending
    return ending if known and not later else None


def _rows_written(run_dir: Path) -> tuple[int, ...]:
    files = [run_dir / name for name in ("metrics.jsonl", "evals.jsonl")]
    return tuple(file.stat().st_mtime_ns if file.exists() else 0 for file in files)


def record_ending(run_dir: Path, status: int, reason: str) -> None:
    """Write how an attempt of the run ended; status 0 for one that finished."""
    text = json.dumps({"time": time.time(), "status": status, "reason": reason})
    (run_dir / ENDED).write_text(text + "\n", encoding="utf-8")


def _name(error: BaseException) -> str:
    return "Ctrl-C" if isinstance(error, KeyboardInterrupt) else f"{type(error).__name__}: {error}"
