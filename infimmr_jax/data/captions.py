"""Captions: whether one gives the answer away."""

from __future__ import annotations

import re

from infimmr_jax.data.records import CHOICE_LETTERS, Problem

TRIVIAL = frozenset(("true", "false", "yes", "no"))


def leaks_answer(problem: Problem) -> bool:
    """Whether the caption holds the answer verbatim: the number or text as whole words.

    Of a choice: the right option's text, and no other option's. A flag for a person to look at, not a verdict: a
    caption that lists all bars of a chart also lists the tallest one. Yes/no and true/false are not looked for.
    """
    caption = problem.caption or ""
    if problem.answer_type != "choice":
        return _holds(caption, problem.answer)
    position = CHOICE_LETTERS.find(problem.answer.strip())
    held = [n for n, choice in enumerate(problem.choices) if _holds(caption, choice)]
    return held == [position]


def _holds(caption: str, answer: str) -> bool:
    answer = answer.strip().strip("$").strip()
    if not answer or answer.lower() in TRIVIAL:
        return False
    # A digit or word may not continue on either side: 6 is not in 60, nor in 1.6, nor in 6.5.
    return re.search(rf"(?<![\w.]){re.escape(answer)}(?!\w|\.\d)", caption, re.IGNORECASE) is not None
