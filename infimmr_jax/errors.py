"""What the command line says in one sentence instead of a traceback."""

from __future__ import annotations


class UserError(Exception):
    """A mistake that a person can mend: the message is a sentence that names its place and says what to do."""


class StoppedError(RuntimeError):
    """A run that can not go on; its state is saved as far as the message says. `status` is for the launcher."""

    def __init__(self, message: str, status: int = 1):
        super().__init__(message)
        self.status = status


__all__ = ["StoppedError", "UserError"]
