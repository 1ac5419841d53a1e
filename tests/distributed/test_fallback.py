"""Two processes and a damaged checkpoint: whoever of them can not read it, both go on from the one before."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
pytestmark = [pytest.mark.distributed, pytest.mark.slow]


@pytest.mark.parametrize(("damage", "step"), [("none", 2), ("arrays of one", 1), ("facts", 1), ("swapped", 1)])
def test_all_processes_fall_back_together(tmp_path: Path, damage: str, step: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    path = os.pathsep.join([str(HERE.parents[1]), str(HERE.parent / "helpers")])
    environment = os.environ | {
        "PYTHONPATH": path,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
    }
    jobs = [
        subprocess.Popen(
            [sys.executable, str(HERE / "fallback.py"), str(index), str(port), str(tmp_path), damage],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for index in range(2)
    ]
    ended = [job.communicate(timeout=120) for job in jobs]
    for index, (said, errors) in enumerate(ended):
        assert f"process {index} goes on from {step}, the same arrays" in said, errors[-2_000:]
    warnings = "".join(errors for _, errors in ended)
    assert ("is moved to" in warnings) == (step == 1)
    assert len(list((tmp_path / "checkpoints").glob("damaged-2-*"))) == (step == 1)
