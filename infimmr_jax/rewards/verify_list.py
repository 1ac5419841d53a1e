"""Verify a list (order counts) or a set (it does not) of numbers and short texts."""

from __future__ import annotations

import re
from collections.abc import Callable

from infimmr_jax.rewards.math.equality import numbers_equal
from infimmr_jax.rewards.math.labels import strip_label
from infimmr_jax.rewards.math.latex import tidy
from infimmr_jax.rewards.math.numbers import parse_number
from infimmr_jax.rewards.math.structure import split_top
from infimmr_jax.rewards.text import fold, unwrap
from infimmr_jax.rewards.verdict import Options, Verdict, compared
from infimmr_jax.rewards.verify_string import clean_text

MAX_ELEMENTS = 512

_AND = re.compile(r",?\s+(?:and|or)\s+", re.IGNORECASE)


def elements(text: str) -> list[str] | None:
    r"""The elements of `[1, 2]`, `(1, 2)`, `\{1, 2\}`, `1, 2 and 3` or one element a line; nested lists are flattened.

    None when brackets do not balance or an element is empty.
    """
    text = unwrap(fold(text)).replace(r"\{", "[").replace(r"\}", "]")
    if "\n" in text and "," not in text:
        text = ",".join(line for line in text.splitlines() if line.strip())
    parts = split_top(_AND.sub(", ", text))
    if parts is None:
        return None
    flat: list[str] = []
    for part in parts:
        if part[:1] in "([{" and part[-1:] in ")]}" and len(part) > 1:
            inner = elements(part[1:-1]) if part[1:-1].strip() else []
            if inner is None:
                return None
            flat += inner
        else:
            flat.append(part)
    return flat if all(flat) and len(flat) <= MAX_ELEMENTS else None


def same_element(gold: str, answer: str) -> bool:
    """Whether two elements are equal as plain numbers, else as texts."""
    left, right = parse_number(gold), parse_number(strip_label(tidy(answer)))
    if left and right:
        return numbers_equal(left, right)
    return clean_text(gold) == clean_text(answer)


def verify_list(gold: str, answer: str, options: Options = Options()) -> Verdict:  # noqa: B008 - frozen
    """Score an ordered list by `options.rule`.

    exact: every element equal and in place. share: share of the places that are right, 0 for another length (the grid
    reward of Jigsaw-R1).
    """
    return _verify(gold, answer, LIST_RULES[options.rule or "exact"])


def verify_set(gold: str, answer: str, options: Options = Options()) -> Verdict:  # noqa: B008 - frozen
    """Score an unordered collection by `options.rule`.

    exact: the same elements, equally often. f1: harmonic mean of precision and recall. jaccard: common elements over
    all elements.
    """
    return _verify(gold, answer, SET_RULES[options.rule or "exact"])


def _verify(gold: str, answer: str, rule: Callable[[list[str], list[str]], float]) -> Verdict:
    left, right = elements(gold), elements(answer)
    if not left:
        return Verdict(0.0, "bad_gold", "unparsable gold")
    if not right:
        return Verdict(0.0, "bad_form", "not a list")
    score = rule(left, right)
    return compared(score, "all elements equal" if score == 1 else f"elements right: {score:.2f}")


def _places(gold: list[str], answer: list[str]) -> float:
    if len(gold) != len(answer):
        return 0.0
    return sum(map(same_element, gold, answer)) / len(gold)


def _common(gold: list[str], answer: list[str]) -> int:
    """Number of elements in both, each counted as often as it can be paired."""
    left_over = list(answer)
    for element in gold:
        match = next((other for other in left_over if same_element(element, other)), None)
        if match is not None:
            left_over.remove(match)
    return len(answer) - len(left_over)


LIST_RULES: dict[str, Callable[[list[str], list[str]], float]] = {
    "exact": lambda gold, answer: float(_places(gold, answer) == 1),
    "share": _places,
}
SET_RULES: dict[str, Callable[[list[str], list[str]], float]] = {
    "exact": lambda gold, answer: float(_common(gold, answer) == len(gold) == len(answer)),
    "f1": lambda gold, answer: 2 * _common(gold, answer) / (len(gold) + len(answer)),
    "jaccard": lambda gold, answer: _common(gold, answer) / (len(gold) + len(answer) - _common(gold, answer)),
}
