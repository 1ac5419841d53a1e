"""Equality of two LaTeX answers by math-verify; runs in grader processes only (it imports sympy, and may hang)."""

from __future__ import annotations

import logging
from functools import lru_cache
from typing import Any

from latex2sympy2_extended import NormalizationConfig
from math_verify import LatexExtractionConfig, parse, verify

from infimmr_jax.rewards.text import fold, unwrap
from infimmr_jax.rewards.verdict import Options, Verdict

# math-verify warns once a call that its own (signal based) timeouts are off: here the pool's kill is the deadline.
logging.getLogger("math_verify").setLevel(logging.CRITICAL)

_CONFIG = LatexExtractionConfig(
    boxed_match_priority=0,
    normalization_config=NormalizationConfig(
        basic_latex=True, units=True, malformed_operators=True, nits=True, boxed="all", equations=False
    ),
)


@lru_cache(maxsize=4096)
def parse_latex(text: str) -> Any:
    """The sympy object a LaTeX answer denotes, or None when it can not be parsed."""
    found = parse(rf"\boxed{{{unwrap(fold(text))}}}", [_CONFIG], parsing_timeout=None)
    return found[0] if found and not isinstance(found[0], str) else None


def compare(gold: str, answer: str, options: Options) -> Verdict:
    """Whether two answers denote the same object; an unparsable gold or answer scores 0 and says so."""
    gold_value, answer_value = parse_latex(gold), parse_latex(answer)
    if gold_value is None:
        return Verdict(0.0, "unparsable gold")
    if answer_value is None:
        return Verdict(0.0, "unparsable answer")
    equal = verify(gold_value, answer_value, timeout_seconds=None)
    return Verdict(float(equal), "math-verify: equal" if equal else "math-verify: different")


__all__ = ["compare", "parse_latex"]
