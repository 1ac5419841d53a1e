"""Every response is counted once, in the bin that holds it."""

import numpy as np

from infimmr_jax.parallel.hosts import RowShare
from infimmr_jax.training.histograms import histograms


def test_bins_cover_all_responses():
    lengths = np.asarray([[0, 1], [39, 40]])
    totals = np.asarray([[0.15, 1.0], [-0.5, np.nan]])
    found = histograms(lengths, totals, 40, RowShare())
    assert found["histogram/length"] == {"low": 0, "high": 40, "counts": [2] + [0] * 18 + [2]}
    reward = found["histogram/reward"]
    assert (reward["low"], reward["high"], sum(reward["counts"])) == (-1, 1, 3)
    assert [index for index, count in enumerate(reward["counts"]) if count] == [5, 11, 19]


def test_rewards_of_nothing_finite_make_an_empty_histogram():
    found = histograms(np.asarray([[3, 4]]), np.asarray([[np.nan, np.inf]]), 8, RowShare())
    assert found["histogram/reward"] == {"low": 0, "high": 1, "counts": [0] * 20}
