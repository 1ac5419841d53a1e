"""How commands end: a sentence and a status for what a person can mend, a traceback for what is our own mistake."""

import errno
import subprocess
import sys

import pytest

from infimmr_jax.config import ConfigError
from infimmr_jax.endings import said_in_words
from infimmr_jax.errors import StoppedError
from infimmr_jax.rewards.pool import GraderError
from infimmr_jax.training.sinks import SinkError


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (ConfigError("seed: must not be negative"), 2, "error: seed: must not be negative"),
        (SinkError("wandb is not installed"), 2, "error: wandb is not installed"),
        (StoppedError("another process of the job is lost", 75), 75, "stopped: another process of the job is lost"),
        (GraderError("a grader process did not start"), 1, "stopped: a grader process did not start"),
        (
            OSError(errno.ENOSPC, "No space left on device", "/runs/a"),
            2,
            "error: /runs/a: No space left on device; make room",
        ),
    ],
)
def test_what_a_person_can_mend_is_one_sentence(error, status, words, capsys):
    with pytest.raises(SystemExit) as ended, said_in_words():
        raise error
    assert ended.value.code == status
    assert capsys.readouterr().err.startswith(words)


def test_our_own_mistake_keeps_its_traceback():
    with pytest.raises(KeyError), said_in_words():
        raise KeyError("layers")


def test_a_command_that_needs_no_jax_ends_without_loading_it():
    # In another process: this one has loaded it already.
    code = "import sys; import infimmr_jax.endings; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
