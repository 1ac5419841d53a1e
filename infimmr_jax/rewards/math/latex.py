r"""One written form for mathematical text: unicode signs, plain-text functions and spacing become plain LaTeX."""

from __future__ import annotations

import functools
import itertools
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
_STYLED_GROUP = re.compile(
    r"\\(?:textcolor|colorbox)\s*\{[a-zA-Z!0-9]*\}|\\color\s*\{[a-zA-Z!0-9]*\}"
    r"|\\(?:bf|rm|it|sf|tt|bfseries|boldsymbol|bm|underline|uline|large|Large|huge|normalsize|small)(?![a-zA-Z])\s*"
)
_ARRAY = re.compile(
    r"[(\[]\s*\\begin\{array\}\s*(?:\{[lcr|@ ]*\})?(.*?)\\end\{array\}\s*[)\]]"
    r"|\\begin\{bmatrix\}(.*?)\\end\{bmatrix\}",
    re.DOTALL,
)
_FUNCTIONS = "arcsin|arccos|arctan|sinh|cosh|tanh|sin|cos|tan|cot|csc|ln|log|lg|exp"
# A function without its backslash, before its argument; `sec` is a second behind a number.
_PLAIN_FUNCTION = re.compile(
    rf"(?<![a-zA-Z\\])(?:({_FUNCTIONS})(?=\s*(?:[({{^_|0-9\\]|(?:[a-zA-Z]|sqrt|pi)(?![a-zA-Z])))|(sin|cos|tan|ln|log)(?=[xyz](?![a-zA-Z]))"
    r"|(?<![0-9])(?<![0-9] )(sec)(?=\s*(?:[({^\\]|[a-zA-Z](?![a-zA-Z]))))"
)
_OPEN_BUILDER = re.compile(r"\{\s*([a-zA-Z]\s*(?:\\in\b[^|:{}]*)?(?:\||:|\\mid(?![a-zA-Z])).*)\}", re.DOTALL)
# Intervals that are open where the bracket is turned away: [1,2[ and ]1,2].
_TURNED_INTERVAL = re.compile(r"([\[\]])([^\[\]()]*[,;][^\[\]()]*)([\[\]])")
_MARKED_PART = re.compile(r"\(?([a-h]|i{1,3}|iv|v)\)\s+(?=\S)")
_MARKS = (("a", "b", "c", "d", "e", "f", "g", "h"), ("i", "ii", "iii", "iv", "v"))
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
    (re.compile(r"\{,\}|,(?=\\!)"), ","),
    (re.compile(r"\\(?:textnormal|textsf|textup|textrm|mathsf)(?=\s*\{)"), r"\\text"),
    (re.compile(r"\\operatorname\*?\s*\{(arc(?:sin|cos|tan)|sin|cos|tan|ln|log|exp|sec|csc|cot)\}"), r"\\\1 "),
    (re.compile(r"\\(?:arctg|tg)(?![a-zA-Z])"), lambda m: r"\arctan" if "arc" in m.group() else r"\tan"),
    (re.compile(r"\\lg(?![a-zA-Z])"), r"\\log_{10}"),
    (re.compile(r"\\exp\s*(?:\(([^()]*)\)|\{([^{}]*)\})"), lambda m: f"e^{{{m[1] or m[2] or ''}}}"),
    (re.compile(r"\\(?:mathrm|text)\{([ei])\}(?![a-zA-Z])"), r"\1"),
    (re.compile(r"(?<=[-+(=])\s*1\s*i(?![a-zA-Z0-9])"), " i"),
    (re.compile(r"\\%"), "%"),
    (re.compile(r"\\\$"), "$"),
]
_ROOT = re.compile(r"\\?(?<![a-zA-Z])sqrt\s*(?=[(0-9])|\\sqrt\s+(?=[a-zA-Z])")
_GROUPED = re.compile(r"(?<=[^\\]\{)[0-9]{1,3}(?:,[0-9]{3})+(?=\})")
_LEAD = re.compile(
    r"^\\(?:approx|therefore|because|implies|Rightarrow)(?![a-zA-Z])\s*|^(?:so\s+|thus,?\s+|therefore,?\s+)?(?:the\s+)?(?:final\s+|correct\s+)?answer\s*(?:is|:|=)\s*:?\s*",
    re.I,
)


@functools.lru_cache(maxsize=8192)
def tidy(text: str) -> str:
    r"""Write a mathematical text in one form: `√2`, `sqrt(2)`, `\sqrt 2` become `\sqrt{2}`, and `5²` becomes `5^{2}`.

    Spacing commands, `\left`/`\right`, colours, wrappers and marks of parts that say nothing are dropped, functions get
    their backslash; the meaning never changes.
    """
    text = fold(text)
    if text.isascii() and text.isdigit():
        return text
    if "{" in text and (builder := _OPEN_BUILDER.fullmatch(text.strip().strip("$"))):
        text = rf"\{{{builder[1]}\}}"
    text = unwrap(_LEAD.sub("", unwrap(text)))
    text = _SUPER_RUN.sub(lambda match: "^{" + match.group().translate(_SUPER) + "}", text)
    text = _SUB_RUN.sub(lambda match: "_{" + match.group().translate(_SUB) + "}", text)
    text = _STYLED_GROUP.sub("", _DROPPED.sub("", text.translate(_TABLE)))
    text = _PLAIN_FUNCTION.sub(lambda match: f"\\{match[1] or match[2] or match[3]} ", text)
    for pattern, replacement in _RENAMED:
        text = pattern.sub(replacement, text)
    text = _GROUPED.sub(lambda match: match.group().replace(",", ""), _SPACES.sub(" ", _roots(text)))
    if "array" in text or "bmatrix" in text:
        text = _ARRAY.sub(lambda match: rf"\begin{{pmatrix}}{match[1] or match[2]}\end{{pmatrix}}", text)
    if text.startswith("]") or text.endswith("["):
        text = _TURNED_INTERVAL.sub(_turned, text)
    return unwrap(_LEAD.sub("", unwrap(_without_marks(text))))


def _turned(interval: re.Match[str]) -> str:
    opening, ends, closing = interval.groups()
    return f"{'[' if opening == '[' else '('}{ends.replace(';', ',')}{']' if closing == ']' else ')'}"


def _without_marks(text: str) -> str:
    """`(a) 3, (b) 5` as `3, 5`: marks of parts that follow one another from the first on."""
    marks = list(_MARKED_PART.finditer(text))
    if len(marks) < 2 or marks[0].start() != 0:
        return text
    names = tuple(mark[1] for mark in marks)
    between = [text[mark.end() : after.start()].rstrip() for mark, after in itertools.pairwise(marks)]
    if not any(names == known[: len(names)] for known in _MARKS) or not all(part[-1:] in ",;" for part in between):
        return text
    return _MARKED_PART.sub("", text)


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
