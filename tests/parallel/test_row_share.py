"""Which rows of a batch a process holds, over meshes of made-up devices."""

import dataclasses

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from infimmr_jax.config import ConfigError
from infimmr_jax.parallel import hosts
from infimmr_jax.parallel.hosts import RowShare, gather_rows, leaders_rows, row_share, sum_over_hosts


@dataclasses.dataclass(frozen=True)
class Device:
    id: int
    process_index: int


class Sharding:
    """The rows of each device, as a NamedSharding over (data, fsdp) gives them."""

    def __init__(self, mesh):
        self._mesh = mesh

    def devices_indices_map(self, shape):
        rows = self._mesh.devices.reshape(shape[0], -1)
        return {device: (slice(row, row + 1),) for row in range(shape[0]) for device in rows[row]}


@pytest.fixture(autouse=True)
def made_up(monkeypatch):
    monkeypatch.setattr(hosts, "batch_sharding", Sharding)


def mesh(processes, each, *shape, names=("data", "fsdp", "tensor")):
    devices = [Device(i, i // each) for i in range(processes * each)]

    class Made:
        pass

    made = Made()
    made.devices = np.asarray(devices, object).reshape(shape)
    made.shape = dict(zip(names, shape, strict=True))
    return made


def test_processes_hold_consecutive_parts():
    two = mesh(2, 2, 2, 2, 1)
    assert [row_share(two, i) for i in (0, 1)] == [RowShare(0, 2, 0), RowShare(1, 2, 1)]
    assert list(RowShare(1, 2, 1).rows(8)) == [4, 5, 6, 7]
    with pytest.raises(ValueError, match="7 rows can not be divided over 2"):
        RowShare(1, 2, 1).rows(7)


def test_processes_along_the_tensor_axis_hold_the_same_rows():
    four = mesh(4, 2, 2, 1, 4)
    shares = [row_share(four, i) for i in range(4)]
    assert shares == [RowShare(0, 2, 0), RowShare(0, 2, 0), RowShare(1, 2, 2), RowShare(1, 2, 2)]


def test_parts_that_overlap_are_refused():
    with pytest.raises(ConfigError, match="hold unevenly"):
        row_share(mesh(2, 3, 3, 1, 2), 0)


def test_one_process_holds_everything_and_needs_nobody(monkeypatch):
    monkeypatch.undo()
    alone = row_share(Mesh(np.asarray(jax.devices()[:1]).reshape(1, 1, 1), ("data", "fsdp", "tensor")))
    assert alone == RowShare(0, 1, 0)
    assert alone.leads
    rows = [{"a": 1}]
    assert gather_rows(rows) is rows
    values = np.arange(3.0)
    assert sum_over_hosts(values, alone) is values
    assert leaders_rows({"x": values}, alone)["x"] is values
