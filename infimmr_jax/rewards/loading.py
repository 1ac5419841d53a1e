"""Find a function that a configuration names as `module:function`."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from typing import Any

from infimmr_jax.errors import UserError


class LoadError(UserError, ValueError):
    """A named function can not be used: the sentence says which configuration key names it and why."""


def load_callable(name: str, key: str) -> Callable[..., Any]:
    """The function `module:function` that `key` of the configuration names.

    The module is looked for on the Python path and, last, in the working directory, which the `infimmr` command does
    not have on its path.
    """
    module_name, colon, function_name = name.partition(":")
    if not colon or not module_name or not function_name:
        raise LoadError(f"{key} names {name!r}; it must be module:function")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise LoadError(f"{key} names {name!r}, but its module can not be imported: {error}") from error
    function = getattr(module, function_name, None)
    if not callable(function):
        raise LoadError(f"{key} names {name!r}, but module {module_name} has no function {function_name!r}")
    return function  # type: ignore[no-any-return]


__all__ = ["LoadError", "load_callable"]
