"""Options of a verifier: configuration, then the row's own."""

import pytest

from infimmr_jax.config import RewardSection
from infimmr_jax.data.records import DataError, Problem
from infimmr_jax.rewards.questions import options_of, question_of
from infimmr_jax.rewards.verdict import Options

REWARD = RewardSection(rules={"string": "anls"}, relative_tolerance=0.01)


def problem(answer_type: str, **extra: object) -> Problem:
    return Problem("p7", "q", "gold", answer_type, ("a", "b"), extra=extra)  # type: ignore[arg-type]


def test_the_configuration_counts_where_the_row_says_nothing() -> None:
    assert options_of(problem("string"), REWARD) == Options("anls", ("a", "b"), (), 0.01)
    assert options_of(problem("math"), REWARD).rule == ""


def test_the_row_overrides_the_configuration() -> None:
    own = {"rule": "levenshtein", "tolerance": 0.1, "threshold": 0.7, "alternatives": ["x"]}
    assert options_of(problem("string", verify=own), REWARD) == Options("levenshtein", ("a", "b"), ("x",), 0.1, 0.7)


def test_coordinates_are_mapped_through_the_resize() -> None:
    sized = problem("box", image_size=[1120, 560], seen_size=[560, 280])
    assert question_of(sized, "[1,2,3,4]", REWARD).options.scale == (2.0, 2.0)
    assert options_of(problem("box", image_size=[1120, 560]), REWARD).scale == (1.0, 1.0)


def test_null_keys_that_parquet_adds_say_nothing() -> None:
    own = {"rule": None, "tolerance": None, "threshold": 0.7, "alternatives": None}
    assert options_of(problem("string", verify=own), REWARD) == Options("anls", ("a", "b"), (), 0.01, 0.7)


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ("anls", "`verify` is a str"),
        ({"tolerance": "1%"}, "verify.tolerance is '1%'; it must be a number"),
        ({"threshold": True}, "verify.threshold is True"),
        ({"alternatives": "x"}, "verify.alternatives is 'x'; it must be a list"),
    ],
)
def test_values_of_the_wrong_type_are_said(own: object, said: str) -> None:
    with pytest.raises(DataError, match=said):
        options_of(problem("string", verify=own), REWARD)


def test_what_is_not_known_is_named() -> None:
    with pytest.raises(DataError, match=r"p7: verify.rules is not known"):
        options_of(problem("string", verify={"rules": "anls"}), REWARD)
    with pytest.raises(DataError, match=r"type math has no rule 'anls'"):
        options_of(problem("math", verify={"rule": "anls"}), REWARD)
