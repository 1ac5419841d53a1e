r"""What is refused before a computer algebra system sees it: work left undone, and bombs.

An answer is refused when the gold answer has nothing of the kind: `\int_0^4 1 dx` equals 4, but the problem asked for
the 4, and a policy soon learns to copy the problem's expression into the box.
"""

from __future__ import annotations

import re

from infimmr_jax.rewards.math.labels import EQUALS
from infimmr_jax.rewards.math.words import variables
from infimmr_jax.rewards.text import MAX_ANSWER, MAX_NESTING, matching_braces, nesting

MAX_PLAIN = 300
MAX_LITERAL = 60
MAX_POWER = 10_000
MAX_EXPANSION = 100
MAX_FACTORIAL = 999
MAX_CALLS = 6

_OPERATORS = re.compile(
    r"\\(?:sum|prod|i{1,3}nt|oint|lim|limsup|liminf|max|min|sup|inf|det|gcd|lcm|operatorname|mathop|partial|lfloor"
    r"|lceil|bmod|pmod|mod|Gamma|zeta)(?![a-zA-Z])|\\begin\{[vV]matrix\}"
)
# Functions by family: one in the gold lets its relatives pass (sin 2x for 2 sin x cos x, ln 3/ln 2 for a log).
_FAMILIES = {
    "logarithm": re.compile(r"(?<![a-zA-Z])\\?(?:log|ln|lg)(?![a-zA-Z])"),
    "inverse function": re.compile(
        r"(?<![a-zA-Z])\\?(?:arc(?:sin|cos|tan|cot|sec|csc)|(?:sin|cos|tan|cot|sec|csc)\s*\^\s*\{?\s*-\s*1)"
    ),
    "trigonometric function": re.compile(r"(?<![a-zA-Z])\\?(?:arc)?(?:sin|cos|tan|cot|sec|csc)h?(?![a-zA-Z])"),
}
_SUM = re.compile(r"(?:[0-9)}\]!.]|[a-zA-Z]|\|)\s*(?:[+\-]|\\[mp]{2}(?![a-zA-Z]))")
_RELATED_SUM = re.compile(r"[+\-]|\\pm|\\(?:log|ln|lg)(?![a-zA-Z])")
_ROOT = re.compile(r"\\sqrt(?:\[([2-9])\])?\{([0-9]{1,40})\}")
_RATIONAL = re.compile(r"[-+]?(?:[0-9][0-9,]*|\\frac\{-?[0-9]+\}\{[0-9]+\}|[0-9]+/[0-9]+)")
_DIVISION = re.compile(r"/|\\frac|\\div(?![a-zA-Z])")
_WHOLE = re.compile(r"[-+]?[0-9][0-9,]*")
# What the grammar would drop without a word, or take for the formula without it.
_DROPPED = {
    "an ellipsis": re.compile(r"\\[lcdv]?dots[a-z]?(?![a-zA-Z])|\.\.|…|⋯"),
    "a prime": re.compile(r"'|\\prime(?![a-zA-Z])"),
    "an approximate relation": re.compile(r"\\(?:approx|sim|simeq|cong)(?![a-zA-Z])"),
    "a factor of 1": re.compile(r"[a-zA-Z)}]\s*1$"),
    "a subscript on a number": re.compile(r"[0-9)\]}]\s*_"),
    "a sign over a formula": re.compile(
        r"\\(?:overline|bar|d{1,3}ot|tilde|widetilde|mathring|check|breve)(?![a-zA-Z])(?!\s*\{[A-Z]{2,4}\})"
    ),
    "arithmetic with infinity": re.compile(
        r"\\infty\s*(?:[-+*/^!0-9]|\\(?:cdot|times|frac|div|sqrt))|[0-9)}a-z]\s*[-+*/^]?\s*\\infty|\^\s*\{\s*-?\s*\\infty"
    ),
}
_UNION = re.compile(r"\\(?:cup|cap|setminus)(?![a-zA-Z])")
_SET_LIKE = re.compile(r"[<>]|\\(?:cup|cap|setminus|infty|in|le|ge|ne|mathbb|emptyset)(?![a-zA-Z])|\\\{|^[(\[].*,")
_ARITHMETIC = re.compile(r"(?:[0-9.,+\-*/=() ]|\\(?:times|cdot|div|frac)(?![a-zA-Z])|[{}])+")
_BINARY = re.compile(
    r"[0-9)}]\s*(?:[+\-*]|\\(?:times|cdot|div)(?![a-zA-Z]))|[0-9)}]\s*\(|\)\s*[0-9]|/[^/]*/|[)}]\s*/|/\s*[(\\]"
)
# x < 3 and x \in [0, 1] may stand for an interval or a set, which have no variable.
_CONDITION = re.compile(r"[<>]|\\(?:in|le|ge|ne|lt|gt)(?![a-zA-Z])")
_PIECES = re.compile(r"[,;]|\\(?:text|mathrm)\s*\{[^{}]*\}|\\(?:cup|cap|lor|vee|land|wedge)(?![a-zA-Z])|\b(?:and|or)\b")
_BARE = re.compile(r"(?:[a-zA-Z]|\\[a-zA-Z]+)(?:_\{?[a-zA-Z0-9]+\}?)?'?")
_LITERAL = re.compile(rf"[0-9]{{{MAX_LITERAL + 1},}}")
_FLOAT_EXPONENT = re.compile(r"[0-9]\s*[eE]\s*[+-]?\s*[0-9]{4,}")
_CALLS = re.compile(r"\\(?:sqrt|sin|cos|tan|cot|sec|csc|log|ln|exp|arcsin|arccos|arctan|sinh|cosh|tanh)(?![a-zA-Z])")
_BINOMIAL = re.compile(r"\\[dt]?binom|\\choose|\\brace(?![a-z])")
_SMALL_BINOMIAL = re.compile(r"\\[dt]?binom(?:\s*\{\s*[0-9a-z]{1,4}\s*\}|\s*[0-9a-z]){2}")
_FACTORIAL = re.compile(r"([0-9]*)\s*!(?!=)")
_EXPONENT = re.compile(r"([)}a-zA-Z])?\s*\^\s*(?:\{\s*[+-]?\s*([0-9]+)\s*\}|([0-9]+))")
_EXPONENT_BOMB = re.compile(r"\^\s*\{[^{}]*(?:\\[dt]?binom|\\choose|!)|\^\s*\([^()]*!")
_POWER = re.compile(r"\^")
_TOKEN = re.compile(r"[a-zA-Z]|\\[a-zA-Z]+|[0-9]*")
_SMALL_TOWER = re.compile(r"([0-9]{1,2})\^\{?([0-9]{1,2})\}?")


