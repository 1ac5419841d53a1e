"""Multimodal rotary positions (time, height, width) of a prompt's tokens, in NumPy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32

from infimmr_jax.preprocess.layout import VisionLayout

Grid = tuple[int, int, int]


class RopePositions(NamedTuple):
    """Positions of one prompt, and the rope delta (greatest position + 1 - number of tokens)."""

    positions: Int32[np.ndarray, "3 tokens"]
    delta: int


def mrope_positions(
    tokens: Int32[np.ndarray, "tokens"],
    layout: VisionLayout,
    image_grids: Sequence[Grid] = (),
    video_grids: Sequence[Grid] = (),
    seconds_per_grid: Sequence[int | float] = (),
) -> RopePositions:
    """Positions as `Qwen2_5_VLModel.get_rope_index` of transformers gives them.

    Grids are (time, rows, columns) in patches, in the order of their place-holder runs in `tokens`;
    `seconds_per_grid` is the time between two temporal patches of each video, in seconds.
    Text counts up on all three axes; a visual run spans (t * seconds * tokens_per_second, row, column) from its
    start, and the text behind it starts max(rows, columns) further on.
    Raises ValueError when runs and grids do not match in number or length.
    """
    if len(seconds_per_grid) != len(video_grids):
        raise ValueError(f"{len(video_grids)} videos need as many seconds_per_grid, got {len(seconds_per_grid)}")
    kinds = np.where(tokens == layout.image_token_id, 1, np.where(tokens == layout.video_token_id, 2, 0))
    edges = np.flatnonzero(np.diff(kinds)) + 1
    starts = np.concatenate([[0], edges]) if len(tokens) else np.empty(0, np.int64)
    ends = np.concatenate([edges, [len(tokens)]])
    images = iter(image_grids)
    videos = iter(zip(video_grids, seconds_per_grid, strict=True))

    positions = np.empty((3, len(tokens)), np.int32)
    current = 0
    for start, end in zip(starts, ends, strict=False):
        kind, length = kinds[start], int(end - start)
        if kind == 0:
            positions[:, start:end] = current + np.arange(length)
            current += length
            continue
        if kind == 1:
            grid, seconds = next(images, None), None
        else:
            grid, seconds = next(videos, (None, None))
        if grid is None:
            raise ValueError(f"the visual tokens at {start} have no grid: more runs than images or videos")
        time, rows, columns = grid[0], grid[1] // layout.merge_size, grid[2] // layout.merge_size
        if time * rows * columns != length:
            raise ValueError(f"a grid of {grid} patches needs {time * rows * columns} tokens, the run has {length}")
        # float32, as torch multiplies an integer range by a float: the rounding decides the integer below.
        step = np.float32(1) if seconds is None else np.float32(layout.tokens_per_second) * np.float32(seconds)
        times = (np.arange(time, dtype=np.float32) * step).astype(np.int64)
        axes = np.meshgrid(times, np.arange(rows), np.arange(columns), indexing="ij")
        positions[:, start:end] = np.stack(axes).reshape(3, -1) + current
        current += max(rows, columns)
    if next(images, None) is not None or next(videos, None) is not None:
        raise ValueError("more images or videos than runs of visual tokens")
    delta = int(positions.max()) + 1 - len(tokens) if len(tokens) else 0
    return RopePositions(positions, delta)
