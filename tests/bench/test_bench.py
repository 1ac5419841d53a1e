"""The bench measures what it says: exact prompts, counted operations, and one JSON object."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from infimmr_jax.bench import counts, measure, parts
from infimmr_jax.bench import work as working
from infimmr_jax.bench.measure import bench
from infimmr_jax.bench.parts import Ask, check, hash_rewards
from infimmr_jax.bench.timing import Timer, matmul_rate
from infimmr_jax.bench.work import Size, exact_prompts, load_work, lognormal_limits
from infimmr_jax.config import ConfigError

SIZE = Size(prompts=2, prompt_tokens=96, image_size=112, group=2, new_tokens=8)
FULL = np.full((2, 2), 8)
LONG_TAIL = Ask(repeats=1, longest=4.0)


@pytest.fixture(scope="module")
def work():
    return load_work(SIZE)


@pytest.fixture(scope="module")
def tiny():
    """One layer: what is tested of the parts compiles in seconds."""
    vision = working.SMALL.vision.model_copy(update={"depth": 1, "fullatt_block_indexes": (0,)})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(working, "SMALL", working.SMALL.model_copy(update={"num_layers": 1, "vision": vision}))
        return load_work(SIZE)


def lowered_flops(function, *args) -> float:
    return jax.jit(function).lower(*args).cost_analysis()["flops"]


def test_prompts_have_exactly_the_tokens_asked_for(work):
    assert [len(prompt.tokens) for prompt in work.prompts] == [96, 96]
    assert (np.asarray(work.batch.lengths) == 95).all()
    assert sum(prompt.tokens.tolist().count(work.model.tokens.image) for prompt in work.prompts) == 2 * 16
    assert not work.allowed[work.model.tokens.eos]
    with pytest.raises(ConfigError, match="at least"):
        exact_prompts(dataclasses.replace(SIZE, prompt_tokens=20), work.model, work.tokenizer)


@pytest.mark.parametrize(("side", "shown"), [(5, "56 x 56"), (100, "112 x 112"), (2800, "980 x 980")])
def test_a_picture_that_would_be_shown_in_another_size_is_refused(work, side, shown):
    with pytest.raises(ConfigError, match=f"shown as {shown}; give --image-size"):
        exact_prompts(dataclasses.replace(SIZE, image_size=side), work.model, work.tokenizer)


def test_counted_operations_are_the_compilers(work):
    """Within what norms, softmax and the invisible half of causal attention add."""
    tokens = np.zeros((2, 2, 8), np.int32)

    def prefill(params, batch):
        return work.model.trunk(params, batch)

    def branches(params, trunk):
        return work.model.logits(params, work.model.branch(params, trunk, tokens))

    prompt = work.prompts[0]
    counted = counts.prefill_flops(work.model.config, SIZE, len(prompt.patches[0]), prompt.slots[0].windows)
    trunk = jax.eval_shape(prefill, work.params, work.batch)
    for mine, theirs in (
        (counted, lowered_flops(prefill, work.params, work.batch)),
        (counts.branch_flops(work.model.config, SIZE, FULL), lowered_flops(branches, work.params, trunk)),
    ):
        assert 1.0 <= theirs / mine < 1.25


def test_log_normal_lengths_are_as_long_as_asked_for():
    limits = lognormal_limits(Size(prompts=16, group=8, new_tokens=400), 8.0)
    assert limits.shape == (16, 8)
    assert limits.max() == 400
    assert abs(np.median(limits) - 50) <= 1
    assert limits.min() >= 1


def test_operations_and_bytes_of_lengths_that_differ_are_those_of_every_token(work):
    lengths, config, text = np.asarray([[1, 5], [8, 2]]), work.model.config, work.model.config.text
    dense = counts.decoder_weights(config) + counts.head_weights(config)
    keys = text.num_layers * text.num_kv_heads * text.head_dim * 2
    flops = moved = 0.0
    for token in range(8):
        moved += dense * bool((lengths > token).any())
        for prompt in range(2):
            moved += keys * 95 * bool((lengths[prompt] > token).any())
            for length in lengths[prompt]:
                own = 95 + token + 1
                flops += (2 * dense + 4 * text.num_layers * text.num_heads * text.head_dim * own) * (length > token)
                moved += keys * (token + 1) * (length > token)
    assert counts.branch_flops(config, SIZE, lengths) == pytest.approx(flops)
    assert counts.decode_bytes(config, SIZE, lengths, 4) == pytest.approx(4 * moved)
    assert counts.update_flops(config, SIZE, lengths, 0, 0) > 3 * flops


@pytest.mark.parametrize(
    ("size", "ask", "sentence"),
    [
        (SIZE, Ask(longest=0.5), "--longest 0.5 asks for a longest response below the median"),
        (Size(prompts=1, group=1), Ask(longest=8.0), "--longest needs at least 2 responses"),
        (Size(prompts=4), Ask(micro_batches=3), "--micro-batches 3 can not cut 4 prompts into equal parts"),
        (Size(prompts=3), Ask(micro_batches=16, repeated=True), "can not cut 24 prompts"),
    ],
)
def test_what_can_not_be_measured_is_said_before_anything_is_loaded(size, ask, sentence, monkeypatch):
    monkeypatch.setattr(measure, "load_work", None)
    with pytest.raises(ConfigError, match=sentence):
        bench("update", size, ask)


def test_micro_batches_of_repeated_prompts_may_be_as_many_as_responses():
    check(Size(prompts=4, group=8), Ask(micro_batches=16, repeated=True))
    check(Size(prompts=1, group=1), Ask())


@pytest.mark.parametrize("part", ["decode", "rollout", "step"])
def test_useful_tokens_and_operations_are_those_of_the_lengths_asked_for(tiny, part):
    timer, lengths = Timer(1), lognormal_limits(SIZE, LONG_TAIL.longest)
    found = parts.PARTS[part](tiny, LONG_TAIL, timer)
    assert lengths.sum() < FULL.sum()
    assert found["useful_row_steps"] == lengths.sum()
    assert found["executed_row_steps"] == FULL.sum()
    assert found["tokens_per_second"] == pytest.approx(lengths.sum() / timer.seconds(timer.parts[part]), abs=0.1)
    flops = counts.branch_flops(tiny.model.config, SIZE, lengths)
    if part != "decode":
        prompt = tiny.prompts[0]
        flops += counts.prefill_flops(tiny.model.config, SIZE, len(prompt.patches[0]), prompt.slots[0].windows)
        assert timer.parts["rollout"]["gbyte_per_second"] > 0
    assert timer.parts[part]["gflop"] == pytest.approx(flops * (4 if part == "step" else 1) / 1e9, abs=2e-3)


def test_a_step_holds_all_that_a_trainer_does(tiny, monkeypatch):
    """Pictures decoded and prompts tokenised anew, responses made text: other trainers' spans have these in them."""
    encoded, texts = [], []
    encode, decode = parts.encode, parts.response_texts
    monkeypatch.setattr(parts, "encode", lambda *given: encoded.append(type(given[1])) or encode(*given))
    monkeypatch.setattr(parts, "response_texts", lambda *given: texts.append(given[1].shape) or decode(*given))
    timer = Timer(2)
    parts.step(tiny, Ask(repeats=2), timer)
    assert encoded == [bytes] * 2 * 3
    assert texts == [(2, 2, 8)] * 4
    spans = [timer.parts[name]["wall_seconds"]["each"] for name in ("input", "rollout", "grade", "update")]
    np.testing.assert_allclose(np.sum(spans, axis=0), timer.parts["step"]["wall_seconds"]["each"], atol=1e-4)


