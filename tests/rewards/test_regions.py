"""Boxes, points and spans: readers, and areas against a pixel count."""

import random

import numpy as np
import pytest

from infimmr_jax.rewards.regions import (
    Box,
    greedy_iou,
    iou,
    parse_boxes,
    parse_points,
    parse_span,
    resize_scale,
    union_area,
    union_iou,
)


def raster(boxes: list[Box], size: int = 40) -> np.ndarray:
    """The pixels that boxes with whole coordinates cover."""
    canvas = np.zeros((size, size), bool)
    for x1, y1, x2, y2 in boxes:
        canvas[int(y1) : int(y2), int(x1) : int(x2)] = True
    return canvas


def some_boxes(generator: random.Random, number: int) -> list[Box]:
    boxes = []
    for _ in range(number):
        x1, y1 = generator.randint(0, 30), generator.randint(0, 30)
        boxes.append((float(x1), float(y1), float(x1 + generator.randint(1, 9)), float(y1 + generator.randint(1, 9))))
    return boxes


def test_areas_are_those_of_the_pixels() -> None:
    generator = random.Random(0)
    for _ in range(200):
        first, second = some_boxes(generator, generator.randint(1, 6)), some_boxes(generator, generator.randint(1, 6))
        left, right = raster(first), raster(second)
        assert union_area(first) == left.sum()
        assert union_iou(first, second) == pytest.approx((left & right).sum() / (left | right).sum())
        one, other = raster(first[:1]), raster(second[:1])
        assert iou(first[0], second[0]) == pytest.approx((one & other).sum() / (one | other).sum())


def test_greedy_matching_pairs_each_box_once() -> None:
    gold: list[Box] = [(0, 0, 10, 10), (20, 0, 30, 10)]
    assert greedy_iou(gold, gold[::-1]) == 1
    assert greedy_iou(gold, [gold[0], gold[0]]) == 0.5
    assert greedy_iou(gold[:1], [gold[0], (50, 50, 60, 60), (70, 70, 80, 80)]) == pytest.approx(1 / 3)
    assert greedy_iou(gold, [(0, 0, 10, 4), (20, 0, 30, 4)]) == 0  # below one half is no match


@pytest.mark.parametrize(
    "text",
    [
        "",
        "box",
        "[1,2,3]",
        "[1,2,3,4,5]",
        "[3,3,1,1]",
        "[1,2,nan,4]",
        "[[1,2],[3]]",
        "[1,2,3,4] is the box",
        "[1,2,3,1e309]",
        "0,0,1,1," * 65,
        "[" * 50 + "1,2,3,4" + "]" * 50,
        '{"bbox": "1,2,3,4"}',
        '{"a": [1,2,3,4]}',
        '{"bbox": [true, 0, 3, 4]}',
        '{"bbox_2d": [1,2,3,4], "point": [1,2]}',
    ],
)
def test_what_is_not_a_list_of_boxes(text: str) -> None:
    assert parse_boxes(text) is None


def test_boxes_and_points_are_scaled_to_the_original_image() -> None:
    scale = resize_scale(seen=(280, 140), original=(560, 420))
    assert scale == (2.0, 3.0)
    assert parse_boxes("[10, 10, 20, 20]", scale) == [(20, 30, 40, 60)]
    assert parse_points("(10, 10)", scale) == [(20, 30)]


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("[1.5, 4]", (1.5, 4.0)),
        ("1:05 - 1:10", (65.0, 70.0)),
        ("1:00:00 to 1:00:30", (3600.0, 3630.0)),
        ("from 3s to 7s", (3.0, 7.0)),
        ("3-7", (3.0, 7.0)),
        ("between 3 and 7 seconds", (3.0, 7.0)),
        ('{"start_time": "3", "end_time": 7}', (3.0, 7.0)),
        ('{"start": 3, "end": 7}', (3.0, 7.0)),
        ("```json\n{'start': 3, 'end': 7}\n```", (3.0, 7.0)),
        ("7 to 3", None),
        ("3", None),
        ("3, 7, 9", None),
        ("-3 to 7", None),
        ("three to seven", None),
        ('{"start": 3}', None),
        ('{"start": NaN, "end": 7}', None),
        ("", None),
    ],
)
def test_spans(text: str, span: tuple[float, float] | None) -> None:
    assert parse_span(text) == span
