"""The picture that the coordinates of an answer refer to: the one the model saw, after resizing."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from infimmr_jax.data.records import LOCATED, DataError, Problem

if TYPE_CHECKING:
    from infimmr_jax.preprocess.prompts import PromptPlan, Visual


def as_seen(problem: Problem, visuals: Sequence[Visual], patch_size: int) -> Problem:
    """The problem with `extra["seen_size"]`, [width, height] in pixels of its picture as the model saw it.

    `visuals` are those of its prompt. Qwen2.5-VL answers in absolute pixels of the resized picture; the graders map
    them to `extra["image_size"]`, which the gold coordinates refer to. Of several pictures `extra["answer_image"]`
    (from 1) is the one. Problems without coordinates, or shown without a picture, come back as they are. Raises
    DataError when the sizes are not known or the row's own `seen_size` is another one.
    """
    if problem.answer_type not in LOCATED or not visuals:
        return problem
    number = problem.extra.get("answer_image")
    if number is None and len(visuals) == 1:
        number = 1
    if not isinstance(number, int) or not 1 <= number <= len(visuals):
        raise DataError(
            f"problem {problem.id}: a {problem.answer_type} answer needs `answer_image`, the number (1 to "
            f"{len(visuals)}) of the image that its coordinates refer to; it is {number!r}"
        )
    if problem.extra.get("image_size") is None:
        raise DataError(
            f"problem {problem.id}: a {problem.answer_type} answer needs `image_size`, the [width, height] of the "
            "image that its coordinates refer to"
        )
    _, rows, columns = visuals[number - 1].grid
    seen = [columns * patch_size, rows * patch_size]
    said = problem.extra.get("seen_size")
    if said is not None and list(said) != seen:
        raise DataError(
            f"problem {problem.id}: `seen_size` is {said}, but this run shows the image at {seen}; leave the key out, "
            "it is filled in"
        )
    return dataclasses.replace(problem, extra={**problem.extra, "seen_size": seen})


def all_as_seen(problems: Sequence[Problem], prompts: Sequence[PromptPlan], patch_size: int) -> list[Problem]:
    """`as_seen` of every problem with its prompt."""
    return [as_seen(problem, prompt.visuals, patch_size) for problem, prompt in zip(problems, prompts, strict=True)]


__all__ = ["all_as_seen", "as_seen"]
