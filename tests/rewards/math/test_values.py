"""Values with a bound on their error: against Python's Fractions and Decimals, and pairs that floats can not tell."""

import random
from decimal import Decimal, localcontext
from fractions import Fraction

import mpmath
import pytest
import sympy

from infimmr_jax.rewards.math.values import NoValueError, agree, evaluate, height, rational

x, y = sympy.symbols("x y", real=True)
R = sympy.Rational


def test_rational_expressions_are_exact() -> None:
    draw = random.Random(0)
    for _ in range(50):
        a, b, c = (Fraction(draw.randint(-99, 99), draw.randint(1, 99)) for _ in range(3))
        n = draw.randint(0, 9)
        written = R(*a.as_integer_ratio()) * x**n + R(*b.as_integer_ratio()) / (y + 1)
        assert rational(written, {x: c, y: a + 101}) == a * c**n + b / (a + 102)
    with pytest.raises(NoValueError):
        rational(sympy.sqrt(2), {})
    with pytest.raises(NoValueError):
        rational(1 / (x - 1), {x: Fraction(1)})


def test_the_bound_holds_the_true_value() -> None:
    """`Decimal` with 120 digits is the judge of 40 digits."""
    with localcontext() as context:
        context.prec = 120
        truths = {
            sympy.sqrt(2) * sympy.sqrt(3): Decimal(6).sqrt(),
            sympy.exp(R(1, 3)): (Decimal(1) / 3).exp(),
            sympy.log(7) - sympy.log(5): (Decimal(7) / 5).ln(),
            sympy.sqrt(10**30 + 1) - 10**15: (Decimal(10) ** 30 + 1).sqrt() - Decimal(10) ** 15,
        }
        for expression, truth in truths.items():
            value, error = evaluate(expression, {}, 40)
            with mpmath.workdps(110):
                assert abs(mpmath.mpf(str(truth)) - value) <= error


@pytest.mark.parametrize(
    ("first", "second", "equal"),
    [
        (R(1, 3**120), R(1, 3**121), False),
        (R(1, 4**70), R(1, 2**140), True),
        (sympy.sqrt(2) + R(1, 10**60), sympy.sqrt(2), False),
        (sympy.sqrt(2) * sympy.sqrt(3), sympy.sqrt(6), True),
        (sympy.sqrt(3 + 2 * sympy.sqrt(2)), 1 + sympy.sqrt(2), True),
        (sympy.exp(-1000), sympy.exp(-1001), False),
        (2**4950, 2**4950 + 1, False),
        (sympy.pi / 4, sympy.atan(1), True),
        (sympy.exp(sympy.pi * sympy.sqrt(163)), sympy.Integer(640320**3 + 744), False),
        (x**2 - 1, (x - 1) * (x + 1), True),
        (x**2 - 1, (x - 1) * (x + 2), False),
        (sympy.sin(x) ** 2 + sympy.cos(x) ** 2, sympy.Integer(1), True),
        (sympy.sin(2 * x), 2 * sympy.sin(x) * sympy.cos(x), True),
        (x * sympy.sin(x), x * sympy.cos(x), False),
        (sympy.Abs(x), x, False),
        (x + R(1, 10**80), x, False),
    ],
)
def test_agree(first: object, second: object, equal: bool) -> None:
    assert agree(sympy.sympify(first), sympy.sympify(second)) is equal


def test_a_corner_is_left_to_others() -> None:
    assert agree(sympy.Abs(x), sympy.Abs(x)) is None
    assert agree(sympy.Abs(x - 10**6), 10**6 - x) is None
    assert agree(sympy.Eq(x, 1), x) is None


def test_height_counts_the_digits_of_powers() -> None:
    assert height(sympy.Integer(123)) == 3
    assert height(sympy.Pow(3, 120, evaluate=False)) == 120
