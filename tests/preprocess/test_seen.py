"""Which size coordinates are given in: that of the resized picture, and only where it is clear which one."""

import pytest

from infimmr_jax.data.records import DataError, Problem
from infimmr_jax.preprocess.prompts import Picture, all_as_seen, as_seen

WIDE, TALL = Picture(b"", (1, 4, 10)), Picture(b"", (1, 20, 6))


def problem(kind: str = "box", **extra: object) -> Problem:
    return Problem("p", "Where?", "[1, 2, 3, 4]", kind, extra={"image_size": [200, 100], **extra})  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["box", "point", "action"])
def test_rows_are_the_height_and_columns_the_width(kind):
    given = problem(kind, verify={"rule": "iou"})
    seen = as_seen(given, [WIDE], 14)
    assert seen.extra == {"image_size": [200, 100], "verify": {"rule": "iou"}, "seen_size": [140, 56]}
    assert "seen_size" not in given.extra, "the problem itself is shared by all phases"


def test_what_has_no_coordinates_or_no_picture_stays_as_it_is():
    for given, visuals in ((problem("math"), [WIDE]), (problem("span"), [WIDE]), (problem("box"), [])):
        assert as_seen(given, visuals, 14) is given


def test_of_several_pictures_the_row_names_one():
    assert as_seen(problem(answer_image=2), [WIDE, TALL], 14).extra["seen_size"] == [84, 280]
    for number in (None, 0, 3, "2"):
        with pytest.raises(DataError, match="answer_image"):
            as_seen(problem(answer_image=number), [WIDE, TALL], 14)


def test_sizes_that_are_not_known_or_contradict_are_refused():
    with pytest.raises(DataError, match="`image_size`"):
        as_seen(problem(image_size=None), [WIDE], 14)
    with pytest.raises(DataError, match=r"this run shows the image at \[140, 56\]"):
        as_seen(problem(seen_size=[200, 100]), [WIDE], 14)
    assert as_seen(problem(seen_size=[140, 56]), [WIDE], 14).extra["seen_size"] == [140, 56]


def test_every_problem_goes_with_its_prompt():
    class Prompt:
        def __init__(self, *visuals):
            self.visuals = visuals

    seen = all_as_seen([problem(), problem()], [Prompt(WIDE), Prompt(TALL)], 14)
    assert [one.extra["seen_size"] for one in seen] == [[140, 56], [84, 280]]
