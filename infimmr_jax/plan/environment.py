"""What must be said to JAX and libtpu before they are loaded, so that planning touches no device."""

from __future__ import annotations

import importlib.util
import os

from infimmr_jax.config import ConfigError


def prepare_process() -> None:
    """This process computes nothing: JAX gets the CPU, whatever the machine has."""
    os.environ["JAX_PLATFORMS"] = "cpu"


def prepare_compiler(quick: bool) -> None:
    """Let libtpu compile without looking for a TPU, beside others that do the same.

    `quick` asks for the compiler's least effort: several times faster, the program a little larger and slower than
    that of a run. Raises ConfigError when it is not installed.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise ConfigError(
            "compiling for a TPU needs libtpu, which is not installed: pip install 'jax[tpu]', or plan by "
            "arithmetic with --no-compile"
        )
    if quick:
        os.environ.setdefault("JAX_EXEC_TIME_OPTIMIZATION_EFFORT", "-1.0")
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    # libtpu complains on stderr where it finds no machine; the topology that is compiled for is described to it later.
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-16")
