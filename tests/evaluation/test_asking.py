"""`infimmr evaluate` with a real (tiny, random) model: repeatable, resumable, and plain about misuse."""

import json
import shutil

import jax
import pytest
from safetensors.numpy import load_file, save_file

from infimmr_jax.config import ConfigError, ModelShape
from infimmr_jax.evaluation.asking import Asking
from infimmr_jax.evaluation.asking import evaluate_benchmark as evaluate
from infimmr_jax.evaluation.results import EvaluationError
from infimmr_jax.model.config import TokenIds, config_from_shape
from infimmr_jax.model.family import Model
from infimmr_jax.model.hf import save_params
from infimmr_jax.preprocess.tokenizer import SPECIAL_TOKENS, train_tokenizer
from infimmr_jax.rollout.policy import model_digest

ROWS = [
    {"problem": f"What is {i} + 1?", "solution": "", "answer": str(i + 1), "subject": "Algebra", "level": 1 + i % 2}
    for i in range(5)
]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    tokenizer = train_tokenizer(["What is 1 + 1?"], 300)
    pad, _, eos, start, end, _, image, video = (tokenizer.convert_tokens_to_ids(t) for t in SPECIAL_TOKENS)
    shape = ModelShape.model_validate({"num_layers": 1, "vision": {"depth": 1, "fullatt_block_indexes": [0]}})
    model = Model(config_from_shape(shape, len(tokenizer), TokenIds(pad, eos, start, end, image, video)))
    directory = tmp_path_factory.mktemp("model") / "tiny"
    save_params(jax.jit(model.init)(jax.random.key(0)), model, directory, tokenizer, "float32")
    return directory


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "test.jsonl"
    path.write_text("".join(json.dumps(row | {"unique_id": f"{i}"}) + "\n" for i, row in enumerate(ROWS)))
    return path


def run(model, data, out, samples=1):
    asking = Asking(samples=samples, max_new_tokens=8, seed=3)
    return evaluate("math500", data, out, model=model, asking=asking, say=lambda _: None)


@pytest.mark.parametrize("samples", [1, 3])
def test_the_same_evaluation_twice_gives_the_same_files(model, data, tmp_path, samples):
    run(model, data, tmp_path / "one", samples)
    run(model, data, tmp_path / "two", samples)
    for name in ("result.json", "responses.jsonl", "grades.jsonl"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_a_cut_evaluation_goes_on_to_the_same_result(model, data, tmp_path):
    run(model, data, tmp_path / "whole", 2)
    run(model, data, tmp_path / "cut", 2)
    kept = (tmp_path / "cut" / "responses.jsonl").read_text().splitlines(keepends=True)[:2]
    (tmp_path / "cut" / "responses.jsonl").write_text("".join(kept) + '{"id": "torn')
    run(model, data, tmp_path / "cut", 2)
    assert (tmp_path / "cut" / "result.json").read_bytes() == (tmp_path / "whole" / "result.json").read_bytes()


def test_stored_responses_are_scored_without_a_model(data, tmp_path):
    stored = tmp_path / "stored.jsonl"
    rows = [{"id": str(i), "response": f"\\boxed{{{i + 1 if i else 7}}}"} for i in range(5)]
    stored.write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = evaluate("math500", data, tmp_path / "out", responses=stored, say=lambda _: None)
    assert result["accuracy"] == pytest.approx(0.8)


def test_other_weights_at_the_same_path_are_refused(model, data, tmp_path):
    directory = tmp_path / "policy"
    shutil.copytree(model, directory)
    run(directory, data, tmp_path / "out")
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["request"]["model_sha256"] == model_digest(directory)
    assert "model files: sha256" in (tmp_path / "out" / "result.md").read_text()
    tensors = load_file(directory / "model.safetensors")
    save_file({name: -tensor for name, tensor in tensors.items()}, directory / "model.safetensors")
    with pytest.raises(EvaluationError, match="are not those that gave the responses"):
        run(directory, data, tmp_path / "out")


def test_scores_of_stored_responses_do_not_overwrite_other_results(model, data, tmp_path):
    def score(name, out):
        path = tmp_path / name
        path.write_text("".join(json.dumps({"id": str(i), "response": "\\boxed{1}"}) + "\n" for i in range(5)))
        return evaluate("math500", data, tmp_path / out, responses=path, say=lambda _: None)

    run(model, data, tmp_path / "asked")
    before = (tmp_path / "asked" / "result.json").read_bytes()
    with pytest.raises(EvaluationError, match="asked holds responses of "):
        score("a.jsonl", "asked")
    assert (tmp_path / "asked" / "result.json").read_bytes() == before
    assert score("a.jsonl", "scored") == score("a.jsonl", "scored")
    with pytest.raises(EvaluationError, match=r"another request \(other responses\)"):
        score("b.jsonl", "scored")
    with pytest.raises(EvaluationError, match=r"scored holds the scores of .*a\.jsonl"):
        run(model, data, tmp_path / "scored")


def test_a_second_published_prompt_is_only_there_where_one_is_published(model, data, tmp_path):
    asking = Asking(max_new_tokens=8, style="published-cot")
    with pytest.raises(ConfigError, match="--style published-cot: problem '0' has no second published prompt"):
        evaluate("math500", data, tmp_path / "out", model=model, asking=asking, say=lambda _: None)


def test_exactly_one_way_is_asked_for(data, tmp_path):
    with pytest.raises(ConfigError, match="exactly one of"):
        evaluate("math500", data, tmp_path / "out", say=lambda _: None)
