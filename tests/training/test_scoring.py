"""What a transcript says of a response."""

import numpy as np
import pytest

from infimmr_jax.data.records import Problem
from infimmr_jax.rewards.router import Scores
from infimmr_jax.rollout.state import Rollouts
from infimmr_jax.training.scoring import transcript

EOS = 9


class Letters:
    def decode(self, ids):
        return "".join(chr(ord("a") + index) for index in ids)


@pytest.mark.parametrize(
    ("last", "finished", "finish"),
    [(EOS, True, "end"), (3, True, "stop"), (3, False, "length"), (EOS, False, "length")],
)
def test_a_transcript_says_why_each_response_ended(last, finished, finish):
    mask = np.asarray([[[True, True, False]]])
    numbers = np.full((1, 1, 3), -0.5, np.float32)
    rollouts = Rollouts(
        tokens=np.asarray([[[1, last, 0]]]),
        mask=mask,
        logprobs=numbers,
        behaviour=numbers,
        finished=np.asarray([[finished]]),
    )
    ones = np.ones((1, 1))
    scores = Scores({"accuracy": ones}, ones, [["7"]], [["equal"]], [["equal"]], {})
    problem = Problem(id="p", question="?", answer="7", answer_type="number")
    found = transcript(problem, "prompt", ["text"], scores, rollouts, 0, Letters(), (EOS,))["responses"][0]
    assert found["finish"] == finish
    assert type(found["finish"]) is str
    assert found["tokens"] == ["b", "j" if last == EOS else "d"]
    assert found["length"] == 2
