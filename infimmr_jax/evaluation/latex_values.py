"""Numbers and expressions of LaTeX answers, read by latex2sympy2_extended (the parser of math-verify)."""

from __future__ import annotations

import math
import re
from typing import Any

import sympy
from antlr4.error.Errors import RecognitionException
from latex2sympy2_extended import latex2sympy
from latex2sympy2_extended.latex2sympy2 import ConversionConfig

# Names that have a value without being LaTeX commands.
_NAMES = {"e", "pi", "π", "sqrt", "sin", "cos", "tan", "log", "ln", "exp", "pmatrix"}
# The published graders tell N from n.
_CASED = ConversionConfig(lowercase_symbols=False)
# Marks in subscripts that the parser does not know: R_{\odot}.
_SYMBOL_MARKS = re.compile(r"(_\{?)\\(odot|oplus|otimes|star|ast|circ|perp|parallel|max|min)(?![a-zA-Z])")
# \frac17, \dfrac 3 8, \tfrac{16}3
_BARE_FRACTION = re.compile(r"\\[dt]?frac\s*(\d|\{[^{}]*\})\s*(\d|\{)")
# The parser would read 2(3) and 2\frac{1}{2} as the mixed numbers 5 and 2.5.
_JUXTAPOSED = re.compile(r"((?<![_\d.])\d+(?:\.\d+)?\s*)(\((?=[\s\d\\+\-.])|\\frac)")
_BAD_LATEX = (
    RecognitionException,
    SyntaxError,
    TypeError,
    ValueError,
    AttributeError,
    ArithmeticError,
    RecursionError,
    IndexError,
    KeyError,
    NotImplementedError,
)


class UnreadableLatexError(ValueError):
    """The text is no expression that the parser knows."""


def parse(latex: str) -> Any:
    """The SymPy object of a LaTeX text; raises UnreadableLatexError."""
    try:
        known = _BARE_FRACTION.sub(_braced, _SYMBOL_MARKS.sub(r"\1\2", latex))
        known = re.sub(r"\)\s*\(", r")\\cdot (", _JUXTAPOSED.sub(r"\1\\cdot \2", known))
        return latex2sympy(known, conversion_config=_CASED)
    except _BAD_LATEX as error:
        raise UnreadableLatexError(f"{latex!r} is not an expression") from error
    except Exception as error:
        # The parser's syntax errors are bare Exceptions.
        if type(error) is not Exception:
            raise
        raise UnreadableLatexError(f"{latex!r} is not an expression") from error


def _braced(match: re.Match[str]) -> str:
    top, bottom = match.groups()
    top = top if top.startswith("{") else f"{{{top}}}"
    return f"\\frac{top}{bottom}" if bottom == "{" else f"\\frac{top}{{{bottom}}}"


def number(latex: str, largest_power: float = 1000.0) -> float | None:
    """The real value of a text, or None: it holds unknowns, is no expression, or is not finite or too large a power."""
    try:
        value = float(latex)
    except ValueError:
        value = math.nan
    if math.isnan(value):
        if _holds_words(latex):
            return None
        try:
            expression = parse(latex)
        except UnreadableLatexError:
            return None
        value = real_value(expression, largest_power)
    return value if math.isfinite(value) else None


def real_value(expression: object, largest_power: float = 1000.0) -> float:
    """The float of a SymPy expression; NaN when it is not a real number or a power is too large to compute."""
    if not isinstance(expression, sympy.Expr) or expression.free_symbols or has_huge_power(expression, largest_power):
        return math.nan
    try:
        return float(expression.evalf())
    except (TypeError, ValueError, ArithmeticError):
        return math.nan


def _holds_words(latex: str) -> bool:
    """Are there names besides LaTeX commands? Then there is no value, and the parser takes seconds to say so."""
    return any(word not in _NAMES for word in re.findall(r"[^\W\d_]+", re.sub(r"\\[a-zA-Z]+", " ", latex)))


def has_huge_power(expression: object, limit: float) -> bool:
    """Does an expression hold a power whose exponent is beyond `limit`? Its value would fill the memory."""
    for power in expression.atoms(sympy.Pow) if isinstance(expression, sympy.Basic) else ():
        exponent = power.exp
        if exponent.is_number and (has_huge_power(exponent, limit) or abs(exponent.evalf(5)) > limit):
            return True
    return False
