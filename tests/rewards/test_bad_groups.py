import numpy as np
import pytest

from infimmr_jax.config import RewardSection
from infimmr_jax.rewards.bad_groups import bad_rewards, check_rewards, reward_limits, silence_bad_groups

IDS = ["geo-7", "geo-9"]


# Half of it counts, so a reward of 2,000 is at the default limit of 1,000.
LIMITS = reward_limits(RewardSection(weights={"accuracy": 0.5, "tests:mine": 0.5})) | {"mine": 2000.0}


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


@pytest.mark.parametrize(("value", "limits"), [(np.nan, None), (1e30, None), (-2001.0, LIMITS), (2001.0, LIMITS)])
def test_silenced_groups_have_no_signal_and_the_others_are_untouched(value, limits):
    clean, usable, findings = silence_bad_groups(parts(value), IDS, limits)
    assert [(f.component, f.problem) for f in findings] == [("mine", "geo-9")]
    assert ("raise reward.limit" in findings[0].text) is (limits is not None)
    np.testing.assert_array_equal(usable, [True, False])
    for name, values in clean.items():
        np.testing.assert_array_equal(values[1], 0)
        np.testing.assert_array_equal(values[0], parts()[name][0])


def test_rewards_up_to_the_limit_are_used():
    clean, usable, findings = silence_bad_groups(parts(2000.0), IDS, LIMITS)
    assert usable.all()
    assert findings == []
    assert clean["mine"][1, 2] == 2000


def test_a_weight_says_how_large_a_component_may_be():
    found = reward_limits(RewardSection(weights={"accuracy": 1.0, "tests:mine": -0.001, "tests:off": 0.0}, limit=50.0))
    assert found == {"total": 50, "accuracy": 50, "tests:mine": pytest.approx(50_000)}
    assert reward_limits(RewardSection(weights={"accuracy": 1e-9}, limit=50.0))["accuracy"] == 1e9


def test_a_wrong_shape_is_named():
    with pytest.raises(ValueError, match=r"'accuracy' has shape \(3,\), expected \[2 problems"):
        check_rewards({"accuracy": np.zeros(3)}, IDS)
