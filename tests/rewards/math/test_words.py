"""Words and letters of mathematical texts."""

import pytest

from infimmr_jax.rewards.math.words import holds_words, is_words, solid, variables


@pytest.mark.parametrize(
    ("text", "words", "holds"),
    [
        (r"\text{August}", True, True),
        ("east", True, True),
        ("x+1", False, False),
        (r"\sin x", False, False),
        ("5 apples", False, True),
        (r"\begin{pmatrix} 1 \end{pmatrix}", False, False),
    ],
)
def test_words(text: str, words: bool, holds: bool) -> None:
    assert is_words(text) == words
    assert holds_words(text) == holds


def test_variables_are_letters_that_are_no_constants() -> None:
    assert variables(r"2x + \sin y - \pi e^{i\theta}") == {"x", "y", "theta"}
    assert variables("R^2") == {"r"}
    assert solid(" a + b ") == "a+b"
