"""Curation of checked problems: repetitions, copies of benchmark problems, and balance. Nothing is changed in place."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

from infimmr_jax.config import CurationSection, ImageSection
from infimmr_jax.data.image_similarity import Prints, crop_fingerprints, distances, fingerprint, joined
from infimmr_jax.data.pictures import open_image
from infimmr_jax.data.records import Problem
from infimmr_jax.data.text_similarity import OverlapIndex, near_pairs, ngrams, normal_words, numbers_of

# Measured on 300 MATH and 300 GSM8K questions with 10/20/30 % of their words replaced, dropped or added: pairs of words
# at an overlap of 0.5 find 100/96/79 % and flag 2.7 and 0.1 % of 4,000 other questions (triples at 0.4: 99/91/61 %).
OVERLAP_WORDS = 2

_DRAWING = re.compile(r"\[asy\].*?(?:\[/asy\]|$)", re.DOTALL)

SPECIFIC_WORDS = 8  # shorter texts ("Find the value of x.") say nothing: they must be equal, or a picture decides
SIMILAR_RATIO, COPIED_RATIO = 0.8, 0.6  # of the distance to the next benchmark picture; stricter for pictures alone
SAME_DISTANCE = 0.004  # one bit of 256
EMBEDDED_AT_ONCE = 1024  # pictures whose cosines with all benchmark pictures are held at a time

# One unit-length vector a picture, from the policy's own vision tower.
Embed = Callable[[Sequence[str | bytes]], Float[np.ndarray, "images width"]]


@dataclasses.dataclass(frozen=True)
class Dropped:
    """A problem that curation leaves out: which other one it repeats or resembles, and by what measure."""

    id: str
    other: str
    reason: str


def find_duplicates(problems: Sequence[Problem], section: CurationSection, limits: ImageSection) -> dict[int, Dropped]:
    """Index of every problem that repeats an earlier one, with the earlier one's id.

    Two problems repeat each other when the normal forms of question and choices are equal or their word 3-grams have
    Jaccard similarity of at least `section.near_duplicate` with the same numbers in them, and, where they have
    pictures, these are as many, in order, each closer than `section.same_image`, and the answers are equal. Generic
    questions over different diagrams stay. `near_duplicate: null` finds none.
    """
    if section.near_duplicate is None:
        return {}
    words = [_words(problem) for problem in problems]
    groups: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for index, text in enumerate(words):
        groups[tuple(text)].append(index)
    firsts = [members[0] for members in groups.values()]
    similar: list[tuple[list[int], str]] = [(members, "same text") for members in groups.values() if len(members) > 1]
    for a, b, similarity in near_pairs([ngrams(words[i]) for i in firsts], section.near_duplicate):
        if numbers_of(words[firsts[a]]) == numbers_of(words[firsts[b]]):
            members = groups[tuple(words[firsts[a]])] + groups[tuple(words[firsts[b]])]
            similar.append((sorted(members), f"similar text ({similarity:.2f})"))
    prints = _fingerprints(problems, {index for members, _ in similar for index in members}, limits)
    dropped: dict[int, Dropped] = {}
    for members, reason in similar:
        kept: list[int] = []
        for index in members:
            if index in dropped:
                continue
            earlier = _copy_among(index, kept, problems, prints, section.same_image)
            if earlier is None:
                kept.append(index)
            else:
                dropped[index] = Dropped(problems[index].id, problems[earlier].id, reason)
    return dropped


def find_contaminated(
    problems: Sequence[Problem],
    benchmark: Sequence[Problem],
    section: CurationSection,
    limits: ImageSection,
    embed: Embed | None = None,
) -> dict[int, Dropped]:
    """Index of every problem that copies a benchmark problem, with the benchmark problem's id and the measure.

    Text: overlap of word pairs, weighted by rarity, of at least `section.text_overlap` between specific texts (8 pairs
    or more), or equal short texts; where both problems have pictures, only together with a picture closer than
    `section.similar_image`. Pictures alone: perceptual hash closer than `section.copied_image` to the benchmark's
    picture or to one of 27 crops of it, or, with `embed`, cosine similarity of at least `section.image_cosine` (of the
    vectors minus their mean over all pictures). A
    picture must be clearly closer to this benchmark problem's than to the others', so that drawings made from one
    template are not taken for copies.
    """
    texts = [_spoken(problem) for problem in benchmark]
    index = OverlapIndex([ngrams(words, OVERLAP_WORDS) for words in texts])
    reference, owners = _reference_prints(benchmark, limits)
    looked = {n for n, problem in enumerate(problems) if problem.images} if len(reference) else set()
    prints = _fingerprints(problems, looked, limits)
    found: dict[int, Dropped] = {}
    for n, problem in enumerate(problems):
        nearest = _nearest(prints[n], reference, owners) if n in looked else {}
        words = _spoken(problem)
        overlaps = index.matches(ngrams(words, OVERLAP_WORDS))
        match = _copied_text(problem, words, benchmark, texts, overlaps, nearest, section)
        match = match or _copied_picture(nearest, section.copied_image)
        if match is not None:
            found[n] = Dropped(problem.id, benchmark[match[0]].id, match[1])
    if embed is not None and section.image_cosine is not None:
        found |= _by_embedding(problems, benchmark, embed, section.image_cosine, set(found))
    return found


def balanced(problems: Sequence[Problem], at_most: int, by: str, seed: int = 0) -> list[int]:
    """Indices of at most `at_most` problems for each value of the field `by` ("source" or "subject"), in order.

    Which ones stay is drawn by a hash of seed and id: a growing data set keeps its earlier choice as far as it can.
    """
    groups: dict[str | None, list[int]] = defaultdict(list)
    for index, problem in enumerate(problems):
        groups[getattr(problem, by)].append(index)
    kept: list[int] = []
    for members in groups.values():
        drawn = sorted(members, key=lambda i: hashlib.blake2b(f"{seed} {problems[i].id}".encode()).digest())
        kept += drawn[:at_most]
    return sorted(kept)


def _words(problem: Problem) -> list[str]:
    return normal_words(" ".join((problem.question, *problem.choices)))


def _spoken(problem: Problem) -> list[str]:
    """The words without drawings in Asymptote, whose rows of numbers hold every short list of numbers by chance."""
    return normal_words(_DRAWING.sub(" ", " ".join((problem.question, *problem.choices))))


def _fingerprints(problems: Sequence[Problem], wanted: set[int], limits: ImageSection) -> dict[int, Prints]:
    return {
        index: joined([fingerprint(open_image(image, limits)) for image in problems[index].images])
        for index in sorted(wanted)
    }


def _copy_among(
    index: int, kept: Sequence[int], problems: Sequence[Problem], prints: dict[int, Prints], limit: float
) -> int | None:
    """The first kept problem whose pictures are the same; problems with pictures must also agree in the answer."""
    mine = prints[index]
    alike = [
        other
        for other in kept
        if len(prints[other]) == len(mine) and (not len(mine) or problems[other].answer == problems[index].answer)
    ]
    if not alike or not len(mine):
        return alike[0] if alike else None
    apart = np.stack(
        [distances(mine[n : n + 1], joined([prints[o][n : n + 1] for o in alike]))[0] for n in range(len(mine))]
    )
    same = np.flatnonzero((apart < limit).all(axis=0))
    return alike[int(same[0])] if len(same) else None


def _reference_prints(benchmark: Sequence[Problem], limits: ImageSection) -> tuple[Prints, np.ndarray]:
    """Fingerprints of the benchmark's pictures and their crops, and the index of the problem each belongs to."""
    prints: list[Prints] = []
    owners = [np.zeros(0, np.int64)]
    for index, problem in enumerate(benchmark):
        for image in problem.images:
            crops = crop_fingerprints(open_image(image, limits))
            prints.append(crops)
            owners.append(np.full(len(crops), index))
    return joined(prints), np.concatenate(owners)


