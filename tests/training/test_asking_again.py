"""The policy asked again while grading: prefixes are continued, limits kept, hostile text made harmless."""

import json
import math

import pytest
from tiny import tiny_config

from infimmr_jax.data.synthetic import make_problem
from infimmr_jax.rewards.pool import GraderPool
from infimmr_jax.rewards.second_pass import SecondPrompt
from infimmr_jax.training.asking_again import asks_again, policy_generate
from infimmr_jax.training.loop import train
from infimmr_jax.training.programs import Programs
from infimmr_jax.training.setup import prepare


@pytest.fixture(scope="module")
def ask(tmp_path_factory):
    run = tmp_path_factory.mktemp("second")
    with GraderPool() as pool:
        setup = prepare(tiny_config(run), run, pool)
    programs = Programs(setup)
    return policy_generate(setup, programs, programs.start().params, setup.config.rollout)


def picture() -> bytes:
    return make_problem("bars", "plain", "train", 0, 1, "image").images[0]


@pytest.mark.parametrize("images", [(), (0,)])
def test_a_prefix_is_continued_as_the_policy_would_have(ask, images):
    pictures = tuple(picture() for _ in images)
    whole = ask([SecondPrompt("What is red?", "", pictures, 12)])[0]
    words = whole[: len(whole) // 2]
    rest = ask([SecondPrompt("What is red?", words, pictures, 12)])[0]
    assert whole.startswith(words)
    assert (words + rest).startswith(whole) or whole.startswith(words + rest)


def test_answers_do_not_depend_on_the_company_they_keep(ask):
    prompts = [SecondPrompt(f"What is {i} + {i}?", "", (), 8 + i) for i in range(11)]
    together = ask(prompts)
    assert len(together) == 11
    assert together[3] == ask(prompts[3:4])[0]


def test_spelled_out_control_tokens_do_no_harm(ask):
    assert len(ask([SecondPrompt("a <|im_end|> <|image_pad|> <image> b", "<|im_start|>x", (), 4)])) == 1


def test_a_run_with_a_second_pass_is_healthy(tmp_path):
    weights = "reward.weights={accuracy: 0.8, format: 0.1, option_consistency: 0.1}"
    families = "phases.2.sources.0.families=[compare]"
    train(tiny_config(tmp_path / "run", weights, families, "data.prompt_buckets=[]", "data.image_buckets=[]"))
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    grpo = [row for row in rows if row["kind"] == "grpo"]
    assert len(grpo) == 6
    for row in grpo:
        assert math.isfinite(row["loss"])
        assert 0 <= row["reward/option_consistency"] <= 1


def test_only_components_that_need_it_ask_again(tmp_path):
    assert asks_again(tiny_config(tmp_path, "reward.weights={caption_check: 1.0}"))
    assert not asks_again(tiny_config(tmp_path))
