"""OlympiadBench's judge: one case for each thing its published examples cover, and the opposite of each."""

import pytest

from infimmr_jax.evaluation.olympiad_judge import judge, values_equal


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("x=3", "3"),
        ("b_{n}=3n-1", "3 n - 1"),
        (r"$v=\frac{a}{\sqrt{3 K L}}$", r"\frac{ a }{ \sqrt{3 L K} }"),
        (r"F(x,y)=\frac{x+2}{3y}", r"\frac{x}{3y}+\frac{2}{3y}"),
        (r"(-\infty,2]\cup[9,+\infty)", r"k \in \left(-\infty, 2\right]\cup[9,+\infty)"),
        (r"$\boxed{[-6/2, 0.25]}$", r"[-3, \frac{1}{4}]"),
        ("(1,4),(5,6)", "(5,6),(1,4)"),
        ("x^2+2y^2=4", r"\boxed{x^{2}=4-2y^2}"),
        ("x^2+y^2=4", r"\boxed{2x^{2}+2y^2-8=0}"),
        ("0.48N", r"\boxed{\frac{12}{25}N}"),
        ("0.8", r"\boxed{\frac{4}{5}}"),
        ("0.8", "80%"),
        (r"\frac{(n-1)!}{k!} \frac{n}{(n-k)!}", r"\frac{n!}{k!(n-k)!}"),
        (r"6.4\times 10^3", "6400"),
        (r"E\approx -\frac{\hbar \omega_{L}}{c}", r"-\frac{\omega_{L} \hbar}{c}"),
        (r"\sqrt[3]{\frac{7}{9}}", r"(\frac{7}{9})^{\frac{1}{3}}"),
        (r"\sqrt{2}, -\sqrt{2}", r"y = \pm \sqrt{2}"),
        ("2,3", r"so \boxed{3} and \boxed{2}"),
        ("能", "能"),
        (r"n(R_{\odot})=R_{\odot}^2 k_{\mathrm{B}}", r"R_{\odot}^2 k_B"),
        ("5", "first line\nit is $5$"),
    ],
)
def test_equal(gold, answer):
    assert judge(gold, answer)


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("x=3", "x=4"),
        ("x^2+y^2=4", "x^2-y^2=4"),
        ("x^2+y^2=4", "x^2+y^2=5"),
        ("(2,-3)", "[2,-3]"),
        ("(1,2)", "(2,1)"),
        ("1,2", "1"),
        ("1,1,2", "1,2,2"),
        ("N", "n"),
        ("10^{10^{10^{10}}}", "10^{10}"),
        (r"2\pi", "6.28"),
        ("x+1", "2"),
        ("4", ""),
        ("4", r"\boxed{"),
    ],
)
def test_not_equal(gold, answer):
    assert not judge(gold, answer)


def test_tolerances():
    assert judge("1.0", "1.0101", 0.01)
    assert not judge("1.0", "1.015", 0.01)
    assert judge(r"\cos ^{10}(\frac{\pi}{10})", "0.6054", 1e-4)
    assert not judge(r"\cos ^{10}(\frac{\pi}{10})", "0.6054", 1e-6)
    assert judge(r"7 \times 10^{35}", r"7.1 \cdot 10^{35}", 1e34)
    assert not judge(r"7 \times 10^{35}", r"7.1 \cdot 10^{35}", [1e33])
    assert not judge("0.002, 7", "7.1, 0.001", [1e-3, 1e-3])


@pytest.mark.parametrize(
    ("gold", "answer", "precision"),
    [("46", "0", 2.0), ("9.8", r"\boxed{0.1}", 0.1), ("250", "1", 3.0), ("120, 46", "46, 0", 2.0)],
)
def test_a_small_number_is_not_near_a_hundredth_of_the_gold(gold, answer, precision):
    assert not judge(gold, answer, precision)
    # The published demonstration, gold first, does accept it.
    assert values_equal(gold, answer, precision)


@pytest.mark.parametrize("answer", ["80", "80%", "0.8", "0.008"])
def test_the_answer_may_be_in_percent(answer):
    assert judge("0.8", answer)
    assert not judge("0.9", answer)


def test_a_list_of_tolerances_belongs_to_the_first_side():
    gold, answer = r"7 \times 10^{35}, 0.002", r"0.001, 7.1 \cdot 10^{35}"
    assert values_equal(gold, answer, [1e34, 1e-3])
    assert not judge(gold, answer, [1e34, 1e-3])
    assert judge(gold, answer, [1e-3, 1e34])
    assert judge("1, 2, 3", "3.3, 1.1, 2.2", [0.3, 0.1, 0.2])
    assert not judge("1, 2, 3", "3.3, 1.1, 2.2", [0.2, 0.1, 0.3])
    # Fewer tolerances than values decide nothing.
    assert not judge("1, 2, 3", "1, 3, 2", [0.1, 0.1])


def test_values_are_matched_in_the_published_order():
    # After the first match it is the third value's turn, before the second's.
    assert values_equal("100, 2, 3", "100, 2.5, 1.5", 1.0)
    assert not values_equal("100, 3, 2", "100, 2.5, 1.5", 1.0)
