"""Rewards that ask the policy once more: is a caption enough to answer, and does the answer follow the options?"""

from __future__ import annotations

import dataclasses
import random
import re
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from infimmr_jax.data.records import Problem
from infimmr_jax.names import CHOICE_LETTERS
from infimmr_jax.rewards.extract import safe_extract
from infimmr_jax.rewards.format import FORMATS
from infimmr_jax.rewards.pool import GraderPool
from infimmr_jax.rewards.questions import question_of
from infimmr_jax.rewards.verify_choice import letter_of

if TYPE_CHECKING:
    from infimmr_jax.config import RewardSection

CAPTION_TAGS = ("info", "caption", "observe", "context")
CAPTION_PROMPT = (
    "Below are a description of an image and a question about it. If the description goes beyond describing, and "
    "reasons about the question or answers it, reply with: \\boxed{{not a description}}. Otherwise answer the question "
    "from the description alone, in as few words as possible, inside \\boxed{{}}.\n\nDescription:\n{caption}\n\n"
    "Question:\n{question}"
)
_CAPTION = re.compile(rf"<({'|'.join(CAPTION_TAGS)})>(.*?)</\1>", re.DOTALL)
_TRACE = re.compile(r"<think>(.*?)</think>", re.DOTALL)


@dataclasses.dataclass(frozen=True)
class SecondPrompt:
    """One more question to the policy.

    `text` is the user turn (`images` before it), `prefix` the given beginning of the response, `max_response` the
    limit in tokens. The tokens of this pass get no gradient.
    """

    text: str
    prefix: str = ""
    images: tuple[str | bytes, ...] = ()
    max_response: int = 32


Generate = Callable[[Sequence[SecondPrompt]], Sequence[str]]


def caption_check(
    asked: Sequence[tuple[Problem, str]],
    generate: Generate,
    pool: GraderPool,
    reward: RewardSection,
    counters: Counter[str],
) -> list[float]:
    """Whether the policy, without the image, answers from the response's own caption (Visionary-R1, arXiv 2505.14677).

    The caption is the first `<info>`, `<caption>`, `<observe>` or `<context>` section; a response without one, or with
    one that reasons, scores 0.
    """
    found_captions = [_CAPTION.search(response) for _, response in asked]
    captions = [match[2].strip() if match else "" for match in found_captions]
    places = [i for i, caption in enumerate(captions) if caption]
    prompts = [
        SecondPrompt(
            CAPTION_PROMPT.format(caption=captions[i], question=_asked_text(asked[i][0], asked[i][0].choices)),
            max_response=reward.second_pass.max_response,
        )
        for i in places
    ]
    replies = _ask(generate, prompts, counters)
    scores = [0.0] * len(asked)
    questions, answered = [], []
    for i, reply in zip(places, replies, strict=True):
        found = safe_extract(reply, "boxed", counters)
        if found.answer is not None:
            questions.append(question_of(asked[i][0], found.answer, reward))
            answered.append(i)
    for i, verdict in zip(answered, pool.verify(questions), strict=True):
        scores[i] = verdict.score
    counters["caption_answers"] += sum(score == 1 for score in scores)
    return scores


def option_consistency(
    asked: Sequence[tuple[Problem, str, bool]],
    response_format: str,
    generate: Generate,
    reward: RewardSection,
    counters: Counter[str],
) -> list[float]:
    """Reward by a table of (first answer right, answer to shuffled options right) (ACRE; its values are ours).

    The second pass gets the same reasoning, with the letters of the options taken out, and the options in another
    order. Problems without options, and responses without reasoning, score 0.
    """
    table = reward.second_pass.consistency
    places: list[int] = []
    prompts: list[SecondPrompt] = []
    orders: list[list[int]] = []
    for i, (problem, response, _) in enumerate(asked):
        trace = _TRACE.search(response)
        if problem.answer_type != "choice" or len(problem.choices) < 2 or trace is None or not trace[1].strip():
            continue
        order = shuffled(len(problem.choices), problem.id)
        choices = tuple(problem.choices[k] for k in order)
        places.append(i)
        orders.append(order)
        prompts.append(
            SecondPrompt(
                _asked_text(problem, choices),
                f"<think>{without_letters(trace[1], len(choices))}</think>",
                problem.images,
                reward.second_pass.max_response,
            )
        )
    scores = [0.0] * len(asked)
    for i, order, prompt, reply in zip(places, orders, prompts, _ask(generate, prompts, counters), strict=True):
        problem, _, first = asked[i]
        wanted = response_format if FORMATS[response_format].thinks else "think_boxed"
        found = safe_extract(prompt.prefix + reply, wanted, counters)
        choices = tuple(problem.choices[k] for k in order)
        letter, _ = letter_of(found.answer, choices) if found.answer is not None else (None, "")
        mapped = CHOICE_LETTERS[order[CHOICE_LETTERS.index(letter)]] if letter is not None else None
        second = mapped is not None and mapped == letter_of(problem.answer, problem.choices)[0]
        counters["consistency_agree"] += second == first
        scores[i] = table.both if first and second else table.first if first else table.second if second else 0.0
    return scores


def shuffled(number: int, seed: str) -> list[int]:
    """An order of `number` options, never the given one, fixed by the seed: position k shows option order[k]."""
    order = list(range(number))
    generator = random.Random(zlib.crc32(seed.encode()))
    while order == sorted(order):
        generator.shuffle(order)
    return order


def without_letters(trace: str, number: int) -> str:
    """A reasoning trace without the letters of `number` options: (B), B., option B and a lone B vanish."""
    letters = CHOICE_LETTERS[:number]
    # "A" is also an article: before a lower-case word without a mark it stays.
    marked = rf"\([{letters}]\)|\b(?:[Oo]ption|[Cc]hoice|[Aa]nswer)s?(?:\s+is)?:?\s+[{letters}]\b|\b[{letters}][.):]"
    alone = rf"\b[{letters[1:]}]\b|\bA\b(?!\s+[a-z])"
    return re.sub(rf"{marked}|{alone}", "", trace)


def _asked_text(problem: Problem, choices: Sequence[str]) -> str:
    lines = [f"\n({letter}) {choice}" for letter, choice in zip(CHOICE_LETTERS, choices, strict=False)]
    return problem.question.replace("<image>", "").strip() + "".join(lines)


def _ask(generate: Generate, prompts: Sequence[SecondPrompt], counters: Counter[str]) -> Sequence[str]:
    # Also without prompts: other hosts may have some, and all of them run the same programs.
    replies = generate(prompts)
    if len(replies) != len(prompts):
        raise ValueError(f"the policy returned {len(replies)} responses to {len(prompts)} second prompts")
    counters["second_pass"] += len(prompts)
    return replies


__all__ = [
    "Generate",
    "SecondPrompt",
    "caption_check",
    "option_consistency",
    "shuffled",
    "without_letters",
]
