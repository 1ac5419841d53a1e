"""Plane figures with labels: rectangles, angles of triangles, right triangles, angles at a point on a line."""

from __future__ import annotations

import math
import random

from infimmr_jax.data.synthetic.canvas import Canvas
from infimmr_jax.data.synthetic.scene import Scene

TRIPLES = (
    (3, 4, 5),
    (6, 8, 10),
    (5, 12, 13),
    (8, 15, 17),
    (9, 12, 15),
    (7, 24, 25),
    (12, 16, 20),
    (10, 24, 26),
    (15, 20, 25),
    (20, 21, 29),
    (12, 35, 37),
    (9, 40, 41),
    (16, 30, 34),
    (18, 24, 30),
)

Point = tuple[float, float]


def geometry(rng: random.Random) -> Scene:
    """One of the figures, with one unknown."""
    return rng.choice((_rectangle, _triangle_angle, _right_triangle, _straight_angle))(rng)


def _rectangle(rng: random.Random) -> Scene:
    width, height = rng.sample(range(2, 21), 2)
    facts = f"a rectangle with sides {width} and {height}."
    if rng.random() < 0.5:
        area = width * height
        return _scene(
            facts, "Find the area.", area, f"sides {width}, {height}. {width}*{height}={area}.", 1, (width, height)
        )
    half = width + height
    steps = f"sides {width}, {height}. {width}+{height}={half}. 2*{half}={2 * half}."
    return _scene(facts, "Find the perimeter.", 2 * half, steps, 2, (width, height))


def _scene(facts: str, question: str, answer: int, solution: str, level: float, sides: tuple[int, int]) -> Scene:
    def draw(canvas: Canvas) -> None:
        unit = min(76 / sides[0], 66 / sides[1])
        half_x, half_y = unit * sides[0] / 2, unit * sides[1] / 2
        x, y = 50, 64
        canvas.box(x - half_x, y - half_y, x + half_x, y + half_y, _fill(canvas), canvas.ink(0.85))
        canvas.text(x, y - half_y - 8, str(sides[0]), canvas.ink(0.9), 12)
        canvas.text(x + half_x + 11, y, str(sides[1]), canvas.ink(0.9), 12)

    return Scene(facts, question, str(answer), solution, level, draw, intro="figure", scale=2)


def _triangle_angle(rng: random.Random) -> Scene:
    while True:
        first, second = rng.randint(30, 100), rng.randint(30, 100)
        third = 180 - first - second
        if third >= 30:
            break
    facts = f"a triangle with angles {first}°, {second}° and x."
    steps = f"angles {first}, {second}. {first}+{second}={first + second}. 180-{first + second}={third}."

    def draw(canvas: Canvas) -> None:
        # The law of sines gives the shape; the first two angles lie at the ends of the base.
        a, b, c = (math.radians(v) for v in (first, second, third))
        side = math.sin(b) / math.sin(c)
        apex = (side * math.cos(a), side * math.sin(a))
        corners = _fit([(0.0, 0.0), (1.0, 0.0), apex])
        canvas.polygon(corners, _fill(canvas), canvas.ink(0.85))
        for index, label in enumerate((f"{first}°", f"{second}°", "x")):
            # A narrow corner needs its label further in, where it is wide enough.
            distance = max(16.0, 10.5 / math.sin((a, b, c)[index] / 2))
            canvas.text(*_inside(corners, index, distance), label, canvas.ink(0.9), 10)

    return Scene(facts, "Find x in degrees.", str(third), steps, 2, draw, intro="figure", scale=2)


def _right_triangle(rng: random.Random) -> Scene:
    a, b, c = rng.choice(TRIPLES)
    if rng.random() < 0.5:
        a, b = b, a
    if rng.random() < 0.5:
        facts = f"a right triangle with legs {a} and {b}, hypotenuse x."
        steps = f"legs {a}, {b}. {a}*{a}={a * a}. {b}*{b}={b * b}. {a * a}+{b * b}={c * c}. {c}*{c}={c * c}."
        labels, answer = (str(a), str(b), "x"), c
    else:
        facts = f"a right triangle with legs {a} and x, hypotenuse {c}."
        steps = f"leg {a}, hypotenuse {c}. {c}*{c}={c * c}. {a}*{a}={a * a}. {c * c}-{a * a}={b * b}. {b}*{b}={b * b}."
        labels, answer = (str(a), "x", str(c)), b

    def draw(canvas: Canvas) -> None:
        right, along, up = _fit([(0.0, 0.0), (float(a), 0.0), (0.0, float(b))], 62)
        canvas.polygon([right, along, up], _fill(canvas), canvas.ink(0.85))
        canvas.line(right[0] + 6, right[1], right[0] + 6, right[1] - 6, canvas.ink(0.85))
        canvas.line(right[0], right[1] - 6, right[0] + 6, right[1] - 6, canvas.ink(0.85))
        canvas.text((right[0] + along[0]) / 2, right[1] + 8, labels[0], canvas.ink(0.9), 12)
        canvas.text(right[0] - 10, (right[1] + up[1]) / 2, labels[1], canvas.ink(0.9), 12)
        canvas.text((along[0] + up[0]) / 2 + 9, (along[1] + up[1]) / 2 - 8, labels[2], canvas.ink(0.9), 12)

    return Scene(facts, "Find x.", str(answer), steps, 3, draw, intro="figure", scale=2)


def _straight_angle(rng: random.Random) -> Scene:
    known = rng.randint(30, 150)
    answer = 180 - known
    facts = f"a ray meets a straight line; the angles are {known}° and x."
    steps = f"angle {known}. 180-{known}={answer}."

    def draw(canvas: Canvas) -> None:
        x, y, length = 56, 86, 62
        turn = math.radians(known)
        canvas.line(8, y, 104, y, canvas.ink(0.85), 1.5)
        canvas.line(x, y, x + length * math.cos(turn), y - length * math.sin(turn), canvas.ink(0.85), 1.5)
        canvas.disc(x, y, 2, canvas.ink(0.85))
        for middle, label in ((turn / 2, f"{known}°"), ((turn + math.pi) / 2, "x")):
            canvas.text(x + 26 * math.cos(middle), y - 10 - 18 * math.sin(middle), label, canvas.ink(0.9), 11)

    return Scene(facts, "Find x in degrees.", str(answer), steps, 1, draw, intro="figure", scale=2)


def _fill(canvas: Canvas) -> tuple[int, int, int]:
    return canvas.ink(0.06)


def _fit(points: list[Point], size: float = 84) -> list[Point]:
    """Scale points (y up) into a box of `size` pixels around the middle of the picture (y down)."""
    xs, ys = [x for x, _ in points], [y for _, y in points]
    scale = size / max(max(xs) - min(xs), max(ys) - min(ys))
    middle_x, middle_y = (max(xs) + min(xs)) / 2, (max(ys) + min(ys)) / 2
    return [(57 + scale * (x - middle_x), 60 - scale * (y - middle_y)) for x, y in points]


def _inside(corners: list[Point], index: int, distance: float) -> Point:
    """The point at `distance` pixels from a corner, on the line that halves its angle."""
    x, y = corners[index]
    towards = [0.0, 0.0]
    for other_x, other_y in corners[:index] + corners[index + 1 :]:
        length = math.hypot(other_x - x, other_y - y)
        towards[0] += (other_x - x) / length
        towards[1] += (other_y - y) / length
    length = math.hypot(*towards)
    return x + towards[0] * distance / length, y + towards[1] * distance / length
