"""Relations by their values: labels follow from how the pairs are made."""

import random
import time

import pytest
import sympy

from infimmr_jax.rewards.math.equations import relations_agree

x, y = sympy.symbols("x y", real=True)
Eq = sympy.Eq


def test_multiples_and_moved_terms_are_the_same_equation() -> None:
    draw = random.Random(0)
    for _ in range(30):
        a, b, c, factor = (draw.randint(1, 9) for _ in range(4))
        gold = Eq(a * x + b * y**2, c)
        assert relations_agree(gold, Eq(-factor * a * x, factor * b * y**2 - factor * c)) is True
        assert relations_agree(gold, Eq(a * x + b * y**2, c + 1)) is False
        assert relations_agree(gold, Eq((a + 1) * x + b * y**2, c)) is False


@pytest.mark.parametrize(
    ("gold", "answer", "same"),
    [
        (Eq(y, x * sympy.sin(x)), Eq(y, x * sympy.cos(x)), False),
        (Eq(x * y, 12), Eq(y, 12 / x), True),
        (Eq(x**2, 4), Eq(x, 2), False),
        (Eq(x**2 + y**2, 25), Eq(x**2 + y**2, 24), False),
        (Eq(x * (x - 1), 0), Eq(x, 1), False),
        (Eq(x, 1), Eq(y, 1), False),
        (x < 3, 2 * x < 6, True),
        (x < 3, -x > -3, True),
        (x < 3, x > 3, False),
        (x < 3, x <= 3, False),
        (y < 2 * x, y < 2 * x + 1, False),
        (Eq(x, 3), x < 3, False),
        (sympy.Ne(x, 3), sympy.Ne(2 * x, 6), True),
        (sympy.Ne(x, 3), Eq(x, 3), False),
    ],
)
def test_relations(gold: sympy.Rel, answer: sympy.Rel, same: bool) -> None:
    started = time.process_time()
    assert relations_agree(gold, answer) is same
    assert time.process_time() - started < 1
