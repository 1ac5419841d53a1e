"""Find a function that a configuration names as `module:function` or `file.py:function`."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from infimmr_jax.errors import UserError


class LoadError(UserError, ValueError):
    """A named function can not be used: the sentence says which configuration key names it and why."""


def load_callable(name: str, key: str) -> Callable[..., Any]:
    """The function `module:function` or `path/to/file.py:function` that `key` of the configuration names.

    The module is looked for on the Python path and, last, in the working directory, which the `infimmr` command does
    not have on its path. Whatever its import does, also ending the program, is said as a LoadError.
    """
    module_name, colon, function_name = name.rpartition(":")
    if not colon or not module_name or not function_name:
        raise LoadError(f"{key} names {name!r}; it must be module:function, or file.py:function")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        module = _of_file(Path(module_name)) if module_name.endswith(".py") else importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        raise LoadError(f"{key} names {name!r}, but its module can not be imported: {what_failed(error)}") from error
    function = getattr(module, function_name, None)
    if not callable(function):
        raise LoadError(f"{key} names {name!r}, but module {module_name} has no function {function_name!r}")
    return function  # type: ignore[no-any-return]


def is_ours(name: str) -> bool:
    """Whether a named function belongs to this program."""
    return name.startswith("infimmr_jax.")


def check_takes_one(function: Callable[..., Any], name: str, key: str) -> None:
    """Raise LoadError unless a function can be called with one argument in its place."""
    try:
        inspect.signature(function).bind(None)
    except TypeError as error:
        raise LoadError(f"{key} names {name!r}, which must take one argument: {error}") from error
    except ValueError:  # written in C, and it does not say
        pass


def what_failed(error: BaseException) -> str:
    """An error in a few words, with the line of the user's file that it comes from."""
    what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    own = str(Path(__file__).parents[1])
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(own)]
    frames = [frame for frame in frames if not frame.filename.startswith("<")]
    where = f" (line {frames[-1].lineno} of {frames[-1].filename})" if frames else ""
    return " ".join(f"{what[:300]}{where}".split())


def _of_file(path: Path) -> ModuleType:
    """A module from a file, once; its folder is on the path behind all others, for the files beside it."""
    path = path.expanduser().resolve()
    name = f"file_{hashlib.sha256(os.fsencode(path)).hexdigest()[:12]}_{path.stem}"
    if name in sys.modules:
        return sys.modules[name]
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


__all__ = ["LoadError", "check_takes_one", "is_ours", "load_callable", "what_failed"]
