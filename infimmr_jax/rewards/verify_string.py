"""Verify a literal text answer: equal after normalisation."""

from __future__ import annotations

import re

from infimmr_jax.rewards.text import fold, unwrap
from infimmr_jax.rewards.verdict import Options, Verdict

_INNER = re.compile(r"\\(?:text|mathrm|mathbf|textbf|textit|mathit|textrm)\s*\{([^{}]*)\}")
_EDGES = " \t\n\"'`.,;:!?"


def clean_text(text: str) -> str:
    """Text without wrappers, LaTeX text commands, case, repeated white space, and quotes or stops at its ends."""
    text = unwrap(_INNER.sub(r"\1", unwrap(fold(text))))
    return " ".join(text.casefold().split()).strip(_EDGES)


def verify_string(gold: str, answer: str, options: Options = Options()) -> Verdict:  # noqa: B008 - frozen
    """Whether two texts are equal after `clean_text`."""
    cleaned = clean_text(gold)
    if not cleaned:
        return Verdict(0.0, "unparsable gold")
    equal = cleaned == clean_text(answer)
    return Verdict(float(equal), "text equal" if equal else "text differs")


__all__ = ["clean_text", "verify_string"]
