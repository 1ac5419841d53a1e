"""Verify boxes, points and temporal spans."""

from __future__ import annotations

import math
from collections.abc import Callable

from infimmr_jax.rewards.regions import (
    Box,
    Point,
    greedy_iou,
    iou,
    parse_boxes,
    parse_points,
    parse_span,
    union_iou,
)
from infimmr_jax.rewards.verdict import Options, Verdict, compared

GREEDY_LEAST = 0.5
FULL_IOU = 0.7
L1_LIMIT = 10.0
DISTANCE_SIGMA = 50.0


def verify_box(gold: str, answer: str, options: Options = Options()) -> Verdict:  # noqa: B008 - frozen
    """Score boxes by `options.rule`; the answer's coordinates are multiplied by `options.scale` first.

    iou: one box each, their IoU. full_iou: 1 from `threshold` (0.7) on, IoU / threshold below (InfiGUI-R1).
    union_iou: IoU of the covered regions (SATORI-R1). greedy_iou: paired boxes with IoU above `threshold` (0.5), over
    the larger number of boxes (DeFacto). l1: 1 when one box's mean absolute coordinate error is below `threshold`
    (10 pixels; PixelThink).
    """
    golds, answers = parse_boxes(gold), parse_boxes(answer, options.scale)
    if golds is None:
        return Verdict(0.0, "bad_gold", "unparsable gold")
    if answers is None:
        return Verdict(0.0, "bad_form", "not a list of boxes")
    score = BOX_RULES[options.rule or "iou"](golds, answers, options)
    return compared(score, f"box overlap: {score:.2f}")


def verify_point(gold: str, answer: str, options: Options = Options()) -> Verdict:  # noqa: B008 - frozen
    """Score one point by `options.rule`; its coordinates are multiplied by `options.scale` first.

    in_box: the gold is one or several boxes, the point must lie in one. l1: the gold is a point; 1 when the mean
    absolute coordinate error is below `threshold` (10 pixels). distance: exp(-d^2 / 2 s^2) with s = `threshold` (50).
    """
    points = parse_points(answer, options.scale)
    if (options.rule or "in_box") == "in_box":
        boxes = parse_boxes(gold)
        if boxes is None:
            return Verdict(0.0, "bad_gold", "unparsable gold")
        if points is None or len(points) != 1:
            return Verdict(0.0, "bad_form", "not one point")
        inside = any(in_box(points[0], box) for box in boxes)
        return compared(float(inside), "point inside" if inside else "point outside")
    golds = parse_points(gold)
    if golds is None or len(golds) != 1:
        return Verdict(0.0, "bad_gold", "unparsable gold")
    if points is None or len(points) != 1:
        return Verdict(0.0, "bad_form", "not one point")
    score = POINT_RULES[options.rule](golds[0], points[0], options)
    return compared(score, f"point near: {score:.2f}")


def verify_span(gold: str, answer: str, options: Options = Options()) -> Verdict:  # noqa: B008 - frozen
    """Score a temporal span in seconds by `options.rule`.

    iou: intersection over union of the two spans (Temporal-R1). full_iou: 1 from `threshold` (0.7) on, 0 below.
    """
    left, right = parse_span(gold), parse_span(answer)
    if left is None:
        return Verdict(0.0, "bad_gold", "unparsable gold")
    if right is None:
        return Verdict(0.0, "bad_form", "not a span")
    common = max(0.0, min(left[1], right[1]) - max(left[0], right[0]))
    share = common / (left[1] - left[0] + right[1] - right[0] - common)
    if options.rule == "full_iou":
        share = float(share >= (FULL_IOU if options.threshold is None else options.threshold))
    return compared(share, f"span overlap: {share:.2f}")


def in_box(point: Point, box: Box) -> bool:
    """Whether a point lies in a box, borders included."""
    return box[0] <= point[0] <= box[2] and box[1] <= point[1] <= box[3]


def _limit(options: Options, default: float) -> float:
    return default if options.threshold is None else options.threshold


def _single(rule: Callable[[Box, Box, Options], float]) -> Callable[[list[Box], list[Box], Options], float]:
    """A rule of one box each; any other number of boxes scores 0 (no shower of boxes may hit by chance)."""
    return lambda golds, answers, options: (
        rule(golds[0], answers[0], options) if len(golds) == len(answers) == 1 else 0.0
    )


def _l1(gold: tuple[float, ...], answer: tuple[float, ...], options: Options) -> float:
    error = sum(abs(g - a) for g, a in zip(gold, answer, strict=True)) / len(gold)
    return float(error < _limit(options, L1_LIMIT))


BOX_RULES: dict[str, Callable[[list[Box], list[Box], Options], float]] = {
    "iou": _single(lambda gold, answer, options: iou(gold, answer)),
    "full_iou": _single(lambda gold, answer, options: min(1.0, iou(gold, answer) / _limit(options, FULL_IOU))),
    "union_iou": lambda golds, answers, options: union_iou(golds, answers),
    "greedy_iou": lambda golds, answers, options: greedy_iou(golds, answers, _limit(options, GREEDY_LEAST)),
    "l1": _single(_l1),
}
POINT_RULES: dict[str, Callable[[Point, Point, Options], float]] = {
    "l1": _l1,
    "distance": lambda gold, answer, options: math.exp(
        -(math.dist(gold, answer) ** 2) / (2 * _limit(options, DISTANCE_SIGMA) ** 2)
    ),
}
SPAN_RULES = ("iou", "full_iou")