def _nearest(prints: Prints, reference: Prints, owners: np.ndarray) -> dict[int, float]:
    """Least distance of a problem's pictures to the pictures of each benchmark problem that has any."""
    least = distances(prints, reference).min(axis=0)
    order = np.lexsort((least, owners))
    firsts = np.flatnonzero(np.diff(owners[order], prepend=-1))
    return {int(owners[order[i]]): float(least[order[i]]) for i in firsts}


def _is_distinct(other: int, nearest: dict[int, float], ratio: float) -> bool:
    """Whether a benchmark picture is clearly nearer than the next one that is not its own copy (Lowe's ratio test)."""
    mine = nearest[other]
    # Benchmarks ask several questions about one picture: pictures at the same distance are that picture again.
    rivals = [distance for n, distance in nearest.items() if n != other and abs(distance - mine) > SAME_DISTANCE]
    nearer = [distance for distance in rivals if distance < mine]
    return not nearer and mine <= ratio * min(rivals, default=1.0)


def _copied_text(
    problem: Problem,
    words: Sequence[str],
    benchmark: Sequence[Problem],
    texts: Sequence[Sequence[str]],
    overlaps: dict[int, float],
    nearest: dict[int, float],
    section: CurationSection,
) -> tuple[int, str] | None:
    for other, overlap in sorted(overlaps.items(), key=lambda item: -item[1]):
        if overlap < section.text_overlap:
            return None
        reason = f"text overlap {overlap:.2f}"
        size = min(len(words), len(texts[other]))
        pictured = bool(problem.images), bool(benchmark[other].images)
        if all(pictured):
            close = nearest[other] < section.similar_image and _is_distinct(other, nearest, SIMILAR_RATIO)
            if size > SPECIFIC_WORDS and close:
                return other, f"{reason}, picture distance {nearest[other]:.2f}"
        elif any(pictured):
            # The picture is a part of the question: only a long text makes the same problem without it.
            if size > 2 * SPECIFIC_WORDS and overlap >= max(section.text_overlap, 0.8):
                return other, reason
        elif size > SPECIFIC_WORDS or _words(problem) == _words(benchmark[other]):
            return other, reason
    return None


