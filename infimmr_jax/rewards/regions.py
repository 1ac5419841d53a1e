"""Boxes, points and spans: strict readers and the geometry of overlap, in plain Python (a handful of boxes)."""

from __future__ import annotations

import itertools
import json
import math
import re

from infimmr_jax.names import JsonValue
from infimmr_jax.rewards.text import fold, nesting, strip_fence

MAX_BOXES = 64

Box = tuple[float, float, float, float]
Point = tuple[float, float]

_NUMBER = re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)")
_BETWEEN = re.compile(r"[\s,;:()\[\]]+")
_KEYS = ("bbox_2d", "bbox", "box", "position", "point_2d", "point", "coordinate", "coordinates")


def parse_boxes(text: str, scale: tuple[float, float] = (1.0, 1.0)) -> list[Box] | None:
    """Boxes (x1, y1, x2, y2) from `[[..], ..]`, `(x1,y1),(x2,y2)`, bare numbers or JSON objects, times `scale`.

    None when the text is anything else, holds no box or more than 64, or a box without area.
    """
    numbers = _groups(text, 4)
    if not numbers:
        return None
    boxes = [(a * scale[0], b * scale[1], c * scale[0], d * scale[1]) for a, b, c, d in numbers]
    return boxes if all(x2 > x1 and y2 > y1 for x1, y1, x2, y2 in boxes) else None


def parse_points(text: str, scale: tuple[float, float] = (1.0, 1.0)) -> list[Point] | None:
    """Points (x, y) from `(x, y)`, `[[x, y], ..]` or JSON objects, times `scale`; None as in `parse_boxes`."""
    numbers = _groups(text, 2)
    return [(x * scale[0], y * scale[1]) for x, y in numbers] if numbers else None


def parse_span(text: str) -> tuple[float, float] | None:
    """Start and end in seconds from `[1.5, 4]`, `0:10 - 1:05`, `from 3 to 7 seconds` or JSON start/end keys."""
    text = strip_fence(fold(text)).lower()
    try:
        value: JsonValue = json.loads(text.replace("'", '"')) if nesting(text) < 4 else None
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, dict):
        pair = [_seconds(value.get(f"{key}_time", value.get(key))) for key in ("start", "end")]
    else:
        bare = re.sub(r"seconds?|secs?|(?<=[0-9])\s*s\b|from|to|and|between|until|[\[\]()]", " ", text)
        pieces = [piece for piece in re.split(r"[\s,;]+|(?<=[0-9s])-(?=[0-9])|\s-\s", bare) if piece and piece != "-"]
        pair = [_seconds(piece) for piece in pieces]
    if len(pair) != 2 or pair[0] is None or pair[1] is None or not 0 <= pair[0] < pair[1]:
        return None
    return pair[0], pair[1]


def is_number(value: object) -> bool:
    """Whether a value of JSON is a number; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def finite(number: float) -> float | None:
    """The number as a float; None for NaN, infinities, and integers beyond what a float holds."""
    try:
        value = float(number)
    except OverflowError:
        return None
    return value if math.isfinite(value) else None


def _seconds(value: JsonValue) -> float | None:
    if is_number(value):
        return finite(value)
    match = re.fullmatch(r"(?:(?:([0-9]{1,3}):)?([0-9]{1,3}):)?([0-9]{1,6}(?:\.[0-9]{1,6})?)", str(value).strip())
    if match is None or (match[2] and float(match[3]) >= 60) or (match[1] and int(match[2]) >= 60):
        return None
    return int(match[1] or 0) * 3600 + int(match[2] or 0) * 60 + float(match[3])


def _groups(text: str, size: int) -> list[tuple[float, ...]] | None:
    """All coordinate groups of a text; None when the text is no list of such groups."""
    text = strip_fence(fold(text))
    if nesting(text) > 5 or len(text) > 10_000:
        return None
    if "{" in text:
        numbers = _from_json(text)
    else:
        pieces = [piece for piece in _BETWEEN.split(text) if piece]
        numbers = [float(piece) for piece in pieces] if all(map(_NUMBER.fullmatch, pieces)) else None
    if not numbers or len(numbers) % size or len(numbers) > size * MAX_BOXES:
        return None
    if not all(math.isfinite(number) and abs(number) < 1e7 for number in numbers):
        return None
    return [tuple(numbers[i : i + size]) for i in range(0, len(numbers), size)]


def _from_json(text: str) -> list[float] | None:
    """Coordinates under the known keys of one JSON object or a list of them."""
    try:
        value: JsonValue = json.loads(text.replace("'", '"'))
    except (ValueError, RecursionError):
        return None
    numbers: list[float] = []
    for item in value if isinstance(value, list) else [value]:
        if not isinstance(item, dict):
            return None
        found = [entry for key, entry in item.items() if key.lower() in _KEYS]
        if len(found) != 1 or not isinstance(found[0], list):
            return None
        values = [finite(number) if is_number(number) else None for number in found[0]]
        numbers += [value for value in values if value is not None]
        if None in values:
            return None
    return numbers


def area(box: Box) -> float:
    """Area of a box, 0 when it is empty."""
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])


def overlap(first: Box, second: Box) -> Box:
    """Intersection of two boxes (possibly empty: zero area)."""
    return (
        max(first[0], second[0]),
        max(first[1], second[1]),
        min(first[2], second[2]),
        min(first[3], second[3]),
    )


def iou(first: Box, second: Box) -> float:
    """Intersection over union of two boxes, in [0, 1]."""
    common = area(overlap(first, second))
    return common / (area(first) + area(second) - common) if common else 0.0


def union_area(boxes: list[Box]) -> float:
    """Area covered by at least one box (exact, by coordinate compression)."""
    xs = sorted({x for box in boxes for x in (box[0], box[2])})
    total = 0.0
    for left, right in itertools.pairwise(xs):
        covered, top = 0.0, -math.inf
        for _, y1, _, y2 in sorted((b for b in boxes if b[0] <= left and b[2] >= right), key=lambda b: b[1]):
            covered += max(0.0, y2 - max(y1, top))
            top = max(top, y2)
        total += covered * (right - left)
    return total


def union_iou(gold: list[Box], answer: list[Box]) -> float:
    """Intersection over union of the regions that two lists of boxes cover (SATORI-R1's box reward)."""
    both = union_area(gold + answer)
    return (union_area(gold) + union_area(answer) - both) / both if both else 0.0


def greedy_iou(gold: list[Box], answer: list[Box], least: float = 0.5) -> float:
    """Sum of IoUs above `least` of greedily paired boxes, over the larger number of boxes (DeFacto's match)."""
    pairs = sorted(((iou(g, a), i, j) for i, g in enumerate(gold) for j, a in enumerate(answer)), reverse=True)
    total, used_gold, used_answer = 0.0, set[int](), set[int]()
    for value, i, j in pairs:
        if value > least and i not in used_gold and j not in used_answer:
            total += value
            used_gold.add(i)
            used_answer.add(j)
    return total / max(len(gold), len(answer))


def resize_scale(seen: tuple[int, int], original: tuple[int, int]) -> tuple[float, float]:
    """Factors (x, y) that map coordinates of the image the model saw to the original one; sizes are (width, height)."""
    return original[0] / seen[0], original[1] / seen[1]


__all__ = [
    "Box",
    "Point",
    "area",
    "greedy_iou",
    "iou",
    "overlap",
    "parse_boxes",
    "parse_points",
    "parse_span",
    "resize_scale",
    "union_area",
    "union_iou",
]
