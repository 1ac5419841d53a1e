"""Every family is solved again from its caption and question alone, by a second path; solutions end in the answer."""

import collections
import itertools
import math
import re

import pytest

from infimmr_jax.data.synthetic import FAMILIES, make_problem


def problems(family, count=200):
    return [make_problem(family, "plain", "train", 11, index, "caption", draw=False) for index in range(count)]


def listed(caption):
    """[(number, colour, shape)] of a caption like '2 red circles, 1 blue square.'"""
    return [
        (int(n), colour, shape) for n, colour, shape in re.findall(r"(\d+) (\w+) (circle|square|triangle)", caption)
    ]


def solve_count(p):
    asked = re.match(r"How many (.+)\?", p.question)[1].split()
    words = [word.rstrip("s") for word in asked if word != "shapes"]
    return str(sum(n for n, colour, shape in listed(p.caption) if set(words) <= {colour, shape}))


def solve_compare(p):
    tally = collections.Counter()
    for n, colour, _ in listed(p.caption):
        tally[colour] += n
    ranked = sorted(tally, key=tally.get)
    assert set(ranked) == set(p.choices)
    winner = ranked[-1] if "most" in p.question else ranked[0]
    return "ABC"[p.choices.index(winner)]


def solve_yes_no(p):
    first, second = re.match(r"Are there more (\w+?)s? (?:shapes )?than (\w+?)s?(?: shapes)?\?", p.question).groups()
    totals = [sum(n for n, *words in listed(p.caption) if thing in words) for thing in (first, second)]
    return "yes" if totals[0] > totals[1] else "no"


def solve_geometry(p):
    numbers = [int(n) for n in re.findall(r"\d+", p.caption)]
    if "rectangle" in p.caption:
        return str(math.prod(numbers) if "area" in p.question else 2 * sum(numbers))
    if "hypotenuse x" in p.caption:
        return str(math.isqrt(numbers[0] ** 2 + numbers[1] ** 2))
    if "hypotenuse" in p.caption:
        return str(math.isqrt(numbers[1] ** 2 - numbers[0] ** 2))
    return str(180 - sum(numbers))


def solve_clock(p):
    hour, minute = (int(n) for n in re.findall(r"\d+", p.caption))
    now = 60 * (hour % 12) + minute
    if p.question.startswith("How many minutes since"):
        return str(now)
    if p.question.startswith("How many minutes until"):
        return str(60 * int(re.findall(r"\d+", p.question)[0]) - (now if hour != 12 else minute))
    change = [int(n) for n in re.findall(r"(\d+) minutes", p.question)] or [0]
    now = (now + (-change[0] if "ago" in p.question else change[0])) % 720
    return f"{now // 60 or 12}:{now % 60:02d}"


def solve_number_line(p):
    values = {name: int(n) for name, n in re.findall(r"([A-H]) (\d+)", p.caption)}
    first, second = re.findall(r"\b[A-H]\b", p.question)
    return str(abs(values[first] - values[second]) if "|" in p.question else values[first] + values[second])


def solve_grid(p):
    cells = [row.split() for row in re.findall(r"row \d: ([a-z ]+)\.", p.caption)]
    numbers = [int(n) - 1 for n in re.findall(r"\d", p.question)]
    if p.question.startswith("Which"):
        return cells[numbers[0]][numbers[1]]
    colour, along = re.match(r"How many (\w+) cells in (row|column)", p.question).groups()
    line = cells[numbers[0]] if along == "row" else [row[numbers[0]] for row in cells]
    return str(sum(cell == colour for cell in line))


def solve_jigsaw(p):
    opposite = {"upper": "lower", "lower": "upper", "left": "right", "right": "left"}
    place = {}
    for piece, *centre in re.findall(r"piece (\d): centre (\w+) (\w+)\.", p.caption):
        place[piece] = " ".join(opposite[word] for word in centre)
    if p.question.startswith("Which"):
        asked = re.search(r"at the (.+)\?", p.question)[1]
        return next(piece for piece, where in place.items() if where == asked)
    asked = re.search(r"\d", p.question)[0]
    return "ABCD"[p.choices.index(place[asked])]


def solve_latin_square(p):
    """All fillings that fit, by brute force: they must agree on the asked cell."""
    shown = [row.split() for row in re.findall(r"row \d: ([\d_? ]+)\.", p.caption)]
    row, column = next((r, c) for r in range(4) for c in range(4) if shown[r][c] == "?")
    found = set()
    rows = [
        [
            order
            for order in itertools.permutations("1234")
            if all(s in "_?" or s == o for s, o in zip(line, order, strict=True))
        ]
        for line in shown
    ]
    for square in itertools.product(*rows):
        if all(len({line[c] for line in square}) == 4 for c in range(4)):
            found.add(square[row][column])
    assert len(found) == 1
    return found.pop()


def solve_balance(p):
    left, right = p.caption.split(";")
    circles = int(re.search(r"(\d+) circle", left)[1])
    extra = re.search(r"weight of (\d+)", left)
    weight = (int(re.search(r"\d+", right)[0]) - (int(extra[1]) if extra else 0)) / circles
    assert weight == int(weight)
    return str(int(weight))


def solve_transit(p):
    lines = [stations.split() for stations in re.findall(r"line: ([A-Z ]+)\.", p.caption)]
    if p.question.startswith("Where"):
        (shared,) = set(lines[0]) & set(lines[1])
        return shared
    start, end = re.match(r"How many stops from (\w) to (\w)\?", p.question).groups()
    near = {frozenset(pair) for line in lines for pair in itertools.pairwise(line)}
    reached, stops = {start}, 0
    while end not in reached:
        reached |= {name for pair in near if pair & reached for name in pair}
        stops += 1
    return str(stops)


SOLVERS = {name.removeprefix("solve_"): value for name, value in globals().items() if name.startswith("solve_")}


def test_every_family_has_a_second_solver():
    assert set(SOLVERS) == set(FAMILIES) - {"bars"}  # bars: test_synthetic.py


@pytest.mark.parametrize("family", sorted(SOLVERS))
def test_the_answer_follows_from_caption_and_question(family):
    for problem in problems(family):
        assert problem.answer == SOLVERS[family](problem), problem


@pytest.mark.parametrize("family", sorted(SOLVERS))
def test_equations_in_the_solution_hold(family):
    for problem in problems(family):
        for left, right in re.findall(r"([\d+*/-]+)=(-?\d+)\b", problem.solution):
            assert eval(left) == int(right), problem
        for a, sign, b in re.findall(r"(\d+)([<>])(\d+)", problem.solution):
            assert (int(a) > int(b)) == (sign == ">")


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_the_solution_arrives_at_the_answer(family):
    for problem in problems(family):
        words = re.findall(r"\d+|[A-Za-z]+", problem.solution)
        if ":" in problem.answer:
            hour, minute = problem.answer.split(":")
            assert hour in words
            assert str(int(minute)) in words
        else:
            tail = words[-3:] if family == "transit" else words[-2:]
            assert problem.answer in tail, problem


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_answers_are_balanced_enough_that_guessing_one_fails(family):
    counts = collections.Counter(problem.answer for problem in problems(family, 400))
    assert max(counts.values()) < 400 * (0.62 if family == "yes_no" else 0.5)
    assert len(counts) >= 2
