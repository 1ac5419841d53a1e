"""Puzzles: coloured grids, a cut and shuffled picture, a Latin square, a balance."""

from __future__ import annotations

import random
from collections.abc import Sequence

from infimmr_jax.data.synthetic.canvas import COLOURS, Canvas
from infimmr_jax.data.synthetic.scene import Scene
from infimmr_jax.names import AnswerType

PLACES = ("upper left", "upper right", "lower left", "lower right")


def grid(rng: random.Random) -> Scene:
    """A 3 x 3 grid of coloured cells: the colour of a cell, or how often a colour occurs in a row or column."""
    palette = rng.sample(sorted(COLOURS), 3)
    cells = [[rng.choice(palette) for _ in range(3)] for _ in range(3)]
    facts = " ".join(f"row {number}: {' '.join(row)}." for number, row in enumerate(cells, 1))
    row, column = rng.randrange(3), rng.randrange(3)
    if rng.random() < 0.5:
        colour = cells[row][column]
        question = f"Which colour is in row {row + 1}, column {column + 1}?"
        solution = f"row {row + 1}: {' '.join(cells[row])}. column {column + 1}: {colour}."
        return _grid_scene(cells, facts, question, colour, solution, 1, "string")
    along = rng.choice(("row", "column"))
    number = row if along == "row" else column
    line = cells[number] if along == "row" else [cells[r][number] for r in range(3)]
    colour = rng.choice(palette)
    total = line.count(colour)
    question = f"How many {colour} cells in {along} {number + 1}?"
    return _grid_scene(
        cells, facts, question, str(total), f"{along} {number + 1}: {' '.join(line)}. {colour} {total}.", 2
    )


def _grid_scene(
    cells: list[list[str]],
    facts: str,
    question: str,
    answer: str,
    solution: str,
    level: float,
    answer_type: AnswerType = "math",
) -> Scene:
    def draw(canvas: Canvas) -> None:
        for row, names in enumerate(cells):
            for column, name in enumerate(names):
                x, y = 10 + 31 * column, 12 + 31 * row
                canvas.box(x, y, x + 31, y + 31, canvas.colour(name), canvas.ink(0.7))

    return Scene(facts, question, answer, solution, level, draw, answer_type, intro="grid")


