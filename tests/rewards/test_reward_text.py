"""Linear-time text tools."""

import time

import pytest

from infimmr_jax.rewards.text import fold, matching_braces, nesting, strip_fence, unwrap


def test_braces_are_matched_and_escaped_ones_are_not() -> None:
    assert matching_braces("{a{b}c}") == {0: 6, 2: 4}
    assert matching_braces(r"{\{1,2\}}") == {0: 8}
    assert matching_braces(r"\\{x}") == {2: 4}  # after a line break the brace is a real one
    assert matching_braces("}{") == {}
    assert matching_braces("{{}") == {1: 2}


def test_nesting_counts_open_brackets() -> None:
    assert nesting("([{}])") == 3
    assert nesting("()()") == 1
    assert nesting("))((") == 2
    assert nesting("x") == 0


def test_fold_makes_full_width_ascii_and_keeps_superscripts() -> None:
    assert fold("（Ａ）１２．５％") == "(A)12.5%"
    assert fold("−7 – “x”") == '-7 - "x"'
    assert fold("5²½") == "5²½"


@pytest.mark.parametrize(
    ("text", "bare"),
    [
        ("$x$", "x"),
        (r"\[x\]", "x"),
        ("**x**.", "x"),
        (r"\text{x}", "x"),
        (r"\mathrm{ \text{x} }", "x"),
        ("{x}", "x"),
        ("{x}+{y}", "{x}+{y}"),
        (r"\text{a} b", r"\text{a} b"),
        ("$x$ or $y$", "$x$ or $y$"),
        (r"$\$5$", r"\$5"),
        ("a...", "a..."),
        (r"\{1\}", r"\{1\}"),
        ("$", "$"),
        ("", ""),
    ],
)
def test_unwrap_takes_off_what_says_nothing(text: str, bare: str) -> None:
    assert unwrap(text) == bare


def test_a_code_fence_is_taken_off() -> None:
    assert strip_fence('```json\n{"a": 1}\n```') == '{"a": 1}'
    assert strip_fence(' {"a": 1} ') == '{"a": 1}'


def test_a_hundred_thousand_braces_take_no_time() -> None:
    started = time.process_time()
    text = "{" * 100_000 + "}" * 100_000
    assert matching_braces(text)[0] == 199_999
    assert nesting(text) == 100_000
    unwrap(text)
    assert time.process_time() - started < 5
