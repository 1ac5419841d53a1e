r"""Whether an answer is a formula of the question: the problem itself copied into the box.

"Factor $t^2-49$" is answered by $(t-7)(t+7)$. The question's own $t^2-49$ equals that by every rule of algebra, and a
policy that finds out need not learn to factor: 94 of 4,300 MATH and AIME problems could be answered so.
"""

from __future__ import annotations

import re
from functools import lru_cache

from infimmr_jax.rewards.math.labels import EQUALS, strip_label
from infimmr_jax.rewards.math.latex import tidy
from infimmr_jax.rewards.math.numbers import read_number
from infimmr_jax.rewards.math.words import solid
from infimmr_jax.rewards.text import MAX_ANSWER, unwrap

MAX_QUESTION = 20_000

_FORMULA = re.compile(r"\$\$(.+?)\$\$|\$([^$]+)\$|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)
_EDGES = " \t\n.,;:?"
_WORK = re.compile(r"[-+*/^!=<>(]|\\(?!pi(?![a-zA-Z])|infty(?![a-zA-Z])|text(?![a-zA-Z]))[a-zA-Z]")


def copied(question: str, answer: str) -> bool:
    """Whether an answer is, but for spacing, one of the question's formulas or a side of one of its equations.

    Plain numbers, names and words are never called copied: the question may well hold them.
    """
    if len(question) > MAX_QUESTION or len(answer) > MAX_ANSWER:
        return False
    text = tidy(answer)
    if not _WORK.search(text) or read_number(text):
        return False
    return solid(text) in _formulas(question)


@lru_cache(maxsize=1024)
def _formulas(question: str) -> frozenset[str]:
    found: set[str] = set()
    for match in _FORMULA.finditer(question):
        formula = tidy(next(group for group in match.groups() if group).strip(_EDGES))
        sides = EQUALS.split(formula) if EQUALS.search(formula) else []
        found |= {solid(unwrap(side.strip(_EDGES))) for side in (formula, strip_label(formula), *sides)}
    return frozenset(found)