def refusal(answer: str) -> str | None:
    """Why an answer is not looked at (bounded input): too long or too deeply nested."""
    if not answer.strip():
        return "empty answer"
    if len(answer) > MAX_ANSWER:
        return f"longer than {MAX_ANSWER} characters"
    if nesting(answer) > MAX_NESTING:
        return f"nested deeper than {MAX_NESTING}"
    return None


def undone(gold: str, answer: str) -> str | None:
    """Why an answer is work left undone: integrals, sums, arithmetic, or variables the gold answer does not have."""
    for operator in sorted(set(_OPERATORS.findall(answer))):
        if operator not in gold:
            return f"unevaluated {operator}"
    if _ARITHMETIC.fullmatch(answer) and _BINARY.search(answer) and not _BINARY.search(gold):
        return "unevaluated arithmetic"
    if answer.count(r"\begin{") > max(1, gold.count(r"\begin{")):
        return "an unevaluated matrix expression"
    if _CONDITION.search(answer) and not _is_solved(answer) and (not _CONDITION.search(gold) or _is_solved(gold)):
        return "an unsolved condition"
    if not _CONDITION.search(answer) and variables(answer) - variables(gold):
        return "a variable that the gold answer does not have"
    for family, pattern in _FAMILIES.items():
        if pattern.search(answer) and not pattern.search(gold):
            return f"an unevaluated {family}"
    return None if variables(answer) else _unevaluated(gold, answer)


_BUILDER = re.compile(r"^\\\{.*?(?:\\mid(?![a-zA-Z])|:|\|)(.*)\\\}$", re.DOTALL)


def _is_solved(text: str) -> bool:
    r"""Whether every condition of a text has a bare variable on one side and no variable on the others: 1 < x \le 5."""
    builder = _BUILDER.match(text)
    for condition in _PIECES.split(builder[1] if builder else text):
        sides = [side.strip() for side in _CONDITION.split(condition)]
        if len(sides) > 1 and [bool(variables(side)) for side in sides].count(True) > 1:
            return False
        if len(sides) > 1 and not any(_BARE.fullmatch(side) for side in sides):
            return False
    return True


