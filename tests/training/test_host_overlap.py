"""Host work beside device work: what is dispatched before what, and that what is graded early is what was sampled."""

import json
import time
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
from tiny import tiny_tree

from infimmr_jax.config import parse_config
from infimmr_jax.data.records import Problem
from infimmr_jax.rollout.state import Rollouts
from infimmr_jax.training import groups, loop
from infimmr_jax.training.programs import Programs
from infimmr_jax.training.stage import Pending


def one_phase(output, **phase):
    tree = tiny_tree(output)
    tree["phases"] = [{**tree["phases"][0], "steps": 3, **phase}]
    tree["checkpoint"] = {"every_steps": 2}
    tree["evaluation"] = {**tree["evaluation"], "every_steps": None}
    del tree["sft"]
    return parse_config(tree)


@pytest.fixture
def events(monkeypatch):
    """What is called in which order."""
    log = []

    def noted(owner, name, tell):
        called = getattr(owner, name)

        def call(*arguments, **keys):
            log.append(tell(*arguments))
            return called(*arguments, **keys)

        monkeypatch.setattr(owner, name, call)

    noted(Programs, "sample_in_stages", lambda *_: "sample")
    noted(Programs, "update", lambda *_: "update")
    noted(groups, "score_groups", lambda *_: "grade")
    noted(loop.Run, "_write", lambda run, row, _: f"row {row['step']}")
    noted(loop.Checkpoints, "save", lambda checkpoints, number, place, *_: f"save {number - place.stage}")
    return log


def test_a_row_is_written_while_the_next_step_is_sampled_and_before_any_checkpoint(tmp_path, events):
    loop.train(one_phase(tmp_path / "run"))
    order = [" ".join(event.split()[:2]) for event in events]
    first, second = ["sample", "grade", "update"], ["sample", "row 0", "grade", "update"]
    third = ["sample", "grade", "update", "row 2"]
    assert order == ["save 0", *first, *second, "row 1", "save 2", *third, "save 3"]
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [0, 1, 2]
    assert all(row["time/step"] >= row["time/rollout"] + row["time/update"] - 1e-6 for row in rows)


def test_a_draw_that_is_made_in_any_case_is_sampled_before_the_one_before_it_is_graded(tmp_path, events):
    loop.train(one_phase(tmp_path / "run", steps=1, rollout={"draws": {"at_least": 2, "at_most": 2, "drop": "equal"}}))
    made = [event for event in events if event in ("sample", "grade", "update")]
    assert made == ["sample", "sample", "grade", "grade", "update"]


P, Q = (Problem(name, "", "", "string") for name in "pq")


def test_finished_responses_are_given_to_the_graders_and_the_others_keep_their_last_tokens(monkeypatch):
    final = np.arange(16).reshape(2, 2, 4)
    first = np.where([[[True], [False]], [[False], [False]]], final, 99)
    second = np.where([[[True], [True]], [[False], [False]]], final, 99)
    nothing = np.zeros(final.shape, np.float32)

    def rollouts(tokens, finished):
        mask = np.ones(final.shape, bool)
        return Rollouts(tokens, mask, nothing, nothing, np.asarray(finished))

    none_yet = [[False, False], [False, False]]
    stages = [
        rollouts(final, none_yet),
        rollouts(first, [[True, False], [False, False]]),
        rollouts(second, [[True, True], [False, False]]),
        rollouts(second, [[True, True], [False, False]]),
        rollouts(final, [[True, True], [False, True]]),
    ]
    tokenizer = SimpleNamespace(batch_decode=lambda ids, skip_special_tokens: [str(row) for row in ids])
    model = SimpleNamespace(tokens=SimpleNamespace(ends=(1000,)))
    config = SimpleNamespace(prompt=SimpleNamespace(format="think_boxed"))
    setup = SimpleNamespace(tokenizer=tokenizer, model=model, config=config)
    inputs = SimpleNamespace(setup=setup, pool=None)
    sampling = groups._Sampling(SimpleNamespace(problems=[P, Q]), stages, np.int32(0), 0.0, 0.0)
    given = []
    monkeypatch.setattr(groups, "grade_ahead", lambda early, *_: given.append(early))
    local, texts = groups._finished_texts(inputs, sampling, SimpleNamespace(reward=None))
    assert given == [[], [(P, "[0, 1, 2, 3]")], [(P, "[4, 5, 6, 7]")], []]
    assert texts == [[str(row.tolist()) for row in group] for group in final]
    assert local.tokens is final


def test_what_the_host_does_after_the_devices_are_done_is_no_time_of_the_update():
    began = time.monotonic()
    made = Pending({}, {"rollout/tokens": jnp.float32(80)}, lambda: ((), {}), began, began)
    time.sleep(1.0)
    row, ready = made.finished()
    assert ready - began == row["time/update"] == row["time/step"] < 0.9
    assert row["tokens_per_second"] == 80 / row["time/step"]
