"""One run a directory: the second is refused in a sentence, the dead are recognised, here and on other machines."""

import dataclasses
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from tiny import tiny_config

from infimmr_jax.config import ConfigError
from infimmr_jax.training.lock import NAME, Holder, _began, _myself, lock, locked

HOLD = """
import sys, pathlib
from infimmr_jax.training.lock import lock
with lock(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def hold(directory: Path) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(directory)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_run_is_refused_and_a_killed_one_is_succeeded(tmp_path: Path) -> None:
    process = hold(tmp_path)
    try:
        sentence = rf"in use by another run \(process {process.pid} on .*, started .*\): wait for it, stop it, or give"
        with pytest.raises(ConfigError, match=sentence), lock(tmp_path):
            pass
        assert (tmp_path / NAME).exists()
    finally:
        process.kill()
        process.wait()
    assert (tmp_path / NAME).exists(), "it was killed"
    began = time.monotonic()
    with lock(tmp_path):
        assert json.loads((tmp_path / NAME).read_text())["pid"] == os.getpid()
    assert time.monotonic() - began < 2, "a dead process of this machine is recognised at once"
    assert list(tmp_path.iterdir()) == []


def write(tmp_path: Path, holder: Holder, age: float) -> None:
    (tmp_path / NAME).write_text(json.dumps(dataclasses.asdict(holder)))
    os.utime(tmp_path / NAME, (time.time() - age,) * 2)


def test_a_number_that_another_process_has_now_is_no_holder(tmp_path: Path) -> None:
    write(tmp_path, dataclasses.replace(_myself(), began="1"), age=0)
    with lock(tmp_path):
        pass
    write(tmp_path, _myself(), age=1000)
    with pytest.raises(ConfigError, match="in use by another run"), lock(tmp_path):
        pass


def test_another_machine_is_watched_for_signs_of_life(tmp_path: Path) -> None:
    other = dataclasses.replace(_myself(), host="elsewhere", boot="x", token="t")
    write(tmp_path, other, age=1000)
    with lock(tmp_path):
        pass
    # A beat within the time that it is watched: alive, whatever the clocks of the two machines say.
    write(tmp_path, other, age=0)
    beats = threading.Timer(0.3, lambda: os.utime(tmp_path / NAME, (1.0, 1e9)))
    beats.start()
    with pytest.raises(ConfigError, match="on elsewhere"), lock(tmp_path, stale=5):
        pass
    beats.join()
    write(tmp_path, other, age=0)
    began = time.monotonic()
    with lock(tmp_path, stale=0.5):
        assert 0.4 < time.monotonic() - began < 5


@pytest.mark.parametrize("text", ["", "{", '{"host": 1}', "[]", "\x00" * 40])
def test_a_damaged_lock_is_watched_too(tmp_path: Path, text: str) -> None:
    (tmp_path / NAME).write_text(text)
    with lock(tmp_path, stale=0.2):
        assert json.loads((tmp_path / NAME).read_text())["pid"] == os.getpid()


def test_the_holder_beats_and_leaves_when_it_is_taken_over(tmp_path: Path) -> None:
    left: list[int] = []
    with lock(tmp_path, beat=0.05, leave=left.append):
        os.utime(tmp_path / NAME, (0, 0))
        time.sleep(0.3)
        assert time.time() - (tmp_path / NAME).stat().st_mtime < 60
        write(tmp_path, dataclasses.replace(_myself(), host="elsewhere"), age=0)
        time.sleep(0.3)
    assert left == [1]
    assert json.loads((tmp_path / NAME).read_text())["host"] == "elsewhere", "the other's lock is left alone"


def test_of_many_that_start_at_once_one_gets_it(tmp_path: Path) -> None:
    write(tmp_path, dataclasses.replace(_myself(), began="1"), age=0)
    barrier, inside, most = threading.Barrier(8), [0], [0]

    def take() -> None:
        barrier.wait()
        try:
            with lock(tmp_path):
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                time.sleep(0.3)
                inside[0] -= 1
        except ConfigError:
            pass

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]


def test_a_run_locks_its_checkpoints_elsewhere_as_well(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    config = tiny_config(tmp_path / "run", f"checkpoint.directory={elsewhere}")
    with locked(config):
        assert (tmp_path / "run" / NAME).exists()
        assert (elsewhere / NAME).exists()
        other = tiny_config(tmp_path / "other", f"checkpoint.directory={elsewhere}")
        with pytest.raises(ConfigError, match="elsewhere is in use"), locked(other):
            pass
    assert not (tmp_path / "run").exists(), "nothing was written: nothing stays"
    with locked(tiny_config(tmp_path / "bucket", "checkpoint.directory=gs://bucket/run")):
        pass


def test_a_place_that_can_not_be_written_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="can not be written"), lock(tmp_path / "file" / "run"):
        pass


def test_processes_are_told_apart() -> None:
    assert _began(os.getpid())
    assert _began(2**22 + 1) is None
