"""A caption that gives the answer away is flagged; numbers inside other numbers are not found."""

import pytest

from infimmr_jax.data.captions import leaks_answer
from infimmr_jax.data.records import Problem


@pytest.mark.parametrize(
    ("caption", "answer", "leaks"),
    [
        ("The side is 6.", "6", True),
        ("The side is 60.", "6", False),
        ("The side is 6.5 cm.", "6", False),
        ("The side is 1.6 cm.", "6", False),
        ("x = $3\\sqrt{2}$ here", "$3\\sqrt{2}$", True),
        ("The shape is RED.", "red", True),
        ("A reddish shape.", "red", False),
        ("It is true.", "true", False),
        (None, "6", False),
    ],
)
def test_the_answer_is_looked_for_as_a_whole(caption, answer, leaks):
    problem = Problem(id="a", question="?", answer=answer, answer_type="string", caption=caption)
    assert leaks_answer(problem) is leaks


def test_of_a_choice_the_right_options_text_is_looked_for_alone():
    options = {"id": "a", "question": "?", "answer_type": "choice", "choices": ("small", "large")}
    assert leaks_answer(Problem(**options, answer="B", caption="one large circle, no A or B"))
    assert not leaks_answer(Problem(**options, answer="A", caption="one large circle, no A or B"))
    assert not leaks_answer(Problem(**options, answer="B", caption="small and large circles"))
