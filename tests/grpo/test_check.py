import numpy as np
import pytest

from infimmr_jax.grpo.check import bad_rewards, check_rewards, silence_bad_groups

IDS = ["geo-7", "geo-9"]


def parts(value=None):
    found = {"accuracy": np.array([[1, 0, 1], [0, 0, 0]]), "mine": np.array([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]])}
    if value is not None:
        found["mine"][1, 2] = value
    return found


def test_good_rewards_pass():
    check_rewards(parts(), IDS)
    assert bad_rewards(parts(), IDS) == []


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
def test_a_bad_reward_is_named_by_component_problem_and_response(value):
    with pytest.raises(ValueError, match=r"'mine' gave .* for response 2 of problem 'geo-9' \(1 of 3"):
        check_rewards(parts(value), IDS)


def test_the_number_of_further_bad_groups_is_told():
    bad = parts(np.nan)
    bad["mine"][0] = np.nan
    with pytest.raises(ValueError, match="and 1 more such groups"):
        check_rewards(bad, IDS)


def test_silenced_groups_have_no_signal_and_the_others_are_untouched():
    clean, sentences = silence_bad_groups(parts(np.nan), IDS)
    assert len(sentences) == 1
    for name, values in clean.items():
        np.testing.assert_array_equal(values[1], 0)
        np.testing.assert_array_equal(values[0], parts()[name][0])


def test_a_wrong_shape_is_named():
    with pytest.raises(ValueError, match=r"'accuracy' has shape \(3,\), expected \[2 problems"):
        check_rewards({"accuracy": np.zeros(3)}, IDS)
