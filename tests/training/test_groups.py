"""Which groups of several draws a step keeps."""

import numpy as np

from infimmr_jax.config import DrawsSection
from infimmr_jax.objectives.step import Rewards
from infimmr_jax.training.groups import kept_groups


def rewards(*rows):
    """Rewards of groups; the accuracy is 1 where the reward is at least 1."""
    total = np.asarray(rows, np.float32)
    accuracy = (total >= 1).astype(np.float32)
    return Rewards(total, {"accuracy": accuracy}, np.zeros(len(rows), np.int32), np.ones(len(rows), bool))


DRAWN = [rewards([0, 0], [1, 0], [1.2, 1.0]), rewards([1, 1], [3, 0], [0.4, 0.3])]


def places(**keys):
    return kept_groups(DRAWN, DrawsSection(**{"at_most": 3} | keys))


def test_groups_of_equal_rewards_are_dropped():
    kept, dropped = places(drop="equal")
    assert kept == [(0, 1), (0, 2), (1, 1), (1, 2)]
    assert dropped == [(0, 0), (1, 0)]


def test_groups_that_are_all_right_or_all_wrong_are_dropped_by_accuracy():
    kept, dropped = places(drop="accuracy")
    assert kept == [(0, 1), (1, 1)]
    assert len(dropped) == 4
    assert places(drop="accuracy", low=0.5)[0] == []


def test_a_penalty_on_length_is_a_signal_for_equal_rewards_and_none_for_accuracy():
    """All right with one penalised, all wrong with one penalised, and a mixed group."""
    total = np.asarray([[1, 0.5, 1, 1], [0, 0, -0.5, 0], [1, 0, 0, 0.5]], np.float32)
    accuracy = np.asarray([[1, 1, 1, 1], [0, 0, 0, 0], [1, 0, 0, 1]], np.float32)
    drawn = [Rewards(total, {"accuracy": accuracy}, np.zeros(3, np.int32), np.ones(3, bool))]
    assert kept_groups(drawn, DrawsSection(at_most=2, drop="accuracy")) == ([(0, 2)], [(0, 0), (0, 1)])
    assert kept_groups(drawn, DrawsSection(at_most=2, drop="equal")) == ([(0, 0), (0, 1), (0, 2)], [])


def test_those_with_the_largest_spread_come_first():
    assert places(at_least=2, at_most=2, keep="spread")[0][:2] == [(1, 1), (0, 1)]
    assert places(drop="equal", keep="spread")[0] == [(1, 1), (0, 1), (0, 2), (1, 2)]


def test_without_a_rule_all_are_kept_in_order():
    kept, dropped = kept_groups(DRAWN, DrawsSection())
    assert kept == [(d, row) for d in range(2) for row in range(3)]
    assert dropped == []
