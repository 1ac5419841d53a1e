r"""Read the LaTeX expressions that leave no doubt, a hundred times as fast as the grammar of math-verify.

Sums, products, quotients, powers, roots and functions of numbers and single letters. Whatever could be read in two ways
(`1/2x`, `2\frac{1}{2}`, `f(x)`, `\sin 2x`, `x^10`) or is anything else gives None, and the grammar is asked.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeAlias

import sympy

# What sympy computes with is not typed by it (`x + 1` is an object): expressions, symbols and numbers of mpmath alike.
Expression: TypeAlias = Any
MAX_EXPONENT = 10_000
MAX_LENGTH = 400

_TOKEN = re.compile(r"\s*(\\[a-zA-Z]+|[0-9]+(?:\.[0-9]+)?|\.[0-9]+|[a-zA-Z]|[-+*/^(){}\[\]])")
_LETTERS = """alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi rho sigma tau upsilon phi chi psi
    omega"""
_GREEK = frozenset(f"\\{name}" for name in _LETTERS.split())
# Words; differentials, which the grammar makes of two letters with a d; functions of a capital letter; 5E-1; numbers in
# brackets behind something, which are a factor or a part.
_DOUBTS = re.compile(
    r"(?<![\\a-zA-Z])(?:[a-zA-Z]{3,}|d[a-zA-Z]|[a-zA-Z]d)(?![a-zA-Z])|(?<![\\a-zA-Z])[A-Z]\s*\("
    r"|[0-9a-zA-Z)}]\s*\(\s*[0-9.]+\s*\)|[0-9.][eE][-+0-9]"
)
_FUNCTIONS: dict[str, Callable[[Expression], Expression]] = {
    r"\sin": sympy.sin,
    r"\cos": sympy.cos,
    r"\tan": sympy.tan,
    r"\ln": sympy.log,
    r"\arcsin": sympy.asin,
    r"\arccos": sympy.acos,
    r"\arctan": sympy.atan,
}
_TIMES = (r"\cdot", r"\times", "*")
_OVER = ("/", r"\div")
_ENDS = (None, ")", "}", "]", "+", "-")
# Letters that a bracket behind them may make functions, and the imaginary unit.
_NO_VARIABLES = frozenset("ifghFGHI")


_NOT_FINITE = (sympy.zoo, sympy.nan, sympy.oo, -sympy.oo)


class _DoubtError(ValueError):
    """The text is none of those that leave no doubt."""


def read_expression(text: str) -> Expression:
    """The sympy expression of a tidy LaTeX text, None where it is not one that leaves no doubt."""
    if len(text) > MAX_LENGTH or _DOUBTS.search(text):
        return None
    tokens, position = [], 0
    text = text.rstrip()
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            return None
        tokens.append(match[1])
        position = match.end()
    try:
        reader = _Reader(tokens)
        value = reader.sum()
    except (_DoubtError, RecursionError):
        return None
    return value if reader.next is None and isinstance(value, sympy.Expr) and not value.has(*_NOT_FINITE) else None


class _Reader:
    """Recursive descent over the tokens of one text."""

    def __init__(self, tokens: list[str]) -> None:
        self._tokens = tokens
        self._place = 0

    @property
    def next(self) -> str | None:
        """The token that comes next, None at the end."""
        return self._tokens[self._place] if self._place < len(self._tokens) else None

    def sum(self) -> Expression:
        """Terms with their signs."""
        terms: list[Expression] = []
        while True:
            sign = 1
            if self.next in ("+", "-"):
                if self.next == "+" and not terms:
                    raise _DoubtError
                sign = -1 if self._take() == "-" else 1
            terms.append(sign * self._product())
            if self.next not in ("+", "-"):
                return sympy.Add(*terms)

    def _product(self) -> Expression:
        value, slash = self._power(), False
        before = self._tokens[self._place - 1]
        while self.next not in _ENDS:
            divides = self.next in _OVER
            written = divides or self.next in _TIMES
            if written:
                self._take()
            if not written and (slash or self.next[:1].isdigit() or self.next[:1] in (".", "{")):  # type: ignore[index]
                raise _DoubtError
            if not written and (before[:1].isdigit() or value.is_number) and self.next == r"\frac":
                raise _DoubtError  # a mixed number
            if slash and not divides:
                raise _DoubtError
            factor = self._power()
            before = self._tokens[self._place - 1]
            value, slash = (value / factor, True) if divides else (value * factor, slash)
        return value

    def _power(self) -> Expression:
        base = self._base()
        if self.next != "^":
            return base
        self._take()
        exponent = self._group() if self.next == "{" else self._single()
        if self.next == "^" or (exponent.is_number and not abs(exponent) <= MAX_EXPONENT):
            raise _DoubtError
        return base**exponent

    def _single(self) -> Expression:
        """One token as an exponent or a part of a fraction: `x^2`, `\\frac12`; a longer number is in doubt."""
        token = self.next
        if token is None or not (token.isalpha() or token == r"\pi" or (token.isdigit() and len(token) == 1)):
            raise _DoubtError
        return self._base()

    def _base(self) -> Expression:
        token = self.next
        if token == "(":
            return self._bracketed("(", ")")
        if token == "{":
            return self._group()
        if token is None:
            raise _DoubtError
        self._take()
        if token[0].isdigit() or token[0] == ".":
            return sympy.Rational(token) if "." in token else sympy.Integer(token)
        if token == r"\frac":
            return self._fraction()
        if token == r"\sqrt":
            return self._root()
        if token in _FUNCTIONS:
            return self._function(_FUNCTIONS[token])
        if token == r"\pi":
            return sympy.pi
        if token == "e":
            return sympy.E
        if token in _GREEK:
            return symbol(token[1:])
        if token.isalpha() and token not in _NO_VARIABLES:
            return symbol(token.lower())
        raise _DoubtError

    def _fraction(self) -> Expression:
        token = self.next
        if token is not None and token.isdigit() and len(token) == 2:  # \frac12
            self._take()
            return sympy.Rational(int(token[0]), int(token[1])) if token[1] != "0" else sympy.zoo
        top, bottom = (self._group() if self.next == "{" else self._single() for _ in range(2))
        return top / bottom

    def _root(self) -> Expression:
        index = sympy.Integer(2)
        if self.next == "[":
            index = self._bracketed("[", "]")
            if not (index.is_Integer and 2 <= index <= 20):
                raise _DoubtError
        if self.next != "{":
            raise _DoubtError
        return self._group() ** (1 / index)

    def _function(self, function: Callable[[Expression], Expression]) -> Expression:
        if self.next in ("(", "{"):
            argument = self._base()
            if self.next == "^":
                raise _DoubtError
            return function(argument)
        argument = self._base() if self.next is not None and (self.next.isalnum() or self.next in _GREEK) else None
        if argument is None or self.next not in (*_ENDS, *_FUNCTIONS):
            raise _DoubtError
        return function(argument)

    def _group(self) -> Expression:
        return self._bracketed("{", "}")

    def _bracketed(self, opening: str, closing: str) -> Expression:
        if self._take() != opening:
            raise _DoubtError
        value = self.sum()
        if self.next != closing:
            raise _DoubtError
        self._take()
        return value

    def _take(self) -> str:
        token = self.next
        if token is None:
            raise _DoubtError
        self._place += 1
        return token


def symbol(name: str) -> Expression:
    """The symbol that the grammar of math-verify makes of a letter."""
    return sympy.Symbol(name, real=True)
