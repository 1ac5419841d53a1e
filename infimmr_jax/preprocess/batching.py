"""Static-shape batches: buckets chosen from the data, and prompts collated into one PromptBatch."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from flax import struct
from jaxtyping import Bool, Float32, Int32

from infimmr_jax.data.records import DataError
from infimmr_jax.preprocess.layout import VisionLayout
from infimmr_jax.preprocess.prompts import EncodedPrompt

Numbers = Any  # An array on the host or on the devices, or its shape and dtype alone; jaxtyping checks those.


@struct.dataclass
class PromptBatch:
    """P prompts in static shapes: S trunk tokens, I image slots of N patch slots of X numbers each.

    tokens          the prompt without its last token, right-padded
    lengths         number of real trunk tokens
    bridge          the last prompt token: the first input token of every branch
    positions       multimodal rotary positions (time, row, column)
    next_position   position of the bridge token; branch token t sits at next_position + t
    image_index     index into the row's visual tokens [I * N / merge unit], -1 where the token is text
    patches         normalised patches in window order, windows padded to their full size
    patch_positions row and column of each patch, 0 in padding
    row_mask        False for filler rows
    """

    tokens: Int32[Numbers, "P S"]
    lengths: Int32[Numbers, "P"]
    bridge: Int32[Numbers, "P"]
    positions: Int32[Numbers, "P 3 S"]
    next_position: Int32[Numbers, "P"]
    image_index: Int32[Numbers, "P S"]
    patches: Float32[Numbers, "P I N X"]
    patch_positions: Int32[Numbers, "P I N 2"]
    patch_mask: Bool[Numbers, "P I N"]
    row_mask: Bool[Numbers, "P"]


class Buckets(NamedTuple):
    """Static shapes of a run: trunk lengths, and (image slots, patch slots in each), both from small to large."""

    prompts: tuple[int, ...]
    images: tuple[tuple[int, int], ...]


@runtime_checkable
class Shaped(Protocol):
    """What a bucket is chosen by: a prompt, planned or encoded, or the largest sizes of several."""

    @property
    def name(self) -> str: ...

    @property
    def length(self) -> int: ...

    @property
    def image_shape(self) -> tuple[int, int]: ...


def choose_bucket(
    prompts: Sequence[Shaped],
    prompt_buckets: Sequence[int],
    image_buckets: Sequence[tuple[int, int]],
) -> tuple[int, tuple[int, int]]:
    """The cheapest trunk length and image bucket that hold all of `prompts` (planned or encoded).

    Hosts that share one step must agree: choose from the prompts of all of them, not from a host's own.
    Raises DataError, naming the prompt, when one fits no bucket.
    """
    longest = max(prompts, key=lambda prompt: prompt.length)
    lengths = [size for size in prompt_buckets if size >= longest.length]
    if not lengths:
        raise DataError(
            f"problem {longest.name}: a prompt of {longest.length} tokens fits none of data.prompt_buckets "
            f"{list(prompt_buckets)}"
        )
    slots = max(prompt.image_shape[0] for prompt in prompts)
    patches = max(prompt.image_shape[1] for prompt in prompts)
    images = [size for size in image_buckets if size[0] >= slots and size[1] >= patches]
    if not images:
        largest = max(prompts, key=lambda prompt: prompt.image_shape[0] * prompt.image_shape[1])
        raise DataError(
            f"problem {largest.name}: {slots} image slots of {patches} patch slots fit none of data.image_buckets "
            f"{[list(size) for size in image_buckets]}"
        )
    return min(lengths), min(images, key=lambda size: (size[0] * size[1], size))


def collate(
    encoded: Sequence[EncodedPrompt],
    rows: int,
    prompt_bucket: int,
    image_bucket: tuple[int, int],
    layout: VisionLayout,
) -> PromptBatch:
    """Pad `encoded` to the bucket's static shapes; rows that are left repeat the last prompt with `row_mask` False.

    A filler row is a real prompt, so that nothing in it is undefined and sampling it takes no longer than the others.
    Raises ValueError when there are no prompts or more than `rows`, DataError when one does not fit the bucket.
    """
    if not 0 < len(encoded) <= rows:
        raise ValueError(f"a batch of {rows} rows needs 1 to {rows} prompts, got {len(encoded)}")
    choose_bucket(encoded, [prompt_bucket], [image_bucket])
    slots, patch_slots = image_bucket
    tokens = np.zeros((rows, prompt_bucket), np.int32)
    lengths = np.zeros(rows, np.int32)
    bridge = np.zeros(rows, np.int32)
    positions = np.zeros((rows, 3, prompt_bucket), np.int32)
    next_position = np.zeros(rows, np.int32)
    image_index = np.full((rows, prompt_bucket), -1, np.int32)
    patches = np.zeros((rows, slots, patch_slots, layout.patch_width), np.float32)
    patch_positions = np.zeros((rows, slots, patch_slots, 2), np.int32)
    patch_mask = np.zeros((rows, slots, patch_slots), bool)

    for row in range(rows):
        prompt = encoded[min(row, len(encoded) - 1)]
        length = prompt.length
        lengths[row] = length
        tokens[row, :length] = prompt.tokens[:-1]
        bridge[row] = prompt.tokens[-1]
        positions[row, :, :length] = prompt.positions[:, :-1]
        next_position[row] = prompt.positions[0, -1]
        slot = prompt.token_slot[:-1]
        index = slot * (patch_slots // layout.merge_unit) + prompt.token_visual[:-1]
        image_index[row, :length] = np.where(slot >= 0, index, -1)
        for number, (window, values) in enumerate(zip(prompt.slots, prompt.patches, strict=True)):
            patches[row, number, window.slot_of_patch] = values
            patch_positions[row, number, window.slot_of_patch] = window.positions
            patch_mask[row, number, window.slot_of_patch] = True
    return PromptBatch(
        tokens=tokens,
        lengths=lengths,
        bridge=bridge,
        positions=positions,
        next_position=next_position,
        image_index=image_index,
        patches=patches,
        patch_positions=patch_positions,
        patch_mask=patch_mask,
        row_mask=np.arange(rows) < len(encoded),
    )


def plan_buckets(
    lengths: Sequence[int],
    image_shapes: Sequence[tuple[int, int]],
    *,
    rows: int = 1,
    groups: Sequence[Hashable] | None = None,
    max_prompt_buckets: int = 2,
    max_image_buckets: int = 3,
    prompt_multiple: int = 8,
    least_saving: float = 0.05,
) -> Buckets:
    """Choose the static shapes from the data: trunk lengths and (image slots, patch slots) of all prompts.

    A batch needs the greatest shape among its `rows` prompts, so for `rows` > 1 the histogram is the one of random
    batches, drawn inside each of the `groups` (a label a prompt, e.g. its phase; default: all prompts mix).
    The largest shape is always there; the others are those that save most padding, as long as one more saves at least
    `least_saving` of what is computed. A run compiles at most
    one program for each pair of a prompt and an image bucket.
    """
    if not lengths or len(lengths) != len(image_shapes):
        raise ValueError(f"one length and one image shape a prompt: got {len(lengths)} and {len(image_shapes)}")
    rounded = -(-np.asarray(lengths, np.int64) // prompt_multiple) * prompt_multiple
    needs = np.concatenate([rounded[:, None], np.asarray(image_shapes, np.int64)], axis=1)
    labels = np.unique([str(label) for label in groups], return_inverse=True)[1] if groups else np.zeros(len(needs))
    batches = np.concatenate([_batch_needs(needs[labels == label], rows) for label in np.unique(labels)])
    prompts = _choose_sizes(batches[:, :1], max_prompt_buckets, least_saving)
    images = _choose_sizes(batches[:, 1:], max_image_buckets, least_saving)
    return Buckets(
        tuple(int(size[0]) for size in prompts),
        tuple((int(size[0]), int(size[1])) for size in images),
    )


def _batch_needs(needs: np.ndarray, rows: int, draws: int = 512) -> np.ndarray:
    """Shapes needed by random batches of `rows` prompts; the last one is the greatest of all."""
    if rows > 1:
        picked = np.random.default_rng(0).integers(len(needs), size=(draws, rows))
        needs_of_batches = needs[picked].max(axis=1)
    else:
        needs_of_batches = needs
    return np.concatenate([needs_of_batches, needs.max(axis=0, keepdims=True)])


def _choose_sizes(
    needs: np.ndarray, count: int, least_saving: float, candidates_per_axis: int = 24
) -> list[tuple[int, ...]]:
    """At most `count` sizes that hold all `needs` [n, axes] with little padding (volume), found by greedy exchange."""
    needs, weights = np.unique(needs, axis=0, return_counts=True)
    axes = [_spread(np.unique(needs[:, axis]), candidates_per_axis) for axis in range(needs.shape[1])]
    candidates = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, needs.shape[1])
    candidates = candidates[np.argsort(candidates.prod(axis=1), kind="stable")]
    fits = (candidates[None] >= needs[:, None]).all(axis=-1)
    volumes = np.where(fits, candidates.prod(axis=1), np.inf)

    def computed(chosen: list[int]) -> float:
        return float((volumes[:, chosen].min(axis=1) * weights).sum())

    chosen = [len(candidates) - 1]  # Holds everything; it stays.
    while len(chosen) < count:
        best = min(range(len(candidates)), key=lambda c: computed([*chosen, c]))
        if computed([*chosen, best]) >= (1 - least_saving) * computed(chosen):
            break
        chosen.append(best)
    improved = True
    while improved:
        improved = False
        for place in range(1, len(chosen)):
            others = chosen[:place] + chosen[place + 1 :]
            best = min(range(len(candidates)), key=lambda c: computed([*others, c]))
            if computed([*others, best]) < computed(chosen):
                chosen = [others[0], *others[1:], best]
                improved = True
    return sorted({tuple(int(v) for v in candidates[c]) for c in chosen}, key=lambda size: (np.prod(size), size))


def _spread(values: np.ndarray, count: int) -> np.ndarray:
    """At most `count` of the sorted `values`, evenly spread, the greatest among them."""
    if len(values) <= count:
        return values
    return values[np.unique(np.linspace(0, len(values) - 1, count).round().astype(int))]
