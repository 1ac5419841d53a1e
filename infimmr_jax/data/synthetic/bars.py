"""Bar charts: three coloured bars of height 1 to 9, and arithmetic on two or three of them."""

from __future__ import annotations

import random

from infimmr_jax.data.synthetic.canvas import COLOURS, SIDE, Canvas
from infimmr_jax.data.synthetic.scene import Scene

UNIT = 10  # pixels of one unit of height
BASE = 106  # y of the axis in the plain style
COLUMNS = (42, 70, 98)  # centres of the bars: the last three columns of merged patches


def bars(rng: random.Random) -> Scene:
    """Read bars, then k*x+y, x+y+z, |x-y| or k*x+m*y."""
    names = rng.sample(sorted(COLOURS), 3)
    values = {name: rng.randint(1, 9) for name in names}
    question, solution, answer, level = _ask(rng, values)
    facts = ", ".join(f"{name} {value}" for name, value in values.items()) + "."
    return Scene(facts, question, str(answer), solution, level, draw=lambda canvas: _draw(canvas, values))


def _ask(rng: random.Random, values: dict[str, int]) -> tuple[str, str, int, float]:
    # Words and numbers always follow a space, so that each has one token form wherever it stands.
    kind = rng.choice(("difference", "multiple", "sum", "weighted"))
    first, second, third = rng.sample(list(values), 3)
    x, y, z = values[first], values[second], values[third]
    read = f"{first} {x}, {second} {y}"
    if kind == "difference":
        return f"Find | {first} - {second} |.", f"{read}. | {x} - {y} | = {abs(x - y)}.", abs(x - y), 1
    if kind == "multiple":
        k = rng.randint(2, 4)
        steps = f"{k} * {x} = {k * x}. {k * x} + {y} = {k * x + y}."
        return f"Find {k} * {first} + {second}.", f"{read}. {steps}", k * x + y, 2
    if kind == "sum":
        steps = f"{x} + {y} = {x + y}. {x + y} + {z} = {x + y + z}."
        return f"Find {first} + {second} + {third}.", f"{read}, {third} {z}. {steps}", x + y + z, 2
    k, m = rng.randint(2, 3), rng.randint(2, 3)
    steps = f"{k} * {x} = {k * x}. {m} * {y} = {m * y}. {k * x} + {m * y} = {k * x + m * y}."
    return f"Find {k} * {first} + {m} * {second}.", f"{read}. {steps}", k * x + m * y, 3


def _draw(canvas: Canvas, values: dict[str, int]) -> None:
    left, right = 18, SIDE + 3
    for height in range(1, 10):
        y = BASE - UNIT * height
        canvas.line(left, y, right, y, canvas.ink(0.22 if height % 3 == 0 else 0.10))
        if height % 3 == 0:
            canvas.text(left - 8, y, str(height), canvas.ink(0.65))
    for centre, (name, height) in zip(COLUMNS, values.items(), strict=True):
        half = canvas.rng.randint(5, 10)
        canvas.box(centre - half, BASE - UNIT * height, centre + half, BASE, canvas.colour(name), canvas.ink(0.55))
    canvas.line(left, BASE, right, BASE, canvas.ink(0.75))
    canvas.line(left, BASE, left, BASE - 9 * UNIT - 4, canvas.ink(0.75))
