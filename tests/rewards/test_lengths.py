import numpy as np
import pytest

from infimmr_jax.config import OverlongKept, OverlongMasked, OverlongSoft
from infimmr_jax.rewards.lengths import (
    LENGTH_REWARDS,
    answer_closeness,
    cosine,
    dast,
    dylr,
    overlong_rewards,
    repetition_penalty,
    shortest_right,
    soft_overlong,
)

LIMIT = 4096
# A solved group, and one without a right response.
LENGTHS = np.array([[200, 600, 100, 900, 3000], [100, 750, 800, 4095, 4096]])
ACCURACY = np.array([[1.0, 1.0, 0.0, 0.0, 0.0], [0.0] * 5])
EXTRA = {
    "soft_overlong": {"buffer": 512},
    "answer_closeness": {"gold_lengths": np.array([250, 700]), "answered": LENGTHS < 4000},
}


def cosfn(length, target, low=-0.5, high=0.0):
    return low + 0.5 * (high - low) * (1 - np.cos(np.pi * length / target))


def test_soft_overlong_is_dapos():
    found = soft_overlong(np.array([[100, 384, 448, 512, 600]]), np.zeros((1, 5)), 512, buffer=128, penalty=2.0)
    np.testing.assert_allclose(found, [[0, 0, -1.0, -2, -2]])
    with pytest.raises(ValueError, match="buffer of 600 tokens does not fit"):
        soft_overlong(LENGTHS, ACCURACY, 512, buffer=600)


def test_overlong_rewards_follow_the_configuration():
    np.testing.assert_array_equal(overlong_rewards(LENGTHS, LIMIT, OverlongKept(mode="none")), 0)
    np.testing.assert_array_equal(overlong_rewards(LENGTHS, LIMIT, OverlongMasked(mode="mask")), 0)
    found = overlong_rewards(LENGTHS, LIMIT, OverlongSoft(mode="soft", buffer=512, penalty=0.5))
    np.testing.assert_allclose(found, soft_overlong(LENGTHS, ACCURACY, LIMIT, buffer=512, penalty=0.5))
    assert found[1, -1] == -0.5


def test_dylr_of_the_paper_peaks_at_the_mean_length_of_right_responses():
    found = dylr(LENGTHS, ACCURACY, LIMIT)
    expected = [cosfn(min(length, 2 * 400), 400) for length in LENGTHS[0]]
    np.testing.assert_allclose(found[0], expected, atol=1e-12)
    np.testing.assert_allclose(found[1, :2], [cosfn(100, 750), 0], atol=1e-12)
    assert dylr(np.array([[400, 400]]), np.array([[1, 1]]), LIMIT).max() == pytest.approx(0)
    assert found.min() == -0.5


def test_dylr_of_the_release():
    found = dylr(LENGTHS, ACCURACY, LIMIT, form="code")
    # Wrong responses of a solved group: -0.25 (1 + cos(pi L / T)) below 2 T, -0.5 beyond; right ones nothing.
    np.testing.assert_allclose(found[0], [0, 0, -0.25 * (1 + np.cos(np.pi * 100 / 400)), -0.5, -0.5], atol=1e-12)
    # Unsolved: half the cosine below 750, nothing to the limit, half of the lowest at it.
    np.testing.assert_allclose(found[1], [0.5 * cosfn(100, 750), 0, 0, 0, -0.25], atol=1e-12)


def test_dast_is_ui_r1s():
    found = dast(LENGTHS, ACCURACY, LIMIT)
    budget = 0.4 * 400 + 0.6 * LIMIT
    for i, length in enumerate(LENGTHS[0]):
        x = (length - budget) / budget
        wanted = max(-0.5 * x + 0.5, 0.1) if ACCURACY[0, i] else min(0.9 * x - 0.1, -0.1)
        assert found[0, i] == pytest.approx(wanted)
    np.testing.assert_allclose(found[1], np.minimum(0.9 * (LENGTHS[1] - LIMIT) / LIMIT - 0.1, -0.1))
    assert found[1, -1] == pytest.approx(-0.1)


def test_answer_closeness_is_general_reasoners():
    answers, right = np.array([[3, 5, 40, 3, 0]]), np.array([[1, 1, 1, 0, 0]])
    given = {"gold_lengths": np.array([3]), "answered": np.array([[True, True, True, True, False]])}
    found = 1.0 * right + answer_closeness(answers, right, LIMIT, **given)
    np.testing.assert_allclose(found, [[1.0, 0.9, 0.5, 0.0, -0.5]])
    assert answer_closeness(answers, right, LIMIT, unanswered=0.0, **given)[0, -1] == 0


def test_cosine_runs_between_its_ends():
    lengths, accuracy = np.array([[0, 50, 100, 0, 50, 100, 150]]), np.array([[1, 1, 1, 0, 0, 0, 0]])
    found = cosine(lengths, accuracy, 100)
    np.testing.assert_allclose(found, [[1.0, 0.75, 0.5, -1.0, -0.75, -0.5, -0.5]])
    np.testing.assert_allclose(cosine(lengths, accuracy, 100, cut=-10.0)[0, [2, 5, 6]], -10)


def test_shortest_right_pays_one_response_and_never_an_unsolved_group():
    found = shortest_right(LENGTHS, ACCURACY, LIMIT)
    np.testing.assert_array_equal(found, [[0.2, 0, 0, 0, 0], [0] * 5])
    np.testing.assert_array_equal(shortest_right(LENGTHS, ACCURACY, LIMIT, over=200), 0)
    twins = shortest_right(np.full((1, 3), 300), np.ones((1, 3)), LIMIT)
    assert (twins > 0).sum() == 1


def test_repetition_counts_ngrams_of_words():
    looped, fresh = "So we try again. " * 3, "one two three four five six"
    found = repetition_penalty([[looped, fresh, "short"]], ngram=4, penalty=2.0)
    np.testing.assert_allclose(found, [[-2.0 * (1 - 4 / 9), 0, 0]])  # 9 four-grams, 4 different ones
    right = np.array([[1.0, 0, 0]])
    np.testing.assert_array_equal(repetition_penalty([[looped] * 3], right, ngram=4, wrong_only=True)[0, 0], 0)
    assert repetition_penalty([[looped] * 3], right, ngram=4, wrong_only=True)[0, 1] < 0
    assert repetition_penalty([["a A a A"]], ngram=2, penalty=1.0)[0, 0] == pytest.approx(-2 / 3)
    with pytest.raises(ValueError, match="needs the accuracies"):
        repetition_penalty([["a"]], wrong_only=True)


@pytest.mark.parametrize("name", sorted(LENGTH_REWARDS))
def test_every_length_reward_is_finite_and_blind_to_the_order_of_groups(name):
    extra = EXTRA.get(name, {})
    found = LENGTH_REWARDS[name](LENGTHS, ACCURACY, LIMIT, **extra)
    assert found.shape == LENGTHS.shape
    assert np.isfinite(found).all()
    back = {k: v[::-1] if isinstance(v, np.ndarray) else v for k, v in extra.items()}
    np.testing.assert_array_equal(LENGTH_REWARDS[name](LENGTHS[::-1], ACCURACY[::-1], LIMIT, **back), found[::-1])
    nothing = LENGTH_REWARDS[name](np.zeros_like(LENGTHS), np.ones(LENGTHS.shape), LIMIT, **extra)
    assert np.isfinite(nothing).all()
