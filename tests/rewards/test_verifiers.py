"""The table of verifiers: routing, rules, and that each is callable by itself on bare strings."""

import math

import pytest

from infimmr_jax.names import ANSWER_TYPES, RULES
from infimmr_jax.rewards.math.verify_math import verify_math
from infimmr_jax.rewards.verdict import Options, Question
from infimmr_jax.rewards.verifiers import QUICK, quick_verdict, slow_verdict
from infimmr_jax.rewards.verify_action import verify_action
from infimmr_jax.rewards.verify_choice import verify_choice
from infimmr_jax.rewards.verify_list import verify_list, verify_set
from infimmr_jax.rewards.verify_number import verify_number
from infimmr_jax.rewards.verify_region import verify_box, verify_point, verify_span
from infimmr_jax.rewards.verify_string import verify_string

GOLDS = {
    "math": r"\frac{1}{2}",
    "choice": "B",
    "string": "blue",
    "number": "5",
    "list": "[1, 2]",
    "set": "1, 2",
    "box": "[0, 0, 4, 4]",
    "point": "[0, 0, 4, 4]",
    "span": "[1, 2]",
    "action": '{"action": "click"}',
}


def test_every_type_has_rules_and_a_verifier() -> None:
    assert set(RULES) == set(QUICK) == set(ANSWER_TYPES) == set(GOLDS)


@pytest.mark.parametrize("answer_type", ANSWER_TYPES)
@pytest.mark.parametrize("answer", ["", " ", "x" * 2_001, "(" * 41 + ")" * 41])
def test_unusable_answers_are_refused_by_every_type(answer_type: str, answer: str) -> None:
    verdict = quick_verdict(Question(answer_type, GOLDS[answer_type], answer))
    assert verdict is not None
    assert verdict.score == 0


@pytest.mark.parametrize("answer_type", ANSWER_TYPES)
def test_an_unparsable_gold_rewards_nobody(answer_type: str) -> None:
    gold = {"string": "...", "choice": "?", "math": " "}.get(answer_type, "}{")
    for answer in ("5", "B", "blue", "[0, 0, 4, 4]"):
        verdict = quick_verdict(Question(answer_type, gold, answer))
        assert verdict is not None
        assert verdict.score == 0


@pytest.mark.parametrize("answer_type", [name for name in ANSWER_TYPES if name != "point"])
def test_every_rule_gives_the_gold_the_full_score(answer_type: str) -> None:
    for rule in RULES[answer_type]:
        verdict = quick_verdict(Question(answer_type, GOLDS[answer_type], GOLDS[answer_type], Options(rule=rule)))
        assert verdict is not None
        assert verdict.score == 1, rule


def test_an_unknown_type_is_named() -> None:
    with pytest.raises(ValueError, match="'maths' has no verifier"):
        quick_verdict(Question("maths", "1", "1"))


def test_each_verifier_takes_bare_strings() -> None:
    assert verify_math(r"\frac{1}{2}", "0.5").score == 1
    assert verify_math("x+1", "1+x").score == 1
    assert slow_verdict(Question("math", "x+1", "1+x")).score == 1
    assert verify_choice("B", "(b)").score == 1
    assert verify_string("Blue", "blue").score == 1
    assert verify_number("5", "5.0").score == 1
    assert verify_list("[1, 2]", "1, 2").score == 1
    assert verify_set("1, 2", "2, 1").score == 1
    assert verify_box("[0,0,4,4]", "[0,0,4,2]").score == 0.5
    assert verify_point("[0,0,4,4]", "(1,1)").score == 1
    assert verify_span("[1,3]", "[1,2]").score == 0.5
    assert verify_action('{"action": "back"}', '{"action": "back"}').score == 1


def test_the_cosine_rule_against_its_formula() -> None:
    for answer in range(70, 131):
        error = abs(answer - 100) / 100
        formula = 1.0 if error < 0.05 else 0.0 if error > 0.2 else 0.5 * (math.cos(math.pi * (error - 0.05) / 0.15) + 1)
        score = verify_number("100", str(answer), Options(rule="cosine")).score
        assert score == pytest.approx(formula, abs=1e-9)


