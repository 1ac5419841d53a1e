"""Which request an output directory belongs to, and which weights answered it."""

import json
import os

import pytest

from infimmr_jax.evaluation.benchmarks import BENCHMARKS
from infimmr_jax.evaluation.items import Item
from infimmr_jax.evaluation.requests import Request, check_owner, stored_request
from infimmr_jax.evaluation.results import EvaluationError
from infimmr_jax.rollout.policy import model_digest

BENCHMARK = BENCHMARKS["math500"]
ITEMS = [Item("1", "published", "plain", "4", "math", {"answer": "4"})]


@pytest.fixture
def model(tmp_path):
    directory = tmp_path / "model"
    directory.mkdir()
    (directory / "model-1.safetensors").write_bytes(b"one")
    (directory / "model-2.safetensors").write_bytes(b"two")
    (directory / "config.json").write_text("{}")
    return directory


def test_the_digest_is_that_of_weights_configuration_and_tokenizer(model):
    before = model_digest(model)
    assert len(before) == 64
    (model / "result.json").write_text("not read by the model")
    (model / "README.md").write_text("nor this")
    assert model_digest(model) == before
    for name, content in {
        "model-2.safetensors": b"TWO",
        "config.json": b"[]",
        "tokenizer.json": b"{}",
        "model-3.safetensors": b"",
    }.items():
        (model / name).write_bytes(content)
        # The same size within one tick of a coarse clock is a new file all the same.
        os.utime(model / name, ns=(0, 10**18 + len(name)))
        assert model_digest(model) != before
        before = model_digest(model)


def test_renamed_shards_are_another_model_and_a_copy_is_the_same(model, tmp_path):
    before = model_digest(model)
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in model.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    assert model_digest(copy) == before
    (copy / "model-1.safetensors").rename(copy / "a.safetensors")
    assert model_digest(copy) != before


def own(out, described):
    out.mkdir(exist_ok=True)
    (out / "request.json").write_text(json.dumps(described))


def test_a_directory_belongs_to_one_request(tmp_path):
    out = tmp_path / "out"
    described = Request("m", model_sha256="aa", settings={"stop": ("x",)}).described(BENCHMARK, ITEMS)
    assert not check_owner(out, described)
    own(out, described)
    assert check_owner(out, described)
    with pytest.raises(EvaluationError, match=rf"in m are not those that gave the responses in {out}: choose another"):
        check_owner(out, {**described, "model_sha256": "bb"})
    with pytest.raises(EvaluationError, match=r"another request \(other greedy, n\): choose another output directory"):
        check_owner(out, {**described, "greedy": False, "n": 4})
    with pytest.raises(EvaluationError, match=f"{out} holds responses of m: choose another"):
        check_owner(out, stored_request(BENCHMARK, ITEMS, tmp_path / "r.jsonl"))


def test_scores_of_stored_responses_are_not_overwritten(tmp_path):
    out, described = tmp_path / "out", stored_request(BENCHMARK, ITEMS, tmp_path / "r.jsonl")
    own(out, described)
    assert check_owner(out, described)
    with pytest.raises(EvaluationError, match=r"another request \(other responses\)"):
        check_owner(out, stored_request(BENCHMARK, ITEMS, tmp_path / "s.jsonl"))
    with pytest.raises(EvaluationError, match=f"holds the scores of {tmp_path}/r.jsonl: choose another"):
        check_owner(out, Request("m").described(BENCHMARK, ITEMS))


def test_a_result_of_nobody_and_a_broken_request_are_refused(tmp_path):
    (tmp_path / "result.json").write_text("{}")
    described = Request("m").described(BENCHMARK, ITEMS)
    with pytest.raises(EvaluationError, match=r"holds a result\.json without a request\.json"):
        check_owner(tmp_path, described)
    for text, sentence in {"{torn": "can not be read", "[]": "is not the request of an evaluation"}.items():
        (tmp_path / "request.json").write_text(text)
        with pytest.raises(EvaluationError, match=sentence):
            check_owner(tmp_path, described)
