"""Scattered coloured shapes: counting them, comparing the colours, and yes/no questions."""

from __future__ import annotations

import math
import random
from collections import Counter

from infimmr_jax.data.synthetic.canvas import COLOURS, Canvas
from infimmr_jax.data.synthetic.scene import Scene
from infimmr_jax.names import AnswerType

SHAPES = ("circle", "square", "triangle")
CELLS = [(column, row) for row in range(3) for column in range(4)]

Thing = tuple[str, str]  # colour, shape


def count(rng: random.Random) -> Scene:
    """How many of a colour, a shape, or both."""
    things = _scatter(rng, colours=3)
    tally = Counter(things)
    colour, shape = rng.choice(sorted(tally))
    kind = rng.choice(("both", "colour", "shape"))
    if kind == "both":
        asked, found, level = _plural(colour, shape, 2), [(colour, shape)], 1.0
    elif kind == "colour":
        asked, found, level = f"{colour} shapes", [t for t in sorted(tally) if t[0] == colour], 2.0
    else:
        asked, found, level = f"{shape}s", [t for t in sorted(tally) if t[1] == shape], 2.0
    numbers = [tally[thing] for thing in found]
    total = sum(numbers)
    solution = _listed(tally, found)
    solution += f" {'+'.join(map(str, numbers))}={total}." if len(numbers) > 1 else f" total {total}."
    return _scene(things, f"How many {asked}?", str(total), solution, level)


def compare(rng: random.Random) -> Scene:
    """Which colour has the most (or fewest) shapes: a choice of three."""
    while True:
        things = _scatter(rng, colours=3)
        tally = Counter(colour for colour, _ in things)
        word = rng.choice(("most", "fewest"))
        best = (max if word == "most" else min)(tally.values())
        if len(tally) == 3 and list(tally.values()).count(best) == 1:
            break
    options = sorted(tally)
    rng.shuffle(options)
    winner = next(colour for colour in options if tally[colour] == best)
    letter = "ABC"[options.index(winner)]
    solution = f"{', '.join(f'{colour} {tally[colour]}' for colour in options)}. {winner} has the {word}: {letter}."
    question = f"Which colour has the {word} shapes?"
    return _scene(things, question, letter, solution, 2.0, "choice", tuple(options))


def yes_no(rng: random.Random) -> Scene:
    """Whether there are more of one shape or colour than of another; yes and no are equally likely."""
    wanted = rng.random() < 0.5
    by_shape = rng.random() < 0.5
    while True:
        things = _scatter(rng, colours=2)
        tally = Counter(thing[1] if by_shape else thing[0] for thing in things)
        if len(tally) < 2:
            continue
        first, second = rng.sample(sorted(tally), 2)
        if (tally[first] > tally[second]) == wanted:
            break
    a, b = tally[first], tally[second]
    sign = ">" if a > b else "<" if a < b else "="
    ending = "s" if by_shape else " shapes"
    question = f"Are there more {first}{ending} than {second}{ending}?"
    answer = "yes" if wanted else "no"
    solution = f"{first}{ending} {a}, {second}{ending} {b}. {a}{sign}{b}, so {answer}."
    return _scene(things, question, answer, solution, 2.0, "string")


def _scatter(rng: random.Random, colours: int) -> list[Thing]:
    names = rng.sample(sorted(COLOURS), colours)
    kinds = [(colour, shape) for colour in names for shape in SHAPES]
    present = rng.sample(kinds, rng.randint(2, 4))
    return [rng.choice(present) for _ in range(rng.randint(4, 9))]


def _scene(
    things: list[Thing],
    question: str,
    answer: str,
    solution: str,
    level: float,
    answer_type: AnswerType = "math",
    choices: tuple[str, ...] = (),
) -> Scene:
    tally = Counter(things)
    return Scene(
        facts=_listed(tally, sorted(tally)),
        question=question,
        answer=answer,
        solution=solution,
        level=level,
        draw=lambda canvas: _draw(canvas, things),
        answer_type=answer_type,
        choices=choices,
        intro="shapes",
        scale=2,
    )


def _listed(tally: Counter[Thing], things: list[Thing]) -> str:
    return ", ".join(f"{tally[thing]} {_plural(*thing, tally[thing])}" for thing in things) + "."


def _plural(colour: str, shape: str, number: int) -> str:
    return f"{colour} {shape}" + ("" if number == 1 else "s")


def _draw(canvas: Canvas, things: list[Thing]) -> None:
    rng = canvas.rng
    for (column, row), (colour, shape) in zip(rng.sample(CELLS, len(things)), things, strict=True):
        x = 17 + 26 * column + rng.uniform(-2, 2)
        y = 24 + 33 * row + rng.uniform(-4, 4)
        radius = rng.uniform(7, 10)
        fill, edge = canvas.colour(colour), canvas.ink(0.6)
        if shape == "circle":
            canvas.disc(x, y, radius, fill, edge)
        elif shape == "square":
            canvas.box(x - 0.88 * radius, y - 0.88 * radius, x + 0.88 * radius, y + 0.88 * radius, fill, edge)
        else:
            corners = [(x + 1.15 * radius * math.sin(t), y - 1.15 * radius * math.cos(t)) for t in (0, 2.094, 4.189)]
            canvas.polygon(corners, fill, edge)
