"""Procedural problems with random access: every index of a family, style, split and seed is one fixed problem."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterable, Sequence
from typing import overload

from infimmr_jax.data.records import DataError, Problem
from infimmr_jax.data.synthetic.bars import bars
from infimmr_jax.data.synthetic.canvas import STYLES, Canvas
from infimmr_jax.data.synthetic.dials import clock, number_line
from infimmr_jax.data.synthetic.geometry import geometry
from infimmr_jax.data.synthetic.maps import transit
from infimmr_jax.data.synthetic.puzzles import balance, grid, jigsaw, latin_square
from infimmr_jax.data.synthetic.scene import Scene
from infimmr_jax.data.synthetic.shapes import compare, count, yes_no

FAMILIES: dict[str, Callable[[random.Random], Scene]] = {
    "bars": bars,
    "count": count,
    "compare": compare,
    "yes_no": yes_no,
    "geometry": geometry,
    "clock": clock,
    "number_line": number_line,
    "grid": grid,
    "jigsaw": jigsaw,
    "latin_square": latin_square,
    "balance": balance,
    "transit": transit,
}

HELDOUT_SHARE = 10  # one problem in this many is held out


def make_problem(
    family: str, style: str, split: str, seed: int, index: int, modality: str, draw: bool = True
) -> Problem:
    """Problem `index` of a family: the same arguments give the same problem, on any machine.

    Modality "text" gives the facts in the question and no picture; "caption" and "image" give the picture, with the
    facts as caption. Whether a problem is held out depends on its facts and question alone, so that a held-out
    problem occurs in "train" in no style, modality or seed. `draw=False` leaves the picture out (for counting and
    filtering). Raises DataError for an unknown family, style, split or modality.
    """
    _known("family", family, FAMILIES)
    _known("style", style, STYLES)
    _known("split", split, ("train", "heldout"))
    _known("modality", modality, ("text", "caption", "image"))
    scene = _scene(family, split, seed, index)
    text = modality == "text"
    images: tuple[bytes, ...] = ()
    if draw and not text:
        canvas = Canvas(STYLES[style], random.Random(_number("draw", style, family, split, seed, index)), scene.scale)
        scene.draw(canvas)
        images = (canvas.png(),)
    return Problem(
        id=f"{family}-{style}-{split}-{seed}-{index}",
        question=f"{scene.intro}: {scene.facts} {scene.question}" if text else scene.question,
        answer=scene.answer,
        answer_type=scene.answer_type,
        choices=scene.choices,
        images=images,
        caption=None if text else scene.facts,
        solution=scene.solution,
        source=f"synthetic/{family}",
        subject=family,
        level=scene.level,
    )


class SyntheticSource(Sequence[Problem]):
    """A lazy sequence of `size` problems that walks through the families in turn; problems are made on access."""

    def __init__(self, families: Sequence[str], style: str, split: str, seed: int, size: int, modality: str) -> None:
        self.families, self.style, self.split = tuple(families), style, split
        self.seed, self.size, self.modality = seed, size, modality
        self.describe(0)

    def __len__(self) -> int:
        return self.size

    @overload
    def __getitem__(self, index: int) -> Problem: ...
    @overload
    def __getitem__(self, index: slice) -> list[Problem]: ...
    def __getitem__(self, index: int | slice) -> Problem | list[Problem]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self.size))]
        return self._make(index, draw=True)

    def describe(self, index: int) -> Problem:
        """The problem without its picture: twenty times faster, enough for filters and sorting."""
        return self._make(index, draw=False)

    def _make(self, index: int, draw: bool) -> Problem:
        if not -self.size <= index < self.size:
            raise IndexError(f"problem {index} of a synthetic source of {self.size}")
        turn, which = divmod(index % self.size, len(self.families))
        family = self.families[which]
        return make_problem(family, self.style, self.split, self.seed, turn, self.modality, draw)


def is_heldout(family: str, facts: str, question: str) -> bool:
    """Whether a problem belongs to the held-out tenth, by a hash of its facts and question."""
    return _number("split", family, facts, question) % HELDOUT_SHARE == 0


def _scene(family: str, split: str, seed: int, index: int) -> Scene:
    rng = random.Random(_number("scene", family, split, seed, index))
    while True:
        scene = FAMILIES[family](rng)
        if is_heldout(family, scene.facts, scene.question) == (split == "heldout"):
            return scene


def _number(*parts: object) -> int:
    """A 64-bit number from the parts; Python's own `hash` changes from process to process."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest(), "little")


def _known(what: str, value: str, known: Iterable[str]) -> None:
    names = tuple(known)
    if value not in names:
        raise DataError(f"there is no synthetic {what} {value!r}; known: {', '.join(names)}")
