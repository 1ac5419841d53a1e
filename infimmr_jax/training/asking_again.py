"""The policy asked again during grading: greedy answers to second prompts, without gradient."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np

from infimmr_jax.config import PhaseSection, RolloutSection, RunConfig
from infimmr_jax.model.trunk import Params
from infimmr_jax.parallel.hosts import host_rows, largest_over_hosts
from infimmr_jax.preprocess.batching import PromptBatch, collate
from infimmr_jax.preprocess.prompts import IMAGE_MARK, EncodedPrompt, PromptPlan, encode_plan, plan_picture, plan_text
from infimmr_jax.rewards.second_pass import Generate, SecondPrompt
from infimmr_jax.rollout.policy import Sampling, bucket_of, round_up
from infimmr_jax.rollout.vocabulary import response_texts
from infimmr_jax.training.programs import Programs
from infimmr_jax.training.setup import Setup

SECOND_PASS = ("caption_check", "option_consistency")
SMALLEST_RESPONSE = 16


def asks_again(config: RunConfig | PhaseSection) -> bool:
    """Tell whether a reward component needs the policy a second time."""
    return any(name in config.reward.weights for name in SECOND_PASS)


def policy_generate(setup: Setup, programs: Programs, params: Params, rollout: RolloutSection) -> Generate:
    """Make a function that answers second prompts greedily with `params`, a batch at a time, in few static shapes.

    All else is as `rollout` says: stop texts and penalties. All processes must call it equally often; those with fewer
    prompts take part with filler rows.
    """
    rows = len(setup.share.rows(min(phase.prompts_per_step for phase in setup.curriculum.phases)))
    key = jax.random.key(0)

    def generate(prompts: Sequence[SecondPrompt]) -> list[str]:
        answers: list[str] = []
        most = int(largest_over_hosts(np.asarray([len(prompts)]))[0])
        for start in range(0, most, rows):
            chunk = prompts[start : start + rows]
            batch, limit = _batch(setup, chunk, rows)
            settings = Sampling(1, limit).settings(rollout)
            rollouts = programs.sample(params, batch, settings, key)
            limits = np.asarray([prompt.max_response for prompt in chunk], np.int32)
            tokens, mask = (host_rows(x)[: len(chunk)] for x in (rollouts.tokens, rollouts.mask))
            mask = mask & (np.arange(mask.shape[-1]) < limits[:, None, None])
            answers += [group[0] for group in response_texts(setup.tokenizer, tokens, mask, setup.model.tokens.ends)]
        return answers

    return generate


def _batch(setup: Setup, prompts: Sequence[SecondPrompt], rows: int) -> tuple[PromptBatch, int]:
    """Encode a batch in the shape that holds every process's prompts; also give the length limit of its responses."""
    encoded, layout = [_encode(setup, prompt) for prompt in prompts or [SecondPrompt("-")]], setup.model.layout
    slots, patches = (max(prompt.image_shape[axis] for prompt in encoded) for axis in (0, 1))
    length = max(prompt.length for prompt in encoded)
    limit = max((prompt.max_response for prompt in prompts), default=1)
    length, slots, patches, limit = largest_over_hosts(np.asarray([length, slots, patches, limit])).tolist()
    batch = collate(encoded, rows, *bucket_of(length, slots, patches, layout), layout)
    if not prompts:
        batch = dataclasses.replace(batch, row_mask=np.zeros_like(batch.row_mask))
    return batch, round_up(limit, SMALLEST_RESPONSE)


def _encode(setup: Setup, prompt: SecondPrompt) -> EncodedPrompt:
    layout, data = setup.model.layout, setup.config.data
    pictures = [plan_picture(image, data.image, layout) for image in prompt.images]
    text = IMAGE_MARK * len(pictures) + _harmless(prompt.text, setup).replace(IMAGE_MARK, "")
    plan = plan_text(text, pictures, setup.tokenizer, layout, setup.config.prompt.system, name="second pass")
    prefix = setup.tokenizer.encode(_harmless(prompt.prefix, setup), add_special_tokens=False)
    return encode_plan(_continued(plan, prefix), layout, data)


def _harmless(text: str, setup: Setup) -> str:
    """Remove control tokens from text of the policy's own, which may have spelled them out letter by letter."""
    for token in setup.tokenizer.added_tokens_decoder.values():
        if token.special:
            text = text.replace(token.content, "")
    return text


def _continued(plan: PromptPlan, ids: list[int]) -> PromptPlan:
    """Append a given beginning of the response to a prompt: text, at the positions that follow."""
    count = len(ids)
    after = plan.positions[0, -1] + 1 + np.arange(count, dtype=np.int32)
    return dataclasses.replace(
        plan,
        tokens=np.concatenate([plan.tokens, np.asarray(ids, np.int32)]),
        positions=np.concatenate([plan.positions, np.broadcast_to(after, (3, count))], axis=1),
        token_slot=np.concatenate([plan.token_slot, np.full(count, -1, np.int32)]),
        token_visual=np.concatenate([plan.token_visual, np.zeros(count, np.int32)]),
    )
