"""A small transit map: two coloured lines that share a station; stops between stations, and where to change."""

from __future__ import annotations

import itertools
import random
import string
from collections import deque

from infimmr_jax.data.synthetic.canvas import COLOURS, Canvas
from infimmr_jax.data.synthetic.scene import Scene

STEP = 23
ORIGIN = (11, 17)


def transit(rng: random.Random) -> Scene:
    """Ride between two stations: count the stops, or name the station to change at."""
    first_colour, second_colour = rng.sample(sorted(COLOURS), 2)
    cross_x, cross_y = rng.randint(1, 3), rng.randint(0, 3)
    across = [(x, cross_y) for x in range(rng.randint(0, 1), rng.randint(4, 5))]
    down = [(cross_x, y) for y in range(4)]
    letters = iter(rng.sample(string.ascii_uppercase[:14], len(across) + len(down) - 1))
    names = {spot: next(letters) for spot in dict.fromkeys([*across, *down])}
    lines = {first_colour: [names[s] for s in across], second_colour: [names[s] for s in down]}
    facts = " ".join(f"{colour} line: {' '.join(stations)}." for colour, stations in lines.items())
    change = names[(cross_x, cross_y)]
    if rng.random() < 0.3:
        question = f"Where do the {first_colour} and {second_colour} lines cross?"
        solution = f"{facts} both have {change}."
        return _scene(facts, question, change, solution, 1, names, {first_colour: across, second_colour: down}, True)
    start, end = rng.sample(sorted(names.values()), 2)
    route = _shortest(lines, start, end)
    stops = len(route) - 1
    solution = f"{' '.join(route)}. {stops} stops." if stops > 1 else f"{' '.join(route)}. 1 stop."
    direct = any(start in stations and end in stations for stations in lines.values())
    question = f"How many stops from {start} to {end}?"
    drawn = {first_colour: across, second_colour: down}
    return _scene(facts, question, str(stops), solution, 1 if direct else 2, names, drawn)


def _scene(
    facts: str,
    question: str,
    answer: str,
    solution: str,
    level: float,
    names: dict[tuple[int, int], str],
    lines: dict[str, list[tuple[int, int]]],
    is_name: bool = False,
) -> Scene:
    def draw(canvas: Canvas) -> None:
        at = {spot: (ORIGIN[0] + STEP * spot[0], ORIGIN[1] + 26 * spot[1]) for spot in names}
        for colour, spots in lines.items():
            canvas.line(*at[spots[0]], *at[spots[-1]], canvas.colour(colour), 4)
        for spot, name in names.items():
            canvas.disc(*at[spot], 7, canvas.ink(0.0), canvas.ink(0.85))
            canvas.text(*at[spot], name, canvas.ink(0.95), 10)

    return Scene(facts, question, answer, solution, level, draw, "string" if is_name else "math", intro="map", scale=2)


def _shortest(lines: dict[str, list[str]], start: str, end: str) -> list[str]:
    """The stations of a shortest ride, by breadth-first search."""
    near: dict[str, list[str]] = {}
    for stations in lines.values():
        for one, other in itertools.pairwise(stations):
            near.setdefault(one, []).append(other)
            near.setdefault(other, []).append(one)
    came: dict[str, str | None] = {start: None}
    queue = deque([start])
    while end not in came:
        here = queue.popleft()
        for there in near[here]:
            if there not in came:
                came[there] = here
                queue.append(there)
    route = [end]
    while (before := came[route[-1]]) is not None:
        route.append(before)
    return route[::-1]