def jigsaw(rng: random.Random) -> Scene:
    """Rings cut into four pieces and shuffled: the piece of a corner, or the corner of a piece.

    A piece's place follows from the corner that its rings are centred on (the pieces of Jigsaw-R1, on a picture that
    a caption can describe).
    """
    order = list(range(4))  # order[k] is the place that piece k + 1 belongs to
    rng.shuffle(order)
    colours = rng.sample(sorted(COLOURS), 3)
    pieces = " ".join(f"piece {k + 1}: centre {PLACES[3 - place]}." for k, place in enumerate(order))
    facts = f"rings {', '.join(colours)}. {pieces}"
    place = rng.randrange(4)
    answer_type: AnswerType = "math"
    choices: tuple[str, ...] = ()
    piece = order.index(place) + 1
    if rng.random() < 0.5:
        question = f"Which piece belongs at the {PLACES[place]}?"
        solution = f"{PLACES[place]} has its centre {PLACES[3 - place]}: piece {piece}."
        answer = str(piece)
    else:
        question = f"Where does piece {piece} belong?"
        answer, answer_type, choices = "ABCD"[place], "choice", PLACES
        solution = f"piece {piece} has its centre {PLACES[3 - place]}: {PLACES[place]}, {answer}."

    def draw(canvas: Canvas) -> None:
        shades = [canvas.colour(name) for name in colours]
        edge, label = canvas.ink(0.7), canvas.ink(0.9)
        for k, place in enumerate(order):
            left, top = 8 + 50 * (k % 2), 9 + 50 * (k // 2)
            # The centre of the rings is the piece's corner opposite to its place.
            x, y = left + 46 * (1 - place % 2), top + 46 * (1 - place // 2)
            _quarter_rings(canvas, (left, top), (x, y), shades)
            canvas.box(left, top, left + 46, top + 46, None, edge)
            canvas.disc(left + 23, top + 23, 7.5, canvas.ink(0.0), edge)
            canvas.text(left + 23, top + 23, str(k + 1), label, 11)

    return Scene(facts, question, answer, solution, 2, draw, answer_type, choices, intro="pieces", scale=2)


def _quarter_rings(
    canvas: Canvas, corner: tuple[float, float], centre: tuple[float, float], shades: Sequence[tuple[int, int, int]]
) -> None:
    left, top = corner
    right_half, lower_half = centre[0] > left, centre[1] > top
    start = {(False, False): 0, (True, False): 90, (True, True): 180, (False, True): 270}[(right_half, lower_half)]
    canvas.box(left, top, left + 46, top + 46, canvas.ink(0.03))
    for radius, shade in zip((42, 29, 15), shades, strict=True):
        canvas.wedge(*centre, radius, start, start + 90, shade)


def latin_square(rng: random.Random) -> Scene:
    """A 4 x 4 Latin square with blanks: the digit at "?" follows from its row and column."""
    digits, rows, columns = (rng.sample(range(4), 4) for _ in range(3))
    square = [[str(digits[(r + c) % 4] + 1) for c in columns] for r in rows]
    row, column = rng.randrange(4), rng.randrange(4)
    answer = square[row][column]
    in_row = [square[row][c] for c in range(4) if c != column]
    # Each other digit may vanish from the row or from the column, not from both: the answer stays determined.
    hidden = {(row, column)}
    for digit in in_row:
        choice = rng.random()
        if choice < 0.4:
            hidden.add((row, square[row].index(digit)))
        elif choice < 0.8:
            hidden.add((next(r for r in range(4) if square[r][column] == digit), column))
    shown = [["_" if (r, c) in hidden else square[r][c] for c in range(4)] for r in range(4)]
    shown[row][column] = "?"
    facts = " ".join(f"row {number}: {' '.join(line)}." for number, line in enumerate(shown, 1))
    row_seen = [digit for digit in shown[row] if digit not in "_?"]
    column_seen = [shown[r][column] for r in range(4) if shown[r][column] not in "_?"]
    solution = f"row: {' '.join(row_seen) or 'none'}. column: {' '.join(column_seen) or 'none'}. left: {answer}."
    question = "Each row and column has 1 2 3 4 once. Find ?."
    level = 1.0 if len(row_seen) == 3 or len(column_seen) == 3 else 3.0

    def draw(canvas: Canvas) -> None:
        for r, line in enumerate(shown):
            for c, digit in enumerate(line):
                x, y = 8 + 24 * c, 11 + 24 * r
                canvas.box(x, y, x + 24, y + 24, canvas.ink(0.14 if digit == "?" else 0.02), canvas.ink(0.7))
                if digit != "_":
                    canvas.text(x + 12, y + 12, digit, canvas.ink(0.9), 14)

    return Scene(facts, question, answer, solution, level, draw, intro="square", scale=2)


def balance(rng: random.Random) -> Scene:
    """A balance in equilibrium: circles and a known weight on one side, a known weight on the other; find a circle."""
    number, weight, extra = rng.randint(1, 3), rng.randint(1, 20), rng.randint(0, 19)
    total = number * weight + extra
    circles = "1 circle" if number == 1 else f"{number} circles"
    left = circles + (f" and a weight of {extra}" if extra else "")
    facts = f"left: {left}; right: a weight of {total}."
    solution = f"{circles}{f' and {extra}' if extra else ''} = {total}."
    rest = total
    if extra:
        rest = total - extra
        solution += f" {total}-{extra}={rest}."
    if number > 1:
        solution += f" {rest}/{number}={weight}."

    def draw(canvas: Canvas) -> None:
        x: float
        dark = canvas.ink(0.8)
        canvas.polygon([(56, 62), (46, 100), (66, 100)], canvas.ink(0.3), dark)
        canvas.line(12, 62, 100, 62, dark, 2)
        for x in (30, 84):
            canvas.line(x - 22, 56, x + 22, 56, dark, 2)
            canvas.line(x, 56, x, 62, dark, 2)
        slots = number + bool(extra)
        for k in range(slots):
            x, y = 30 + 15 * (k - (min(slots, 3) - 1) / 2), 48.0
            if k == 3:
                x, y = 30.0, 32.0
            if k < number:
                canvas.disc(x, y, 7, canvas.colour("orange"), dark)
            else:
                _weight(canvas, x + (3 if extra > 9 and k < 3 else 0), y, str(extra))
        _weight(canvas, 84, 48, str(total))

    level = float(1 + (number > 1) + bool(extra))
    question = "The balance is level. Find the weight of a circle."
    return Scene(facts, question, str(weight), solution, level, draw, intro="balance", scale=2)


def _weight(canvas: Canvas, x: float, y: float, label: str) -> None:
    half = 7 if len(label) == 1 else 10
    canvas.box(x - half, y - 7, x + half, y + 7, canvas.ink(0.12), canvas.ink(0.8))
    canvas.text(x, y, label, canvas.ink(0.95), 11)
