"""How components become one number, and the group components length and repetition, against plain loops."""

from types import SimpleNamespace

import numpy as np
import pytest

from infimmr_jax.config import RewardSection
from infimmr_jax.data.records import Problem
from infimmr_jax.rewards.combine import combined
from infimmr_jax.rewards.components import Group, RewardError, Tools, component_scores

ACCURACY = np.asarray([[1, 1, 0, 0]], np.float32)
FORMAT = np.asarray([[1, 0, 1, 0]], np.float32)
LENGTHS = np.asarray([10, 20, 30, 40])
TEXTS = ("a b a b", "one two three four", "x x x x", "y")


def total(weights, combine="sum", **components):
    return combined(
        {"accuracy": ACCURACY, "format": FORMAT, **components}, RewardSection(weights=weights, combine=combine)
    )


def test_sum_is_weighted():
    np.testing.assert_allclose(total({"accuracy": 0.9, "format": 0.1}), [[1.0, 0.9, 0.1, 0.0]], rtol=1e-6)


def test_hard_and_pays_only_what_is_right_and_well_formed():
    """Vision-R1: 1 if and only if format and answer are right."""
    np.testing.assert_array_equal(total({"accuracy": 1.0}, "hard_and"), [[1, 0, 0, 0]])
    np.testing.assert_allclose(total({"accuracy": 0.9, "format": 0.1}, "hard_and"), [[1.0, 0, 0.1, 0]], rtol=1e-6)


def test_multiply_is_a_product_and_a_smaller_weight_takes_less_away():
    np.testing.assert_array_equal(total({"accuracy": 1.0, "format": 1.0}, "multiply"), ACCURACY * FORMAT)
    np.testing.assert_allclose(total({"accuracy": 1.0, "format": 0.25}, "multiply"), [[1.0, 0.75, 0, 0]])


@pytest.mark.parametrize("how", ["sum", "multiply", "hard_and"])
def test_penalties_are_out_of_reach_of_products_and_gates(how):
    reward = RewardSection(weights={"accuracy": 1.0, "repetition": 0.5}, combine=how, repetition={"ngram": 1})
    penalty = np.asarray([[0.0, 0.0, 0.0, -1.0]], np.float32)
    found = combined({"accuracy": ACCURACY, "format": FORMAT, "repetition": penalty}, reward)
    assert found[0, 3] == -0.5


def group(answers=("5", "5", None, "123")) -> Group:
    problem = Problem("p", "q", "12", "math")
    components = {"accuracy": ACCURACY[0], "format": FORMAT[0]}
    return Group(problem, TEXTS, answers, np.ones(4, bool), LENGTHS, components)


def scores(name, limit=100, count=len, **section):
    reward = RewardSection(weights={"accuracy": 1.0, name: 1.0}, **{name: section})
    return component_scores(
        name, [group()], Tools(reward, "boxed", SimpleNamespace(), max_response=limit, count_tokens=count)
    )[0]


def test_dast_reaches_the_configuration():
    """UI-R1-E: budget b = p mean + (1 - p) limit; right max(.5 - .5 x, .1), wrong min(.9 x - .1, -.1)."""
    budget = 0.5 * 15 + 0.5 * 100
    x = (LENGTHS - budget) / budget
    want = np.where(ACCURACY[0] == 1, np.maximum(0.5 - 0.5 * x, 0.1), np.minimum(0.9 * x - 0.1, -0.1))
    np.testing.assert_allclose(scores("length", kind="dast"), want, rtol=1e-6)


def test_dylr_reads_the_component_and_bounds_it_is_given():
    """The only well-formed right length is 10; with the format as component 10 and 30 are, so the mean is 20."""
    want = [-1 + 0.5 * (1 - np.cos(np.pi * min(length / 20, 2))) for length in LENGTHS]
    np.testing.assert_allclose(scores("length", kind="dylr", low=-1.0, component="format"), want, atol=1e-6)


def test_answer_closeness_counts_tokens_of_answers():
    """General-Reasoner: .05 a token of difference to the gold answer, right responses only; .5 for no answer."""
    np.testing.assert_allclose(scores("length", kind="answer_closeness"), [-0.05, -0.05, -0.5, 0], rtol=1e-6)
    kept = scores("length", kind="answer_closeness", unanswered=0.1)
    np.testing.assert_allclose(kept, [-0.05, -0.05, -0.1, 0], rtol=1e-6)


def test_the_shortest_right_response_gets_its_bonus():
    np.testing.assert_allclose(scores("length", kind="shortest_right", over=5, bonus=0.3), [0.3, 0, 0, 0], rtol=1e-6)


def test_repetition_is_minus_the_repeated_share():
    np.testing.assert_allclose(scores("repetition", ngram=1), [-0.5, 0, -0.75, 0], rtol=1e-6)
    np.testing.assert_allclose(scores("repetition", ngram=2, wrong_only=True), [0, 0, -2 / 3, 0], rtol=1e-6)


def test_lengths_without_a_limit_are_refused():
    with pytest.raises(RewardError, match=r"needs reward\.length and a response limit"):
        scores("length", limit=None, kind="dast")
    with pytest.raises(RewardError, match="was given no tokenizer"):
        scores("length", count=None, kind="answer_closeness")
