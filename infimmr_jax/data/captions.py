"""Captions: whether one gives the answer away."""

from __future__ import annotations

import re

from infimmr_jax.data.records import CHOICE_LETTERS, Problem

TRIVIAL = frozenset(("true", "false", "yes", "no"))


def leaks_answer(problem: Problem) -> bool:
    """Whether the caption holds the answer verbatim: the number, the text, or the right option's text as whole words.

    A flag for a person to look at, not a verdict: a caption that lists all bars of a chart also lists the tallest one.
    Yes/no and true/false answers are not looked for.
    """
    answer = problem.answer
    if problem.answer_type == "choice":
        position = CHOICE_LETTERS.find(answer.strip())
        answer = problem.choices[position] if 0 <= position < len(problem.choices) else ""
    answer = answer.strip().strip("$").strip()
    if not problem.caption or not answer or answer.lower() in TRIVIAL:
        return False
    # A digit or word may not continue on either side: 6 is not in 60, nor in 1.6, nor in 6.5.
    pattern = rf"(?<![\w.]){re.escape(answer)}(?!\w|\.\d)"
    return re.search(pattern, problem.caption, re.IGNORECASE) is not None
