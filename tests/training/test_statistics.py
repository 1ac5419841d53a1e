"""Statistics against SciPy, published values and brute force."""

import itertools

import numpy as np
import pytest
from scipy import stats

from infimmr_jax.training.statistics import bootstrap, maj_at_k, pass_at_k, wilson


@pytest.mark.parametrize(("correct", "problems"), [(0, 10), (1, 10), (5, 10), (10, 10), (123, 256), (2999, 3040)])
@pytest.mark.parametrize("confidence", [0.95, 0.8])
def test_wilson_equals_scipy(correct, problems, confidence):
    expected = stats.binomtest(correct, problems).proportion_ci(confidence, method="wilson")
    assert wilson(correct, problems, confidence) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_at_the_edges():
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(0, 5)[0] == 0.0
    assert wilson(5, 5)[1] == 1.0
    with pytest.raises(ValueError, match="6 of 5 is not a share"):
        wilson(6, 5)


def test_bootstrap_comes_near_the_normal_interval_and_repeats():
    values = np.random.default_rng(1).normal(0.4, 0.2, 400)
    mean, low, high = bootstrap(values)
    error = 1.96 * values.std() / np.sqrt(values.size)
    assert mean == pytest.approx(values.mean())
    assert (mean - low, high - mean) == pytest.approx((error, error), rel=0.1)
    assert bootstrap(values) == (mean, low, high)
    assert bootstrap(values, seed=1) != (mean, low, high)


def test_bootstrap_covers_the_truth_at_the_stated_rate():
    generator = np.random.default_rng(2)
    hits = 0
    for seed in range(200):
        _, low, high = bootstrap((generator.random(80) < 0.3).astype(float), samples=400, seed=seed)
        hits += low <= 0.3 <= high
    assert 0.90 <= hits / 200 <= 0.99


def test_bootstrap_needs_values():
    with pytest.raises(ValueError, match="at least one"):
        bootstrap([])
    with pytest.raises(ValueError, match=r"shape \(2, 3\)"):
        bootstrap(np.zeros((2, 3)))


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_pass_at_k_equals_counting_all_subsets(k):
    grades = [[0, 0, 0, 0, 0], [1, 0, 0, 0, 0], [1, 1, 0, 1, 0], [1, 1, 1, 1, 1]]
    expected = [
        np.mean([any(row[i] for i in subset) for subset in itertools.combinations(range(5), k)]) for row in grades
    ]
    assert pass_at_k(5, [sum(row) for row in grades], k) == pytest.approx(expected)


def test_pass_at_k_is_exact_for_many_responses():
    # Products of floats lose digits here; for c = 1 the value is k / n.
    assert pass_at_k(1000, [1], 700)[0] == pytest.approx(0.7, abs=1e-14)


def test_pass_at_k_says_what_is_missing():
    with pytest.raises(ValueError, match="pass@8 needs at least 8 responses a problem, there are 4"):
        pass_at_k(4, [1], 8)
    with pytest.raises(ValueError, match=r"0\.\.4"):
        pass_at_k(4, [5], 1)


def test_maj_at_k():
    answers, correct = ["7", None, "8", "8", "7", "8"], [False, False, True, True, False, True]
    assert maj_at_k(answers, correct, 6) == 1.0
    assert maj_at_k(answers, correct, 2) == 0.0
    assert maj_at_k(answers, correct, 3) == 0.5
    assert maj_at_k([None, None], [False, False], 2) == 0.0
    with pytest.raises(ValueError, match="maj@7 needs at least 7"):
        maj_at_k(answers, correct, 7)
