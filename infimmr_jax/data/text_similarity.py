"""Near-equal texts: normal forms, word n-grams, MinHash candidates, and overlap with a reference set."""

from __future__ import annotations

import hashlib
import itertools
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import UInt64

PERMUTATIONS = 128
BANDS = 32  # of 4 rows: two sets of Jaccard similarity 0.7 share a band with probability 0.9998, of 0.3 with 0.23

_SPACING = re.compile(r"\\(?:left|right|displaystyle|quad|qquad|[,;:!])(?![a-zA-Z])|<image\d*>")
_WORD = re.compile(r"\\[a-z]+|[^\W\d_]+|\d+(?:\.\d+)?|[+*/^=<>|%°-]")


def normal_words(text: str) -> list[str]:
    """Words, numbers, LaTeX commands and operators of a text, in lower case and compatible Unicode form (NFKC).

    Punctuation, dollar signs, brackets, spacing commands and image marks are left out: they differ between copies of
    one problem. Operators and numbers stay, for they make other problems of it.
    """
    folded = unicodedata.normalize("NFKC", text).casefold().replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac")
    return _WORD.findall(_SPACING.sub(" ", folded))


def numbers_of(words: Iterable[str]) -> Counter[str]:
    """How often each number occurs among normal words."""
    return Counter(word for word in words if word[0].isdigit())


def ngrams(words: Sequence[str], length: int = 3) -> frozenset[int]:
    """64-bit hashes of all runs of `length` words; a shorter text is one run."""
    runs = zip(*(words[start:] for start in range(length)), strict=False) if len(words) >= length else [tuple(words)]
    return frozenset(
        int.from_bytes(hashlib.blake2b(" ".join(run).encode(), digest_size=8).digest(), "little") for run in runs
    )


def jaccard(first: frozenset[int], second: frozenset[int]) -> float:
    """Share of common elements among all elements of two sets; two empty sets are equal."""
    return len(first & second) / len(first | second) if first or second else 1.0


def minhash(grams: frozenset[int]) -> UInt64[np.ndarray, "permutations"]:
    """MinHash signature (Broder 1997): the share of equal entries of two estimates their sets' Jaccard similarity."""
    if not grams:
        return np.full(PERMUTATIONS, np.iinfo(np.uint64).max, np.uint64)
    values = np.fromiter(grams, np.uint64, len(grams))
    return ((values[:, None] * _FACTORS + _OFFSETS) >> np.uint64(16)).min(axis=0)


def near_pairs(gram_sets: Sequence[frozenset[int]], threshold: float) -> list[tuple[int, int, float]]:
    """Pairs (i < j, similarity) with Jaccard similarity of at least `threshold`.

    Candidates share one band of their signatures; each is then measured exactly, so that every pair returned is one.
    """
    buckets: dict[tuple[int, bytes], list[int]] = defaultdict(list)
    for index, grams in enumerate(gram_sets):
        for band, rows in enumerate(minhash(grams).reshape(BANDS, -1)):
            buckets[band, rows.tobytes()].append(index)
    candidates = {pair for members in buckets.values() for pair in itertools.combinations(members, 2)}
    measured = ((i, j, jaccard(gram_sets[i], gram_sets[j])) for i, j in sorted(candidates))
    return [(i, j, similarity) for i, j, similarity in measured if similarity >= threshold]


class OverlapIndex:
    """Which text of a reference set another text is a copy of, by shared n-grams weighted by their rarity."""

    def __init__(self, gram_sets: Sequence[frozenset[int]]) -> None:
        self._holders: dict[int, list[int]] = defaultdict(list)
        for index, grams in enumerate(gram_sets):
            for gram in grams:
                self._holders[gram].append(index)
        self._weights = [self._weight(grams) for grams in gram_sets]

    def matches(self, grams: frozenset[int]) -> dict[int, float]:
        """Index of every reference text that shares n-grams, with the overlap in [0, 1].

        The overlap is the weight of the shared n-grams over that of the lighter text, an n-gram that k reference texts
        hold weighing 1/k: a text inside another counts as a copy, a common turn of phrase does not.
        """
        shared: Counter[int] = Counter()
        for gram in grams:
            holders = self._holders.get(gram, ())
            for index in holders:
                shared[index] += 1.0 / len(holders)  # type: ignore[assignment]
        own = self._weight(grams)
        return {index: weight / min(own, self._weights[index]) for index, weight in shared.items()}

    def _weight(self, grams: frozenset[int]) -> float:
        return sum(1.0 / max(1, len(self._holders.get(gram, ()))) for gram in grams)


_random = np.random.default_rng(20_250_604)
_FACTORS = _random.integers(0, 2**63, PERMUTATIONS, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
_OFFSETS = _random.integers(0, 2**63, PERMUTATIONS, dtype=np.uint64)
