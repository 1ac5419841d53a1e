"""Libraries that speak although nothing is wrong: silenced before they are loaded."""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import MutableMapping
from pathlib import Path

# Orbax says at every checkpoint how long it waited for the one before; from here on that is worth knowing.
LONG_WAIT_SECONDS = 30.0


def has_tpu_device() -> bool:
    """Whether the device files of TPU chips are on this machine."""
    return Path("/dev/accel0").exists() or (Path("/dev/vfio").exists() and any(Path("/dev/vfio").glob("[0-9]*")))


def quiet_libraries(environ: MutableMapping[str, str] = os.environ) -> None:
    """Keep libtpu silent where there is no TPU, and drop log lines that say what is expected.

    With libtpu installed (the test extra brings it) JAX looks for a TPU first, and libtpu complains of what it does not
    find; what is set here for it is what it would find on a machine with a TPU. Nothing is changed where one is.
    """
    if importlib.util.find_spec("libtpu") is not None and not has_tpu_device():
        environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
        environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
        environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-1")
    for handler in logging.getLogger().handlers:
        handler.addFilter(is_news)


def is_news(record: logging.LogRecord) -> bool:
    """Whether a log record says something that a person does not expect anyway."""
    if record.name != "absl" or not str(record.msg).startswith("Waiting for previous save to complete"):
        return True
    seconds = record.args[0] if isinstance(record.args, tuple) and record.args else None
    return not isinstance(seconds, int | float) or seconds >= LONG_WAIT_SECONDS


__all__ = ["has_tpu_device", "is_news", "quiet_libraries"]
