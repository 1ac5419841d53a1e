"""Demonstrations as one sequence of tokens with a mask of what is learnt: every assistant turn, and nothing else."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import cast

import numpy as np
from jaxtyping import Bool, Int32

from infimmr_jax.config import DataSection
from infimmr_jax.data.conversations import IMAGE_MARK, Conversation, Turn
from infimmr_jax.data.records import DataError, Problem
from infimmr_jax.names import JsonValue, Tokenizer
from infimmr_jax.preprocess.layout import VisionLayout
from infimmr_jax.preprocess.prompts import PromptPlan, Visual, lay_out, plan_picture


def demonstration(problem: Problem, worked: bool, response_format: str) -> str:
    """The text of a demonstrated response: worked (chain of thought, then the answer) or the answer alone.

    A problem observed is its caption; without one, its question.
    """
    boxed = f"\\boxed{{{problem.answer}}}"
    answer = {
        "think_answer": f"<answer>{problem.answer}</answer>",
        "think_answer_boxed": f"<answer>{boxed}</answer>",
        "observe_think_answer": f"<answer>{problem.answer}</answer>",
    }.get(response_format, boxed)
    if not worked or not problem.solution:
        return answer
    if response_format == "boxed":
        return f"{problem.solution} {answer}"
    seen = problem.caption or problem.question.replace(IMAGE_MARK, "").strip()
    observed = f"<observe> {seen}</observe>" if response_format == "observe_think_answer" else ""
    return f"{observed}<think> {problem.solution}</think>{answer}"


def encode_response(text: str, tokenizer: Tokenizer, eos: int, limit: int, problem_id: str) -> np.ndarray:
    """Token ids of a demonstration with its end token; one that is too long is an error, never cut."""
    ids = [*tokenizer.encode(text, add_special_tokens=False), eos]
    if len(ids) > limit:
        raise DataError(
            f"the demonstration of problem {problem_id} has {len(ids)} tokens, over sft.max_response = {limit}; "
            "raise the limit or leave the source out"
        )
    return np.asarray(ids, np.int32)


@dataclasses.dataclass(frozen=True)
class DemonstrationPlan:
    """A whole demonstration, planned as one text (see `PromptPlan`); `learnt` is True on the tokens it teaches.

    Taught are the tokens of every assistant turn and the end token that closes it.
    """

    plan: PromptPlan
    learnt: Bool[np.ndarray, "tokens"]

    @property
    def length(self) -> int:
        """Tokens that are fed in: the last one is only predicted."""
        return len(self.learnt) - 1

    @property
    def images(self) -> int:
        """Image slots that it needs."""
        return len(self.plan.slots)

    @property
    def targets(self) -> int:
        """Tokens that it teaches."""
        return int(self.learnt[1:].sum())


def continue_plan(prompt: PromptPlan, response: Int32[np.ndarray, "R"]) -> DemonstrationPlan:
    """A planned prompt followed by the tokens of one response (its end token among them)."""
    count = len(response)
    # A prompt ends in text, whose positions count up on all three axes.
    positions = prompt.positions[:, -1:] + 1 + np.arange(count, dtype=np.int32)
    plan = dataclasses.replace(
        prompt,
        tokens=np.concatenate([prompt.tokens, response.astype(np.int32)]),
        positions=np.concatenate([prompt.positions, positions], axis=1),
        token_slot=np.concatenate([prompt.token_slot, np.full(count, -1, np.int32)]),
        token_visual=np.concatenate([prompt.token_visual, np.zeros(count, np.int32)]),
    )
    return DemonstrationPlan(plan, np.arange(len(plan.tokens)) >= len(prompt.tokens))


def split_plan(demonstration: DemonstrationPlan) -> tuple[PromptPlan, Int32[np.ndarray, "R"]]:
    """The prompt before the one response of a demonstration, and the response's tokens.

    Raises DataError when there are several turns of the assistant: only packed rows can hold them.
    """
    plan, learnt = demonstration.plan, demonstration.learnt
    start = int(np.argmax(learnt))
    if not learnt[start:].all():
        raise DataError(
            f"conversation {plan.name} has several turns of the assistant; set sft.packed_length to train on them all"
        )
    prompt = dataclasses.replace(
        plan,
        tokens=plan.tokens[:start],
        positions=plan.positions[:, :start],
        token_slot=plan.token_slot[:start],
        token_visual=plan.token_visual[:start],
    )
    return prompt, plan.tokens[start:]


def plan_conversation(
    conversation: Conversation, tokenizer: Tokenizer, eos: int, layout: VisionLayout, data: DataSection
) -> DemonstrationPlan:
    """Render a conversation by the chat template, turn by turn, and mark the assistant's turns.

    What stands between two assistant turns is tokenized by itself, as it is when the policy answers: a response's
    tokens never merge with those of the prompt. Raises DataError, naming the conversation, when the template changes
    what it rendered of earlier turns, a text holds a control token, or an image can not be shown.
    """
    try:
        return _plan(conversation, tokenizer, eos, layout, data)
    except DataError as error:
        raise DataError(f"conversation {conversation.id}: {error}") from error


def _plan(
    conversation: Conversation, tokenizer: Tokenizer, eos: int, layout: VisionLayout, data: DataSection
) -> DemonstrationPlan:
    _refuse_control_tokens(conversation, tokenizer)
    pictures = [plan_picture(source, data.image, layout) for source in conversation.images]
    rendered, ids, learnt = "", list[int](), list[bool]()
    for number, turn in enumerate(conversation.turns):
        if turn.role != "assistant":
            continue
        before = _rendered(conversation.turns[:number], tokenizer, True)
        if not before.startswith(rendered):
            raise DataError("the chat template renders earlier turns differently once later ones follow")
        between = tokenizer.encode(before[len(rendered) :], add_special_tokens=False)
        said = [*tokenizer.encode(turn.text, add_special_tokens=False), eos]
        ids += [*between, *said]
        learnt += [False] * len(between) + [True] * len(said)
        rendered = before + turn.text + tokenizer.decode([eos])
    plan = lay_out(conversation.id, rendered, ids, cast(Sequence[Visual], pictures), layout)
    repeats = np.ones(len(ids), np.int64)
    shown = [place for place, token in enumerate(ids) if token == layout.image_token_id]
    repeats[shown] = [np.prod(picture.grid) // layout.merge_unit for picture in pictures]
    return DemonstrationPlan(plan, np.repeat(np.asarray(learnt), repeats))


def _rendered(turns: Sequence[Turn], tokenizer: Tokenizer, answer_next: bool) -> str:
    messages: list[JsonValue] = []
    for turn in turns:
        parts: list[dict[str, str]] = []
        for number, piece in enumerate(turn.text.split(IMAGE_MARK)):
            parts += [{"type": "image"}] if number else []
            parts += [{"type": "text", "text": piece}] if piece else []
        messages.append({"role": turn.role, "content": parts if turn.role == "user" else turn.text})
    shown = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=answer_next)
    return cast(str, shown)


def _refuse_control_tokens(conversation: Conversation, tokenizer: Tokenizer) -> None:
    special = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
    for number, turn in enumerate(conversation.turns):
        found = next((token for token in special if token in turn.text), None)
        if found is not None:
            raise DataError(f"messages.{number} holds the control token {found}; remove it")