def _copied_picture(nearest: dict[int, float], limit: float) -> tuple[int, str] | None:
    if not nearest:
        return None
    other = min(nearest, key=lambda n: nearest[n])
    if nearest[other] >= limit or not _is_distinct(other, nearest, COPIED_RATIO):
        return None
    return other, f"picture distance {nearest[other]:.2f}"


def _by_embedding(
    problems: Sequence[Problem], benchmark: Sequence[Problem], embed: Embed, least: float, known: set[int]
) -> dict[int, Dropped]:
    places = [(n, image) for n, p in enumerate(problems) if n not in known for image in p.images]
    others = [(n, image) for n, p in enumerate(benchmark) for image in p.images]
    if not places or not others:
        return {}
    vectors = embed([image for _, image in places + others])
    # Towers give all pictures nearly the same vector: what tells them apart is how they differ from the mean.
    vectors = vectors - vectors.mean(axis=0)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    mine, reference = vectors[: len(places)], vectors[len(places) :]
    found: dict[int, Dropped] = {}
    for start in range(0, len(places), EMBEDDED_AT_ONCE):
        cosines = mine[start : start + EMBEDDED_AT_ONCE] @ reference.T
        for (n, _), row in zip(places[start:], cosines, strict=False):
            best = int(row.argmax())
            if row[best] < least:
                continue
            nearest: dict[int, float] = {}
            for (owner, _), cosine in zip(others, row, strict=True):
                nearest[owner] = min(nearest.get(owner, 2.0), 1.0 - float(cosine))
            owner = others[best][0]
            if _is_distinct(owner, nearest, COPIED_RATIO):
                found[n] = Dropped(problems[n].id, benchmark[owner].id, f"picture embedding cosine {row[best]:.3f}")
    return found
