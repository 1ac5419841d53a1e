"""From a problem to an encoded prompt: text, chat template, token ids with visual place-holders, positions, patches."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import cast

import numpy as np
from jaxtyping import Float32, Int32
from transformers import PreTrainedTokenizerBase

from infimmr_jax.config import DataSection, ImageSection, PromptSection
from infimmr_jax.data.pictures import ImageSource, image_size, open_image
from infimmr_jax.data.records import DataError, Problem
from infimmr_jax.names import CHOICE_LETTERS, LOCATED, JsonValue, Modality
from infimmr_jax.preprocess.images import patchify, plan_grid
from infimmr_jax.preprocess.layout import VisionLayout
from infimmr_jax.preprocess.positions import Grid, mrope_positions
from infimmr_jax.preprocess.video import VideoPlan, video_patches
from infimmr_jax.preprocess.windows import WindowLayout, window_layout

IMAGE_MARK = "<image>"
INSTRUCTIONS: dict[str, str] = {
    "think_boxed": (
        "Reason step by step inside <think></think> first. Then give the final answer inside \\boxed{}; "
        "for a multiple-choice question give only the letter of the option."
    ),
    "boxed": (
        "Give the final answer inside \\boxed{}; for a multiple-choice question give only the letter of the option."
    ),
    "think_answer": (
        "Reason step by step inside <think></think> first. Then give only the final answer inside <answer></answer>; "
        "for a multiple-choice question this is the letter of the option."
    ),
    "think_answer_boxed": (
        "Reason step by step inside <think></think> first. Then answer inside <answer></answer>, with the final answer "
        "inside \\boxed{}; for a multiple-choice question box only the letter of the option."
    ),
    "observe_think_answer": (
        "Describe what matters in the image inside <observe></observe> first, then reason step by step inside "
        "<think></think>. Then give only the final answer inside <answer></answer>; for a multiple-choice question "
        "this is the letter of the option."
    ),
}

ANSWER_FORMS: dict[str, str] = {
    "number": "The final answer is a plain number.",
    "list": "The final answer is a list in the right order, such as [a, b, c].",
    "set": "The final answer is a list in any order, such as [a, b, c].",
    "box": (
        "The final answer is a box [x1, y1, x2, y2] (left, top, right, bottom) in pixels of the image; several boxes "
        "are a list of boxes."
    ),
    "point": "The final answer is a point [x, y] in pixels of the image.",
    "span": "The final answer is a span of time [start, end] in seconds.",
    "action": (
        'The final answer is an action as JSON, such as {"action": "click", "coordinate": [x, y]}, with coordinates '
        "in pixels of the image."
    ),
}
FORM_MARK = "{answer_form}"


@dataclasses.dataclass(frozen=True)
class Picture:
    """An image of a prompt: where it comes from, and its grid (time = 1, rows, columns) of patches."""

    source: ImageSource
    grid: Grid


Visual = Picture | VideoPlan


@dataclasses.dataclass(frozen=True)
class PromptPlan:
    """A prompt whose every shape is known, before any pixel is decoded.

    `text` is the rendered chat template with one place-holder a picture or video; `tokens` are its ids with each
    place-holder repeated once per visual token. `token_slot[n]` is the image slot that token n shows (-1: text) and
    `token_visual[n]` the merged slot inside it. `slots` are the window layouts of the image slots: one a picture, one
    a temporal patch of a video, in order; `slot_patches` is what the largest needs, window padding included.
    """

    name: str
    text: str
    tokens: Int32[np.ndarray, "tokens"]
    positions: Int32[np.ndarray, "3 tokens"]
    token_slot: Int32[np.ndarray, "tokens"]
    token_visual: Int32[np.ndarray, "tokens"]
    visuals: tuple[Visual, ...]
    slots: tuple[WindowLayout, ...]
    slot_patches: int

    @property
    def length(self) -> int:
        """Tokens of the trunk: all but the last one, which opens every branch."""
        return len(self.tokens) - 1

    @property
    def image_shape(self) -> tuple[int, int]:
        """The smallest image bucket that holds this prompt: (image slots, patch slots in each)."""
        return len(self.slots), self.slot_patches


@dataclasses.dataclass(frozen=True)
class EncodedPrompt(PromptPlan):
    """A planned prompt with its pixels: `patches[i]` are the normalised patches of image slot i in processor order."""

    patches: tuple[Float32[np.ndarray, "_ features"], ...]


def user_text(problem: Problem, modality: Modality, section: PromptSection) -> str:
    """The text of the user's turn, with one `<image>` mark where each image goes; without marks images come first.

    A caption phase puts "Image description: .." before the question, choices follow it as "(A) ..", then the
    instruction of the response format and the form of the answer. Modality `text` shows no image and drops the marks.
    Raises DataError when marks and images do not match, a caption is missing, or there are too many choices.
    """
    body = problem.question + _choice_lines(problem)
    marks = body.count(IMAGE_MARK)
    if marks and marks != len(problem.images):
        raise DataError(
            f"problem {problem.id} has {marks} {IMAGE_MARK} marks and {len(problem.images)} images; "
            "give one mark an image, or none to show the images first"
        )
    if modality == "text":
        body = body.replace(IMAGE_MARK, "").strip()
    if modality == "caption" and problem.images:
        body = _caption_line(problem) + body
    instruction = _instruction(problem, section)
    if instruction:
        body = f"{body}\n\n{instruction}"
    if modality != "text" and not marks:
        body = IMAGE_MARK * len(problem.images) + body
    return body


def plan_prompt(
    problem: Problem,
    modality: Modality,
    tokenizer: PreTrainedTokenizerBase,
    layout: VisionLayout,
    data: DataSection,
    prompt: PromptSection,
) -> PromptPlan:
    """Everything about a problem's prompt but its pixels; of its images only the headers are read.

    Raises DataError, naming the problem, when it can not be shown: a bad image header, too many images, marks that do
    not match, a control token in the text, or a prompt of more than `data.max_prompt` tokens (it is never cut).
    """
    try:
        text = user_text(problem, modality, prompt)
        images = problem.images if modality != "text" else ()
        if len(images) > data.max_images:
            raise DataError(f"{len(images)} images are more than data.max_images = {data.max_images}")
        pictures = [plan_picture(source, data.image, layout) for source in images]
        as_seen(problem, pictures, layout.patch_size)
        plan = plan_text(text, pictures, tokenizer, layout, prompt.system, name=problem.id)
    except DataError as error:
        raise DataError(_prefixed(problem, error)) from error
    if len(plan.tokens) > data.max_prompt:
        raise DataError(
            f"problem {problem.id}: the prompt has {len(plan.tokens)} tokens, more than data.max_prompt = "
            f"{data.max_prompt}; raise it, lower data.image.max_pixels, or leave the problem out"
        )
    return plan


def encode_prompt(
    problem: Problem,
    modality: Modality,
    tokenizer: PreTrainedTokenizerBase,
    layout: VisionLayout,
    data: DataSection,
    prompt: PromptSection,
) -> EncodedPrompt:
    """Plan a problem's prompt and decode its images; errors as `plan_prompt` and `images.open_image`."""
    plan = plan_prompt(problem, modality, tokenizer, layout, data, prompt)
    try:
        return encode_plan(plan, layout, data)
    except DataError as error:
        raise DataError(_prefixed(problem, error)) from error


