"""Tuples, intervals, sets and lists taken apart."""

import pytest

from infimmr_jax.rewards.math.structure import Structure, split_top, take_apart


@pytest.mark.parametrize(
    ("text", "kind", "elements"),
    [
        ("5", "atom", ("5",)),
        ("1,234", "atom", ("1,234",)),
        ("(1, 2)", "()", ("1", "2")),
        ("[1, 2)", "[)", ("1", "2")),
        ("(1,2,3)", "()", ("1", "2", "3")),
        (r"\{1, 2\}", "set", ("1", "2")),
        (r"\{3\}", "set", ("3",)),
        ("1, 2", "list", ("1", "2")),
        ("1 and 2", "list", ("1", "2")),
        (r"1 \text{ or } 2", "list", ("1", "2")),
        ("1, 2, and 3", "list", ("1", "2", "3")),
        (r"\pm 2", "list", ("2", "-2")),
        (r"3 \pm \sqrt{2}", "list", (r"3 +\sqrt{2}", r"3 -\sqrt{2}")),
        ("(1,2), (3,4)", "list", ("(1,2)", "(3,4)")),
        (r"(1,2) \cup (3,4)", "atom", (r"(1,2) \cup (3,4)",)),
        (r"x \in [0, 1]", "[]", ("0", "1")),
        ("(x+1)(x+2)", "atom", ("(x+1)(x+2)",)),
        ("(5)", "atom", ("(5)",)),
        ("f(1,2)", "atom", ("f(1,2)",)),
        ("1,,2", "atom", ("1,,2",)),
        (r"\begin{pmatrix} 1, 2 \end{pmatrix}", "atom", (r"\begin{pmatrix} 1, 2 \end{pmatrix}",)),
    ],
)
def test_take_apart(text: str, kind: str, elements: tuple[str, ...]) -> None:
    assert take_apart(text) == Structure(kind, elements)


def test_split_top_respects_brackets() -> None:
    assert split_top("a,(b,c),[d,e)") == ["a", "(b,c)", "[d,e)"]
    assert split_top("a,(b") is None
    assert split_top("a),(b") is None
    assert split_top("{a)") is None
