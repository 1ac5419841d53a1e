"""Golds that can not be graded are found when data are read."""

import time

import pytest

from infimmr_jax.config import RewardSection
from infimmr_jax.data.records import Problem
from infimmr_jax.rewards.golds import check_gold, check_golds
from infimmr_jax.rewards.pool import GraderPool


def problem(answer: str, answer_type: str = "math", choices: tuple[str, ...] = ()) -> Problem:
    return Problem("p", "q", answer, answer_type, choices)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (problem("12"), None),
        (problem(""), "the answer is empty"),
        (problem("  "), "the answer is empty"),
        (problem("B", "choice", ("x", "y")), None),
        (problem("C", "choice", ("x", "y")), "does not name one of 2 options"),
        (problem("BC", "choice", ("x", "y")), "does not name one of 2 options"),
        (problem("true", "string"), None),
        (problem("...", "string"), "holds nothing to compare"),
        (problem("[0,0,1,1]", "box"), None),
        (problem("[0,0,1]", "box"), "unparsable gold"),
        (problem("5,3", "span"), "unparsable gold"),
    ],
)
def test_golds_that_the_text_decides(given: Problem, said: str | None) -> None:
    found = check_gold(given)
    assert found is None if said is None else found is not None and said in found


def located(answer: str, answer_type: str, size: list[float] | None, **verify: object) -> Problem:
    extra = {"image_size": size} | ({"verify": verify} if verify else {})
    return Problem("p", "q", answer, answer_type, images=("p.png",), extra=extra)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (located("[0, 0, 200, 100]", "box", [200, 100]), None),
        (located("[0, 0, 201, 100]", "box", [200, 100]), None),
        (located("[0, 0, 203, 100]", "box", [200, 100]), "outside the image of 200 x 100"),
        (located("[0, 0, 100, 200]", "box", [200, 100]), "outside the image of 200 x 100"),
        (located("[250, 100, 900, 999]", "box", [1000, 1000]), None),
        (located("[0.1, 0.2, 0.5, 0.9]", "box", [1, 1]), None),
        (located("[[0, 0, 5, 5], [6, 6, 9, 9]]", "box", [20, 20]), "no answer earns the full score by rule 'iou'"),
        (located("[[0, 0, 5, 5], [6, 6, 9, 9]]", "box", [20, 20], rule="union_iou"), None),
        (located("(3, 4)", "point", [20, 20]), "unparsable gold"),
        (located("(3, 4)", "point", [20, 20], rule="l1"), None),
        (located("(3, 40)", "point", [60, 20], rule="distance"), "outside"),
        (located("(0.3, 0.4)", "point", [1, 1], rule="l1"), "the rule 'l1' forgives 10 in an image of 1 x 1"),
        (located("(0.3, 0.4)", "point", [1, 1], rule="l1", threshold=0.05), None),
        (located("(3, 4)", "point", [40, 20], rule="distance"), "forgives 50"),
        (located("[1, 2, 3, 4]", "point", [20, 20]), None),
        (located('{"action": "click", "bbox": [1, 2, 3, 4]}', "action", [20, 20]), None),
        (located('{"action": "click", "bbox": [1, 2, 3, 44]}', "action", [20, 20]), "outside"),
        (located('{"action": "click", "bbox": [1, 2, 3]}', "action", [20, 20]), "unparsable gold"),
        (located('{"action": "click", "coordinate": [1, 2]}', "action", [20, 20]), "give `bbox`"),
        (located("[1, 2, 3, 4]", "box", [20, 20], rule="share"), "type box has no rule 'share'"),
        (located("[1, 2, 3, 4]", "box", [20, 20], limit=3), "verify.limit is not known"),
        (located("[1, 2, 3, 4]", "box", [20, 20], threshold="0.5"), "verify.threshold is '0.5'"),
        (located("red, blue", "set", None), None),
        (located("[red, [blue", "list", None), "unparsable gold"),
        (located("two", "number", None), "unparsable gold"),
        (located("3,000.5 km", "number", None), None),
    ],
)
def test_every_other_kind_must_be_answerable_inside_its_image(given: Problem, said: str | None) -> None:
    found = check_gold(given)
    assert found is None if said is None else found is not None and said in found, found


def test_the_rules_of_the_configuration_count() -> None:
    point = located("(3, 4)", "point", [20, 20])
    assert check_gold(point, reward=RewardSection(rules={"point": "l1"})) is None
    assert "by rule 'in_box'" in (check_gold(point) or "")


def test_latex_golds_are_parsed_by_the_pool() -> None:
    golds = {
        r"\frac{\sqrt{2}}{2}": True,
        r"\text{August}": True,
        r"(1, 2] \cup [3, \infty)": True,
        r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}": True,
        "x = 1, y = 2": True,
        "1011_2": True,
        r"\angle 3 \cong \angle Z": False,
        r"\frac{1}{": False,
        "5 +": False,
    }
    with GraderPool(workers=1) as pool:
        said = check_golds([problem(gold) for gold in golds], pool)
    assert {gold: sentence is None for gold, sentence in zip(golds, said, strict=True)} == golds
    assert all("can not be graded" in sentence for sentence in said if sentence)


def test_forty_thousand_numbers_take_seconds() -> None:
    problems = [problem(str(i)) for i in range(30_000)] + [problem(rf"\frac{{{i}}}{{7}}") for i in range(10_000)]
    started = time.process_time()
    with GraderPool(workers=1) as pool:
        assert not any(check_golds(problems, pool))
    assert time.process_time() - started < 30  # with every type checked; a look at all others for each would take hours
