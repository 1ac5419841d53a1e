"""Real runs of two and four processes with two devices each: the curve of one process, also after losing a process."""

import os
import shutil
import signal
import time

import numpy as np
import pytest
from jobs import environment, finish, process_id, rows, start_job, train_alone, wait_for_rows, write_config
from safetensors.numpy import load_file

from studies.soak import soak

pytestmark = [pytest.mark.distributed, pytest.mark.slow]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    done = train_alone(write_config(folder / "config.yaml", folder / "run"), 4)
    assert done.returncode == 0, done.stderr
    return folder / "run"


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """A job of two processes, one of which was killed: its directory, a copy of it, and what the job said."""
    folder = tmp_path_factory.mktemp("killed")
    config = write_config(folder / "config.yaml", folder / "run")
    job = start_job(config, 2, folder / "logs", "--restarts", "0")
    wait_for_rows(folder / "run", 3, job)
    os.kill(process_id(job, 1), signal.SIGKILL)
    said = finish(job, 60)
    assert job.returncode == 75, said
    shutil.copytree(folder / "run", folder / "copy")
    return folder, said


def assert_same(run, other, tolerance=1e-5):
    for name in ("metrics", "evals", "transcripts"):
        found, expected = rows(run, name), rows(other, name)
        assert len(found) == len(expected) > 0, name
        for one, two in zip(found, expected, strict=True):
            assert_close(one, two, tolerance, name)
    for name, value in load_file(other / "model" / "model.safetensors").items():
        np.testing.assert_allclose(load_file(run / "model" / "model.safetensors")[name], value, atol=1e-4)


def assert_close(one, two, tolerance, where):
    if isinstance(one, dict):
        assert one.keys() == two.keys(), where
        for key in one:
            assert_close(one[key], two[key], 2e-4 if key == "logprobs" else tolerance, f"{where}.{key}")
    elif isinstance(one, list):
        assert len(one) == len(two), where
        for left, right in zip(one, two, strict=True):
            assert_close(left, right, tolerance, where)
    elif isinstance(one, float):
        assert one == pytest.approx(two, rel=tolerance, abs=tolerance), where
    else:
        assert one == two, where


def test_the_reference_run_has_gradients_and_every_part(alone):
    found = rows(alone)
    assert [row["kind"] for row in found] == ["sft"] * 2 + ["grpo"] * 4
    assert all(row["policy/grad_norm"] > 1e-4 for row in found)
    assert [row["problems"] for row in rows(alone, "evals")] == [11] * 3
    assert len({row["problem_id"] for row in rows(alone, "transcripts")}) > 6


def test_a_lost_process_ends_the_job_with_a_message(killed):
    folder, said = killed
    assert "process 1 of 2 was ended by signal 9; the others are stopped" in said
    assert "start it again to go on from the newest checkpoint" in said
    assert 3 <= len(rows(folder / "run")) < 6


def test_the_job_resumes_and_resumes_again_after_a_signal_to_one_process_to_the_curve_of_one(killed, alone):
    folder, _ = killed
    # Few checkpoints: rows are then written a step late.
    job = start_job(folder / "config.yaml", 2, folder / "logs", arguments=("--set", "checkpoint.every_steps=100"))
    said = ""
    while "resumed from checkpoint" not in said:
        line = job.stdout.readline()
        assert line, said
        said += line
    # Once process 1 has said it too, it catches signals; its next program is not ready yet.
    while "resumed from checkpoint" not in (folder / "logs" / "process-1.log").read_text():
        assert job.poll() is None, said
        time.sleep(0.02)
    os.kill(process_id(job, 1), signal.SIGTERM)
    said += finish(job)
    assert job.returncode == 0, said
    assert "stopped by signal 15 after step" in said
    assert said.count("resumed from checkpoint") == 2
    assert_same(folder / "run", alone)
    assert {row["kind"] for row in rows(folder / "run", "transcripts")} == {"train", "eval"}


def test_one_process_with_another_mesh_goes_on_where_two_stopped(killed, alone):
    folder, _ = killed
    config = write_config(folder / "one.yaml", folder / "copy")
    done = train_alone(config, 2, "--resume", "--set", "mesh.fsdp=2")
    assert done.returncode == 0, done.stderr
    assert_same(folder / "copy", alone)


def test_four_processes_go_on_with_the_curve_of_one_also_where_two_hold_the_same_rows(alone, tmp_path):
    shutil.copytree(alone, tmp_path / "run")
    for later in (tmp_path / "run" / "checkpoints").iterdir():
        if int(later.name) > 3:  # the cold start is made and evaluated
            shutil.rmtree(later)
    shutil.rmtree(tmp_path / "run" / "model")
    config = write_config(tmp_path / "config.yaml", tmp_path / "run")
    # In stages: every token loop and compaction is a program over all processes.
    changes = ("mesh.data=2", "mesh.tensor=4", "rollout.compactions=1")
    job = start_job(config, 4, tmp_path / "logs", arguments=tuple(x for change in changes for x in ("--set", change)))
    said = finish(job)
    assert job.returncode == 0, said + (tmp_path / "logs" / "process-1.log").read_text()
    assert "resumed from checkpoint 3 " in said
    assert_same(tmp_path / "run", alone)


def test_a_run_that_is_killed_three_times_is_the_unbroken_run_bit_by_bit(alone, tmp_path):
    config = write_config(tmp_path / "config.yaml", tmp_path / "run")
    found = soak(["--config", str(config)], alone, tmp_path, kills=3, seed=0, env=environment(4))
    assert found.kills == 3
    assert found.finished >= 1
    assert found.faults == []
