"""Files that rows and configurations name: opened below a root, through no symbolic link that leads out of it."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

from infimmr_jax.data.records import DataError

_PASSED = os.O_CLOEXEC | os.O_DIRECTORY | os.O_NOFOLLOW | getattr(os, "O_PATH", os.O_RDONLY)
# Without O_NONBLOCK the opening of a pipe waits for its writer.
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


def resolve_below(root: Path, name: str, what: str = "path") -> Path:
    """Return the absolute path, free of symbolic links, of an existing file or folder below `root`.

    Raises DataError, calling the name a `what`, when it leads outside, does not exist, or can not be followed.
    """
    inside = root.resolve()
    try:
        path = (inside / name).resolve()
        outside, exists = not path.is_relative_to(inside), path.exists()
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: a loop of symbolic links; ValueError: a NUL
        said = getattr(error, "strerror", None) or str(error)[:200]
        raise DataError(f"the {what} {name[:200]!r} can not be followed: {said}") from error
    if outside:
        raise DataError(f"the {what} {name[:200]!r} leads outside {inside}")
    if not exists:
        raise DataError(f"there is no {what} {path}")
    return path


def is_below(root: Path, name: str) -> bool:
    """Tell whether something of this name is there below `root`, perhaps a symbolic link that leads out of it."""
    return os.path.lexists(root / name)


def open_resolved(path: str | Path) -> BinaryIO:
    """Open a regular file for reading by an absolute path as `resolve_below` returns it, following no link on the way.

    A file or folder that was replaced by a symbolic link since then is refused. Raises DataError when it can not be
    opened.
    """
    parts = Path(path).parts
    try:
        folder = os.open(parts[0], os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)
        try:
            for part in parts[1:-1]:
                inner = os.open(part, _PASSED, dir_fd=folder)
                os.close(folder)
                folder = inner
            opened = os.open(parts[-1], _READ, dir_fd=folder)
        finally:
            os.close(folder)
    except FileNotFoundError as error:
        raise DataError(f"there is no file {path}; correct the path or remove the row") from error
    except (OSError, ValueError, IndexError) as error:
        link = " (a symbolic link stands where none was)" if _is_linked(path) else ""
        raise DataError(f"{path} can not be opened{link}: {getattr(error, 'strerror', None) or error}") from error
    if not stat.S_ISREG(os.fstat(opened).st_mode):
        os.close(opened)
        raise DataError(f"{path} is not a regular file")
    return os.fdopen(opened, "rb")


def open_below(root: Path, name: str, what: str = "path") -> BinaryIO:
    """Open a regular file below `root` for reading; errors as `resolve_below` and `open_resolved`."""
    return open_resolved(resolve_below(root, name, what))


def _is_linked(path: str | Path) -> bool:
    try:
        return any(place.is_symlink() for place in (Path(path), *Path(path).parents))
    except (OSError, ValueError):
        return False


__all__ = ["is_below", "open_below", "open_resolved", "resolve_below"]
