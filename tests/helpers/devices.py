"""Processes of their own for what needs other devices than this one has; flags with which programs compile quickly."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

TESTS = Path(__file__).parents[1]
# Most programs of the suite run for milliseconds: LLVM's optimiser and the emitters of fusions take two thirds of the
# time in which they are compiled.
QUICK = (
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true --xla_cpu_use_fusion_emitters=false"
)


def on_eight_devices(program: str, *paths: Path, seconds: float = 900) -> str:
    """Run a program on 8 virtual CPU devices and return what it prints.

    It imports the helpers of the tests and modules of `paths`, and shares the compilation cache of the suite.
    """
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(map(str, [TESTS.parent, TESTS / "helpers", *paths])),
        "XLA_FLAGS": f"--xla_force_host_platform_device_count=8 {QUICK}",
    }
    command = [sys.executable, "-c", textwrap.dedent(program)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=seconds, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout
