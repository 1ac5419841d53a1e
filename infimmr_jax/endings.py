"""How a command ends when it can not go on: a sentence for people, a status for launchers."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import traceback
from collections.abc import Iterator
from typing import NoReturn

from rich.console import Console
from rich.markup import escape

from infimmr_jax.errors import StoppedError, UserError


@contextlib.contextmanager
def said_in_words() -> Iterator[None]:
    """Turn what a person can mend into one sentence on stderr and an exit status; other errors keep their traceback.

    2 for a mistake in configuration, data or paths, else the status that the error brings.
    """
    try:
        yield
    except UserError as error:
        _say("error", str(error))
        _leave(2)
    except StoppedError as error:
        _say("stopped", str(error))
        _leave(error.status)
    except Exception as error:
        if isinstance(error, OSError) and error.filename is not None and error.strerror:
            _say("error", _about_file(error))
            _leave(2)
        if not _one_of_several():
            raise
        traceback.print_exc()
        _leave(1)


def _say(word: str, sentence: str) -> None:
    console = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)
    console.print(f"[red]{word}:[/] {escape(sentence)}")


def _about_file(error: OSError) -> str:
    # A renaming names two files; the second is the one that was asked for.
    file = os.fsdecode(error.filename2 or error.filename) if not isinstance(error.filename, int) else "a file"
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return f"{file}: {error.strerror}; {'make room there' if full else 'correct the path, or its permissions'}"


def _one_of_several() -> bool:
    # A command that never loaded JAX has joined nobody.
    return "jax" in sys.modules and sys.modules["jax"].distributed.is_initialized()


def _leave(status: int) -> NoReturn:
    """End with a status; as one of several processes at once, for the others are not going to say goodbye."""
    if _one_of_several():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)
