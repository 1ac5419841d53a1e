"""Gold answers given as JSON values read back as what they were; what a list can not hold is said."""

import pytest

from infimmr_jax.data.answer_forms import FORMS, answer_text, without_nulls
from infimmr_jax.data.records import DataError
from infimmr_jax.names import ANSWER_TYPES, RULES
from infimmr_jax.names import ANSWER_TYPES as GRADED
from infimmr_jax.rewards.regions import parse_boxes, parse_points, parse_span
from infimmr_jax.rewards.verify_action import parse_action
from infimmr_jax.rewards.verify_list import elements


def test_records_know_every_type_that_graders_know_and_older_checkpoints_keep_their_order():
    assert set(ANSWER_TYPES) == set(GRADED) == set(RULES)
    assert ANSWER_TYPES[:3] == ("math", "choice", "string")
    assert set(FORMS) == set(ANSWER_TYPES[3:])


@pytest.mark.parametrize("kind", list(FORMS))
def test_a_text_stays_as_it_is(kind):
    assert answer_text(" (1,2), 3 ", kind) == " (1,2), 3 "


def test_values_read_back():
    assert parse_boxes(answer_text([1, 2.5, 1e1, 40], "box")) == [(1, 2.5, 10, 40)]
    assert parse_boxes(answer_text([[1, 2, 3, 4], [0.00001, 0, 9, 9]], "box")) == [(1, 2, 3, 4), (0.00001, 0, 9, 9)]
    assert parse_boxes(answer_text([{"bbox_2d": [1, 2, 3, 4], "label": "a"}], "box")) == [(1, 2, 3, 4)]
    # Parquet gives an object all keys of the column.
    assert parse_boxes(answer_text({"bbox": [1, 2, 3, 4], "point": None}, "box")) == [(1, 2, 3, 4)]
    assert parse_points(answer_text([5, 6], "point")) == [(5, 6)]
    assert parse_span(answer_text([1.5, 4], "span")) == (1.5, 4)
    assert parse_span(answer_text({"start": 1, "end": 2}, "span")) == (1, 2)
    assert answer_text(12, "number") == "12"
    assert answer_text(1e-7, "number") == "0.0000001"
    assert elements(answer_text(["red", 2, 3.5, "New York"], "list")) == ["red", "2", "3.5", "New York"]
    assert elements(answer_text([[1, 2], [3, 4]], "list")) == ["1", "2", "3", "4"]
    action = {"action": "type", "bbox": None, "text": "grün"}
    assert parse_action(answer_text(action, "action")) == {"action": "type", "text": "grün"}
    assert without_nulls({"a": [{"b": None, "c": 0}], "d": None}) == {"a": [{"c": 0}]}


@pytest.mark.parametrize(
    ("value", "kind", "reason"),
    [
        (5, "box", "is a int; with answer_type 'box' it must be a str or list or dict"),
        (True, "number", "is a bool"),
        (["a"], "action", "is a list"),
        (float("nan"), "number", "neither a text nor a finite number"),
        ([1, None], "box", "holds None"),
        (["a, b", "c"], "list", "the element 'a, b'"),
        (["salt and pepper"], "set", "the element 'salt and pepper'"),
        (["(a", "b"], "list", "the element '(a'"),
        (["a", ""], "list", "the element ''"),
        (["red", "，"], "list", "the element ','"),
        (["and", "so"], "set", "the element 'and'"),
    ],
)
def test_what_can_not_be_written_is_said(value, kind, reason):
    with pytest.raises(DataError) as said:
        answer_text(value, kind)
    assert reason in str(said.value)
