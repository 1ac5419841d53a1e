"""Where a run stands: numbers that grow, places of earlier versions, finished stages that are given more steps."""

import dataclasses

import pytest

from infimmr_jax.training.place import Memory, Place, read_place, reopened

# A cold start of two stages (5 and 3 steps), then phases of 4 and 2.
LENGTHS = (5, 3, 4, 2)


def walk():
    """The places of a run in their order, each stage's end before and after its evaluation."""
    for stage, length in enumerate(LENGTHS):
        yield from (Place(stage, step) for step in range(1, length + 1))
        yield Place(stage + 1, 0)


def earlier_version(place: Place) -> dict:
    """The same place in the words of the earlier version."""
    made = place.steps_made(LENGTHS)
    return {
        "sft_step": min(made, 8),
        "grpo_step": max(0, made - 8),
        "evaluated": place.stage,
        "phase": "text",
        "data": {"next_index": 3},
        "key": [0, 7],
        "recent": [0.5],
        "rows": {"metrics": made},
        "broken": 1,
    }


def test_numbers_grow_by_one_with_every_step_and_every_evaluation():
    assert [place.number(LENGTHS) for place in walk()] == list(range(1, sum(LENGTHS) + len(LENGTHS) + 1))


@pytest.mark.parametrize("place", walk(), ids=str)
def test_a_place_of_the_earlier_version_is_read_with_its_number(place):
    tree = earlier_version(place)
    read = read_place(tree, LENGTHS)
    assert (read.stage, read.step) == (place.stage, place.step)
    assert read.number(LENGTHS) == tree["sft_step"] + tree["grpo_step"] + tree["evaluated"]
    assert read.memory == Memory(recent=(0.5,), broken=1)
    assert (read.data, read.rows) == ({"next_index": 3}, tree["rows"])


def test_a_place_is_read_as_it_was_written():
    place = Place(2, 3, {"next_index": 9}, {"metrics": 4}, Memory((0.25, 1.0), 2, {"loss": 1.0}, 1))
    assert read_place(dataclasses.asdict(place), LENGTHS) == place


def test_a_finished_stage_with_more_steps_goes_on_under_a_new_number():
    ended = Place(4, 0)
    more = (*LENGTHS[:3], 6)
    again = reopened(ended, LENGTHS, more)
    assert (again.stage, again.step) == (3, 2)
    after = dataclasses.replace(again, step=3)
    assert after.number(more) > ended.number(LENGTHS)


@pytest.mark.parametrize(
    ("place", "now"),
    [(Place(4, 0), LENGTHS), (Place(3, 1), (5, 3, 9, 2)), (Place(3, 0), (5, 3, 4, 9)), (Place(), LENGTHS)],
)
def test_any_other_place_stays(place, now):
    assert reopened(place, LENGTHS, now) == place
