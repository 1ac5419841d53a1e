"""Demonstrations as batches: sources read and checked before training, and the batcher that draws from them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence

import grain
import numpy as np

from infimmr_jax.config import DataSection, PromptSection, RewardSection, RunConfig, SftPhaseSection, SftSection
from infimmr_jax.data.conversations import Conversation, read_conversations
from infimmr_jax.data.readers import Rejected, below_root
from infimmr_jax.data.records import DataError, Problem
from infimmr_jax.data.selection import SourceReport, select_problems
from infimmr_jax.names import LOCATED, MODALITIES, Modality, Tokenizer
from infimmr_jax.objectives.schedules import learning_rate
from infimmr_jax.objectives.supervised import SftBatch
from infimmr_jax.parallel.hosts import RowShare
from infimmr_jax.preprocess.batching import PromptBatch
from infimmr_jax.preprocess.demonstrations import (
    DemonstrationPlan,
    continue_plan,
    demonstration,
    encode_response,
    plan_conversation,
    split_plan,
)
from infimmr_jax.preprocess.layout import VisionLayout
from infimmr_jax.preprocess.packing import PackedBatch, PackedShape, collate_packed, needed_shape, pack
from infimmr_jax.preprocess.prompts import EncodedPrompt, PromptPlan, as_seen, encode_plan, plan_prompt
from infimmr_jax.rewards.golds import GoldCheck
from infimmr_jax.rewards.ideal import ideal_answer
from infimmr_jax.rewards.questions import options_of
from infimmr_jax.rewards.verdict import Question
from infimmr_jax.rewards.verifiers import quick_verdict, right_from

Demonstrations = SftSection | SftPhaseSection

PROBED_STEPS = 16


def stage_of(step: int, sft: Demonstrations) -> int:
    """Index of the stage that step belongs to."""
    ends = np.cumsum([stage.steps for stage in sft.stages])
    return int(np.searchsorted(ends, step, side="right"))


def supervised_rate(step: int, sft: Demonstrations) -> float:
    """Return the learning rate of a step: a rise at the very start, and a linear fall inside each stage."""
    index = stage_of(step, sft)
    stage = sft.stages[index]
    inside = step - sum(earlier.steps for earlier in sft.stages[:index])
    fall = (1.0 - stage.final_share) * inside / stage.steps
    return learning_rate(stage.learning_rate or sft.learning_rate, step, sft.warmup_steps, fall)


def total_steps(sft: Demonstrations) -> int:
    """Steps of all stages."""
    return sum(stage.steps for stage in sft.stages)


@dataclasses.dataclass(frozen=True)
class DemonstrationPool:
    """Problems of one source, shown in one modality, or conversations (no modality); and how often they are drawn."""

    modality: Modality | None
    weight: float
    problems: Sequence[Problem] | Sequence[Conversation]


@dataclasses.dataclass(frozen=True)
class Drawn:
    """One demonstration of a step: a problem shown in a modality, worked or not, or a whole conversation."""

    item: Problem | Conversation
    modality: Modality | None
    worked: bool


@dataclasses.dataclass(frozen=True)
class DemonstrationBatcher:
    """Makes the batch of one optimiser step from the step's number alone: that number is the whole data state.

    `plan` lays a demonstration out as one text, `pixels` decodes a plan's images. With `shape` the demonstrations of a
    step are packed, in rows of that shape or, when a step needs more of something, of more. `stream` tells the draws of
    one set of demonstrations from those of another.
    """

    sft: Demonstrations
    pools: tuple[DemonstrationPool, ...]
    plan: Callable[[Drawn], DemonstrationPlan]
    pixels: Callable[[PromptPlan], EncodedPrompt]
    collate: Callable[..., PromptBatch]
    pad: int
    layout: VisionLayout
    seed: int
    share: RowShare
    stream: tuple[int, ...] = (7,)
    measure: Callable[[Problem, Modality], PromptPlan | None] | None = None
    shape: PackedShape | None = None

    def draw(self, step: int) -> list[Drawn]:
        """The demonstrations of a step, on every process the same."""
        rng = np.random.default_rng((self.seed, *self.stream, step))
        sft = self.sft
        share = np.asarray([pool.weight for pool in self.pools])
        worked_share = sft.stages[stage_of(step, sft)].worked_share
        chosen = rng.choice(len(self.pools), sft.batch_size, p=share / share.sum())
        places = rng.random(sft.batch_size)
        worked = rng.random(sft.batch_size) < worked_share
        drawn = []
        for number, place, shows in zip(chosen, places, worked, strict=True):
            pool = self.pools[number]
            drawn.append(Drawn(pool.problems[int(place * len(pool.problems))], pool.modality, bool(shows)))
        return drawn

    def __call__(self, step: int) -> SftBatch | PackedBatch:
        drawn = self.draw(step)
        return self._rows(drawn) if self.shape is None else self._packed(drawn, self.shape)

    def _rows(self, drawn: Sequence[Drawn]) -> SftBatch:
        """One demonstration a row: its prompt as a trunk, its response as the one branch."""
        prompts, others = [], []
        responses = np.full((len(drawn), 1, self.sft.max_response), self.pad, np.int32)
        mask = np.zeros(responses.shape, bool)
        mine = self.share.rows(len(drawn))
        for row, one in enumerate(drawn):
            if row not in mine:
                if self.measure is not None:
                    others.append(self._elsewhere(one))
                continue
            prompt, ids = split_plan(self.plan(one))
            prompts.append(self.pixels(prompt))
            responses[row, 0, : len(ids)] = ids
            mask[row, 0, : len(ids)] = True
        rows = slice(mine.start, mine.stop)
        return SftBatch(self.collate(prompts, others), responses[rows], mask[rows])

    def _elsewhere(self, one: Drawn) -> PromptPlan | None:
        assert self.measure is not None
        if isinstance(one.item, Conversation) or one.modality is None:
            return split_plan(self.plan(one))[0]
        return self.measure(one.item, one.modality)

    def _packed(self, drawn: Sequence[Drawn], shape: PackedShape) -> PackedBatch:
        """Several demonstrations a row. Every process packs them all and decodes its share of the images."""
        rows = self.packed_rows(drawn, shape.tokens)
        shape = shape.grown(needed_shape(rows, shape.tokens))
        return collate_packed(rows, self.pixels, shape, self.share, self.layout)

    def packed_rows(self, drawn: Sequence[Drawn], tokens: int) -> list[list[DemonstrationPlan]]:
        """The demonstrations of a step, planned and put into rows of `tokens`."""
        plans = [self.plan(one) for one in drawn]
        return [[plans[i] for i in row] for row in pack([plan.length for plan in plans], tokens)]


@dataclasses.dataclass(frozen=True)
class Planner:
    """Lays demonstrations out as sequences of tokens; what does not fit is an error, never cut."""

    sft: Demonstrations
    data: DataSection
    prompt: PromptSection
    reward: RewardSection
    tokenizer: Tokenizer
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
    name: str = "cold start",
) -> tuple[DemonstrationBatcher, list[SourceReport]]:
    """Read and check every source of the demonstrations `name`; returns the batcher and a report a source.

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
            kept, report = select_problems(source, modality, config.data, phase=name, check=check, golds=golds)
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
        report = SourceReport(name, given.path, len(read), len(usable), {}, tuple(rejected), {})
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


def dataset(batcher: DemonstrationBatcher) -> grain.MapDataset:
    """A dataset whose element i is the batch of step i of these demonstrations."""
    return grain.MapDataset.range(total_steps(batcher.sft)).map(batcher)
