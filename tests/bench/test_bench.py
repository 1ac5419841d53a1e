"""The bench measures what it says: exact prompts, counted operations, and one JSON object."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from infimmr_jax.bench import command, counts
from infimmr_jax.bench.command import bench
from infimmr_jax.bench.parts import Ask, hash_rewards
from infimmr_jax.bench.timing import Timer, matmul_rate
from infimmr_jax.bench.work import Size, exact_prompts, load_work, lognormal_limits
from infimmr_jax.config import ConfigError
from infimmr_jax.model.qwen2_5_vl import branch_forward, logits, trunk_forward

SIZE = Size(prompts=2, prompt_tokens=96, image_size=112, group=2, new_tokens=8)


@pytest.fixture(scope="module")
def work():
    return load_work(SIZE)


def lowered_flops(function, *args) -> float:
    return jax.jit(function).lower(*args).cost_analysis()["flops"]


def test_prompts_have_exactly_the_tokens_asked_for(work):
    assert [len(prompt.tokens) for prompt in work.prompts] == [96, 96]
    assert (np.asarray(work.batch.lengths) == 95).all()
    assert sum(prompt.tokens.tolist().count(work.config.tokens.image) for prompt in work.prompts) == 2 * 16
    assert not work.allowed[work.config.tokens.eos]
    with pytest.raises(ConfigError, match="at least"):
        exact_prompts(dataclasses.replace(SIZE, prompt_tokens=20), work.config, work.tokenizer)


def test_counted_operations_are_the_compilers(work):
    """Within what norms, softmax and the invisible half of causal attention add."""
    tokens = np.zeros((2, 2, 8), np.int32)

    def prefill(params, batch):
        return trunk_forward(params, work.config, work.options, batch)

    def branches(params, trunk):
        return logits(params, work.config, branch_forward(params, work.config, work.options, trunk, tokens))

    prompt = work.prompts[0]
    counted = counts.prefill_flops(work.config, SIZE, len(prompt.patches[0]), prompt.slots[0].windows)
    trunk = jax.eval_shape(prefill, work.params, work.batch)
    for mine, theirs in (
        (counted, lowered_flops(prefill, work.params, work.batch)),
        (counts.branch_flops(work.config, SIZE), lowered_flops(branches, work.params, trunk)),
    ):
        assert 1.0 <= theirs / mine < 1.25


def test_log_normal_lengths_are_as_long_as_asked_for():
    limits = lognormal_limits(Size(prompts=16, group=8, new_tokens=400), 8.0)
    assert limits.shape == (16, 8)
    assert limits.max() == 400
    assert abs(np.median(limits) - 50) <= 1
    assert limits.min() >= 1


def test_rewards_are_a_fixed_hash_between_0_and_1():
    rewards = hash_rewards(np.asarray([[[1, 2, 3], [3, 2, 1]]]))
    np.testing.assert_allclose(rewards, [[14 / 97, 10 / 97]])


def test_one_object_with_times_rates_and_memory(work, monkeypatch):
    monkeypatch.setattr(command, "load_work", lambda *_, **__: work)
    found = json.loads(json.dumps(bench("prefill", SIZE, Ask(repeats=2))))
    part = found["parts"]["prefill"]
    assert part["wall_seconds"]["repeats"] == 2
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
