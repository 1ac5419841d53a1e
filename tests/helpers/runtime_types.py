"""The checker that `conftest.py` puts around every function of the package: shapes by jaxtyping, types by beartype."""

import functools
import inspect
import types
from collections.abc import Callable
from typing import Any, BinaryIO
from unittest.mock import NonCallableMock

import jax
import jaxtyping
import numpy as np
from beartype import BeartypeConf, BeartypeHintOverrides, beartype
from flax.linen.linear import PromoteDtypeFn
from jax.sharding import AbstractMesh, Mesh

OVERRIDES = BeartypeHintOverrides(
    {
        # A protocol of Flax that can not be asked at run time; it stands in the signature of its Dense, and so of ours.
        PromoteDtypeFn: Callable[..., Any],
        # What has its methods is one, says the type checker; at run time nothing but a real file is.
        BinaryIO: object,
        # A mesh that is planned has no devices.
        Mesh: Mesh | AbstractMesh,
        # NumPy's scalars and traced ones count as numbers, and an int as a float.
        float: float | int | np.floating | np.integer | jax.Array,
        int: int | np.integer | jax.Array,
    }
)
# Functions of arrays are tried outside of programs, too, where NumPy's arrays stand for those of the devices.
jaxtyping.Array = jax.Array | np.ndarray
_beartype = beartype(conf=BeartypeConf(hint_overrides=OVERRIDES))


def check(function: Callable[..., Any]) -> Callable[..., Any]:
    """Check arguments and results, but for calls that a test makes with a stand-in of its own.

    Records of arrays are not checked where they are made: JAX also makes them of shardings, axes and slices.
    """
    checked = _beartype(function)
    if not inspect.isfunction(function):
        return checked

    @functools.wraps(function)
    def call(*arguments: Any, **named: Any) -> Any:
        record = function.__name__ == "__init__" and getattr(arguments[0], "_flax_dataclass", False)
        if record or any(map(_stands_in, (*arguments, *named.values()))):
            return function(*arguments, **named)
        return checked(*arguments, **named)

    return call


def _stands_in(value: object) -> bool:
    if isinstance(value, list | tuple) and value:
        return _stands_in(value[0])
    kind = type(value)
    return isinstance(value, types.SimpleNamespace | NonCallableMock) or kind.__module__.startswith("test_")
