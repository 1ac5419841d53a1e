"""Formats as grammars: every mutation of a right response breaks it, and the reason names the rule."""

import itertools

import pytest

from infimmr_jax.rewards.format import FORMATS, TAGS, format_error, one_box

SAMPLES = {"text": "some text", "boxed": r"so \boxed{5}", "boxes": "[[1, 2, 3, 4]]", "action": '{"action": "click"}'}
TAILS = {"boxed": r" thus \boxed{\frac{1}{2}}", "empty": "", "text": "an answer"}


def sample(name: str) -> str:
    """A response that matches a format."""
    grammar = FORMATS[name]
    return "\n".join(f"<{tag}>{SAMPLES[kind]}</{tag}>" for tag, kind in grammar.sections) + TAILS[grammar.tail]


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_a_right_response_matches_its_own_format_only(name: str) -> None:
    assert format_error(sample(name), name) is None
    sections = [tag for tag, _ in FORMATS[name].sections]
    for other, grammar in FORMATS.items():
        if [tag for tag, _ in grammar.sections] != sections:
            assert format_error(sample(name), other) is not None, other


@pytest.mark.parametrize("name", [name for name in sorted(FORMATS) if FORMATS[name].sections])
def test_every_mutation_of_the_tags_breaks_a_format(name: str) -> None:
    right = sample(name)
    grammar = FORMATS[name]
    marks = [mark for tag, _ in grammar.sections for mark in (f"<{tag}>", f"</{tag}>")]
    mutants = [right.replace(mark, "") for mark in marks]
    mutants += [right.replace(mark, mark * 2) for mark in marks]
    mutants += [right.replace(mark, mark.upper()) for mark in marks]
    mutants += [right.replace(mark, mark.replace(">", " >")) for mark in marks]
    mutants += [right.replace(mark, mark.replace("<", "＜")) for mark in marks]
    mutants += [f"x {right}", right + marks[0], right + marks[-1], marks[0] + right]
    mutants += [right.replace(f">{SAMPLES[kind]}<", "> <") for _, kind in grammar.sections]
    for (first, _), (second, _) in itertools.pairwise(grammar.sections):
        mutants.append(right.replace(f"</{first}>\n<{second}>", f"</{first}> and <{second}>"))
        swapped = right.replace(first, "\0").replace(second, first).replace("\0", second)
        mutants.append(swapped)
    mutants += [right.replace("</", f"<{tag}>x</{tag}></", 1) for tag in TAGS]
    for mutant in mutants:
        assert format_error(mutant, name) is not None, mutant


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        (r"\boxed{1}", "<think> is missing"),
        (r"<think>a</think> 1", r"the answer part does not hold exactly one balanced \boxed{}"),
        (r"<think>a</think> \boxed{1} \boxed{1}", r"the answer part does not hold exactly one balanced \boxed{}"),
        (r"<think> </think> \boxed{1}", "<think> is empty"),
        (r"hm <think>a</think> \boxed{1}", "text stands before <think>"),
        (r"<think>a</think> \boxed{1}<|im_end|>", "holds a chat-control token"),
        (r"<think>a</think></think> \boxed{1}", "tags are repeated, out of order or foreign to the format"),
        ("a" * 200_001, "longer than 200000 characters"),
    ],
)
def test_the_reason_names_the_rule(response: str, reason: str) -> None:
    assert format_error(response, "think_boxed") == reason


def test_one_box() -> None:
    assert one_box(r"x \boxed{\frac{1}{2}} y") == r"\frac{1}{2}"
    assert one_box(r"\boxed{1}\boxed{1}") is None
    assert one_box(r"\boxed{") is None
    assert one_box(r"\boxed{\boxed{1}}") is None
    assert one_box("none") is None
