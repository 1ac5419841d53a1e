"""Verify a JSON action of a graphical user interface."""

from __future__ import annotations

import json

from infimmr_jax.names import JsonObject
from infimmr_jax.rewards.regions import finite, is_number, parse_boxes
from infimmr_jax.rewards.text import nesting, strip_fence
from infimmr_jax.rewards.verdict import Options, Verdict, compared
from infimmr_jax.rewards.verify_region import in_box
from infimmr_jax.rewards.verify_string import clean_text

TYPE_SHARE = 0.2
COORDINATE_KEYS = ("coordinate", "point")
ACTION_RULES = ("exact", "parts")


def parse_action(text: str) -> JsonObject | None:
    """One action object with a text under `action`, alone or in a list of one; single quotes are taken for double."""
    text = strip_fence(text)
    if nesting(text) > 6:
        return None
    for candidate in (text, text.replace("'", '"')):
        try:
            value: object = json.loads(candidate)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, list) and len(value) == 1:
            value = value[0]
        return value if isinstance(value, dict) and isinstance(value.get("action"), str) else None
    return None


def verify_action(gold: str, answer: str, options: Options = Options()) -> Verdict:  # noqa: B008 - frozen
    """Score an action: its type and every parameter the gold names.

    The gold may give `bbox` (the coordinate must lie inside) or any other parameter (equal text or number). exact: 1
    when type and parameters are right (UI-R1). parts: 0.2 for the type alone, 1 with the parameters (InfiGUI-R1).
    Coordinates of the answer are multiplied by `options.scale`.
    """
    wanted, found = parse_action(gold), parse_action(answer)
    if wanted is None:
        return Verdict(0.0, "bad_gold", "unparsable gold")
    if found is None:
        return Verdict(0.0, "bad_form", "not an action")
    if clean_text(wanted["action"]) != clean_text(found["action"]):
        return compared(0.0, "another action")
    wrong = [key for key in wanted if key != "action" and not _parameter(key, wanted[key], found, options)]
    if not wrong:
        return compared(1.0, "action and parameters right")
    return compared(TYPE_SHARE if options.rule == "parts" else 0.0, f"parameter {wrong[0]} wrong")


def _parameter(key: str, wanted: object, found: JsonObject, options: Options) -> bool:
    if key in ("bbox", "box"):
        point = next((found[name] for name in COORDINATE_KEYS if name in found), None)
        boxes = parse_boxes(json.dumps(wanted))
        if boxes is None or not _is_point(point):
            return False
        assert point is not None
        mapped = (point[0] * options.scale[0], point[1] * options.scale[1])
        return any(in_box(mapped, box) for box in boxes)
    if key not in found:
        return False
    if isinstance(wanted, str) and isinstance(found[key], str):
        return clean_text(wanted) == clean_text(found[key])
    return type(wanted) is type(found[key]) and bool(wanted == found[key])


def _is_point(value: object) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 2
        and all(is_number(number) and finite(number) is not None for number in value)
    )
