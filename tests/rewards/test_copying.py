"""The problem itself copied into the box is no answer."""

import pytest

from infimmr_jax.config import RewardSection
from infimmr_jax.data.records import Problem
from infimmr_jax.rewards.copying import copied
from infimmr_jax.rewards.math.verify_math import verify_math
from infimmr_jax.rewards.questions import question_of


@pytest.mark.parametrize(
    ("question", "answer", "is_copy"),
    [
        ("Factor $t^2-49$.", "t^2 - 49", True),
        ("Factor $t^2-49$.", r"\left(t-7\right)(t+7)", False),
        (r"Compute $\dbinom{10}{8}$.", r"\binom{10}{8}", True),
        (r"Solve \[x^2 > 3.\]", "x^2>3", True),
        (r"Expand the product $${4(x-5)(x+8)}$$", "4(x-5)(x+8)", True),
        ("If $f(x) = 2x+1$, what is its slope?", "2x+1", True),
        (r"In the figure, $m\angle 3 = 110$. Find $m\angle 1$.", r"m\angle 3=110", True),
        (r"In the figure, $m\angle 3 = 110$. Find $m\angle 1$.", "110", False),
        (r"Simplify $\frac{2}{4}$.", r"\frac{2}{4}", False),
        (r"Which of $\{1,2\}$ and $\pi$?", r"\pi", False),
        ("Compute 6*7.", "6*7", False),
        ("x" * 30_000, "x+1", False),
    ],
)
def test_formulas_of_the_question(question: str, answer: str, is_copy: bool) -> None:
    assert copied(question, answer) == is_copy


def test_a_copy_is_right_only_where_the_gold_says_the_same() -> None:
    problem = Problem("p", "Factor $t^2-49$ over the integers.", "(t-7)(t+7)", "math")
    question = question_of(problem, "t^2-49", RewardSection())
    assert verify_math(question.gold, question.answer, question.options).reason == "refused: copied from the question"
    assert verify_math(question.gold, "(t+7)(t-7)", question_of(problem, "(t+7)(t-7)", RewardSection()).options).score
    same = Problem("p", "Is $t^2-49$ or $t^2+49$ negative at 0?", "t^2-49", "math")
    assert verify_math("t^2-49", "t^2 - 49", question_of(same, "t^2 - 49", RewardSection()).options).score == 1
