"""Verify a mathematical answer: numbers and words exactly and at once, everything else by math-verify in a worker.

`decide` never imports sympy, so it may run in the trainer; `verify_math` is the whole verifier and may take any time
and memory: it runs in a grader process (see `pool`).
"""

from __future__ import annotations

import math
import re
from fractions import Fraction

from infimmr_jax.rewards.guards import EQUALS, costly, dropped, undone
from infimmr_jax.rewards.latex import tidy
from infimmr_jax.rewards.numbers import PlainNumber, parse_number, read_number, same_unit, split_unit
from infimmr_jax.rewards.text import MAX_ANSWER, MAX_NESTING, nesting
from infimmr_jax.rewards.verdict import Options, Verdict
from infimmr_jax.rewards.verify_string import clean_text

# Significant digits a decimal must show to stand for an exact value that it does not equal (0.333333 for 1/3).
ROUNDING_DIGITS = 6

_LABEL = re.compile(
    r"^(?!.*\b(?:[Nn]ot|[Nn]ever|[Cc]annot|[Ww]rong|[Ff]alse|[Ii]ncorrect)\b)"
    r"(?:[A-Za-z](?:_\{?[A-Za-z0-9]{1,3}\}?)?'?|[A-Z]{2,3}|"
    r"[a-zA-Z]?\([a-zA-Z](?:, ?[a-zA-Z]){0,3}\)|m?\\angle ?[A-Z0-9]{1,3}"
    r"|\\[a-z]{2,7} ?|(?:\\text\{)?[A-Za-z ]{3,30}\}?)\s*(?:=|\\approx)\s*(?=[^=<>]*$)"
)
RELATION = re.compile(r"[=<>]|\\(?:le|ge|ne|lt|gt|approx)(?![a-zA-Z])")
_COMMAND = re.compile(r"\\[a-zA-Z]+")
_STYLED = re.compile(r"\\(?:text|textbf|textit|textrm|textnormal|mathrm|mathbf|mbox|hbox)\s*\{([^{}]*)\}")
_JOINED = re.compile(r"\\text\s*\{\s*(?:and|or)\s*\}|(?<![a-zA-Z\\])and(?![a-zA-Z])|\\(?:begin|end)\s*\{[a-z]*matrix\}")
_WORD = re.compile(r"[A-Za-z]{3,}")
_FUNCTIONS = frozenset(
    ("sin", "cos", "tan", "cot", "sec", "csc", "arcsin", "arccos", "arctan", "sinh", "cosh", "tanh", "log", "exp")
)
_BASE = re.compile(
    r"(-?(?=[A-Fa-f]*[0-9])[0-9A-Fa-f]+(?:\.[0-9A-Fa-f]+)?)(?:_(?:\{(?:\\text\{)?(?:base)?([0-9]{1,2})\}{0,2}|([0-9])))?"
)
_PARENTHESES = re.compile(r"^(?:\(\s*([^()\[\]]*?)\s*\)|\[\s*([^()\[\]]*?)\s*\])$")
_DIGITS_AND_SIGNS = re.compile(r"[0-9 .,;:+\-*/()\[\]{}$%|'\"<>?#&]*")
_MATH_SIGN = re.compile(r"[0-9=<>+*/^_\\]")


def numbers_equal(gold: PlainNumber, answer: PlainNumber, relative_tolerance: float = 0.0) -> bool:
    """Whether two plain numbers are the same quantity.

    Exact, except that a decimal with at least six significant digits may stand for a fraction it is the rounding of,
    and that `relative_tolerance` widens the comparison when it is not 0. `6%` equals `6` and `0.06`; `6` and `0.06`
    stay apart. A bare number above 1 may be answered with a percent sign (50 by 50%), one below may not (0.5% is not
    0.5). Two different units never agree.
    """
    if gold.unit and answer.unit and not same_unit(gold.unit, answer.unit):
        return False
    if answer.unit == "K" and not gold.unit:
        return False  # thousands, as likely as kelvin
    if (gold.percent and answer.unit) or (gold.unit and answer.percent):
        return False
    if gold.percent == answer.percent:
        pairs = [(gold.value, answer.value)]
    elif gold.percent:
        pairs = [(gold.value, answer.value), (gold.value / 100, answer.value)]
    else:
        pairs = [(gold.value, answer.value / 100)]
        if abs(gold.value) > 1:
            pairs.append((gold.value, answer.value))
    return any(values_equal(left, gold.decimals, right, answer.decimals, relative_tolerance) for left, right in pairs)


def values_equal(
    gold: Fraction, gold_decimals: int | None, answer: Fraction, answer_decimals: int | None, tolerance: float
) -> bool:
    """Whether two values agree: exactly, by rounding of the one that shows decimals, or within a tolerance."""
    if gold == answer:
        return True
    if gold_decimals is not None and answer_decimals is None and _is_rounding(gold, gold_decimals, answer):
        return True
    if answer_decimals is not None and gold_decimals is None and _is_rounding(answer, answer_decimals, gold):
        return True
    return tolerance > 0 and gold != 0 and abs(answer - gold) <= Fraction(tolerance) * abs(gold)


def _is_rounding(written: Fraction, decimals: int, exact: Fraction) -> bool:
    """Whether `written` is `exact` rounded, or cut, to `decimals` digits, of which at least six are significant."""
    scaled = abs(exact) * 10**decimals
    shown = abs(written) * 10**decimals
    if written * exact <= 0 or shown < 10 ** (ROUNDING_DIGITS - 1):
        return False
    return shown == math.floor(scaled) or abs(shown - scaled) * 2 <= 1


