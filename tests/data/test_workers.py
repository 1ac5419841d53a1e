"""Worker processes give the elements that threads give, and stop and go on at the same number."""

import grain
import numpy as np
import pytest

from infimmr_jax.config import parse_config
from infimmr_jax.data.curriculum import build_curriculum, iterate
from infimmr_jax.data.workers import WorkerIterator
from infimmr_jax.rewards.golds import GoldCheck


def shown(problem, modality):
    return problem.id, modality


def curriculum(**data):
    source = {"reader": "synthetic", "families": ["bars", "clock"], "size": 50}
    phase = {"sources": [source], "prompts_per_step": 4}
    phases = [
        {"name": "one", "modality": "text", "steps": 5, **phase},
        {"name": "two", "modality": "caption", "steps": 6, "caption_dropout": [0, 1], **phase},
    ]
    return build_curriculum(parse_config({"data": data, "phases": phases}), shown, list, golds=GoldCheck())


def test_worker_processes_give_the_steps_of_threads_and_resume_anywhere():
    whole = [batch.batch for batch in iterate(curriculum())]
    built = curriculum(workers=2)
    iterator = iterate(built, 3)
    assert isinstance(iterator, WorkerIterator)
    assert [next(iterator).batch for _ in range(4)] == whole[3:7]
    state = iterator.get_state()
    assert state == {"next_index": 7}
    # The rest on threads, from the state that processes left, and the other way round.
    others = iterate(curriculum())
    others.set_state(state)
    assert [batch.batch for batch in others] == whole[7:]
    iterator.set_state({"next_index": 9})
    assert [batch.batch for batch in iterator] == whole[9:]
    with pytest.raises(StopIteration):
        next(iterator)


def test_an_error_in_a_process_is_an_error_here():
    def broken(element):
        raise ValueError("no such thing")

    iterator = WorkerIterator(grain.MapDataset.source(np.arange(4)).map(broken))
    with pytest.raises(Exception, match="no such thing"):
        next(iterator)
    iterator.close()
