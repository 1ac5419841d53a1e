"""One written form for mathematical text."""

import pytest

from infimmr_jax.rewards.math.latex import tidy


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("√2", r"\sqrt{2}"),
        ("√12", r"\sqrt{12}"),
        (r"\sqrt 2", r"\sqrt{2}"),
        ("sqrt(2)+1", r"\sqrt{2}+1"),
        ("sqrt(sqrt(2)+1)", r"\sqrt{\sqrt{2}+1}"),
        ("√(2+x)", r"\sqrt{2+x}"),
        ("sqrt(2", "sqrt(2"),
        (r"\sqrt[3]{2}", r"\sqrt[3]{2}"),
        ("5²", "5^{2}"),
        ("10⁻³", "10^{-3}"),
        ("x₁₂", "x_{12}"),
        ("3½", r"3\frac{1}{2}"),
        ("2π", r"2\pi"),
        ("pi/2", r"\pi /2"),
        ("-∞", r"-\infty"),
        ("inf", r"\infty"),
        ("information", "information"),
        ("a × b · c", r"a \times b \cdot c"),
        ("x**2", "x^2"),
        ("x <= 2", r"x \le 2"),
        (r"x \leqslant 2", r"x \le 2"),
        (r"\left( 1, 2 \right]", "( 1, 2 ]"),
        (r"\left\{1,2\right\}", r"\{1,2\}"),
        (r"\leftarrow", r"\leftarrow"),
        (r"\big(1\big)", "(1)"),
        (r"\dfrac34", r"\frac34"),
        (r"1{,}234", "1,234"),
        (r"4,\!989,\!600", "4,989,600"),
        (r"\frac{1}{29,322}", r"\frac{1}{29322}"),
        (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}"),
        ("The final answer is $5$.", "5"),
        (r"\approx 5", "5"),
        ("**5**", "5"),
        ("", ""),
    ],
)
def test_tidy(text: str, form: str) -> None:
    assert tidy(text) == form
    assert tidy(form) == form