def strip_label(text: str) -> str:
    """The right side of `x = ...` when the left side only names what is asked for."""
    return _LABEL.sub("", text, count=1)


def last_side(text: str) -> str:
    """What stands behind the last equals sign: `x = 2 \\cdot 3 = 6` comes to 6."""
    return EQUALS.split(text)[-1].strip()


def is_words(text: str) -> bool:
    r"""Whether a gold answer is a word or a phrase (`\text{August}`, `east`), to be compared as text."""
    bare = _JOINED.sub(",", _STYLED.sub(r" \1 ", text))
    return bool(_WORD.search(bare)) and not _MATH_SIGN.search(bare)


def holds_words(text: str) -> bool:
    """Whether an answer holds words (three letters or more) that are no functions: it is not a formula."""
    bare = _COMMAND.sub(" ", _STYLED.sub(r" \1 ", _JOINED.sub(",", text)))
    return any(word.lower() not in _FUNCTIONS for word in _WORD.findall(bare))


def solid(text: str) -> str:
    """A tidy text without spaces: two answers with equal solid forms are the same answer."""
    return "".join(text.split())


def refusal(answer: str) -> str | None:
    """Why an answer is not looked at (bounded input): too long or too deeply nested."""
    if not answer.strip():
        return "empty answer"
    if len(answer) > MAX_ANSWER:
        return f"longer than {MAX_ANSWER} characters"
    if nesting(answer) > MAX_NESTING:
        return f"nested deeper than {MAX_NESTING}"
    return None


def decide(gold: str, answer: str, options: Options = Options()) -> Verdict | None:  # noqa: B008 - frozen
    """The verdict where the strings alone decide it (plain numbers, words, identical text, refusals), else None."""
    why = refusal(answer)
    if why:
        return Verdict(0.0, why)
    if not gold.strip():
        return Verdict(0.0, "unparsable gold")
    gold_number, answer_number = parse_number(gold), parse_number(answer)
    if gold_number and answer_number:
        return _numbers_verdict(gold_number, answer_number, options)
    gold, answer = tidy(gold), tidy(answer)
    if gold_number:
        if options.copied:
            return Verdict(0.0, "refused: copied from the question")
        labelled = read_number(_PARENTHESES.sub(r"\1\2", strip_label(answer)))
        if labelled:
            return _numbers_verdict(gold_number, labelled, options)
        if _DIGITS_AND_SIGNS.fullmatch(answer):
            return Verdict(0.0, "not an evaluated number")
    if solid(gold) == solid(answer):
        return Verdict(1.0, "same text")
    if options.copied:
        return Verdict(0.0, "refused: copied from the question")
    based = _based(gold, answer)
    if based is not None:
        return based
    if is_words(gold):
        equal = clean_text(gold) in (clean_text(answer), clean_text(strip_label(answer)))
        return Verdict(float(equal), "words equal" if equal else "words differ")
    if holds_words(split_unit(strip_label(answer))[0]) and not holds_words(gold):
        return Verdict(0.0, "words in a formula")
    why = costly(gold, answer)
    if why:
        return Verdict(0.0, f"refused: {why}")
    last = split_unit(last_side(answer) if not RELATION.search(gold) else answer)[0]
    why = undone(gold, last)
    if why:
        return Verdict(0.0, why)
    why = dropped(gold, last)
    return Verdict(0.0, f"refused: {why}") if why else None


def _based(gold: str, answer: str) -> Verdict | None:
    """`1011_2`: equal digits, and equal bases where both name one; a number in a base is never converted."""
    left, right = _BASE.fullmatch(solid(gold)), _BASE.fullmatch(solid(strip_label(answer)))
    if left and (left[2] or left[3]) and not right:
        return Verdict(0.0, "no digits in a base")  # the parser would drop every base
    if not left or not right or not (left[2] or left[3] or right[2] or right[3]):
        return None
    bases = {base for base in (left[2], left[3], right[2], right[3]) if base}
    gold_names_base = bool(left[2] or left[3])  # the digits alone will do then, but 10_2 is no answer to 10
    equal = left[1].lower() == right[1].lower() and (bases == {"10"} or (gold_names_base and len(bases) == 1))
    return Verdict(float(equal), "digits and base equal" if equal else "digits or base differ")


def _numbers_verdict(gold: PlainNumber, answer: PlainNumber, options: Options) -> Verdict:
    equal = numbers_equal(gold, answer, options.relative_tolerance)
    return Verdict(float(equal), "numbers equal" if equal else "numbers differ")


def verify_math(gold: str, answer: str, options: Options = Options()) -> Verdict:  # noqa: B008 - frozen
    """Whether an answer equals the gold answer; bare strings, LaTeX or plain text, gold first."""
    quick = decide(gold, answer, options)
    if quick is not None:
        return quick
    from infimmr_jax.rewards.symbolic import compare

    return compare(gold, answer, options)


def verify_gold(gold: str, answer: str, options: Options = Options()) -> Verdict:  # noqa: B008 - frozen
    """Whether a gold answer can be parsed and equals itself by the path that answers take."""
    from infimmr_jax.rewards.symbolic import compare

    return compare(gold, gold, options)


__all__ = [
    "EQUALS",
    "RELATION",
    "decide",
    "holds_words",
    "is_words",
    "last_side",
    "numbers_equal",
    "refusal",
    "solid",
    "strip_label",
    "values_equal",
    "verify_gold",
    "verify_math",
]
