"""Components by name: user functions that see the group, what is wrong with them, and the configuration's checks."""

import sys
from collections.abc import Sequence

import numpy as np
import pytest

from infimmr_jax.config import JudgeSection, RewardSection
from infimmr_jax.data.records import Problem
from infimmr_jax.rewards.components import Group, RewardError, check_components, try_functions
from infimmr_jax.rewards.loading import LoadError
from infimmr_jax.rewards.pool import GraderPool
from infimmr_jax.rewards.router import Scores, score_groups

RIGHT, WRONG, LONG, BARE = (
    r"<think>a</think> \boxed{5}",
    r"<think>a</think> \boxed{6}",
    r"<think>a b c d e</think> \boxed{5}",
    r"\boxed{5}",
)
HERE = "test_components"


def shortest_right(group: Group) -> Sequence[float]:
    """1 for the shortest right response of a group: needs lengths and accuracies of all."""
    right = group.components["accuracy"] == 1
    if not right.any():
        return [0.0] * len(group.responses)
    best = np.where(right, group.lengths, np.inf).min()
    return list((right & (group.lengths == best)).astype(float))


def finished_share(group: Group) -> Sequence[float]:
    assert group.problem.answer == "5"
    assert group.extracted[0] == "5"
    return group.finished.astype(float)


def one_short(group: Group) -> Sequence[float]:
    return [1.0]


def infinite(group: Group) -> Sequence[float]:
    return [float("nan")] * len(group.responses)


def words(group: Group) -> Sequence[str]:
    return ["good"] * len(group.responses)


def raises(group: Group) -> Sequence[float]:
    return group.problem.extra["column"]


def leaves(group: Group) -> Sequence[float]:
    sys.exit(0)


def writes(group: Group) -> Sequence[float]:
    """Try to change what others see; 1 for every try that was refused or reached only a copy."""
    refused = 0
    for change in (
        lambda: group.components["accuracy"].__setitem__(slice(None), 1.0),
        lambda: group.lengths.__setitem__(0, 0),
        lambda: group.finished.__setitem__(0, False),
        lambda: group.components.__setitem__("accuracy", np.ones(4)),
        lambda: setattr(group.problem, "answer", "6"),
    ):
        try:
            change()
        except (ValueError, TypeError, AttributeError):
            refused += 1
    group.problem.extra["seen"] = True
    return [float(refused)] * len(group.responses)


def fails_on_some(group: Group) -> Sequence[float]:
    if group.problem.id == "bad":
        raise RuntimeError("boom")
    return [1.0] * len(group.responses)


def two_arguments(group: Group, more: int) -> Sequence[float]:
    return [0.0]


not_a_function = 5


def score(weights: dict[str, float], where: str = "pool") -> Scores:
    reward = RewardSection(weights=weights, functions={"where": where})
    responses = [[RIGHT, WRONG, LONG, BARE]]
    finished, lengths = np.asarray([[True, True, False, True]]), np.asarray([[9, 8, 14, 10]])
    with GraderPool(workers=1) as pool:
        return score_groups([Problem("p", "q", "5", "math")], responses, finished, lengths, reward, "think_boxed", pool)


def test_user_functions_see_the_whole_group_and_are_weighted() -> None:
    weights = {"accuracy": 0.5, f"{HERE}:shortest_right": 2.0, f"{HERE}:finished_share": -1.0}
    scores = score(weights)
    assert list(scores.components) == ["accuracy", "format", *list(weights)[1:]]
    np.testing.assert_array_equal(scores.components[f"{HERE}:shortest_right"], [[1, 0, 0, 0]])
    np.testing.assert_array_equal(scores.components[f"{HERE}:finished_share"], [[1, 1, 0, 1]])
    np.testing.assert_allclose(scores.total, [[1.5, -1.0, 0.5, -0.5]])


def test_accuracy_counts_only_in_the_right_format() -> None:
    scores = score({"accuracy_and_format": 1.0})
    np.testing.assert_array_equal(scores.components["accuracy"], [[1, 0, 1, 1]])
    np.testing.assert_array_equal(scores.total, [[1, 0, 1, 0]])


def test_a_reward_that_is_no_number_is_left_to_the_trainer() -> None:
    scores = score({"accuracy": 1.0, f"{HERE}:infinite": 1.0})
    assert np.isnan(scores.components[f"{HERE}:infinite"]).all()
    assert np.isnan(scores.total).all()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("one_short", "one number for each of the 4 responses"),
        ("words", r"failed on problem 'p': TypeError: it returned a str among its numbers"),
        ("raises", r"failed on problem 'p': KeyError: 'column' \(line \d+ of .*test_components\.py\)"),
        ("leaves", "failed on problem 'p': SystemExit: 0"),
    ],
)
@pytest.mark.parametrize("where", ["pool", "trainer"])
def test_a_bad_function_is_named(name: str, said: str, where: str) -> None:
    with pytest.raises(RewardError, match=said):
        score({f"{HERE}:{name}": 1.0}, where)


