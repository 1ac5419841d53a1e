r"""One written form for mathematical text: unicode signs, plain-text functions and spacing become plain LaTeX."""

from __future__ import annotations

import re
from collections.abc import Callable

from infimmr_jax.rewards.text import fold, matching_braces, unwrap

_SIGNS = {
    "×": r"\times ",
    "·": r"\cdot ",
    "⋅": r"\cdot ",
    "∙": r"\cdot ",
    "÷": "/",
    "∕": "/",
    "⁄": "/",
    "π": r"\pi ",
    "∞": r"\infty ",
    "°": r"^\circ ",
    "≤": r"\le ",
    "⩽": r"\le ",
    "≥": r"\ge ",
    "⩾": r"\ge ",
    "≠": r"\ne ",
    "≈": r"\approx ",
    "±": r"\pm ",
    "∪": r"\cup ",
    "∩": r"\cap ",
    "∈": r"\in ",
    "∅": r"\emptyset ",
    "√": r"\sqrt ",
    "∠": r"\angle ",
    "△": r"\triangle ",
    "θ": r"\theta ",
    "α": r"\alpha ",
    "β": r"\beta ",
    "γ": r"\gamma ",
    "λ": r"\lambda ",
    "μ": r"\mu ",
    "φ": r"\phi ",
    "ω": r"\omega ",
    "ℝ": r"\mathbb{R}",
    "′": "'",
    "〈": "(",
    "〉": ")",
}
_VULGAR = {
    "½": (1, 2),
    "⅓": (1, 3),
    "⅔": (2, 3),
    "¼": (1, 4),
    "¾": (3, 4),
    "⅕": (1, 5),
    "⅖": (2, 5),
    "⅗": (3, 5),
    "⅘": (4, 5),
    "⅙": (1, 6),
    "⅚": (5, 6),
    "⅐": (1, 7),
    "⅛": (1, 8),
    "⅜": (3, 8),
    "⅝": (5, 8),
    "⅞": (7, 8),
    "⅑": (1, 9),
    "⅒": (1, 10),
}
_TABLE = str.maketrans(_SIGNS | {sign: rf"\frac{{{top}}}{{{bottom}}}" for sign, (top, bottom) in _VULGAR.items()})
_SUPER = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ", "0123456789+-n")
_SUB = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")
_SUPER_RUN = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ]+")
_SUB_RUN = re.compile("[₀₁₂₃₄₅₆₇₈₉]+")
_DROPPED = re.compile(
    r"(?<!\\)\\[!,;:>]|\\(?:displaystyle|textstyle|limits|nolimits|bigl?|bigr|Bigl?|Bigr|biggl?|biggr)(?![a-zA-Z])"
    r"|\\(?:left|right)(?=\s*(?:[()\[\]|.]|\\[{}|]|\\[lr](?:brace|brack|angle|vert|floor|ceil)))\s*\.?"
)
_SPACES = re.compile(r"\\(?:quad|qquad|enspace|thinspace)(?![a-zA-Z])|(?<!\\)\\ |~|\s+")
_RENAMED: list[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]]] = [
    (re.compile(r"\\[dtc]frac(?![a-zA-Z])"), r"\\frac"),
    (re.compile(r"\\[dt]binom(?![a-zA-Z])"), r"\\binom"),
    (re.compile(r"\\(?:lbrace|lbrack)(?![a-zA-Z])"), lambda m: r"\{" if "brace" in m.group() else "["),
    (re.compile(r"\\(?:rbrace|rbrack)(?![a-zA-Z])"), lambda m: r"\}" if "brace" in m.group() else "]"),
    (re.compile(r"\\(?:leqslant|leq)(?![a-zA-Z])"), r"\\le"),
    (re.compile(r"\\(?:geqslant|geq)(?![a-zA-Z])"), r"\\ge"),
    (re.compile(r"\\neq(?![a-zA-Z])"), r"\\ne"),
    (re.compile(r"\\(?:varnothing|O)(?![a-zA-Z])"), r"\\emptyset"),
    (re.compile(r"<=|=<"), r"\\le "),
    (re.compile(r">="), r"\\ge "),
    (re.compile(r"!="), r"\\ne "),
    (re.compile(r"\+/-|\+-"), r"\\pm "),
    (re.compile(r"\*\*"), "^"),
    (re.compile(r"(?<![a-zA-Z\\])(?:pi|PI|Pi)(?![a-zA-Z])"), r"\\pi "),
    (re.compile(r"(?<![a-zA-Z\\])(?:infinity|inf|oo)(?![a-zA-Z])", re.IGNORECASE), r"\\infty "),
    (re.compile(r"\{,\}"), ","),
    (re.compile(r"\\%"), "%"),
    (re.compile(r"\\\$"), "$"),
]
_ROOT = re.compile(r"\\?(?<![a-zA-Z])sqrt\s*(?=[(0-9])|\\sqrt\s+(?=[a-zA-Z])")
_GROUPED = re.compile(r"(?<=[^\\]\{)[0-9]{1,3}(?:,[0-9]{3})+(?=\})")
_LEAD = re.compile(
    r"^\\approx(?![a-zA-Z])\s*|^(?:so\s+|thus,?\s+|therefore,?\s+)?(?:the\s+)?(?:final\s+|correct\s+)?answer\s*(?:is|:|=)\s*:?\s*",
    re.I,
)


def tidy(text: str) -> str:
    r"""Mathematical text in one written form: `√2`, `sqrt(2)`, `\sqrt 2` become `\sqrt{2}`, and `5²` becomes `5^{2}`.

    Spacing commands, `\left`/`\right` and wrappers that say nothing are dropped; the meaning never changes.
    """
    text = unwrap(_LEAD.sub("", unwrap(fold(text))))
    text = _SUPER_RUN.sub(lambda match: "^{" + match.group().translate(_SUPER) + "}", text)
    text = _SUB_RUN.sub(lambda match: "_{" + match.group().translate(_SUB) + "}", text)
    text = _DROPPED.sub("", text.translate(_TABLE))
    for pattern, replacement in _RENAMED:
        text = pattern.sub(replacement, text)
    text = _GROUPED.sub(lambda match: match.group().replace(",", ""), _SPACES.sub(" ", _roots(text)))
    return unwrap(_LEAD.sub("", unwrap(text)))


def _roots(text: str) -> str:
    r"""`sqrt(..)` and a bare `\sqrt 2` with braces; a root of an open bracket is left as it stands."""
    while (match := _ROOT.search(text)) is not None:
        start = match.end()
        if text[start] == "(":
            end = matching_braces(text[start:].replace("{", " ").replace("}", " ").replace("(", "{").replace(")", "}"))
            if 0 not in end:
                return text
            stop = start + end[0]
            text = text[: match.start()] + r"\sqrt{" + text[start + 1 : stop] + "}" + text[stop + 1 :]
        else:
            number = re.match(r"[0-9]+|[a-zA-Z]", text[start:])
            assert number is not None
            stop = start + number.end()
            text = text[: match.start()] + r"\sqrt{" + text[start:stop] + "}" + text[stop:]
    return text
