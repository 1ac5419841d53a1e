"""Whether two equations or inequalities say the same, by the values of their sides; never slow, often undecided."""

from __future__ import annotations

from fractions import Fraction

import mpmath
import sympy
from sympy.core.relational import Equality, Relational, Unequality

from infimmr_jax.rewards.math.expressions import Expression
from infimmr_jax.rewards.math.values import MAX_SYMBOLS, NoValueError, Place, agree, evaluate, places

DIGITS = 40
# A root is found to this many digits; what is further from 0 there is no root of the other equation.
_ROOT_DIGITS = 30
_FAR = mpmath.mpf(10) ** -12
_STARTS = (Fraction(1, 2), Fraction(-7, 3), Fraction(13, 3), Fraction(-1, 5))
_LESS = (sympy.StrictLessThan, sympy.LessThan)
_STRICT = (sympy.StrictLessThan, sympy.StrictGreaterThan)


def relations_agree(gold: Relational, answer: Relational) -> bool | None:
    """Whether two relations have the same solutions; None where values do not say.

    They agree when the differences of their sides are multiples of each other. They do not when a solution of one is
    none of the other: where one is linear in a symbol the solution is exact, elsewhere a root is searched for.
    """
    equations = isinstance(gold, Equality) and isinstance(answer, Equality)
    unequal = isinstance(gold, Unequality) and isinstance(answer, Unequality)
    if not (equations or unequal) and (
        isinstance(gold, Equality | Unequality) or isinstance(answer, Equality | Unequality)
    ):
        return False
    symbols = gold.free_symbols
    if not symbols or symbols != answer.free_symbols:
        return False
    if len(symbols) > MAX_SYMBOLS:
        return None
    left, right = gold.lhs - gold.rhs, answer.lhs - answer.rhs
    if not (isinstance(left, sympy.Expr) and isinstance(right, sympy.Expr)):
        return None
    factor = _constant_factor(left, right, symbols)
    if factor is not None:
        return True if equations or unequal else _same_direction(gold, answer, factor)
    if _solution_misses(left, right, symbols) or _solution_misses(right, left, symbols):
        return False
    if equations and _solved_alike(left, right, symbols):
        return True
    return None


def _constant_factor(left: Expression, right: Expression, symbols: set[Expression]) -> Expression:
    """The number c with left = c right, None when there is none (or it is 0)."""
    place = places(symbols)[0]
    try:
        (first, first_error), (second, second_error) = (evaluate(side, place, DIGITS) for side in (left, right))
    except NoValueError:
        return None
    if abs(first) <= first_error or abs(second) <= second_error:
        return None
    # Cross-multiplied with their values at one place, the two must be one function.
    at_place = [_exact(side, place) for side in (left, right)]
    if None in at_place:
        return None
    same = agree(left * at_place[1], right * at_place[0])
    return mpmath.re(first / second) if same else None


def _exact(expression: Expression, place: Place) -> Expression:
    value = expression.xreplace({symbol: sympy.Rational(*n.as_integer_ratio()) for symbol, n in place.items()})
    return value if isinstance(value, sympy.Expr) and not value.free_symbols else None


def _same_direction(gold: Relational, answer: Relational, factor: Expression) -> bool:
    if isinstance(gold, _STRICT) != isinstance(answer, _STRICT):
        return False
    return (isinstance(gold, _LESS) == isinstance(answer, _LESS)) == (factor > 0)


def _linear(expression: Expression, symbol: Expression) -> Expression:
    """The value of a symbol that makes an expression 0 which is linear in it, None for any other one."""
    slope = expression.diff(symbol)
    if slope == 0 or symbol in slope.free_symbols:
        return None
    return -expression.xreplace({symbol: sympy.Integer(0)}) / slope


def _solution_misses(left: Expression, right: Expression, symbols: set[Expression]) -> bool:
    """Whether some solution of left = 0 is plainly none of right = 0."""
    for symbol in sorted(symbols, key=str):
        solution = _linear(left, symbol)
        if solution is not None:
            return agree(right.xreplace({symbol: solution}), sympy.Integer(0)) is False
    for symbol in sorted(symbols, key=str):
        for place in places(symbols)[:2]:
            for root in _roots(left, symbol, place):
                if _is_far(right, {**place, symbol: root}):
                    return True
    return False


def _solved_alike(left: Expression, right: Expression, symbols: set[Expression]) -> bool:
    """Whether both equations are linear in one symbol and come to the same value of it."""
    for symbol in sorted(symbols, key=str):
        first, second = _linear(left, symbol), _linear(right, symbol)
        if first is not None and second is not None:
            return agree(first, second) is True
    return False


def _roots(expression: Expression, symbol: Expression, place: Place) -> list[Fraction]:
    """Real roots of an expression in one symbol near a few starting points, the other symbols being fixed."""

    def function(x: Expression) -> Expression:
        return evaluate(expression, {**place, symbol: _fraction(x)}, DIGITS)[0]

    roots = []
    for start in _STARTS:
        with mpmath.workdps(DIGITS):
            try:
                root = mpmath.findroot(
                    function, mpmath.mpf(start.numerator) / start.denominator, tol=1e-60, maxsteps=25
                )
            except (ValueError, ArithmeticError, TypeError):
                continue
            if mpmath.im(root) == 0:
                roots.append(_fraction(mpmath.re(root)))
    return roots


def _fraction(value: Expression) -> Fraction:
    sign, mantissa, exponent, _ = mpmath.mpf(value)._mpf_
    return Fraction(int(-mantissa if sign else mantissa)) * Fraction(2) ** int(exponent)


def _is_far(expression: Expression, place: Place) -> bool:
    try:
        value, error = evaluate(expression, place, DIGITS)
    except NoValueError:
        return False
    return bool(abs(value) > _FAR and abs(value) > 10**6 * error)
