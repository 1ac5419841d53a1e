"""Numbers with their uncertainty: Wilson interval, bootstrap over problems, pass@k and maj@k."""

from __future__ import annotations

import math
import statistics
from collections.abc import Hashable, Sequence

import numpy as np
from jaxtyping import Float, Int

BOOTSTRAP_SAMPLES = 2000


def wilson(correct: float, problems: int, confidence: float = 0.95) -> tuple[float, float]:
    """Interval of a share from `correct` of `problems`, both ends in [0, 1]; (0, 1) for no problems.

    Wilson's score interval (Wilson 1927; Brown, Cai, DasGupta 2001, eq. 4). Of answers with scores between 0
    and 1 `correct` is the sum, and the interval is rather too wide. ValueError for an impossible count.
    """
    if not 0 <= correct <= problems:
        raise ValueError(f"{correct} of {problems} is not a share: need 0 <= correct <= problems")
    if problems == 0:
        return 0.0, 1.0
    z = statistics.NormalDist().inv_cdf((1 + confidence) / 2)
    share = correct / problems
    scale = 1 + z * z / problems
    middle = (share + z * z / (2 * problems)) / scale
    half = z / scale * math.sqrt(share * (1 - share) / problems + z * z / (4 * problems * problems))
    # The ends at 0 and 1 are exact; the formula misses them by a rounding error.
    return (0.0 if correct == 0 else middle - half, 1.0 if correct == problems else middle + half)


def bootstrap(
    values: Float[np.ndarray, "..."] | Sequence[float],
    confidence: float = 0.95,
    samples: int = BOOTSTRAP_SAMPLES,
    seed: int = 0,
) -> tuple[float, float, float]:
    """Mean of one value per problem with its percentile bootstrap interval: (mean, low, high).

    Problems are drawn with replacement, not single responses: responses to one problem are not independent, so a
    problem's own mean over its responses is the value to pass. The same seed gives the same interval.
    Efron and Tibshirani 1993, section 13.3.
    """
    array = np.asarray(values, np.float64)
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"bootstrap needs one value per problem, at least one; got an array of shape {array.shape}")
    generator = np.random.Generator(np.random.PCG64(seed))
    means = np.empty(samples)
    # Row by row: samples x problems indices at once would need gigabytes for the largest benchmarks.
    for index in range(samples):
        means[index] = array[generator.integers(0, array.size, array.size)].mean()
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(array.mean()), float(low), float(high)


def pass_at_k(responses: int, correct: Int[np.ndarray, "problems"] | Sequence[int], k: int) -> np.ndarray:
    """Per problem, the chance that at least one of k responses drawn without replacement is correct: [problems].

    1 - C(n-c, k) / C(n, k), the unbiased estimator of Chen et al. 2021 (arXiv:2107.03374), eq. 1, with n `responses`
    of which c are `correct`.
    """
    counts = np.asarray(correct)
    if not 1 <= k <= responses:
        raise ValueError(f"pass@{k} needs at least {k} responses a problem, there are {responses}")
    if counts.size and (counts.min() < 0 or counts.max() > responses):
        raise ValueError(f"correct counts must lie in 0..{responses}, got {counts.min()}..{counts.max()}")
    total = math.comb(responses, k)
    return np.array([1.0 - math.comb(responses - int(count), k) / total for count in counts])


def maj_at_k(answers: Sequence[Hashable | None], correct: Sequence[bool], k: int) -> float:
    """Is the majority answer of the first k responses to one problem correct: 0 or 1, or a share when votes are tied.

    `answers` are what was extracted, already in a form in which equal answers compare equal; None does not vote. A tie
    counts the share of tied answers that are correct, which is the expectation of breaking it at random.
    Wang et al. 2023 (arXiv:2203.11171).
    """
    if len(answers) != len(correct) or not 1 <= k <= len(answers):
        raise ValueError(f"maj@{k} needs at least {k} answers with a grade each, got {len(answers)} and {len(correct)}")
    votes: dict[Hashable, int] = {}
    grade: dict[Hashable, bool] = {}
    for answer, is_correct in zip(answers[:k], correct[:k], strict=True):
        if answer is not None:
            votes[answer] = votes.get(answer, 0) + 1
            grade.setdefault(answer, is_correct)
    if not votes:
        return 0.0
    most = max(votes.values())
    tied = [grade[answer] for answer, count in votes.items() if count == most]
    return sum(tied) / len(tied)
