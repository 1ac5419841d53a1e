"""Second passes with a policy of a few lines: captions must suffice, answers must follow the options."""

import re
from collections.abc import Sequence

import numpy as np
import pytest

from infimmr_jax.config import RewardSection
from infimmr_jax.data.records import Problem
from infimmr_jax.rewards.components import RewardError
from infimmr_jax.rewards.pool import GraderPool
from infimmr_jax.rewards.router import Scores, score_groups
from infimmr_jax.rewards.second_pass import SecondPrompt, shuffled, without_letters

BARS = Problem("bars", "How many bars?<image>", "3", "math", images=(b"png",))
COLOUR = Problem("colour", "Which colour?", "B", "choice", choices=("red", "blue", "green", "grey"))


def score(problem: Problem, responses: list[str], name: str, form: str, generate: object) -> Scores:
    ones = np.ones((1, len(responses)), int)
    reward = RewardSection(weights={name: 1.0})
    with GraderPool(workers=1) as pool:
        return score_groups([problem], [responses], ones > 0, ones, reward, form, pool, generate=generate)  # type: ignore[arg-type]


def test_a_caption_must_be_enough_to_answer() -> None:
    asked: list[SecondPrompt] = []

    def policy(prompts: Sequence[SecondPrompt]) -> list[str]:
        asked.extend(prompts)
        return [r"\boxed{3}" if "three bars" in prompt.text else r"\boxed{not a description}" for prompt in prompts]

    responses = [
        "<think>x</think><answer>3</answer>",
        "<info>three\nbars</info><think>x</think><answer>3</answer>",
        "<info>some bars</info><think>x</think><answer>3</answer>",
        "<info> </info><think>x</think><answer>3</answer>",
        "<info>there are three bars</info><think>x</think><answer>4</answer>",
    ]
    scores = score(BARS, responses, "caption_check", "info_think_answer", policy)
    # A response without a caption must not shift the scores of those behind it.
    np.testing.assert_array_equal(scores.total, [[0, 0, 0, 0, 1]])
    assert len(asked) == 3
    assert all(prompt.images == () and "<image>" not in prompt.text for prompt in asked)
    assert scores.counters["second_pass"] == 3
    np.testing.assert_array_equal(scores.components["accuracy"], [[1, 1, 1, 1, 0]])


def test_a_caption_over_several_lines_counts() -> None:
    responses = ["<caption>two\nlines</caption><bbox>[[1,2,3,4]]</bbox><answer>3</answer>"]
    scores = score(BARS, responses, "caption_check", "caption_bbox_answer", lambda prompts: [r"\boxed{3}"])
    assert scores.total[0, 0] == 1


def test_answers_must_follow_shuffled_options() -> None:
    def honest(prompts: Sequence[SecondPrompt]) -> list[str]:
        """Answers by content: whatever letter now stands before blue."""
        found = [re.search(r"\(([A-D])\) blue", prompt.text) for prompt in prompts]
        return [rf" \boxed{{{match[1]}}}" for match in found if match]

    def parrot(prompts: Sequence[SecondPrompt]) -> list[str]:
        """Says B whatever the options are."""
        return [r" \boxed{B}"] * len(prompts)

    right = r"<think>The sky is blue, so (B).</think> \boxed{B}"
    wrong = r"<think>The sky is blue, hm.</think> \boxed{A}"
    bare = r"\boxed{B}"
    scores = score(COLOUR, [right, wrong, bare], "option_consistency", "think_boxed", honest)
    np.testing.assert_array_equal(scores.total, [[1.0, 0.25, 0.0]])
    assert scores.counters["consistency_agree"] == 1
    order = shuffled(4, COLOUR.id)
    mapped = "ABCD"[order[1]]
    wanted = [[1.0, 0.25, 0.0]] if mapped == "B" else [[0.5, 0.0, 0.0]]
    np.testing.assert_array_equal(
        score(COLOUR, [right, wrong, bare], "option_consistency", "think_boxed", parrot).total, wanted
    )


def test_the_second_prompt_shows_the_reasoning_without_letters() -> None:
    asked: list[SecondPrompt] = []

    def policy(prompts: Sequence[SecondPrompt]) -> list[str]:
        asked.extend(prompts)
        return [""] * len(prompts)

    score(COLOUR, [r"<think>Sky: (B) it is.</think> \boxed{B}"], "option_consistency", "think_boxed", policy)
    assert asked[0].prefix == "<think>Sky:  it is.</think>"
    order = shuffled(4, COLOUR.id)
    for letter, index in zip("ABCD", order, strict=True):
        assert f"({letter}) {COLOUR.choices[index]}" in asked[0].text


def test_orders_are_fixed_and_never_the_given_one() -> None:
    for number in range(2, 8):
        for seed in ("a", "b", "c"):
            order = shuffled(number, seed)
            assert sorted(order) == list(range(number)) != order
            assert order == shuffled(number, seed)


@pytest.mark.parametrize(
    ("trace", "left"),
    [
        ("so (B) is right", "so  is right"),
        ("Option C fits", " fits"),
        ("The answer is D", "The "),
        ("B. blue", " blue"),
        ("between B and C", "between  and "),
        ("A triangle ABC has area A", "A triangle ABC has area "),
        ("BC = 5", "BC = 5"),
        ("Because", "Because"),
    ],
)
def test_letters_leave_a_trace(trace: str, left: str) -> None:
    assert without_letters(trace, 4) == left


def test_without_a_policy_the_error_says_so() -> None:
    for name in ("caption_check", "option_consistency"):
        with pytest.raises(RewardError, match="asks the policy again"):
            score(COLOUR, ["x"], name, "think_boxed", None)


def test_a_policy_must_answer_every_prompt() -> None:
    responses = ["<info>bars</info><think>x</think><answer>3</answer>"]
    with pytest.raises(ValueError, match="0 responses to 1 second prompts"):
        score(BARS, responses, "caption_check", "info_think_answer", lambda prompts: [])
