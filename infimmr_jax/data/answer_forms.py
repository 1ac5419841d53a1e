"""Gold answers that rows give as JSON values (a list of coordinates, an action, a number), written as text."""

from __future__ import annotations

import json
import re
from decimal import Decimal

from infimmr_jax.data.markup import fold
from infimmr_jax.data.records import DataError

MAX_NUMBER = 1e308
# What the value of `answer` may be beside a text, by type; a parquet column of objects has all keys in every row.
FORMS: dict[str, tuple[type, ...]] = {
    "number": (int, float),
    "list": (list,),
    "set": (list,),
    "box": (list, dict),
    "point": (list, dict),
    "span": (list, dict),
    "action": (dict,),
}

# What graders split a list at.
_SEPARATORS = re.compile(r"[,;()\[\]{}\r\n]|(?<!\S)(?:and|or)(?!\S)", re.IGNORECASE)


def answer_text(value: object, answer_type: str) -> str:
    """A gold answer of a type in FORMS as the text that graders read; a text stays as it is.

    Raises DataError for another kind of value, a number that is not finite, and an element of a list that a reader
    could not tell from two (one with a comma, a bracket or an "and", or an empty one).
    """
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, FORMS[answer_type]):
        kinds = " or ".join(kind.__name__ for kind in (str, *FORMS[answer_type]))
        raise DataError(f"`answer` is a {type(value).__name__}; with answer_type {answer_type!r} it must be a {kinds}")
    if answer_type in ("list", "set") and isinstance(value, list):
        return _listed(value)
    if isinstance(value, dict) or (isinstance(value, list) and any(isinstance(item, dict) for item in value)):
        return json.dumps(without_nulls(value), ensure_ascii=False)
    return _written(value)


def without_nulls(value: object) -> object:
    """A JSON value without the keys whose value is null, which parquet adds to objects."""
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    return [without_nulls(item) for item in value] if isinstance(value, list) else value


def _listed(value: list[object]) -> str:
    mixed = next((item for item in _flat(value) if not item or _SEPARATORS.search(item)), None)
    if mixed is not None:
        raise DataError(
            f"the element {mixed[:40]!r} of `answer` can not be told apart in a list: elements are not empty "
            "and have no commas, semicolons, brackets or line breaks and no 'and' or 'or'"
        )
    return _written(value)


def _flat(value: object) -> list[str]:
    return [text for item in value for text in _flat(item)] if isinstance(value, list) else [fold(_written(value))]


def _written(value: object) -> str:
    """`[1, [2.5, red]]`: numbers without exponents, texts without quotes."""
    if isinstance(value, list):
        return f"[{', '.join(map(_written, value))}]"
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, bool) or not isinstance(value, int | float) or not -MAX_NUMBER < value < MAX_NUMBER:
        raise DataError(f"`answer` holds {str(value)[:60]}, which is neither a text nor a finite number")
    return f"{Decimal(repr(value)):f}"


__all__ = ["FORMS", "answer_text", "without_nulls"]
