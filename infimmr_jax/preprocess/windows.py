"""Window order of patches: windows padded to their full size, so that window attention is a plain batch."""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32


class WindowLayout(NamedTuple):
    """Where the patches of one image (or one temporal patch of a video) sit in the window-padded slot order."""

    slot_of_patch: Int32[np.ndarray, "patches"]
    visual_slot: Int32[np.ndarray, "merged"]
    positions: Int32[np.ndarray, "patches 2"]
    windows: int


@functools.lru_cache(maxsize=4096)
def window_layout(grid_hw: tuple[int, int], window_size: int, patch_size: int, merge_size: int) -> WindowLayout:
    """Slots of an image of `grid_hw` = (rows, columns) patches, both multiples of `merge_size`.

    Patches come in processor order (merge units in raster order, their patches in raster order inside).
    `slot_of_patch[n]` is the slot of patch n; windows follow each other in raster order and own
    (window_size / patch_size)^2 slots each, of which edge windows leave some empty; the patches of a merge unit
    are neighbours, so merged slot = patch slot // merge_size^2. `visual_slot[j]` is the merged slot of visual
    token j in prompt (raster) order. `positions[n]` is (row, column) for the 2-D rotary embedding.
    Without the empty slots the order is the one of `get_window_index` in transformers' Qwen2.5-VL.
    The arrays are cached and read-only. Raises ValueError on a grid or window that is not whole merge units.
    """
    rows, columns = grid_hw
    if rows % merge_size or columns % merge_size or rows <= 0 or columns <= 0:
        raise ValueError(f"a grid of {rows} x {columns} patches is not made of {merge_size} x {merge_size} merge units")
    if window_size % (patch_size * merge_size):
        raise ValueError(f"window_size {window_size} is not a multiple of {patch_size} x {merge_size} pixels")
    side = window_size // patch_size // merge_size
    unit = merge_size**2
    merged_rows, merged_columns = rows // merge_size, columns // merge_size
    windows_down, windows_across = -(-merged_rows // side), -(-merged_columns // side)

    row = np.repeat(np.arange(merged_rows), merged_columns)
    column = np.tile(np.arange(merged_columns), merged_rows)
    window = row // side * windows_across + column // side
    visual_slot = window * side**2 + row % side * side + column % side

    inner = np.arange(unit)
    slot_of_patch = (visual_slot[:, None] * unit + inner).reshape(-1)
    patch_rows = (row[:, None] * merge_size + inner // merge_size).reshape(-1)
    patch_columns = (column[:, None] * merge_size + inner % merge_size).reshape(-1)
    layout = WindowLayout(
        slot_of_patch.astype(np.int32),
        visual_slot.astype(np.int32),
        np.stack([patch_rows, patch_columns], axis=-1).astype(np.int32),
        windows_down * windows_across,
    )
    for array in layout[:3]:
        array.setflags(write=False)
    return layout
