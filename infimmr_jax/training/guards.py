"""Guards of a run: updates without a number, steps that never end, disks that take no more."""

from __future__ import annotations

import errno
import faulthandler
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
from jaxtyping import PyTree

from infimmr_jax.config import GuardSection
from infimmr_jax.names import JsonObject

TRY_AGAIN = 75  # EX_TEMPFAIL: launchers start the run again
_DISK = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the disk can only be read",
    errno.EACCES: "writing is not permitted",
    errno.EPERM: "writing is not permitted",
    errno.EIO: "the disk does not answer",
}


# Arrays of this host, and anything JSON can hold: what an update was computed from.
Evidence = Callable[[], tuple[PyTree, JsonObject]]


def is_broken(row: JsonObject) -> bool:
    """Whether the update of this metrics row was skipped: its loss or its gradient is not finite."""
    return not np.isfinite(row["loss"]) or row.get("policy/skipped", 0.0) > 0.0


def count_broken(row: JsonObject, before: int) -> int:
    """Broken updates in a row, with this one; `before` is their number up to it."""
    return before + 1 if is_broken(row) else 0


def write_evidence(directory: Path, row: JsonObject, arrays: PyTree, words: JsonObject) -> Path:
    """Write what a broken update was computed from, for inspection without pickle: arrays.npz and row.json.

    `arrays` is a tree of arrays of this host, named by their paths in it; `words` is anything JSON can hold.
    """
    import jax

    target = directory / f"{row['kind']}-{row['step']:06d}-process-{jax.process_index()}"
    target.mkdir(parents=True, exist_ok=True)
    leaves = jax.tree_util.tree_leaves_with_path(arrays)
    named = {jax.tree_util.keystr(path, simple=True, separator="."): np.asarray(leaf) for path, leaf in leaves}
    np.savez_compressed(target / "arrays.npz", **cast(Any, named))
    numbers = {key: value if not isinstance(value, float) or np.isfinite(value) else None for key, value in row.items()}
    text = json.dumps({"row": numbers, **words}, indent=1, ensure_ascii=False, allow_nan=False)
    (target / "row.json").write_text(text + "\n", encoding="utf-8", errors="backslashreplace")
    return target


class StallGuard:
    """Watches that the run moves: `beat` says it does; use it as a context manager.

    Without a beat for `stall_minutes` the stacks of all threads go to stderr and to `stall-process-N.txt` in the run
    directory, once until the next beat. With `stall_exit` the process then ends with 75, and its launcher starts the
    job again: a host that waits for a lost one inside a collective can not be woken in another way.
    """

    def __init__(
        self,
        section: GuardSection,
        run_dir: Path,
        process: int = 0,
        clock: Callable[[], float] = time.monotonic,
        leave: Callable[[int], object] = os._exit,
        every: float = 5.0,
    ):
        self._seconds = section.stall_minutes * 60.0
        self._leaves = section.stall_exit
        self._file = run_dir / f"stall-process-{process}.txt"
        self._clock, self._leave = clock, leave
        self._every = min(every, self._seconds / 4)
        self._last, self._doing, self._told = clock(), "starting", False
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="stall guard", daemon=True)

    def __enter__(self) -> StallGuard:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def beat(self, doing: str) -> None:
        """The run moves; `doing` is what it does next, for the message."""
        self._last, self._doing, self._told = self._clock(), doing, False

    def _watch(self) -> None:
        while not self._done.wait(self._every):
            waited = self._clock() - self._last
            if waited >= self._seconds and not self._told:
                self._told = True
                self._tell(waited)

    def _tell(self, waited: float) -> None:
        what = (
            f"no step for {waited / 60:.1f} minutes (guards.stall_minutes), while {self._doing}: "
            "a host may be lost, a file system may hang, or a program compiles for very long"
        )
        print(f"stalled: {what}; the stacks of all threads follow, and are in {self._file}", file=sys.stderr)
        faulthandler.dump_traceback(file=sys.__stderr__ or sys.stderr, all_threads=True)
        try:
            with self._file.open("a", encoding="utf-8") as file:
                print(f"{time.strftime('%F %T')} {what}", file=file, flush=True)
                faulthandler.dump_traceback(file=file, all_threads=True)
        except OSError as error:
            print(f"the stacks could not be written to {self._file}: {error}", file=sys.stderr)
        if self._leaves:
            print(f"ending with status {TRY_AGAIN}; the newest checkpoint is resumed", file=sys.stderr, flush=True)
            self._leave(TRY_AGAIN)


def disk_trouble(error: BaseException) -> str | None:
    """What is wrong with the disk in words, when that is what `error` (or what caused it) says; None otherwise.

    Array stores report a full disk as text of another error class, so the text counts as well.
    """
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in _DISK:
            return _DISK[seen.errno] + (f" ({seen.filename})" if seen.filename else "")
        for number, words in _DISK.items():
            if os.strerror(number) in str(seen) and number != errno.EPERM:
                return words
        seen = seen.__cause__ or seen.__context__
    return None


def lost_host(error: BaseException) -> bool:
    """Whether an error of the runtime says that another process of the job is gone."""
    text = str(error)
    signs = ("heartbeat", "timed out", "Connection reset", "Connection closed", "Gloo", "UNAVAILABLE")
    return type(error).__name__ in ("JaxRuntimeError", "XlaRuntimeError") and any(sign in text for sign in signs)