@pytest.mark.parametrize("where", ["pool", "trainer"])
def test_a_function_can_not_change_what_others_see(where: str) -> None:
    scores = score({"accuracy": 1.0, f"{HERE}:writes": 1.0, f"{HERE}:shortest_right": 1.0}, where)
    np.testing.assert_array_equal(scores.components[f"{HERE}:writes"], [[5] * 4])
    np.testing.assert_array_equal(scores.components["accuracy"], [[1, 0, 1, 1]])
    np.testing.assert_array_equal(scores.components[f"{HERE}:shortest_right"], [[1, 0, 0, 0]])


@pytest.mark.parametrize("where", ["pool", "trainer"])
def test_a_group_that_a_function_fails_on_is_taken_out_and_said(where: str, caplog: pytest.LogCaptureFixture) -> None:
    name = f"{HERE}:fails_on_some"
    reward = RewardSection(weights={name: 1.0}, functions={"where": where})
    problems, ones = [Problem("good", "q", "5", "math"), Problem("bad", "q", "5", "math")], np.ones((2, 2), int)
    with GraderPool(workers=2) as pool:
        scores = score_groups(problems, [[RIGHT, WRONG]] * 2, ones > 0, ones, reward, "think_boxed", pool)
    np.testing.assert_array_equal(scores.components[name], [[1, 1], [np.nan, np.nan]])
    assert scores.counters["function_failures"] == 1
    assert "fails_on_some failed on problem 'bad': RuntimeError: boom" in caplog.text


def test_functions_are_tried_before_training() -> None:
    problem = Problem("first", "q", "5", "math", extra={"column": [1.0, 0.0, 2.0]})
    with GraderPool(workers=1) as pool:
        weights = {"accuracy": 1.0, f"{HERE}:shortest_right": 1.0, f"{HERE}:raises": 1.0}
        try_functions(RewardSection(weights=weights), problem, 3, pool)
        with pytest.raises(RewardError, match=r":raises failed on a made-up group of 4 responses to problem 'first'"):
            try_functions(RewardSection(weights=weights), problem, 4, pool)
        assert problem.extra == {"column": [1.0, 0.0, 2.0]}


@pytest.mark.parametrize(
    ("weight", "said"),
    [
        (f"{HERE}:two_arguments", "must take one argument"),
        (f"{HERE}:not_a_function", "has no function 'not_a_function'"),
        (f"{HERE}:missing", "has no function 'missing'"),
        ("nowhere_at_all:f", "can not be imported"),
        ("nowhere/at/all.py:f", "there is no file .*nowhere/at/all.py"),
    ],
)
@pytest.mark.parametrize("where", ["pool", "trainer"])
def test_what_can_not_be_loaded_is_said_before_training(weight: str, said: str, where: str) -> None:
    with pytest.raises(LoadError, match=said):
        check_components(RewardSection(weights={weight: 1.0}, functions={"where": where}))


def test_what_can_be_loaded_passes() -> None:
    judge = JudgeSection(function=f"{HERE}:shortest_right")
    check_components(RewardSection(weights={"accuracy": 1.0, f"{HERE}:shortest_right": 1.0, "judge": 1.0}, judge=judge))
    with pytest.raises(LoadError, match=r"reward.judge.function"):
        check_components(RewardSection(judge=JudgeSection(function="nowhere_at_all:f")))


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"weights": {"acuracy": 1.0}}, "did you mean 'accuracy'"),
        ({"weights": {"judge": 1.0}}, "`judge` must be set"),
        ({"rules": {"strings": "anls"}}, "'strings' is no answer type"),
        ({"rules": {"string": "anlss"}}, "string has no rule 'anlss'"),
        ({"judge": {}}, "either `function`"),
        ({"judge": {"endpoint": "http://localhost:1", "function": "a:b"}}, "either `function`"),
        ({"judge": {"endpoint": "localhost:1", "model": "m"}}, "must start with http"),
        ({"judge": {"endpoint": "http://localhost:1"}}, "needs `model`"),
        ({"judge": {"function": "a:b", "prompt": r"\boxed{}"}}, "write other braces twice"),
    ],
)
def test_the_configuration_refuses_what_can_not_work(section: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        RewardSection.model_validate(section)


def test_the_configuration_takes_what_works() -> None:
    judge = JudgeSection(endpoint="http://localhost:8000/v1", model="judge")
    section = RewardSection(weights={"judge": 1.0, "my.module:f": 0.5}, rules={"box": "union_iou"}, judge=judge)
    assert RewardSection.model_validate(section.model_dump()) == section
