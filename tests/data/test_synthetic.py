"""Procedural problems: the answers against the question text, the picture against the caption, and random access."""

import io
import re

import numpy as np
import pytest
from PIL import Image

from infimmr_jax.data.records import DataError
from infimmr_jax.data.synthetic import FAMILIES, SyntheticSource, make_problem
from infimmr_jax.data.synthetic.bars import BASE, COLUMNS, UNIT
from infimmr_jax.data.synthetic.canvas import COLOURS, SIDE, STYLES


def pixels(problem):
    return np.asarray(Image.open(io.BytesIO(problem.images[0])).convert("RGB")).astype(int)


def test_the_same_arguments_give_the_same_problem_and_others_another():
    first = make_problem("bars", "plain", "train", 3, 17, "image")
    assert first == make_problem("bars", "plain", "train", 3, 17, "image")
    others = [
        make_problem("bars", "plain", "train", 3, 18, "image"),
        make_problem("bars", "plain", "train", 4, 17, "image"),
    ]
    assert all(other.images != first.images for other in others)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_train_and_heldout_share_no_problem_in_any_style_or_seed(family):
    def contents(split, count, seed):
        found = (make_problem(family, "plain", split, seed, i, "text", draw=False) for i in range(count))
        return {problem.question for problem in found}

    train = contents("train", 1500, 0) | contents("train", 1500, 1)
    held = contents("heldout", 300, 0) | contents("heldout", 300, 7)
    assert not train & held


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_the_text_twin_is_the_same_problem_with_the_caption_in_the_question(family):
    for index in range(30):
        shown = make_problem(family, "shifted", "train", 5, index, "caption")
        twin = make_problem(family, "shifted", "train", 5, index, "text")
        assert twin.images == ()
        assert twin.caption is None
        assert shown.caption in twin.question
        assert twin.question.endswith(shown.question)
        assert (twin.answer, twin.solution, twin.choices) == (shown.answer, shown.solution, shown.choices)
        assert len(shown.images) == 1
        assert pixels(shown).shape == (SIDE, SIDE, 3)


def test_bar_answers_follow_from_the_caption_by_an_independent_evaluation():
    for index in range(300):
        problem = make_problem("bars", "plain", "train", 1, index, "caption", draw=False)
        heights = dict(re.findall(r"(\w+) (\d)", problem.caption))
        assert len(heights) == 3
        assert set(heights) <= set(COLOURS)
        expression = re.fullmatch(r"Find (.+)\.", problem.question)[1]
        expression = re.sub(r"\| (.+) \|", r"abs(\1)", expression)
        expression = re.sub(r"[a-z]{3,}", lambda m, h=heights: h.get(m[0], m[0]), expression)
        assert eval(expression, {"abs": abs}) == int(problem.answer)


def test_worked_solutions_read_right_and_every_equation_in_them_holds():
    for index in range(300):
        problem = make_problem("bars", "plain", "train", 1, index, "caption", draw=False)
        heights = dict(re.findall(r"(\w+) (\d)", problem.caption))
        reading, *steps = [part.strip() for part in problem.solution.rstrip(".").split(".")]
        assert all(heights[name] == value for name, value in re.findall(r"(\w+) (\d)", reading))
        for step in steps:
            left, right = step.split("=")
            assert eval(re.sub(r"\|(.+)\|", r"abs(\1)", left), {"abs": abs}) == int(right)
        assert steps[-1].split("=")[1].strip() == problem.answer


def test_bar_heights_can_be_measured_in_the_picture():
    for index in range(40):
        problem = make_problem("bars", "plain", "train", 2, index, "caption")
        image = pixels(problem)
        for centre, (name, height) in zip(COLUMNS, re.findall(r"(\w+) (\d)", problem.caption), strict=True):
            saturation = np.ptp(image[:, centre - 3 : centre + 4].mean(axis=1), axis=-1)
            coloured = np.flatnonzero(saturation > 40)
            assert abs((BASE - coloured.min()) - UNIT * int(height)) <= 2
            middle = image[(coloured.min() + coloured.max()) // 2, centre]
            nearest = min(
                COLOURS,
                key=lambda other: np.abs(middle / middle.max() - np.array(COLOURS[other]) / max(COLOURS[other])).sum(),
            )
            assert nearest == name


def test_the_shifted_style_moves_the_axis_up():
    def axis(style):
        rows = []
        for index in range(20):
            column = pixels(make_problem("bars", style, "train", 2, index, "image"))[60:, 26:30].sum(axis=(1, 2))
            rows.append(60 + int(column.argmin()))
        return rows

    assert set(axis("plain")) == {BASE}
    low, high = STYLES["shifted"].raise_px
    assert low > 0
    assert all(low <= BASE - row <= high for row in axis("shifted"))


def test_a_source_is_lazy_and_walks_through_its_families():
    source = SyntheticSource(["bars", "bars"], "plain", "train", 0, 10**9, "image")
    assert len(source) == 10**9
    assert source[10**9 - 1] == source[-1]
    assert source[4] == make_problem("bars", "plain", "train", 0, 2, "image")
    assert source.describe(4).images == ()
    assert source.describe(4).question == source[4].question
    with pytest.raises(IndexError):
        source[10**9]


@pytest.mark.parametrize(
    ("change", "message"),
    [({"family": "pies"}, "family 'pies'"), ({"style": "odd"}, "style 'odd'"), ({"split": "test"}, "split 'test'")],
)
def test_an_unknown_name_is_an_error_that_lists_the_known_ones(change, message):
    arguments = {"family": "bars", "style": "plain", "split": "train", "seed": 0, "index": 0, "modality": "text"}
    with pytest.raises(DataError, match=message) as error:
        make_problem(**{**arguments, **change})
    assert "known:" in str(error.value)