def test_rewards_are_a_fixed_hash_between_0_and_1():
    rewards = hash_rewards(np.asarray([[[1, 2, 3], [3, 2, 1]]]))
    np.testing.assert_allclose(rewards, [[14 / 97, 10 / 97]])


def test_one_object_with_times_rates_and_memory(work, monkeypatch):
    monkeypatch.setattr(measure, "load_work", lambda *_, **__: work)
    found = json.loads(json.dumps(bench("prefill", SIZE, Ask(repeats=2))))
    part = found["parts"]["prefill"]
    assert part["wall_seconds"]["repeats"] == len(part["wall_seconds"]["each"]) == 2
    assert part["memory_mb"]["arguments"] > 20
    assert part["share_of_matmul_rate"] > 0
    assert found["compile"]["count"] == 1
    assert found["peak_memory"]["process_mb"] > 0
    assert found["machine"]["versions"]["jax"] == jax.__version__
    with pytest.raises(ConfigError, match="prefill, decode, rollout, update, step, curriculum"):
        bench("nothing", SIZE, Ask())


def test_timer_gives_medians_of_warm_calls():
    timer, calls = Timer(3), []
    timer.time("part", lambda: calls.append(None), flops=1e9)
    assert len(calls) == 4
    assert timer.parts["part"]["gflop"] == 1.0
    assert timer.parts["part"]["gflop_per_second"] > 0
    assert matmul_rate(8, 16, 16, np.float32, repeats=1) > 0
