"""The first line of a run."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from infimmr_jax.training.opening import opening_line


@pytest.mark.parametrize(
    ("parameters", "kinds", "processes", "line"),
    [
        (601_344, ["cpu"], 1, "runs/x: 601,344 parameters on 1 x cpu"),
        (5_601_344, ["cpu"] * 2, 2, "runs/x: 5.6 million parameters on 2 x cpu of 2 processes"),
        (3_754_622_976, ["TPU v5 lite"] * 16, 4, "runs/x: 3.75 billion parameters on 16 x TPU v5 lite of 4 processes"),
    ],
)
def test_the_line_says_where_how_large_and_on_what(parameters, kinds, processes, line):
    devices = [SimpleNamespace(device_kind=kind) for kind in kinds]
    assert opening_line(Path("runs/x"), parameters, devices, processes) == line
