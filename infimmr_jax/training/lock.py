"""One run a directory: a lock file that names its holder, and that a dead holder's successor recognises."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np

from infimmr_jax.config import ConfigError, RunConfig
from infimmr_jax.parallel.hosts import largest_over_hosts
from infimmr_jax.training.checkpoints import checkpoint_directory

NAME = ".lock"
BEAT_SECONDS = 15.0
# Of another machine nothing is known but its beat: one that missed so many seconds of them is gone.
STALE_SECONDS = 60.0


@dataclasses.dataclass(frozen=True)
class Holder:
    """Who holds a lock: `boot` tells machines (and their reboots) apart, `began` processes that had the same number."""

    host: str
    pid: int
    boot: str
    began: str
    started: str
    token: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, started {self.started}"


@contextlib.contextmanager
def locked(config: RunConfig) -> Iterator[None]:
    """Hold the output directory of a run, and its checkpoint directory where that is another one on a file system.

    Process 0 holds them for all processes of the run. Raises ConfigError naming the run that holds one already. Locks
    of dead processes are taken over: at once where they ran on this machine, after a minute without a sign of life
    where they ran on another.
    """
    directories = [config.output]
    checkpoints = str(checkpoint_directory(config.checkpoint, config.output))
    if config.checkpoint.directory is not None and "://" not in checkpoints:
        directories.append(Path(checkpoints))
    with contextlib.ExitStack() as stack:
        message = ""
        if jax.process_index() == 0:
            try:
                for directory in directories:
                    stack.enter_context(lock(directory))
            except ConfigError as error:
                message = str(error)
        if largest_over_hosts(np.asarray([int(bool(message))]))[0]:
            raise ConfigError(message or f"process 0 can not use {config.output}; its message says why")
        yield


@contextlib.contextmanager
def lock(
    directory: Path,
    *,
    beat: float = BEAT_SECONDS,
    stale: float = STALE_SECONDS,
    leave: Callable[[int], object] = os._exit,
) -> Iterator[None]:
    """Hold a directory until the end of the block; ConfigError when a living process holds it.

    The file's time is renewed every `beat` seconds. A holder that finds its lock taken over (it was suspended for
    longer than `stale` seconds, and a run on another machine went on) ends with status 1 through `leave`: two must not
    write.
    """
    file, me = directory / NAME, _myself()
    made = _make(directory)
    _take(file, me, stale)
    done = threading.Event()
    renewing = threading.Thread(target=_renew, args=(file, me, done, beat, leave), name="lock", daemon=True)
    renewing.start()
    try:
        yield
    finally:
        done.set()
        renewing.join()
        holder = _holder(file)
        if holder is not None and holder.token == me.token:
            file.unlink(missing_ok=True)
        if made:
            with contextlib.suppress(OSError):  # something is in it, as it should be
                directory.rmdir()


def _make(directory: Path) -> bool:
    try:
        made = not directory.exists()
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"the output directory {directory} can not be written: {error.strerror}") from error
    return made


def _take(file: Path, me: Holder, stale: float) -> None:
    """Create the lock file, once nobody alive holds it."""
    while not _create(file, me):
        holder, before = _holder(file), _time_of(file)
        if before is None:
            continue
        if holder is None:
            alive = _beats(file, before, stale)  # being written, or damaged
        elif (holder.host, holder.boot) == (me.host, me.boot):
            alive = _began(holder.pid) == holder.began
        else:
            alive = _beats(file, before, stale)
        if alive:
            raise ConfigError(
                f"{file.parent} is in use by another run ({holder or 'unnamed'}): wait for it, stop it, or give "
                "another directory with --set output=DIR"
            )
        _remove_of(file, holder)


def _create(file: Path, me: Holder) -> bool:
    """Whether the lock file is now ours. It appears with all its words: others never read half of it."""
    draft = file.with_name(f"{NAME}-{me.token}")
    try:
        draft.write_text(json.dumps(dataclasses.asdict(me)) + "\n", encoding="utf-8")
        try:
            os.link(draft, file)
        except FileExistsError:
            return False
        except OSError:  # a file system without links
            try:
                with file.open("x", encoding="utf-8") as opened:
                    opened.write(draft.read_text(encoding="utf-8"))
            except FileExistsError:
                return False
    except OSError as error:
        raise ConfigError(f"the output directory {file.parent} can not be written: {error.strerror}") from error
    finally:
        draft.unlink(missing_ok=True)
    return True


def _remove_of(file: Path, holder: Holder | None) -> None:
    """Remove the lock of a dead holder; where another was quicker and holds it already, leave it."""
    aside = file.with_name(f"{NAME}-{secrets.token_hex(6)}")
    with contextlib.suppress(FileNotFoundError):
        file.rename(aside)
        if _holder(aside) != holder:
            with contextlib.suppress(OSError):
                os.link(aside, file)
        aside.unlink()


def _beats(file: Path, before: float, stale: float) -> bool:
    """Whether the lock is renewed; by the clock of the file system, for those of two machines differ."""
    said = False
    while (now := _clock_of(file)) - before < stale:
        if (time_now := _time_of(file)) is None:
            return False
        if time_now != before:
            return True
        if not said:
            print(f"{file} is of a run on another machine: looking whether it is alive ...", file=sys.stderr)
            said = True
        time.sleep(min(1.0, stale / 10, max(0.01, stale - (now - before))))
    return _time_of(file) not in (before, None)


def _renew(file: Path, me: Holder, done: threading.Event, beat: float, leave: Callable[[int], object]) -> None:
    while not done.wait(beat):
        holder = _holder(file)
        if holder is None or holder.token == me.token:
            # A disk that does not answer is said by what writes results there.
            with contextlib.suppress(OSError):
                os.utime(file)
            continue
        print(
            f"stopped: {file.parent} was taken over by another run ({holder}), while this one stood still; "
            "what it had saved is there",
            file=sys.stderr,
            flush=True,
        )
        leave(1)
        return


def _holder(file: Path) -> Holder | None:
    try:
        return Holder(**json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _time_of(file: Path) -> float | None:
    try:
        return file.stat().st_mtime
    except OSError:
        return None


def _clock_of(file: Path) -> float:
    probe = file.with_name(f"{NAME}-{secrets.token_hex(6)}")
    try:
        probe.touch()
        return probe.stat().st_mtime
    except OSError as error:
        raise ConfigError(f"the output directory {file.parent} can not be written: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):
            probe.unlink()


def _myself() -> Holder:
    return Holder(
        host=socket.gethostname(),
        pid=os.getpid(),
        boot=_boot(),
        began=_began(os.getpid()) or "",
        started=time.strftime("%F %T %z"),
        token=secrets.token_hex(8),
    )


def _boot() -> str:
    """What tells this machine since its last start from others of its name, and containers on it apart."""
    with contextlib.suppress(OSError):
        text = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{text} {os.readlink('/proc/self/ns/pid')}"
    return "unknown"


def _began(pid: int) -> str | None:
    """When a process of this machine began, in its own units; None when there is none of this number."""
    if sys.platform == "linux":
        try:
            fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except OSError:
            return None
        return None if fields[0] in "ZX" else fields[19]
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return ""


__all__ = ["Holder", "lock", "locked"]
