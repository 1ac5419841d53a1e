"""What is refused before a computer algebra system sees it, and what must not be."""

import pytest

from infimmr_jax.rewards.math.refusals import costly, is_tower, undone


@pytest.mark.parametrize(
    "answer",
    [
        "9^9^9",
        "9^{9^{9}}",
        "x^{x^{x^2}}",
        "2^{100000}",
        "(x+1)^{500}",
        "1000!",
        "(3!)!",
        "5!!",
        r"\binom{100000}{50000}",
        "1" * 61,
        "x+" * 160 + "1",
        r"\sqrt{" * 9 + "2" + "}" * 9,
        r"2^{10!}",
    ],
)
def test_costly_answers_are_refused_unless_the_gold_is_alike(answer: str) -> None:
    assert costly("42", answer) is not None
    assert costly(answer, answer) is None


@pytest.mark.parametrize(
    "answer",
    [
        "2^{10}", "2^{2007}", "x^2y^2", "2^3 \\cdot 5^2", "e^{x^2}", "2^{2^3}", "(x+1)^3", "20!",
        r"\binom{10}{3}", r"\sqrt{1+\sqrt{2}}",
    ],
)  # fmt: skip
def test_ordinary_answers_pass(answer: str) -> None:
    assert costly("42", answer) is None


@pytest.mark.parametrize(
    ("gold", "answer", "refused"),
    [
        ("14", r"2 + 3 \cdot 4", True),
        ("14", "14", False),
        ("14", "-14", False),
        ("5/6", "1/2+1/3", True),
        (r"\frac{5}{6}", r"\frac{10}{12}", False),
        ("2+3i", "2+3i", False),
        ("4", r"\int_0^4 1 dx", True),
        (r"\int_0^4 f", r"\int_0^4 f", False),
        ("x+1", "1+x", False),
        ("x+1", "x+1+y-y", True),
        ("5", "x", True),
        ("X", "x", False),
        (r"\sqrt{2}", r"\sin(\frac{\pi}{4})", True),
        ("[0, 1]", r"0 \le x \le 1", False),
        ("1024", "2^{10}", False),
    ],
)
def test_work_left_undone_is_refused(gold: str, answer: str, refused: bool) -> None:
    assert (undone(gold, answer) is not None) == refused


@pytest.mark.parametrize(
    ("text", "tower"),
    [
        ("2^2^2", True),
        ("2^{2}^{2}", True),
        ("2^{3^{9}}", True),
        ("2^{2^{3}}", False),
        ("x^2", False),
        ("x^{2y}", False),
    ],
)
def test_towers(text: str, tower: bool) -> None:
    assert is_tower(text) == tower
