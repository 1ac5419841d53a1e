"""Verify a literal text answer: equal after normalisation, or near by edit distance."""

from __future__ import annotations

import re
from collections.abc import Callable

from rapidfuzz.distance import Levenshtein

from infimmr_jax.rewards.text import fold, unwrap
from infimmr_jax.rewards.verdict import Options, Verdict, compared

ANLS_THRESHOLD = 0.5

_INNER = re.compile(r"\\(?:text|mathrm|mathbf|textbf|textit|mathit|textrm)\s*\{([^{}]*)\}")
_EDGES = " \t\n\"'`.,;:!?"


def clean_text(text: str) -> str:
    """Text without wrappers, LaTeX text commands, case, repeated white space, and quotes or stops at its ends."""
    text = unwrap(_INNER.sub(r"\1", unwrap(fold(text))))
    return " ".join(text.casefold().split()).strip(_EDGES)


def verify_string(gold: str, answer: str, options: Options = Options()) -> Verdict:  # noqa: B008 - frozen
    """Score a text against the gold and its alternatives (the best counts), by `options.rule`.

    exact: equal after `clean_text`. levenshtein: 1 - distance / longer length. anls: the same, but 0 below
    `options.threshold` (0.5; average normalised Levenshtein similarity, Biten et al. 2019, arXiv 1905.13648).
    """
    golds = [clean_text(text) for text in (gold, *options.alternatives)]
    if not golds[0]:
        return Verdict(0.0, "bad_gold", "unparsable gold")
    cleaned = clean_text(answer)
    score = max(RULES[options.rule or "exact"](text, cleaned, options) for text in golds)
    return compared(score, "text equal" if score == 1 else f"text similar: {score:.2f}" if score else "text differs")


def _exact(gold: str, answer: str, options: Options) -> float:
    return float(gold == answer)


def _levenshtein(gold: str, answer: str, options: Options) -> float:
    return Levenshtein.normalized_similarity(gold, answer)


def _anls(gold: str, answer: str, options: Options) -> float:
    similarity = Levenshtein.normalized_similarity(gold, answer)
    return similarity if similarity >= (ANLS_THRESHOLD if options.threshold is None else options.threshold) else 0.0


RULES: dict[str, Callable[[str, str, Options], float]] = {
    "exact": _exact,
    "levenshtein": _levenshtein,
    "anls": _anls,
}
