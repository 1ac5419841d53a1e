"""MinHash against exact Jaccard similarity; the overlap index finds edited copies and leaves other problems alone."""

import itertools
import random

import numpy as np
import pytest

from infimmr_jax.data.text_similarity import (
    PERMUTATIONS,
    OverlapIndex,
    jaccard,
    minhash,
    near_pairs,
    ngrams,
    normal_words,
    numbers_of,
)

WORDS = [f"w{n}" for n in range(300)]


def sentences(count, length, seed=0):
    chooser = random.Random(seed)
    return [[chooser.choice(WORDS) for _ in range(length)] for _ in range(count)]


def edited(words, share, chooser):
    """Replace, drop, or precede by another word the given share of the words."""
    out = []
    for word in words:
        if chooser.random() >= share:
            out.append(word)
        else:
            out += chooser.choice([[], [chooser.choice(WORDS)], [chooser.choice(WORDS), word]])
    return out


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("Find $x$.", "find  X"),
        ("\\dfrac{1}{2}", "\\frac {1} {2}"),
        ("\\left(3\\right)", "(3)"),
        ("<image>Is it ½?", "is it 1⁄2"),
        ("a\\,b", "a b"),
    ],
)
def test_copies_have_one_normal_form(first, second):
    assert normal_words(first) == normal_words(second)


@pytest.mark.parametrize(("first", "second"), [("2+3", "2-3"), ("12", "1 2"), ("x<5", "x>5"), ("\\sin x", "\\cos x")])
def test_other_problems_have_another(first, second):
    assert normal_words(first) != normal_words(second)


def test_numbers_are_counted():
    assert numbers_of(normal_words("2 red, 2 blue and 1.5 green")) == {"2": 2, "1.5": 1}


def test_minhash_estimates_the_similarity():
    chooser = random.Random(1)
    for _ in range(20):
        common, rest = chooser.randint(0, 60), chooser.randint(1, 60)
        first = frozenset(chooser.getrandbits(64) for _ in range(common))
        both = [first | frozenset(chooser.getrandbits(64) for _ in range(rest)) for _ in range(2)]
        estimate = np.mean(minhash(both[0]) == minhash(both[1]))
        exact = jaccard(*both)
        assert abs(estimate - exact) < 4.5 * np.sqrt(max(exact * (1 - exact), 0.01) / PERMUTATIONS)


def test_near_pairs_are_those_of_all_pairs():
    chooser = random.Random(2)
    texts = sentences(60, 40)
    texts += [edited(text, 0.03, chooser) for text in texts[:40]]
    sets = [ngrams(text) for text in texts]
    exact = [(i, j) for i, j in itertools.combinations(range(100), 2) if jaccard(sets[i], sets[j]) >= 0.7]
    assert [(i, j) for i, j, _ in near_pairs(sets, 0.7)] == exact
    assert len(exact) > 20


@pytest.mark.parametrize(("share", "recall"), [(0.0, 1.0), (0.1, 1.0), (0.2, 0.95), (0.3, 0.7)])
def test_edited_copies_are_found_and_others_are_not(share, recall):
    chooser = random.Random(3)
    reference = sentences(200, 40, seed=4)
    index = OverlapIndex([ngrams(text, 2) for text in reference])
    copies = [ngrams(edited(text, share, chooser), 2) for text in reference]
    found = [index.matches(copy).get(n, 0.0) >= 0.5 for n, copy in enumerate(copies)]
    assert np.mean(found) >= recall
    others = sentences(500, 40, seed=5)
    assert not any(max(index.matches(ngrams(text, 2)).values(), default=0.0) >= 0.5 for text in others)


def test_a_common_turn_of_phrase_is_no_copy():
    frame = ["find", "the", "value", "of", "this", "long", "expression", "when", "all", "in", "it", "is", "simplified"]
    reference = [[*frame, f"a{n}", f"b{n}", f"c{n}", f"d{n}"] for n in range(50)]
    index = OverlapIndex([ngrams(text, 2) for text in reference])
    other = ngrams([*frame, "quite", "another", "thing", "here"], 2)
    assert max(index.matches(other).values()) < 0.4
    assert index.matches(ngrams(reference[7], 2))[7] == pytest.approx(1.0)
