"""A problem with its graded responses, as a row of transcripts.jsonl."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from infimmr_jax.data.records import Problem
from infimmr_jax.names import LOCATED, JsonObject, Tokenizer
from infimmr_jax.rewards.router import Scores
from infimmr_jax.rollout.state import Rollouts, finish_reasons


def transcript(
    problem: Problem,
    prompt: str,
    texts: Sequence[str],
    scores: Scores,
    rollouts: Rollouts,
    row: int,
    tokenizer: Tokenizer,
    ends: tuple[int, ...],
) -> JsonObject:
    """One problem with all its responses, as a row of transcripts.jsonl (without its step and images).

    `finish` says why a response ended: "end" (a token of `ends`), "stop" (text) or "length".
    Where the answer has coordinates, with the sizes of the image that those of the gold and of the responses refer to.
    """
    responses, reasons = [], finish_reasons(rollouts, ends)
    for column, text in enumerate(texts):
        kept = rollouts.mask[row, column]
        ids = rollouts.tokens[row, column][kept].tolist()
        responses.append(
            {
                "text": text,
                "total": scores.total[row, column],
                "components": {name: values[row, column] for name, values in scores.components.items()},
                "extracted": scores.extracted[row][column],
                "reason": scores.reasons[row][column],
                "length": len(ids),
                "finish": str(reasons[row, column]),
                "tokens": [tokenizer.decode([index]) for index in ids],
                "logprobs": np.round(rollouts.logprobs[row, column][kept], 4).tolist(),
            }
        )
    shown = ("image_size", "seen_size") if problem.answer_type in LOCATED else ()
    sizes = {key: problem.extra[key] for key in shown if key in problem.extra}
    return {
        "problem_id": problem.id,
        "question": problem.question,
        "caption": problem.caption,
        "choices": list(problem.choices),
        "answer": problem.answer,
        "answer_type": problem.answer_type,
        **sizes,
        "prompt": prompt,
        "responses": responses,
    }
