"""Several demonstrations in one row: which go together, and their arrays. Losses are those of one row each."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from flax import struct
from jaxtyping import Bool, Float32, Int32

from infimmr_jax.data.records import DataError
from infimmr_jax.parallel.hosts import RowShare
from infimmr_jax.preprocess.batching import Numbers
from infimmr_jax.preprocess.demonstrations import DemonstrationPlan
from infimmr_jax.preprocess.layout import VisionLayout
from infimmr_jax.preprocess.prompts import EncodedPrompt, PromptPlan


@struct.dataclass
class PackedBatch:
    """B rows of T tokens that hold several demonstrations each, and the I image slots of them all, of N patches.

    tokens       inputs; a demonstration's last token is only predicted
    segments     1, 2, .. number of the demonstration in its row, 0 in padding
    positions    multimodal rotary positions, from 0 in every demonstration
    image_index  index into the visual tokens of the whole batch [I * N / merge unit], -1 where it is text
    patches      as in PromptBatch, but slots belong to the batch and not to a row
    places       where the M taught tokens of a row are predicted, `targets` they themselves, `mask` False in padding
    """

    tokens: Int32[Numbers, "B T"]
    segments: Int32[Numbers, "B T"]
    positions: Int32[Numbers, "B 3 T"]
    image_index: Int32[Numbers, "B T"]
    patches: Float32[Numbers, "I N X"]
    patch_positions: Int32[Numbers, "I N 2"]
    patch_mask: Bool[Numbers, "I N"]
    places: Int32[Numbers, "B M"]
    targets: Int32[Numbers, "B M"]
    mask: Bool[Numbers, "B M"]


@dataclasses.dataclass(frozen=True)
class PackedShape:
    """Static shape of a packed batch: rows, tokens and taught tokens of a row, image slots and patch slots of a slot.

    Rows and image slots are multiples of `multiple`, so that devices divide them.
    """

    rows: int
    tokens: int
    targets: int
    images: int
    patches: int
    multiple: int = 1

    def grown(self, needed: PackedShape) -> PackedShape:
        """This shape, or what it must become to hold `needed`.

        So a run compiles few programs, and which one a step needs depends on the step alone.
        """
        if needed.tokens != self.tokens:
            raise ValueError(f"rows of {needed.tokens} tokens do not fit rows of {self.tokens}")

        def up(mine: int, wanted: int, step: int) -> int:
            return mine if wanted <= mine else -(-wanted // step) * step

        return dataclasses.replace(
            self,
            rows=up(self.rows, needed.rows, self.multiple),
            targets=up(self.targets, needed.targets, 64),
            images=up(self.images, needed.images, self.multiple),
            patches=max(self.patches, needed.patches),
        )


def pack(lengths: Sequence[int], tokens: int) -> list[list[int]]:
    """Put demonstrations of given lengths into rows of `tokens`; returns the numbers in each row.

    First fit, the longest first, which needs at most 11/9 of the fewest rows possible, and one (Johnson, 1973).
    Raises DataError for a demonstration longer than a row.
    """
    if lengths and max(lengths) > tokens:
        raise DataError(f"a demonstration of {max(lengths)} tokens does not fit into rows of {tokens}")
    rows: list[list[int]] = []
    used: list[int] = []
    for number in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        place = next((i for i, filled in enumerate(used) if filled + lengths[number] <= tokens), len(rows))
        if place == len(rows):
            rows.append([])
            used.append(0)
        rows[place].append(number)
        used[place] += lengths[number]
    return rows


def needed_shape(rows: Sequence[Sequence[DemonstrationPlan]], tokens: int) -> PackedShape:
    """The smallest shape that holds these rows."""
    plans = [plan for row in rows for plan in row]
    return PackedShape(
        rows=len(rows),
        tokens=tokens,
        targets=max(sum(plan.targets for plan in row) for row in rows),
        images=sum(plan.images for plan in plans),
        patches=max(plan.plan.slot_patches for plan in plans),
    )


def collate_packed(
    rows: Sequence[Sequence[DemonstrationPlan]],
    pixels: Callable[[PromptPlan], EncodedPrompt],
    shape: PackedShape,
    share: RowShare,
    layout: VisionLayout,
) -> PackedBatch:
    """This process's part of the arrays of packed rows; rows that are left stay empty.

    Every process is given all rows. It fills its share of the rows, and decodes its share of the image slots, which
    are counted over the whole batch and need not be those of its rows.
    """
    mine, slots = share.rows(shape.rows), share.rows(shape.images)
    B, T, M, N = len(mine), shape.tokens, shape.targets, shape.patches
    tokens, segments = np.zeros((B, T), np.int32), np.zeros((B, T), np.int32)
    positions = np.zeros((B, 3, T), np.int32)
    image_index = np.full((B, T), -1, np.int32)
    places, targets, mask = np.zeros((B, M), np.int32), np.zeros((B, M), np.int32), np.zeros((B, M), bool)
    patches = np.zeros((len(slots), N, layout.patch_width), np.float32)
    patch_positions = np.zeros((len(slots), N, 2), np.int32)
    patch_mask = np.zeros((len(slots), N), bool)
    first_slot = 0
    for number, members in enumerate(rows):
        start = taught = 0
        for segment, demonstration in enumerate(members, start=1):
            plan = demonstration.plan
            here = [i for i in range(demonstration.images) if first_slot + i in slots]
            encoded = pixels(plan) if here else None
            for i in here:
                place, window = first_slot + i - slots.start, plan.slots[i]
                assert encoded is not None
                patches[place, window.slot_of_patch] = encoded.patches[i]
                patch_positions[place, window.slot_of_patch] = window.positions
                patch_mask[place, window.slot_of_patch] = True
            if number in mine:
                row, span = number - mine.start, slice(start, start + demonstration.length)
                tokens[row, span] = plan.tokens[:-1]
                segments[row, span] = segment
                positions[row, :, span] = plan.positions[:, :-1]
                slot = plan.token_slot[:-1]
                index = (first_slot + slot) * (N // layout.merge_unit) + plan.token_visual[:-1]
                image_index[row, span] = np.where(slot >= 0, index, -1)
                predicted = np.flatnonzero(demonstration.learnt[1:])
                into = slice(taught, taught + len(predicted))
                places[row, into], mask[row, into] = start + predicted, True
                targets[row, into] = plan.tokens[1:][predicted]
                start, taught = span.stop, into.stop
            first_slot += demonstration.images
    return PackedBatch(
        tokens=tokens,
        segments=segments,
        positions=positions,
        image_index=image_index,
        patches=patches,
        patch_positions=patch_positions,
        patch_mask=patch_mask,
        places=places,
        targets=targets,
        mask=mask,
    )
