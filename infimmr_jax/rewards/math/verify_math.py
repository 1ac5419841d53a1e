"""Verify a mathematical answer: numbers and words exactly and at once, everything else by math-verify in a worker.

`decide` never imports sympy, so it may run in the trainer; `verify_math` is the whole verifier and may take any time
and memory: it runs in a grader process (see `pool`).
"""

from __future__ import annotations

import re

from infimmr_jax.rewards.math.equality import compare_numbers
from infimmr_jax.rewards.math.labels import RELATION, last_side, strip_label, without_labels
from infimmr_jax.rewards.math.latex import tidy
from infimmr_jax.rewards.math.numbers import parse_number, read_number, split_unit
from infimmr_jax.rewards.math.refusals import costly, dropped, refusal, undone
from infimmr_jax.rewards.math.words import holds_words, is_words, solid
from infimmr_jax.rewards.verdict import Options, Verdict, compared, refused
from infimmr_jax.rewards.verify_string import clean_text

_BASE = re.compile(
    r"(-?(?=[A-Fa-f]*[0-9])[0-9A-Fa-f]+(?:\.[0-9A-Fa-f]+)?)(?:_(?:\{(?:\\text\{)?(?:base)?([0-9]{1,2})\}{0,2}|([0-9])))?"
)
_PARENTHESES = re.compile(r"^(?:\(\s*([^()\[\]]*?)\s*\)|\[\s*([^()\[\]]*?)\s*\])$")
# Square or cubic metres without a space; to a gold that is a formula, m is a factor.
_METRES = re.compile(r"(?<=[0-9])m\^\{?([23])\}?$")
_CONGRUENCE = re.compile(
    r"(?:(?P<name>[a-zA-Z])\s*\\equiv\s*)?(?P<residue>-?[0-9]{1,18})\s*\(?\s*\\(?:pmod|bmod|mod)\s*(?:\{\s*)?(?P<modulus>[1-9][0-9]{0,17})\s*\}?\)?"
)
_DIGITS_AND_SIGNS = re.compile(r"[0-9 .,;:+\-*/()\[\]{}$%|'\"<>?#&]*")


def decide(gold: str, answer: str, options: Options = Options()) -> Verdict | None:  # noqa: B008 - frozen
    """The verdict where the strings alone decide it (plain numbers, words, identical text, refusals), else None."""
    why = refusal(answer)
    if why:
        return refused(why)
    if not gold.strip():
        return Verdict(0.0, "bad_gold", "unparsable gold")
    gold_number, answer_number = parse_number(gold), parse_number(answer)
    if gold_number and answer_number:
        return compare_numbers(gold_number, answer_number, options)
    gold, answer = tidy(gold), tidy(answer)
    if gold_number is None and solid(gold) == solid(answer):
        return compared(1.0, "same text")
    if options.copied:
        return refused("refused: copied from the question")
    gold, answer, why = without_labels(gold, answer)
    if why and "," not in gold:
        return refused(why)
    gold_number = read_number(gold)
    if gold_number:
        answer_number = read_number(_METRES.sub(r" m^\1", _PARENTHESES.sub(r"\1\2", strip_label(answer))))
        if answer_number:
            return compare_numbers(gold_number, answer_number, options)
        if _DIGITS_AND_SIGNS.fullmatch(answer):
            return refused("not an evaluated number")
    if solid(gold) == solid(answer):
        return compared(1.0, "same text")
    written_otherwise = _based(gold, answer) or _congruent(gold, answer)
    if written_otherwise is not None:
        return written_otherwise
    if is_words(gold):
        equal = clean_text(gold) in (clean_text(answer), clean_text(strip_label(answer)))
        return compared(float(equal), "words equal" if equal else "words differ")
    if holds_words(split_unit(strip_label(answer))[0]) and not holds_words(gold):
        return refused("words in a formula")
    why = costly(gold, answer)
    if why:
        return refused(f"refused: {why}")
    last = split_unit(last_side(answer) if not RELATION.search(gold) else answer)[0]
    why = undone(gold, last)
    if why:
        return refused(why)
    why = dropped(gold, last)
    return refused(f"refused: {why}") if why else None


def _based(gold: str, answer: str) -> Verdict | None:
    """`1011_2`: equal digits, and equal bases where both name one; a number in a base is never converted."""
    left, right = _BASE.fullmatch(solid(gold)), _BASE.fullmatch(solid(strip_label(answer)))
    if left and (left[2] or left[3]) and not right:
        return refused("no digits in a base")  # the parser would drop every base
    if not left or not right or not (left[2] or left[3] or right[2] or right[3]):
        return None
    bases = {base for base in (left[2], left[3], right[2], right[3]) if base}
    gold_names_base = bool(left[2] or left[3])  # the digits alone will do then, but 10_2 is no answer to 10
    equal = left[1].lower() == right[1].lower() and (bases == {"10"} or (gold_names_base and len(bases) == 1))
    return compared(float(equal), "digits and base equal" if equal else "digits or base differ")


def _congruent(gold: str, answer: str) -> Verdict | None:
    r"""`3 \pmod 7` and `x \equiv 3 \pmod{7}`: equal moduli, and residues that are equal by them."""
    left, right = _CONGRUENCE.fullmatch(gold), _CONGRUENCE.fullmatch(answer)
    if not left or not right:
        return refused("a residue without its modulus, or with one that the gold has not") if left or right else None
    if left["name"] and right["name"] and left["name"] != right["name"]:
        return compared(0.0, "a congruence of another variable")
    equal = (
        left["modulus"] == right["modulus"]
        and (int(left["residue"]) - int(right["residue"])) % int(left["modulus"]) == 0
    )
    return compared(float(equal), "congruences equal" if equal else "residue or modulus differs")


def verify_math(gold: str, answer: str, options: Options = Options()) -> Verdict:  # noqa: B008 - frozen
    """Whether an answer equals the gold answer; bare strings, LaTeX or plain text, gold first."""
    quick = decide(gold, answer, options)
    if quick is not None:
        return quick
    from infimmr_jax.rewards.math.symbolic import compare

    return compare(gold, answer, options)


def verify_gold(gold: str, answer: str, options: Options = Options()) -> Verdict:  # noqa: B008 - frozen
    """Whether a gold answer can be parsed and equals itself by the path that answers take."""
    from infimmr_jax.rewards.math.symbolic import compare

    return compare(gold, gold, options)
