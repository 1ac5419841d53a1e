"""Why a run ended, as the report finds it."""

import os
import time

import pytest

from infimmr_jax.errors import StoppedError, UserError
from infimmr_jax.report.ending import read_ending, record_ending, recorded_ending


def attempt(folder, error):
    with recorded_ending(folder):
        (folder / "metrics.jsonl").write_text("{}\n")
        raise error


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (StoppedError("stopped by signal 15 after step 3", 75), 75, "stopped by signal 15 after step 3"),
        (UserError("row 7 can not be used"), 2, "row 7 can not be used"),
        (KeyboardInterrupt(), 1, "Ctrl-C"),
        (ZeroDivisionError("division by zero"), 1, "ZeroDivisionError: division by zero"),
    ],
)
def test_how_a_run_ended_is_written_beside_its_rows(tmp_path, error, status, reason):
    with pytest.raises(type(error)):
        attempt(tmp_path, error)
    assert {"status": status, "reason": reason}.items() <= read_ending(tmp_path).items()


def test_an_attempt_that_wrote_nothing_says_nothing_about_the_run(tmp_path):
    with recorded_ending(tmp_path):
        (tmp_path / "metrics.jsonl").write_text("{}\n")
    record_ending(tmp_path, 0, "finished")
    with pytest.raises(UserError), recorded_ending(tmp_path):
        raise UserError("there is a run in this directory")
    assert read_ending(tmp_path)["reason"] == "finished"
    # Rows that are newer belong to an attempt that has not ended.
    os.utime(tmp_path / "metrics.jsonl", (time.time() + 60,) * 2)
    assert read_ending(tmp_path) is None
    (tmp_path / "ended.json").write_text("[1")
    assert read_ending(tmp_path) is None