def test_the_distance_rule_against_its_formula() -> None:
    score = verify_point("(0, 0)", "(30, 40)", Options(rule="distance")).score
    assert score == pytest.approx(math.exp(-(50**2) / (2 * 50**2)))


def test_the_rules_that_configurations_may_name_are_those_of_the_verifiers():
    from infimmr_jax.names import ANSWER_TYPES, REWARD_COMPONENTS, RULES
    from infimmr_jax.rewards import components, verify_action, verify_list, verify_number, verify_region, verify_string
    from infimmr_jax.rewards.verifiers import QUICK

    tables = {
        "string": verify_string.RULES,
        "number": verify_number.RULES,
        "list": verify_list.LIST_RULES,
        "set": verify_list.SET_RULES,
        "box": verify_region.BOX_RULES,
        "point": ("in_box", *verify_region.POINT_RULES),
        "span": verify_region.SPAN_RULES,
        "action": verify_action.ACTION_RULES,
    }
    assert {name: rules for name, rules in RULES.items() if name in tables} == {n: tuple(t) for n, t in tables.items()}
    assert set(ANSWER_TYPES) == set(QUICK) == set(RULES)
    assert ("accuracy", "format", *components.COMPONENTS) == REWARD_COMPONENTS


HUGE = "1" + "0" * 310
BREAKING = [
    f'[{{"bbox_2d": [{HUGE}, 0, 1, 1]}}]',
    f'{{"point": [{HUGE}, 2]}}',
    f'{{"start": {HUGE}, "end": 4}}',
    f'{{"action": "click", "coordinate": [{HUGE}, 2]}}',
    f'{{"action": "click", "coordinate": [-{HUGE}, NaN]}}',
    '{"action": "click", "bbox": [Infinity, NaN, 1, 1]}',
    '{"start": Infinity, "end": NaN}',
    HUGE,
    f"{HUGE}.{HUGE}",
    f"1/{HUGE}",
    f"1e{HUGE}",
    "[" * 39 + "]" * 39,
    '{"a":' * 5 + "1" + "}" * 5,
    "\ud800\udfff \udc00",
    "\x00\x01\x7f\u202e\ufeff",
    "\u0661\u0662 \u2167 \u00bd \U0001d7d9",
    "९" * 400,
    "-" * 1_900,
    "0:" * 900,
    "\\frac" * 300,
]


@pytest.mark.parametrize("answer_type", ANSWER_TYPES)
def test_nothing_that_an_answer_holds_comes_out_as_an_exception(answer_type: str) -> None:
    for rule in RULES[answer_type]:
        for answer in BREAKING:
            gold = '{"action": "tap", "bbox": [0, 0, 4, 4]}' if answer_type == "action" else GOLDS[answer_type]
            answer = answer.replace('"click"', '"tap"')
            verdict = quick_verdict(Question(answer_type, gold, answer, Options(rule=rule, choices=("red", "blue"))))
            # The same type of action is worth 0.2 by the rule "parts"; similar texts are worth a little.
            assert verdict is None or verdict.score <= 0.2, (rule, answer[:40], verdict)
            assert verdict is None or verdict.code != "crash", (rule, answer[:40], verdict)


def test_a_verifier_that_raises_is_a_verdict_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def raises(*_: object) -> None:
        raise OverflowError("int too large")

    monkeypatch.setitem(QUICK, "box", raises)
    verdict = quick_verdict(Question("box", "[0, 0, 4, 4]", "[0, 0, 4, 4]"))
    assert verdict is not None
    assert (verdict.score, verdict.code, verdict.reason) == (0.0, "crash", "crash: OverflowError")
    with pytest.raises(ValueError, match="has no verifier"):
        quick_verdict(Question("poem", "a", "a"))
