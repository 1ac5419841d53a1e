"""Values of expressions: exact where they are rational, else to a precision that grows, with a bound on the error.

What differs here differs beyond any doubt of rounding. What agrees to more digits than the literals of both sides can
hide (`agree`) is equal; that is decided for closed expressions and for functions without corners.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from fractions import Fraction

import mpmath
import sympy

from infimmr_jax.rewards.math.expressions import Expression

MAX_BITS = 200_000
MAX_DIGITS = 20_000
FIRST_DIGITS = 40

Place = Mapping[Expression, Fraction]
Value = tuple[Expression, Expression]  # an mpmath number and a bound on its absolute error

# Real places for free symbols, in the order of their names: all positive, then of mixed signs.
_NUMBERS = (
    (Fraction(733, 997), Fraction(1327, 601), Fraction(311, 1009), Fraction(2203, 887), Fraction(503, 911)),
    (Fraction(-1249, 853), Fraction(421, 1523), Fraction(-631, 727), Fraction(1087, 509), Fraction(-863, 1181)),
    (Fraction(2741, 1193), Fraction(-977, 619), Fraction(1559, 397), Fraction(-283, 773), Fraction(1733, 701)),
    (Fraction(-389, 1451), Fraction(-2017, 1301), Fraction(-1823, 947), Fraction(-907, 353), Fraction(1613, 439)),
)
MAX_SYMBOLS = len(_NUMBERS[0])
# Equal at four places says nothing about a function with a corner between them.
_CORNERS = (
    sympy.Abs,
    sympy.floor,
    sympy.ceiling,
    sympy.Max,
    sympy.Min,
    sympy.sign,
    sympy.Mod,
    sympy.Piecewise,
)
_FUNCTIONS: dict[Expression, tuple[Expression, Expression]] = {
    sympy.exp: (mpmath.exp, mpmath.exp),
    sympy.log: (mpmath.log, lambda x: 1 / x),
    sympy.sin: (mpmath.sin, mpmath.cos),
    sympy.cos: (mpmath.cos, mpmath.sin),
    sympy.tan: (mpmath.tan, lambda x: 1 + mpmath.tan(x) ** 2),
    sympy.cot: (mpmath.cot, lambda x: 1 + mpmath.cot(x) ** 2),
    sympy.sec: (mpmath.sec, lambda x: mpmath.sec(x) * mpmath.tan(x)),
    sympy.csc: (mpmath.csc, lambda x: mpmath.csc(x) * mpmath.cot(x)),
    sympy.asin: (mpmath.asin, lambda x: 1 / mpmath.sqrt(1 - x * x)),
    sympy.acos: (mpmath.acos, lambda x: 1 / mpmath.sqrt(1 - x * x)),
    sympy.atan: (mpmath.atan, lambda x: 1 / (1 + x * x)),
    sympy.sinh: (mpmath.sinh, mpmath.cosh),
    sympy.cosh: (mpmath.cosh, mpmath.sinh),
    sympy.tanh: (mpmath.tanh, lambda x: 1),
    sympy.Abs: (abs, lambda x: 1),
}


class NoValueError(ArithmeticError):
    """An expression that has no value here, or none that could be computed."""


def places(symbols: set[Expression]) -> list[dict[Expression, Fraction]]:
    """Places at which expressions in these symbols are compared."""
    ordered = sorted(symbols, key=str)
    return [dict(zip(ordered, numbers, strict=False)) for numbers in _NUMBERS]


def agree(gold: Expression, answer: Expression) -> bool | None:
    """Whether two sympy expressions are equal; None where their values do not say.

    Closed expressions are compared exactly when they are rational and to as many digits as their literals hold
    otherwise; expressions in the same symbols at four real places.
    """
    if not (isinstance(gold, sympy.Expr) and isinstance(answer, sympy.Expr)):
        return None
    if gold.has(sympy.UnevaluatedExpr) or answer.has(sympy.UnevaluatedExpr):
        return None  # how the parser writes a percentage
    symbols = gold.free_symbols | answer.free_symbols
    if len(symbols) > MAX_SYMBOLS:
        return None
    if not symbols:
        return _equal_at(gold, answer, {})
    equal_at = [_equal_at(gold, answer, place) for place in places(symbols)]
    if False in equal_at:
        return False
    if equal_at.count(True) < 2 or gold.has(*_CORNERS) or answer.has(*_CORNERS):
        return None
    return True


def _equal_at(gold: Expression, answer: Expression, place: Place) -> bool | None:
    with contextlib.suppress(NoValueError):
        return rational(gold, place) == rational(answer, place)
    digits = min(MAX_DIGITS, 120 + 2 * (height(gold) + height(answer)))
    try:
        # A few digits refute what plainly differs.
        for precision in (FIRST_DIGITS, digits):
            (left, left_error), (right, right_error) = (evaluate(side, place, precision) for side in (gold, answer))
            if abs(left - right) > 4 * (left_error + right_error):
                return False
    except NoValueError:
        return None
    return True


def rational(expression: Expression, place: Place) -> Fraction:
    """The exact value of a rational expression; NoValueError for any other one and for enormous numbers."""
    if isinstance(expression, sympy.Rational):
        return Fraction(int(expression.p), int(expression.q))
    if isinstance(expression, sympy.Symbol):
        return place[expression]
    if isinstance(expression, sympy.Float):
        return Fraction(str(expression))
    if isinstance(expression, sympy.Add | sympy.Mul):
        start, total = (Fraction(0), True) if isinstance(expression, sympy.Add) else (Fraction(1), False)
        for term in expression.args:
            value = rational(term, place)
            start = start + value if total else start * value
            if start.numerator.bit_length() + start.denominator.bit_length() > MAX_BITS:
                raise NoValueError("too large")
        return start
    if isinstance(expression, sympy.Pow) and isinstance(expression.exp, sympy.Integer):
        base, exponent = rational(expression.base, place), int(expression.exp)
        size = base.numerator.bit_length() + base.denominator.bit_length()
        if size * abs(exponent) > MAX_BITS or (base == 0 and exponent < 0):
            raise NoValueError("too large, or a division by zero")
        return base**exponent
    raise NoValueError(f"{type(expression).__name__} is not rational")


def height(expression: Expression) -> int:
    """The number of digits that the literals of an expression hold, powers written out."""
    if isinstance(expression, sympy.Rational):
        return (
            len(str(abs(int(expression.p)))) + len(str(int(expression.q))) - 1 if abs(expression.p) < 10**5000 else 5000
        )
    if isinstance(expression, sympy.Pow) and isinstance(expression.exp, sympy.Integer):
        return min(MAX_DIGITS, height(expression.base) * abs(int(expression.exp)))
    return sum(height(term) for term in expression.args)


def evaluate(expression: Expression, place: Place, digits: int) -> Value:
    """The value of an expression to `digits` digits with a bound on its error; NoValueError where there is none."""
    with mpmath.workdps(digits):
        try:
            value, error = _value(expression, place, mpmath.mpf(10) ** (1 - digits), digits)
        except (ArithmeticError, ValueError, TypeError, AttributeError, MemoryError) as reason:
            raise NoValueError(str(reason)) from reason
        if not (mpmath.isfinite(value) and mpmath.isfinite(error)):
            raise NoValueError("not finite")
        return value, error


def _value(expression: Expression, place: Place, epsilon: Expression, digits: int) -> Value:
    if isinstance(expression, sympy.Symbol):
        expression = sympy.Rational(*place[expression].as_integer_ratio())
    if isinstance(expression, sympy.Rational):
        value = mpmath.mpf(int(expression.p)) / int(expression.q)
        return value, abs(value) * epsilon
    if isinstance(expression, sympy.Float):
        value = mpmath.mpf(str(expression))
        return value, abs(value) * epsilon
    terms = [] if not expression.args else [_value(term, place, epsilon, digits) for term in expression.args]
    if isinstance(expression, sympy.Add):
        total = mpmath.fsum(value for value, _ in terms)
        return total, sum(error for _, error in terms) + sum(abs(value) for value, _ in terms) * epsilon
    if isinstance(expression, sympy.Mul):
        product, error = terms[0]
        for factor, error_of_factor in terms[1:]:
            error = abs(product) * error_of_factor + abs(factor) * error + error * error_of_factor
            product = product * factor
            error += abs(product) * epsilon
        return product, error
    if isinstance(expression, sympy.Pow):
        return _power(*terms[0], *terms[1], epsilon)
    if expression.func is sympy.log and len(terms) == 2:
        (value, error), (base, base_error) = terms
        of_base = mpmath.log(base)
        result = mpmath.log(value) / of_base
        slope = abs(error / value) + abs(result) * abs(base_error / base)
        return result, slope / abs(of_base) + abs(result) * epsilon * 4
    if expression.func in _FUNCTIONS and len(terms) == 1:
        function, slope = _FUNCTIONS[expression.func]
        value, error = terms[0]
        result = function(value)
        return result, abs(slope(value)) * error + abs(result) * epsilon * 4
    if expression.free_symbols:
        raise NoValueError(f"no rule for {expression.func}")
    value = mpmath.mpmathify(expression.evalf(digits))
    return value, abs(value) * epsilon * 10


def _power(
    base: Expression, base_error: Expression, exponent: Expression, exponent_error: Expression, epsilon: Expression
) -> Value:
    if base == 0 or abs(base) <= base_error:
        if base_error == 0 and mpmath.re(exponent) > 0:
            return mpmath.mpf(0), mpmath.mpf(0)
        raise NoValueError("a power of what may be 0")
    if abs(exponent) > 10**7:
        raise NoValueError("an enormous power")
    result = mpmath.power(base, exponent)
    logarithm = abs(mpmath.log(base))
    relative = (
        abs(exponent) * base_error / abs(base) + logarithm * exponent_error + (1 + logarithm * abs(exponent)) * epsilon
    )
    return result, abs(result) * relative * 2
