"""Sources of demonstrations, read and checked before training, and the batcher that draws from them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from infimmr_jax.config import DataSection, PromptSection, RewardSection, RunConfig, SftSection
from infimmr_jax.data.conversations import Conversation, read_conversations
from infimmr_jax.data.readers import Rejected, below_root
from infimmr_jax.data.records import DataError, Problem
from infimmr_jax.data.selection import SourceReport, select_problems
from infimmr_jax.names import LOCATED, Modality
from infimmr_jax.preprocess.demonstrations import DemonstrationPlan, continue_plan, plan_conversation, split_plan
from infimmr_jax.preprocess.layout import VisionLayout
from infimmr_jax.preprocess.packing import PackedShape, needed_shape
from infimmr_jax.preprocess.prompts import EncodedPrompt, PromptPlan, as_seen, encode_plan, plan_prompt
from infimmr_jax.rewards.golds import GoldCheck
from infimmr_jax.rewards.ideal import ideal_answer
from infimmr_jax.rewards.questions import options_of
from infimmr_jax.rewards.verdict import Question
from infimmr_jax.rewards.verifiers import quick_verdict, right_from
from infimmr_jax.training.sft import (
    DemonstrationBatcher,
    DemonstrationPool,
    Drawn,
    demonstration,
    encode_response,
    total_steps,
)

PROBED_STEPS = 16
MODALITIES: tuple[Modality, ...] = ("text", "caption", "image")


@dataclasses.dataclass(frozen=True)
class Planner:
    """Lays demonstrations out as sequences of tokens; what does not fit is an error, never cut."""

    sft: SftSection
    data: DataSection
    prompt: PromptSection
    reward: RewardSection
    tokenizer: Any
    layout: VisionLayout
    eos: int

    def __call__(self, drawn: Drawn) -> DemonstrationPlan:
        """The plan of one demonstration; DataError, naming it, when it is too long or can not be shown."""
        if isinstance(drawn.item, Conversation):
            found = plan_conversation(drawn.item, self.tokenizer, self.eos, self.layout, self.data)
            self._check_turns(found)
        else:
            problem, modality = drawn.item, drawn.modality or "text"
            shown = plan_prompt(problem, modality, self.tokenizer, self.layout, self.data, self.prompt)
            text = demonstration(self._answered(problem, shown), drawn.worked, self.prompt.format)
            ids = encode_response(text, self.tokenizer, self.eos, self.sft.max_response, problem.id)
            found = continue_plan(shown, ids)
        row = self.sft.packed_length
        if row is not None and found.length > row:
            raise DataError(
                f"demonstration {found.plan.name} has {found.length} tokens, over sft.packed_length = {row}; "
                "raise it or leave the demonstration out"
            )
        return found

    def _answered(self, problem: Problem, shown: PromptPlan) -> Problem:
        """The problem with the answer that the model should give: coordinates in whole pixels of what it is shown."""
        if problem.answer_type not in LOCATED:
            return problem
        options = options_of(as_seen(problem, shown.visuals, self.layout.patch_size), self.reward)
        best = ideal_answer(problem.answer_type, problem.answer, options, decimals=0 if shown.visuals else None)
        verdict = quick_verdict(Question(problem.answer_type, problem.answer, best or "", options))
        if best is None or verdict is None or verdict.score < right_from(problem.answer_type):
            raise DataError(
                f"problem {problem.id}: in whole pixels of the image as it is shown, the answer {best!r} is no longer "
                "right; raise data.image.min_pixels or max_pixels, or leave the problem out"
            )
        return dataclasses.replace(problem, answer=best)

    def pixels(self, plan: PromptPlan) -> EncodedPrompt:
        """The plan with its images decoded."""
        return encode_plan(plan, self.layout, self.data)

    def _check_turns(self, found: DemonstrationPlan) -> None:
        edges = np.flatnonzero(np.diff(np.concatenate([[0], found.learnt.astype(np.int8), [0]])))
        longest = int((edges[1::2] - edges[::2]).max())
        if longest > self.sft.max_response:
            raise DataError(
                f"conversation {found.plan.name} has an answer of {longest} tokens, over sft.max_response = "
                f"{self.sft.max_response}; raise it or leave the conversation out"
            )
        prompt = int(np.argmax(found.learnt))
        if self.sft.packed_length is None and prompt > self.data.max_prompt:
            raise DataError(
                f"conversation {found.plan.name} has a prompt of {prompt} tokens, over data.max_prompt = "
                f"{self.data.max_prompt}; raise it or leave the conversation out"
            )


def build_demonstrations(
    config: RunConfig,
    planner: Planner,
    see: Callable[[PromptPlan, Modality], None],
    batcher: Callable[..., DemonstrationBatcher],
    divisor: int,
) -> tuple[DemonstrationBatcher, list[SourceReport]]:
    """Read and check every source of the cold start; returns the batcher and a report a source.

    `see` is told the shape of every prompt that is a row of its own; `batcher` makes the batcher of pools and a packed
    shape; `divisor` is the number that a packed batch's rows must be a multiple of.
    """
    sft = planner.sft
    pools: list[DemonstrationPool] = []
    reports: list[SourceReport] = []

    def check(problem: Problem, modality: Modality) -> None:
        plan = planner(Drawn(problem, modality, True))
        if sft.packed_length is None:
            see(split_plan(plan)[0], modality)

    for modality in MODALITIES:
        for source in sft.sources.get(modality, ()):
            golds = GoldCheck(None, config.reward)
            kept, report = select_problems(source, modality, config.data, phase="cold start", check=check, golds=golds)
            pools.append(DemonstrationPool(modality, source.weight, kept))
            reports.append(report)
    for given in sft.conversations:
        path = below_root(given.path, config.data, "sft.conversations")
        read, rejected = read_conversations(path, config.data.max_images, config.data.image, given.size)
        usable: list[Conversation] = []
        for conversation in read:
            try:
                plan = planner(Drawn(conversation, None, True))
                if sft.packed_length is None:
                    see(split_plan(plan)[0], "image" if conversation.images else "text")
                usable.append(conversation)
            except DataError as error:
                rejected.append(Rejected(given.path, 0, conversation.id, str(error)))
        report = SourceReport("cold start", given.path, len(read), len(usable), {}, tuple(rejected), {})
        if not usable:
            raise DataError(f"no conversation is left ({report}); the first rejected: {rejected[0]}")
        pools.append(DemonstrationPool(None, given.weight, usable))
        reports.append(report)
    made = batcher(pools=tuple(pools))
    if sft.packed_length is not None:
        made = dataclasses.replace(made, shape=plan_shape(made, sft.packed_length, divisor))
    return made, reports


def plan_shape(batcher: DemonstrationBatcher, tokens: int, divisor: int) -> PackedShape:
    """The shape that holds the packed batches of some steps, spread over the run."""
    steps = np.unique(np.linspace(0, total_steps(batcher.sft) - 1, PROBED_STEPS).astype(int))
    needed = [needed_shape(batcher.packed_rows(batcher.draw(int(step)), tokens), tokens) for step in steps]
    return functools.reduce(PackedShape.grown, needed, PackedShape(0, tokens, 0, 0, 0, divisor))
