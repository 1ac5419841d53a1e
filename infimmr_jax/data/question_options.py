"""Options that published questions carry inside their text: found, cut out, and given as a list."""

from __future__ import annotations

import re

from infimmr_jax.names import CHOICE_LETTERS

# "(A) ..", or "A. ..", "A: ..", "A) .." at the beginning of a line or after a space.
_MARKERS = (
    re.compile(r"(?:(?<=\s)|^)\(([A-J])\)[ \t]*", re.MULTILINE),
    re.compile(r"(?:(?<=\s)|^)([A-J])[.:)][ \t]*(?=\S)", re.MULTILINE),
)
_HEADING = re.compile(r"\s*\b(?:choices|options)\s*:?\s*$", re.IGNORECASE)


def split_options(question: str) -> tuple[str, tuple[str, ...]]:
    """The question without its options, and the options' texts in letter order; no options where none are found.

    Options count only when their letters run from A without a gap, all in the same form, the last run of the text,
    and none is empty.
    """
    for marker in _MARKERS:
        found = list(marker.finditer(question))
        starts = [n for n, match in enumerate(found) if match[1] == "A"]
        if not starts:
            continue
        run = found[starts[-1] :]
        letters = "".join(match[1] for match in run)
        if len(run) < 2 or letters != CHOICE_LETTERS[: len(run)]:
            continue
        ends = [match.start() for match in run[1:]] + [len(question)]
        options = tuple(
            question[match.end() : end].strip().rstrip(";,").strip() for match, end in zip(run, ends, strict=True)
        )
        if all(options):
            return _HEADING.sub("", question[: run[0].start()]).strip(), options
    return question, ()