def _unevaluated(gold: str, answer: str) -> str | None:
    """Why an answer without variables is not worked out: a sum for a single term, the root of a square, 7!/5!."""
    if _SUM.search(answer) and not _RELATED_SUM.search(gold):
        return "an unevaluated sum"
    if _RATIONAL.fullmatch(gold) and "!" in answer:
        return "an unevaluated factorial"
    if _RATIONAL.fullmatch(gold) and r"\sqrt" in answer:
        return "an unevaluated root"
    for index, radicand in _ROOT.findall(answer):
        if _is_power(int(radicand), int(index or 2)) and (index, radicand) not in _ROOT.findall(gold):
            return "an unevaluated root"
    if _WHOLE.fullmatch(gold) and _DIVISION.search(answer):
        return "an unevaluated fraction"
    return None


def _is_power(number: int, index: int) -> bool:
    """Whether a whole number is an `index`-th power of another."""
    low, high = 0, 1 << (number.bit_length() // index + 1)
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if middle**index < number else (low, middle)
    return low**index == number


def dropped(gold: str, answer: str) -> str | None:
    """Which sign an answer holds, and the gold does not, that the grammar would read as if it were not there."""
    if _UNION.search(answer) and not _SET_LIKE.search(gold):
        return "a set operation"
    if len(EQUALS.findall(answer)) > len(EQUALS.findall(gold)) > 0:
        return "more equations than the gold answer has"
    return next((name for name, sign in _DROPPED.items() if sign.search(answer) and not sign.search(gold)), None)


def costly(gold: str, answer: str) -> str | None:
    """Why an answer would cost too much to look at, measured against the gold answer."""
    if len(answer) > max(MAX_PLAIN, 8 * len(gold)):
        return "far longer than the gold answer"
    if _LITERAL.search(answer) and not _LITERAL.search(gold):
        return f"a literal of more than {MAX_LITERAL} digits"
    if _FLOAT_EXPONENT.search(answer):
        return "an enormous decimal exponent"
    if len(_CALLS.findall(answer)) > max(MAX_CALLS, 2 * len(_CALLS.findall(gold))):
        return "too many functions"
    small = all(_SMALL_BINOMIAL.match(answer, match.start()) for match in _BINOMIAL.finditer(answer))
    if not small and not _BINOMIAL.search(gold):
        return "an enormous binomial"
    return _enormous_power(gold, answer) or _enormous_factorial(gold, answer)


def _enormous_power(gold: str, answer: str) -> str | None:
    if is_tower(answer) and not is_tower(gold):
        return "a power tower"
    if _EXPONENT_BOMB.search(answer) and not _EXPONENT_BOMB.search(gold):
        return "a factorial or binomial in an exponent"
    in_gold = [int(a or b) for _, a, b in _EXPONENT.findall(gold) if len(a or b) <= MAX_LITERAL]
    for base, first, second in _EXPONENT.findall(answer):
        digits, limit = first or second, MAX_EXPANSION if base else MAX_POWER
        if len(digits) > MAX_LITERAL or int(digits) > max([limit, *in_gold]):
            return "an enormous power"
    return None


def is_tower(text: str) -> bool:
    """Whether an exponent holds a power of its own; but 2^{2^3} and e^{x^2} are let pass."""
    text = "".join(text.split())
    braces = matching_braces(text.replace("(", "{").replace(")", "}"))
    for start in (match.end() for match in _POWER.finditer(text)):
        stop = braces.get(start)
        if stop is not None:
            exponent, end = text[start + 1 : stop], stop + 1
        else:
            token = _TOKEN.match(text, start)
            exponent = token[0] if token else ""
            end = start + len(exponent)
        if text.startswith("^", end) or _holds_tower(exponent):
            return True
    return False


def _holds_tower(exponent: str) -> bool:
    if "^" not in exponent:
        return False
    small = _SMALL_TOWER.fullmatch(exponent)
    if small:
        return int(small[1]) ** int(small[2]) > MAX_POWER
    return exponent.count("^") > 1 or not re.search(r"[a-zA-Z]", exponent)


def _enormous_factorial(gold: str, answer: str) -> str | None:
    if "!" not in gold:
        for number in _FACTORIAL.findall(answer):
            if not number or len(number) > 3 or int(number) > MAX_FACTORIAL:
                return "an enormous or nested factorial"
    if "!!" in answer and "!!" not in gold:
        return "a double factorial"
    return None
