"""A model directory is replaced as a whole: killed at every step, on a full disk, and beside what others left."""

import contextlib
import errno
import fcntl
import os
import shutil
from pathlib import Path

import pytest

from infimmr_jax.config import ConfigError
from infimmr_jax.model import hf_replace
from infimmr_jax.model.hf_replace import replacing

STEPS = [
    (os, "open"),
    (os, "fsync"),
    (shutil, "rmtree"),
    (Path, "rename"),
    (Path, "mkdir"),
    (Path, "write_text"),
    (hf_replace, "_exchange"),
]


def write_model(directory: Path, text: str) -> None:
    with replacing(directory, 10) as target:
        for name in ("config.json", "a.safetensors", "b.safetensors"):
            (target / name).write_text(text)


def content(directory: Path) -> set[str]:
    return {(directory / name).read_text() for name in ("config.json", "a.safetensors", "b.safetensors")}


def killed_at(step: int, directory: Path) -> bool:
    """Whether a process that writes a new model was killed before its n-th call of a step, or ended before."""
    child = os.fork()
    if child == 0:
        left = [step]

        def dying(function):
            def call(*args, **kwargs):
                left[0] -= 1
                if left[0] < 0:
                    os._exit(9)
                return function(*args, **kwargs)

            return call

        for place, name in STEPS:
            setattr(place, name, dying(getattr(place, name)))
        write_model(directory, "new")
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning", "ignore:.*fork.*:RuntimeWarning")
@pytest.mark.parametrize("exchange", [True, False])
@pytest.mark.parametrize("older", [True, False])
def test_a_kill_at_any_step_leaves_the_old_model_or_the_new_one(tmp_path, monkeypatch, exchange, older):
    """Without an exchange of names the old one may lie beside its name, and the next export puts it back."""
    if not exchange:
        monkeypatch.setattr(hf_replace, "_exchange", lambda one, other: False)
    between = 0
    for step in range(200):
        directory = tmp_path / f"{step}" / "model"
        directory.parent.mkdir()
        if older:
            write_model(directory, "old")
        killed = killed_at(step, directory)
        if directory.exists():
            assert content(directory) in ([{"old"}, {"new"}] if older else [{"new"}])
        elif older:
            assert not exchange
            between += 1
            assert content(directory.parent / ".model.old") == {"old"}
            with pytest.raises(RuntimeError), replacing(directory, 10):
                raise RuntimeError
            assert content(directory) == {"old"}
        write_model(directory, "next")
        assert content(directory) == {"next"}
        assert [path.name for path in directory.parent.iterdir()] == ["model"]
        if not killed:
            break
    assert step > 10
    assert between == (1 if older and not exchange else 0)


@pytest.mark.parametrize("failing", [1, 2])
def test_a_failed_rename_puts_the_old_model_back(tmp_path, monkeypatch, failing):
    monkeypatch.setattr(hf_replace, "_exchange", lambda one, other: False)
    write_model(tmp_path / "model", "old")
    rename, calls = Path.rename, []

    def broken(self, other):
        calls.append(other)
        if len(calls) == failing:
            raise OSError(errno.EIO, "Input/output error", str(self))
        return rename(self, other)

    monkeypatch.setattr(Path, "rename", broken)
    with pytest.raises(ConfigError, match=r"could not be written to .*Input/output error; what was there is unchanged"):
        write_model(tmp_path / "model", "new")
    assert content(tmp_path / "model") == {"old"}
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_full_disk_is_said_before_and_while_writing(tmp_path):
    write_model(tmp_path / "model", "old")
    words = r"needs [\d.]+ GB beside what is there, and [\d.]+ GB are free; make room"
    with pytest.raises(ConfigError, match=words), replacing(tmp_path / "model", 10**18):
        raise AssertionError
    full = OSError(errno.ENOSPC, "No space left on device")
    words = "No space left on device, make room there; what was there is unchanged"
    with pytest.raises(ConfigError, match=words), replacing(tmp_path / "model", 10):
        raise full
    assert content(tmp_path / "model") == {"old"}
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_another_process_that_is_writing_is_left_alone(tmp_path):
    other = tmp_path / ".model.writing-other"
    other.mkdir()
    (other / "half").write_text("")
    with contextlib.ExitStack() as stack:
        descriptor = os.open(other, os.O_RDONLY)
        stack.callback(os.close, descriptor)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        write_model(tmp_path / "model", "new")
        assert (other / "half").exists()
    write_model(tmp_path / "model", "newer")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