def encode_plan(plan: PromptPlan, layout: VisionLayout, data: DataSection) -> EncodedPrompt:
    """Decode the pictures and videos of a planned prompt; errors as `images.open_image` and `video.video_patches`."""
    patches: list[np.ndarray] = []
    for visual in plan.visuals:
        if isinstance(visual, VideoPlan):
            patches += video_patches(visual, data.image, layout)
        else:
            image = open_image(visual.source, data.image)
            sizes = layout.patch_size, layout.merge_size, layout.temporal_patch_size
            patches.append(patchify(image, visual.grid, *sizes))
    fields = {field.name: getattr(plan, field.name) for field in dataclasses.fields(PromptPlan)}
    return EncodedPrompt(**fields, patches=tuple(patches))


def plan_picture(source: ImageSource, section: ImageSection, layout: VisionLayout) -> Picture:
    """The grid that an image file or encoded bytes will have, from its header; errors as `images.image_size`."""
    width, height = image_size(source, section)
    return Picture(source, plan_grid(width, height, section, layout.patch_size, layout.merge_size))


def plan_text(
    text: str,
    visuals: Sequence[Visual],
    tokenizer: PreTrainedTokenizerBase,
    layout: VisionLayout,
    system: str | None = None,
    name: str = "prompt",
) -> PromptPlan:
    """Plan a prompt of one user turn, whose `<image>` marks say where the `visuals` (pictures and videos) go, in order.

    Raises DataError when marks and visuals differ in number, or the text holds a control token of the tokenizer.
    """
    found = next((token for token in _control_tokens(tokenizer) if token in text), None)
    if found is not None:
        raise DataError(f"the text holds the control token {found}; remove it")
    pieces = text.split(IMAGE_MARK)
    if len(pieces) != len(visuals) + 1:
        raise DataError(f"the text has {len(pieces) - 1} {IMAGE_MARK} marks for {len(visuals)} pictures and videos")
    parts: list[dict[str, str]] = []
    for piece, visual in zip(pieces, [None, *visuals], strict=True):
        if visual is not None:
            parts.append({"type": "video" if isinstance(visual, VideoPlan) else "image"})
        if piece:
            parts.append({"type": "text", "text": piece})
    turns: list[JsonValue] = [] if system is None else [{"role": "system", "content": system}]
    turns.append({"role": "user", "content": parts})
    rendered = cast(str, tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
    return lay_out(name, rendered, tokenizer.encode(rendered, add_special_tokens=False), visuals, layout)


def lay_out(
    name: str, text: str, tokens_of_text: Sequence[int], visuals: Sequence[Visual], layout: VisionLayout
) -> PromptPlan:
    """Expand the place-holders of a rendered text by the grids of its visuals; lay out positions and slots."""
    ids = np.asarray(tokens_of_text, np.int32)
    places = np.flatnonzero((ids == layout.image_token_id) | (ids == layout.video_token_id))
    videos = [visual for visual in visuals if isinstance(visual, VideoPlan)]
    kinds = [layout.video_token_id if isinstance(visual, VideoPlan) else layout.image_token_id for visual in visuals]
    if ids[places].tolist() != kinds:
        raise DataError(f"the chat template placed {len(places)} visuals, the prompt has {len(visuals)}")

    slots = tuple(
        window_layout(visual.grid[1:], layout.window_size, layout.patch_size, layout.merge_size)
        for visual in visuals
        for _ in range(visual.grid[0])
    )
    repeats = np.ones(len(ids), np.int64)
    repeats[places] = [np.prod(visual.grid) // layout.merge_unit for visual in visuals]
    tokens = np.repeat(ids, repeats)
    shown = (tokens == layout.image_token_id) | (tokens == layout.video_token_id)
    token_slot = np.full(len(tokens), -1, np.int32)
    token_visual = np.zeros(len(tokens), np.int32)
    if slots:
        token_slot[shown] = np.repeat(np.arange(len(slots)), [len(slot.visual_slot) for slot in slots])
        token_visual[shown] = np.concatenate([slot.visual_slot for slot in slots])
    positions = mrope_positions(
        tokens,
        layout,
        image_grids=[visual.grid for visual in visuals if isinstance(visual, Picture)],
        video_grids=[video.grid for video in videos],
        seconds_per_grid=[video.seconds_per_grid for video in videos],
    ).positions
    return PromptPlan(
        name=name,
        text=text,
        tokens=tokens,
        positions=positions,
        token_slot=token_slot,
        token_visual=token_visual,
        visuals=tuple(visuals),
        slots=slots,
        slot_patches=max((slot.windows for slot in slots), default=0) * layout.window_patches,
    )


@functools.lru_cache(maxsize=8)
def _control_tokens(tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    return tuple(str(token) for token in tokenizer.added_tokens_decoder.values() if token.special)


def _instruction(problem: Problem, section: PromptSection) -> str:
    form = ANSWER_FORMS.get(problem.answer_type, "")
    if section.instruction is None:
        return f"{INSTRUCTIONS[section.format]} {form}".rstrip()
    if FORM_MARK not in section.instruction:
        return section.instruction
    return section.instruction.replace(FORM_MARK, form).strip()


def _choice_lines(problem: Problem) -> str:
    if len(problem.choices) > len(CHOICE_LETTERS):
        raise DataError(f"problem {problem.id} has {len(problem.choices)} choices, at most {len(CHOICE_LETTERS)} go")
    return "".join(f"\n({letter}) {choice}" for letter, choice in zip(CHOICE_LETTERS, problem.choices, strict=False))


def _caption_line(problem: Problem) -> str:
    if problem.caption is None:
        raise DataError(f"problem {problem.id} has images and no caption, which a caption phase shows")
    if IMAGE_MARK in problem.caption:
        raise DataError(f"problem {problem.id} has an {IMAGE_MARK} mark in its caption; marks belong in the question")
    return f"Image description: {problem.caption}\n"


def _prefixed(problem: Problem, error: DataError) -> str:
    text = str(error)
    return text if text.startswith(f"problem {problem.id}") else f"problem {problem.id}: {text}"


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
