"""Reading instruments: a clock face and a number line."""

from __future__ import annotations

import math
import random

from infimmr_jax.data.synthetic.canvas import Canvas
from infimmr_jax.data.synthetic.scene import Scene
from infimmr_jax.names import AnswerType


def clock(rng: random.Random) -> Scene:
    """Read a clock to five minutes: the time now, earlier or later, or minutes since 12:00 or until the full hour."""
    hour, minute = rng.randint(1, 12), 5 * rng.randint(0, 11)
    facts = f"hour hand past {hour}, minute hand at {minute}."
    read = f"hour {hour}, minute {minute}."
    kind = rng.choice(("now", "later", "earlier", "since", "until"))
    if kind == "now":
        question, answer, solution, level = "What time is it?", _time(hour, minute), read, 1.0
    elif kind == "later":
        wait = 5 * rng.randint(1, 11)
        total = minute + wait
        then = hour % 12 + 1 if total >= 60 else hour
        question, answer, level = f"What time is it in {wait} minutes?", _time(then, total % 60), 3.0
        solution = f"{read} {minute}+{wait}={total}."
        if total >= 60:
            solution += f" {total}-60={total - 60}. hour {then}."
    elif kind == "earlier":
        wait = 5 * rng.randint(1, 11)
        total = minute - wait
        then = (hour - 2) % 12 + 1 if total < 0 else hour
        question, answer, level = f"What time was it {wait} minutes ago?", _time(then, total % 60), 3.0
        solution = f"{read} {minute}-{wait}={total}."
        if total < 0:
            solution += f" {total}+60={total + 60}. hour {then}."
    elif kind == "until":
        then = hour % 12 + 1
        question, answer, level = f"How many minutes until {then}:00?", str(60 - minute), 2.0
        solution = f"{read} 60-{minute}={60 - minute}."
    else:
        hours = hour % 12
        total = 60 * hours + minute
        question, answer, level = "How many minutes since 12:00?", str(total), 2.0
        solution = f"{read} 60*{hours}={60 * hours}. {60 * hours}+{minute}={total}."

    def draw(canvas: Canvas) -> None:
        x, y, radius = 56, 58, 45
        canvas.disc(x, y, radius, canvas.ink(0.02), canvas.ink(0.8))
        for mark in range(1, 13):
            turn = math.radians(30 * mark)
            canvas.line(*_around(x, y, radius - 4, turn), *_around(x, y, radius - 1, turn), canvas.ink(0.8))
            canvas.text(*_around(x, y, radius - 10, turn), str(mark), canvas.ink(0.75), 9)
        canvas.line(x, y, *_around(x, y, 18, math.radians(30 * hour + minute / 2)), canvas.ink(0.95), 3.5)
        canvas.line(x, y, *_around(x, y, 33, math.radians(6 * minute)), canvas.ink(0.85), 1.5)
        canvas.disc(x, y, 2.5, canvas.ink(0.95))

    answer_type: AnswerType = "math" if kind in ("since", "until") else "string"
    return Scene(facts, question, answer, solution, level, draw, answer_type, intro="clock", scale=2)


def number_line(rng: random.Random) -> Scene:
    """Read two marked points on a number line whose labels skip ticks: their sum or distance."""
    step = rng.choice((1, 2, 5, 10))
    start = step * rng.randint(0, 9)
    one, other = rng.sample("ABCDEFGH", 2)
    first, second = rng.sample(range(1, 10), 2)
    a, b = start + step * first, start + step * second
    facts = f"{one} {a}, {other} {b}."
    if rng.random() < 0.5:
        question, answer, steps = f"Find {one} + {other}.", a + b, f"{a}+{b}={a + b}."
    else:
        question, answer, steps = f"Find | {one} - {other} |.", abs(a - b), f"|{a}-{b}|={abs(a - b)}."
    level = 1.0 if step == 1 else 2.0

    def draw(canvas: Canvas) -> None:
        left, gap, y = 12, 8.8, 66
        canvas.line(left - 4, y, left + 10 * gap + 4, y, canvas.ink(0.85), 1.5)
        for tick in range(11):
            x = left + gap * tick
            tall = 6 if tick % 5 == 0 else 3
            canvas.line(x, y - tall, x, y + tall, canvas.ink(0.85))
            if tick % 5 == 0:
                canvas.text(x, y + 15, str(start + step * tick), canvas.ink(0.85), 11)
        for tick, name, colour in ((first, one, "red"), (second, other, "blue")):
            x = left + gap * tick
            canvas.disc(x, y, 3.5, canvas.colour(colour), canvas.ink(0.7))
            canvas.text(x, y - 15, name, canvas.ink(0.9), 12)

    return Scene(facts, question, str(answer), f"{facts} {steps}", level, draw, intro="points", scale=2)


def _time(hour: int, minute: int) -> str:
    return f"{hour}:{minute:02d}"


def _around(x: float, y: float, radius: float, turn: float) -> tuple[float, float]:
    """The point at `radius` from (x, y), `turn` radians clockwise from the top."""
    return x + radius * math.sin(turn), y - radius * math.cos(turn)
