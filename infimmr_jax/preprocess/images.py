"""Pictures to patches without torch: Qwen2.5-VL's resize rule, normalised flat patches."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image

from infimmr_jax.config import ImageSection
from infimmr_jax.data.pictures import MAX_ASPECT_RATIO
from infimmr_jax.data.records import DataError

# OpenAI CLIP's statistics, which the published Qwen2.5-VL processors use.
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


def plan_grid(width: int, height: int, section: ImageSection, patch_size: int, merge_size: int) -> tuple[int, int, int]:
    """Grid (time = 1, rows, columns) of patches that an image of this size in pixels is resized to.

    Qwen2-VL's `smart_resize`: sides rounded (half to even) to multiples of patch_size x merge_size, then scaled so
    that the area lies within [min_pixels, max_pixels]. Raises DataError at aspect ratios above 200.
    """
    resized_height, resized_width = smart_resize(
        height, width, patch_size * merge_size, section.min_pixels, section.max_pixels
    )
    return 1, resized_height // patch_size, resized_width // patch_size


def smart_resize(height: int, width: int, factor: int, min_pixels: int, max_pixels: int) -> tuple[int, int]:
    """Height and width in pixels after resizing; see `plan_grid`."""
    if max(height, width) / min(height, width) > MAX_ASPECT_RATIO:
        raise DataError(f"an image of {width} x {height} pixels is longer than {MAX_ASPECT_RATIO} times its width")
    rows, columns = round(height / factor), round(width / factor)
    if rows * columns * factor**2 > max_pixels:
        shrink = math.sqrt((height * width) / max_pixels)
        rows = max(1, math.floor(height / shrink / factor))
        columns = max(1, math.floor(width / shrink / factor))
    elif rows * columns * factor**2 < min_pixels:
        grow = math.sqrt(min_pixels / (height * width))
        rows, columns = math.ceil(height * grow / factor), math.ceil(width * grow / factor)
    return rows * factor, columns * factor


def patchify(
    image: Image.Image,
    grid: tuple[int, int, int],
    patch_size: int,
    merge_size: int,
    temporal_patch_size: int,
) -> Float32[np.ndarray, "patches features"]:
    """Resize an RGB image to `grid` (bicubic) and cut it into normalised flat patches, in processor order.

    Rows are merge units in raster order with their patches in raster order inside; columns are
    (channel, temporal, patch row, patch column), the one frame repeated along the temporal axis.
    Bit-equal to transformers' `Qwen2VLImageProcessorPil`.
    """
    pixels = resize(image, grid[2] * patch_size, grid[1] * patch_size)
    return flat_patches([pixels], patch_size, merge_size, temporal_patch_size)


def flat_patches(
    frames: Sequence[UInt8[np.ndarray, "height width 3"]], patch_size: int, merge_size: int, temporal_patch_size: int
) -> Float32[np.ndarray, "patches features"]:
    """Cut resized frames into the normalised flat patches of one temporal patch; see `patchify`.

    Fewer frames than `temporal_patch_size` are filled up with the last one.
    """
    height, width, _ = frames[0].shape
    count = height * width // patch_size**2
    patches = np.empty((count, 3, temporal_patch_size, patch_size**2), np.float32)
    table = normalisation_table()
    for time, frame in enumerate(frames):
        cut = _cut_patches(frame, patch_size, merge_size)
        for channel in range(3):
            patches[:, channel, time] = table[channel].take(cut[:, channel])
    patches[:, :, len(frames) :] = patches[:, :, len(frames) - 1, None]
    return patches.reshape(count, -1)


def resize(image: Image.Image, width: int, height: int) -> UInt8[np.ndarray, "height width 3"]:
    """RGB pixels uint8 [height, width, 3] after Pillow's bicubic resize."""
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(image)


def _cut_patches(
    pixels: UInt8[np.ndarray, "height width 3"], patch_size: int, merge_size: int
) -> UInt8[np.ndarray, "patches 3 area"]:
    height, width, channels = pixels.shape
    unit = patch_size * merge_size
    blocks = pixels.reshape(
        height // unit, merge_size, patch_size, width // unit, merge_size, patch_size, channels
    ).transpose(0, 3, 1, 4, 6, 2, 5)
    return blocks.reshape(-1, channels, patch_size**2)


@functools.cache
def normalisation_table() -> Float32[np.ndarray, "3 256"]:
    """Normalised value of every byte in every channel, with the roundings of transformers' NumPy path."""
    scaled = (np.arange(256, dtype=np.float64) * (1 / 255)).astype(np.float32)
    mean, std = np.array(MEAN, np.float32)[:, None], np.array(STD, np.float32)[:, None]
    table = (scaled - mean) / std
    table.setflags(write=False)
    return table
