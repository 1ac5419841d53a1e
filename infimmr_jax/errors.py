"""What the command line says in one sentence instead of a traceback."""

from __future__ import annotations


class UserError(Exception):
    """A mistake that a person can mend: the message is a sentence that names its place and says what to do."""


__all__ = ["UserError"]
