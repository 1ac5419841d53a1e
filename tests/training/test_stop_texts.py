"""`rollout.stop` as training samples: responses end with the text, in one program and in stages, and in a run."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from tiny import tiny_tree

from infimmr_jax.config import parse_config
from infimmr_jax.rewards.pool import GraderPool
from infimmr_jax.rollout.state import finish_reasons
from infimmr_jax.rollout.vocabulary import response_texts
from infimmr_jax.training import loop
from infimmr_jax.training.programs import Programs
from infimmr_jax.training.setup import prepare
from infimmr_jax.training.warm_up import filler_batch

STOP = ("e", "a", "1")


def stopping(output):
    """One step of text, its responses sampled in two shapes and two sizes of the cache."""
    tree = tiny_tree(output)
    rollout = {"stop": list(STOP), "compactions": 1, "cache_sizes": 2}
    tree["phases"] = [{**tree["phases"][0], "steps": 1, "max_response": 16, "rollout": rollout}]
    tree["evaluation"] = {}
    del tree["sft"]
    return parse_config(tree)


def test_one_program_and_stages_end_responses_alike(tmp_path):
    with GraderPool() as pool:
        setup = prepare(stopping(tmp_path), tmp_path, pool)
    programs, (phase,) = Programs(setup), setup.curriculum.phases
    batch = filler_batch(4, 64, (0, 0), setup.model.layout.patch_width)
    batch = dataclasses.replace(batch, row_mask=np.ones(4, bool))
    given = programs.start().params, batch, programs.phase_settings(phase), jax.random.key(0)
    (*early, last), executed = programs.sample_in_stages(*given)
    single = programs.sample(*given)
    assert early
    assert executed > 0
    assert np.array_equal(last.tokens, single.tokens)
    texts = np.ravel(response_texts(setup.tokenizer, np.asarray(last.tokens), np.asarray(last.mask)))
    reasons = np.ravel(finish_reasons(last, setup.model.tokens.ends))
    assert (reasons == "stop").any()
    for text, reason in zip(texts, reasons, strict=True):
        assert (reason == "stop") == any(stop in text for stop in STOP), text


@pytest.mark.slow
def test_responses_of_a_run_end_with_its_stop_texts(tmp_path):
    loop.train(stopping(tmp_path / "run"))
    lines = (tmp_path / "run" / "transcripts.jsonl").read_text().splitlines()
    responses = [response for line in lines for response in json.loads(line)["responses"]]
    assert any(response["finish"] == "stop" for response in responses)
    for response in responses:
        assert (response["finish"] == "stop") == any(stop in response["text"] for stop in STOP)
        assert not any(stop in "".join(response["tokens"][:-1]) for stop in STOP)
