"""Replacing a model directory as a whole: at every instant the old model or the new one is there under its name."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import shutil
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError

from infimmr_jax.config import ConfigError

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # linux/fcntl.h, linux/fs.h
_SPARE_BYTES = 64 * 1024**2  # beside the weights: tokenizer, configs, what a file system keeps for itself


@contextlib.contextmanager
def replacing(directory: Path, size: int) -> Iterator[Path]:
    """Give a temporary directory beside `directory` that takes its name on success.

    `size` is the number of bytes that will be written at least. A kill leaves the old model or the new one under the
    name; where the file system can not exchange two directories, a kill between two renames leaves the old one as
    `.NAME.old`, which the next call puts back. What killed processes left is removed. Raises ConfigError when
    `directory` is something else than a model directory, the disk is too full, or a file can not be written.
    """
    _check_place(directory, size)
    old = directory.parent / f".{directory.name}.old"
    target: Path | None = None
    try:
        _clean_up(directory, old)
        target = directory.parent / f".{directory.name}.writing-{uuid.uuid4().hex}"
        target.mkdir()
        with _lock(target):
            yield target
            for path in (*target.rglob("*"), target):
                _to_disk(path)
            _take_name(target, directory, old)
            _to_disk(directory.parent)
    except (SafetensorError, OSError) as error:
        raise ConfigError(
            f"the model could not be written to {directory}: {_reason(error)}; what was there is unchanged"
        ) from error
    finally:
        if target is not None:
            shutil.rmtree(target, ignore_errors=True)
        if directory.exists():
            shutil.rmtree(old, ignore_errors=True)


def _check_place(directory: Path, size: int) -> None:
    other = directory.exists() and not (directory / "config.json").is_file()
    if other and (not directory.is_dir() or any(directory.iterdir())):
        raise ConfigError(f"{directory} exists and is not a model directory; name another one or move it away")
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(directory.parent).free
    except OSError as error:
        raise ConfigError(f"{directory} can not be written: {error.strerror}; name another place") from error
    if free < size + _SPARE_BYTES:
        raise ConfigError(
            f"{directory} needs {(size + _SPARE_BYTES) / 1e9:.2f} GB beside what is there, and {free / 1e9:.2f} GB are "
            "free; make room there"
        )


def _clean_up(directory: Path, old: Path) -> None:
    """Finish or undo what a killed process began, and remove what it left; running ones hold a lock on theirs."""
    if old.exists() and not directory.exists():
        old.rename(directory)
    for left in directory.parent.iterdir():
        if not left.name.startswith(f".{directory.name}.writing-"):
            continue
        try:
            with _lock(left):
                shutil.rmtree(left, ignore_errors=True)
        except OSError:
            continue  # Another process is writing, or this file system has no locks.


@contextlib.contextmanager
def _lock(directory: Path) -> Iterator[None]:
    """Hold a lock that ends with the process; raises OSError when another process holds it."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES) or not _just_made(directory):
                raise
        yield
    finally:
        os.close(descriptor)


def _just_made(directory: Path) -> bool:
    # Without locks one's own new directory may be used, and those of others are never removed.
    return not any(directory.iterdir())


def _take_name(target: Path, directory: Path, old: Path) -> None:
    if not directory.exists():
        target.rename(directory)
    elif not _exchange(target, directory):
        shutil.rmtree(old, ignore_errors=True)
        directory.rename(old)
        try:
            target.rename(directory)
        except OSError:
            old.rename(directory)
            raise


def _exchange(one: Path, other: Path) -> bool:
    """Exchange the names of two directories at once; False where the system or the file system can not."""
    if not sys.platform.startswith("linux"):
        return False
    exchange = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if exchange is None:
        return False
    done = exchange(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE)
    return done == 0


def _reason(error: SafetensorError | OSError) -> str:
    if isinstance(error, OSError) and error.strerror:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        return f"{error.strerror}, make room there" if full else error.strerror
    # safetensors gives the system's words within its own.
    text = str(error)
    return f"{text}, make room there" if "os error 28" in text or "os error 122" in text else text


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
