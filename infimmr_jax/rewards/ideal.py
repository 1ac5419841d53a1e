"""The answer that a policy which is right would give: for demonstrations, and to see that a gold can be answered."""

from __future__ import annotations

import json

from infimmr_jax.rewards.regions import parse_boxes, parse_points
from infimmr_jax.rewards.verdict import Options
from infimmr_jax.rewards.verify_action import parse_action


def ideal_answer(answer_type: str, gold: str, options: Options, decimals: int | None = None) -> str | None:
    """An answer that earns the full score, with coordinates in the picture that the model saw; None for a bad gold.

    Boxes are mapped back through `options.scale`; a gold box to be hit becomes its middle, as a point or as the
    `coordinate` of an action. `decimals` rounds coordinates (0: whole pixels, as Qwen2.5-VL writes them).
    """
    if answer_type == "box":
        boxes = parse_boxes(gold)
        return None if boxes is None else _joined([_unscaled(box, options, decimals) for box in boxes])
    if answer_type == "point":
        points = parse_points(gold)
        if (options.rule or "in_box") == "in_box":
            boxes = parse_boxes(gold)
            points = None if boxes is None else [_middle(boxes[0])]
        return None if points is None else _joined([_unscaled(point, options, decimals) for point in points])
    if answer_type == "action":
        action = parse_action(gold)
        if action is None:
            return None
        regions = [key for key in action if key in ("bbox", "box")]
        for key in regions:
            boxes = parse_boxes(json.dumps(action.pop(key)))
            if boxes is None:
                return None
            action["coordinate"] = _unscaled(_middle(boxes[0]), options, decimals)
        return json.dumps(action, ensure_ascii=False)
    return gold


def _middle(box: tuple[float, ...]) -> tuple[float, float]:
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def _unscaled(numbers: tuple[float, ...], options: Options, decimals: int | None) -> list[float]:
    mapped = [number / options.scale[place % 2] for place, number in enumerate(numbers)]
    if decimals is None:
        return mapped
    return [round(number, decimals) if decimals else round(number) for number in mapped]


def _joined(groups: list[list[float]]) -> str:
    return json.dumps(groups[0] if len(groups) == 1 else groups)
