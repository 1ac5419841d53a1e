"""The policy asked again during grading: greedy answers to second prompts, without gradient."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from infimmr_jax.config import ConfigError, RunConfig
from infimmr_jax.model.config import vision_layout
from infimmr_jax.preprocess.batching import PromptBatch, collate
from infimmr_jax.preprocess.prompts import IMAGE_MARK, EncodedPrompt, PromptPlan, encode_plan, plan_picture, plan_text
from infimmr_jax.rewards.second_pass import Generate, SecondPrompt
from infimmr_jax.rollout.generate import round_up
from infimmr_jax.rollout.sampler import SampleSettings
from infimmr_jax.training.programs import Programs
from infimmr_jax.training.scoring import response_texts
from infimmr_jax.training.setup import Setup

SECOND_PASS = ("caption_check", "option_consistency")
SMALLEST_PROMPT, SMALLEST_RESPONSE = 64, 16


def asks_again(config: RunConfig) -> bool:
    """Whether a reward component needs the policy a second time; raises ConfigError where that can not be."""
    asked = any(name in config.reward.weights for name in SECOND_PASS)
    if asked and jax.process_count() > 1:
        raise ConfigError(
            f"reward.weights: {' and '.join(SECOND_PASS)} ask the policy a number of questions that differs by host, "
            "and all hosts must run the same programs: use one process, or leave them out"
        )
    return asked


def policy_generate(setup: Setup, programs: Programs, params: Any) -> Generate:
    """A function that answers second prompts greedily with `params`, a batch at a time, in few static shapes."""
    rows = min(phase.prompts_per_step for phase in setup.curriculum.phases)
    key = jax.random.key(0)

    def generate(prompts: Sequence[SecondPrompt]) -> list[str]:
        answers: list[str] = []
        for start in range(0, len(prompts), rows):
            chunk = prompts[start : start + rows]
            limit = max(prompt.max_response for prompt in chunk)
            settings = SampleSettings(1, round_up(limit, SMALLEST_RESPONSE), temperature=0.0)
            rollouts = programs.sample(params, _batch(setup, chunk, rows), settings, key)
            limits = np.asarray([prompt.max_response for prompt in chunk])
            tokens, mask = np.asarray(rollouts.tokens)[: len(chunk)], np.asarray(rollouts.mask)[: len(chunk)]
            mask = mask & (np.arange(mask.shape[-1]) < limits[:, None, None])
            answers += [group[0] for group in response_texts(setup.tokenizer, tokens, mask)]
        return answers

    return generate


def _batch(setup: Setup, prompts: Sequence[SecondPrompt], rows: int) -> PromptBatch:
    encoded = [_encode(setup, prompt) for prompt in prompts]
    window = setup.model.vision.window_patches
    slots = max(prompt.image_shape[0] for prompt in encoded)
    windows = max(prompt.image_shape[1] for prompt in encoded) // window
    images = (round_up(slots, 1), round_up(windows, 1) * window) if slots else (0, 0)
    length = round_up(max(prompt.length for prompt in encoded), SMALLEST_PROMPT)
    return collate(encoded, rows, length, images)


def _encode(setup: Setup, prompt: SecondPrompt) -> EncodedPrompt:
    layout, data = vision_layout(setup.model), setup.config.data
    pictures = [plan_picture(image, data.image, layout) for image in prompt.images]
    text = IMAGE_MARK * len(pictures) + _harmless(prompt.text, setup).replace(IMAGE_MARK, "")
    plan = plan_text(text, pictures, setup.tokenizer, layout, setup.config.prompt.system, name="second pass")
    prefix = setup.tokenizer.encode(_harmless(prompt.prefix, setup), add_special_tokens=False)
    return encode_plan(_continued(plan, prefix), layout, data)


def _harmless(text: str, setup: Setup) -> str:
    """Text of the policy's own without control tokens, which it may have spelled out letter by letter."""
    for token in setup.tokenizer.added_tokens_decoder.values():
        if token.special:
            text = text.replace(token.content, "")
    return text


def _continued(plan: PromptPlan, ids: list[int]) -> PromptPlan:
    """The prompt with a given beginning of its response: text, at the positions that follow."""
    count = len(ids)
    after = plan.positions[0, -1] + 1 + np.arange(count, dtype=np.int32)
    return dataclasses.replace(
        plan,
        tokens=np.concatenate([plan.tokens, np.asarray(ids, np.int32)]),
        positions=np.concatenate([plan.positions, np.broadcast_to(after, (3, count))], axis=1),
        token_slot=np.concatenate([plan.token_slot, np.full(count, -1, np.int32)]),
        token_visual=np.concatenate([plan.token_visual, np.zeros(count, np.int32)]),
    )
