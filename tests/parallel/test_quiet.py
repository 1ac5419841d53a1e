"""What libraries say although nothing is wrong is not shown; everything else is."""

import logging
import os
import subprocess
import sys

import pytest

from infimmr_jax.parallel import quiet
from infimmr_jax.parallel.quiet import is_news, quiet_libraries


@pytest.mark.parametrize(
    ("name", "message", "arguments", "shown"),
    [
        ("absl", "Waiting for previous save to complete took %f seconds. If this number is high", (0.4,), False),
        ("absl", "Waiting for previous save to complete took %f seconds. If this number is high", (65.0,), True),
        ("absl", "The checkpoint is damaged", (), True),
        ("mine", "Waiting for previous save to complete took %f seconds.", (0.4,), True),
    ],
)
def test_only_what_is_expected_is_dropped(name, message, arguments, shown):
    record = logging.LogRecord(name, logging.WARNING, "f", 1, message, arguments, None)
    assert is_news(record) is shown


def test_nothing_is_set_where_there_is_a_tpu(monkeypatch):
    monkeypatch.setattr(quiet, "has_tpu_device", lambda: True)
    environ = {}
    quiet_libraries(environ)
    assert environ == {}
    monkeypatch.setattr(quiet, "has_tpu_device", lambda: False)
    monkeypatch.setattr(quiet.importlib.util, "find_spec", lambda name: object())
    mine = {"TPU_WORKER_HOSTNAMES": "a,b"}
    quiet_libraries(mine)
    assert mine["TPU_WORKER_HOSTNAMES"] == "a,b"


@pytest.mark.skipif(quiet.has_tpu_device(), reason="there is a TPU here")
def test_libtpu_is_silent_on_a_machine_without_a_tpu():
    code = (
        "from infimmr_jax.parallel.quiet import quiet_libraries as q; q(); import jax; print(jax.devices()[0].platform)"
    )
    environment = {key: value for key, value in os.environ.items() if key != "JAX_PLATFORMS"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.split() != []
    assert "TPU" not in done.stderr
    assert "InitGoogle" not in done.stderr
