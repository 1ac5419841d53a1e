"""Guards: broken updates are counted and leave evidence, stalls leave stacks, a full disk is said to be full."""

import errno
import json
import os
import subprocess
import sys
import threading
import time

import jax.numpy as jnp
import numpy as np
import pytest

from infimmr_jax.config import ConfigError, GuardSection
from infimmr_jax.errors import StoppedError
from infimmr_jax.training.directory import translated
from infimmr_jax.training.guards import (
    StallGuard,
    count_broken,
    disk_trouble,
    lost_host,
    write_evidence,
)


@pytest.mark.parametrize(
    ("row", "after"),
    [
        ({"loss": 1.0, "policy/skipped": 0.0}, 0),
        ({"loss": float("nan"), "policy/skipped": 0.0}, 3),
        ({"loss": 1.0, "policy/skipped": 1.0}, 3),
        ({"loss": 1.0, "policy/skipped": 0.5}, 3),
        ({"loss": float("-inf")}, 3),
    ],
)
def test_broken_updates_are_counted_in_a_row(row, after):
    assert count_broken(row, 2) == after


def test_evidence_can_be_read_without_pickle(tmp_path):
    row = {"kind": "grpo", "step": 7, "loss": float("nan"), "phase": "text"}
    arrays = {"batch": {"tokens": jnp.arange(6).reshape(2, 3)}, "rewards": np.asarray([np.nan, 1.0], np.float32)}
    where = write_evidence(tmp_path, row, arrays, {"responses": [["é", "b"]]})
    assert where.name == "grpo-000007-process-0"
    with np.load(where / "arrays.npz", allow_pickle=False) as saved:
        np.testing.assert_array_equal(saved["batch.tokens"], np.arange(6).reshape(2, 3))
        np.testing.assert_array_equal(saved["rewards"], arrays["rewards"])
    assert json.loads((where / "row.json").read_text()) == {"row": row | {"loss": None}, "responses": [["é", "b"]]}


def stalled(tmp_path, leaves=False, minutes=0.001):
    ended = []
    section = GuardSection(stall_minutes=minutes, stall_exit=leaves)
    return StallGuard(section, tmp_path, process=3, leave=ended.append), ended


def test_a_stall_leaves_the_stacks_of_all_threads_once(tmp_path, capfd):
    done = threading.Event()
    waiting = threading.Thread(target=lambda: done.wait(20), name="the one that hangs")
    waiting.start()
    guard, ended = stalled(tmp_path)
    with guard:
        guard.beat("step 4 is made")
        end = time.monotonic() + 20
        while not (tmp_path / "stall-process-3.txt").exists() and time.monotonic() < end:
            time.sleep(0.01)
        time.sleep(0.3)
    done.set()
    waiting.join()
    text = (tmp_path / "stall-process-3.txt").read_text()
    assert text.count("no step for") == 1
    assert "while step 4 is made" in text
    assert "done.wait" in text or "in wait" in text
    assert "test_a_stall_leaves_the_stacks" in text
    assert "stalled: no step for" in capfd.readouterr().err
    assert ended == []


def test_a_stall_can_end_the_process_for_its_launcher(tmp_path):
    guard, ended = stalled(tmp_path, leaves=True)
    with guard:
        end = time.monotonic() + 20
        while not ended and time.monotonic() < end:
            time.sleep(0.01)
    assert ended == [75]


def test_beats_keep_the_guard_silent(tmp_path):
    guard, ended = stalled(tmp_path, leaves=True, minutes=0.05)
    with guard:
        for _ in range(10):
            guard.beat("x")
            time.sleep(0.02)
    assert ended == []
    assert not (tmp_path / "stall-process-3.txt").exists()


def test_a_hung_process_ends_with_75(tmp_path):
    """The whole of it: a process that sleeps for ever is ended from inside."""
    code = (
        "import sys, time; from pathlib import Path; from infimmr_jax.config import GuardSection\n"
        "from infimmr_jax.training.guards import StallGuard\n"
        "with StallGuard(GuardSection(stall_minutes=0.002, stall_exit=True), Path(sys.argv[1])): time.sleep(120)"
    )
    ended = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert ended.returncode == 75
    assert "time.sleep" in ended.stderr or 'File "<string>", line 3' in ended.stderr


def test_a_full_disk_is_said_to_be_full():
    try:
        with open("/dev/full", "wb") as file:
            file.write(b"x")
    except OSError as error:
        found = error
    assert "the disk is full" in disk_trouble(found)
    wrapped = ValueError(f"RESOURCE_EXHAUSTED: Failed to write: {os.strerror(errno.ENOSPC)} [OS error 28]")
    assert disk_trouble(wrapped) == "the disk is full"
    outer = RuntimeError("save failed")
    outer.__cause__ = found
    assert "the disk is full" in disk_trouble(outer)
    assert disk_trouble(ValueError("a shape is wrong")) is None


def test_errors_of_disks_and_lost_hosts_become_sentences(tmp_path):
    sentence = r"can only be read.*every complete checkpoint is still there"
    with pytest.raises(StoppedError, match=sentence) as caught, translated(tmp_path):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), "x.jsonl")
    assert caught.value.status == 1

    class JaxRuntimeError(RuntimeError):
        pass

    lost = JaxRuntimeError("FAILED_PRECONDITION: Gloo all-reduce failed: Connection closed by peer [127.0.0.1]:1234")
    assert lost_host(lost)
    with pytest.raises(StoppedError, match="another process of the job is lost") as caught, translated(tmp_path):
        raise lost
    assert caught.value.status == 75
    with pytest.raises(ConfigError), translated(tmp_path):
        raise ConfigError("as it is")
    with pytest.raises(ValueError, match="as it is"), translated(tmp_path):
        raise ValueError("as it is")
