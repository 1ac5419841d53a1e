"""Images to patches: bit-equal to transformers' PIL processor; decoding rules by independent arithmetic; bad files."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from published import PATCHES, SQUARES
from transformers import Qwen2VLImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from infimmr_jax.config import ImageSection
from infimmr_jax.data.records import DataError
from infimmr_jax.preprocess.images import patchify, plan_grid

SECTION = ImageSection()
SIZES = [(1, 1), (28, 28), (84, 84), (27, 31), (42, 14), (448, 448), (500, 480), (640, 427), (33, 3000), (199, 1)]
SIZES += [(1999, 1501), (56, 2000), (29, 57), (70, 98), (1280, 720)]


def _noise(width, height, channels=3, seed=0):
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("budget", [(56 * 56, 1280 * 28 * 28), (256 * 28 * 28, 512 * 28 * 28), (28 * 28, 100_000)])
@pytest.mark.parametrize("size", SIZES)
def test_patches_are_bit_equal_to_the_published_processor(size, budget):
    section = ImageSection(min_pixels=budget[0], max_pixels=budget[1])
    image = Image.fromarray(_noise(*size, seed=sum(size)))
    processor = Qwen2VLImageProcessorPil(size={"shortest_edge": budget[0], "longest_edge": budget[1]})
    expected = processor(images=[image])
    grid = plan_grid(*size, section, **SQUARES)
    patches = patchify(image, grid, **PATCHES)
    assert list(grid) == np.asarray(expected["image_grid_thw"])[0].tolist()
    assert patches.dtype == np.float32
    assert np.array_equal(patches, np.asarray(expected["pixel_values"]))


@settings(max_examples=500, deadline=None)
@given(
    width=st.integers(1, 6000),
    height=st.integers(1, 6000),
    least=st.integers(1, 600).map(lambda n: n * 784),
    more=st.integers(0, 3000).map(lambda n: n * 784),
)
def test_grids_equal_smart_resize(width, height, least, more):
    section = ImageSection(min_pixels=least, max_pixels=least + more)
    if max(width, height) > 200 * min(width, height):
        with pytest.raises(DataError, match="200 times"):
            plan_grid(width, height, section, **SQUARES)
        return
    rows, columns = smart_resize(height, width, 28, least, least + more)
    assert plan_grid(width, height, section, **SQUARES) == (1, rows // 14, columns // 14)


def test_sides_round_half_to_even():
    section = ImageSection(min_pixels=1, max_pixels=10**9)
    assert plan_grid(42, 70, section, **SQUARES) == plan_grid(56, 56, section, **SQUARES) == (1, 4, 4)
    assert plan_grid(98, 126, section, **SQUARES) == (1, 8, 8)


def test_a_pixel_budget_in_the_wrong_order_is_refused():
    with pytest.raises(ValueError, match="min_pixels 4000 is above max_pixels 3000"):
        ImageSection(min_pixels=4000, max_pixels=3000)
