"""The ideal answer earns the full score by every rule, also through a resize, and nothing is made of bad golds."""

import json

import pytest

from infimmr_jax.names import RULES
from infimmr_jax.rewards.ideal import ideal_answer
from infimmr_jax.rewards.verdict import Options, Question
from infimmr_jax.rewards.verifiers import quick_verdict

GOLDS = {
    "choice": "B",
    "string": "blue whale",
    "number": "12.5",
    "list": "[red, 2, blue]",
    "set": "[red, 2, blue]",
    "box": "[50, 20, 150, 80]",
    "point": "[50, 20, 150, 80]",
    "span": "[1.5, 4]",
    "action": '{"action": "click", "bbox": [50, 20, 150, 80], "text": "go"}',
}


@pytest.mark.parametrize("scale", [(1.0, 1.0), (10 / 7, 25 / 14)])
@pytest.mark.parametrize(("kind", "rule"), [(kind, rule) for kind in GOLDS for rule in RULES[kind]])
def test_it_earns_the_full_score(kind, rule, scale):
    gold = "(100, 50)" if kind == "point" and rule != "in_box" else GOLDS[kind]
    options = Options(rule, choices=("a", "b"), scale=scale)
    best = ideal_answer(kind, gold, options)
    assert best is not None
    verdict = quick_verdict(Question(kind, gold, best, options))
    assert verdict is not None
    assert verdict.score == pytest.approx(1.0, abs=1e-9), verdict.reason


def test_coordinates_are_those_of_the_seen_picture_in_whole_pixels():
    options = Options(scale=(200 / 140, 100 / 56))
    assert ideal_answer("box", GOLDS["box"], options, decimals=0) == "[35, 11, 105, 45]"
    assert ideal_answer("point", GOLDS["point"], options, decimals=0) == "[70, 28]"
    assert ideal_answer("point", "(30, 40)", Options("l1", scale=(2.0, 2.0)), decimals=0) == "[15, 20]"
    action = json.loads(ideal_answer("action", GOLDS["action"], options, decimals=0) or "")
    assert action == {"action": "click", "text": "go", "coordinate": [70, 28]}
    several = ideal_answer("box", "[[0, 0, 10, 10], [20, 20, 40, 40]]", Options(scale=(2.0, 2.0)), decimals=0)
    assert several == "[[0, 0, 5, 5], [10, 10, 20, 20]]"


@pytest.mark.parametrize(
    ("kind", "gold"),
    [("box", "[1, 2, 3]"), ("point", "[1, 2]"), ("action", "click"), ("action", '{"action": "click", "bbox": [1, 2]}')],
)
def test_there_is_none_for_a_bad_gold(kind, gold):
    assert ideal_answer(kind, gold, Options()) is None
