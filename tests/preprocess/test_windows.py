"""Window slots: against transformers' own window order, and by the properties that batched window attention needs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from published import SQUARES

from infimmr_jax.preprocess.windows import window_layout

GRIDS = [(2, 2), (8, 8), (16, 16), (8, 10), (10, 8), (6, 30), (2, 100), (36, 36), (64, 22), (14, 14), (4, 8), (34, 46)]


@pytest.mark.parity
@pytest.mark.parametrize("window_size", [56, 112])
@pytest.mark.parametrize("grid", GRIDS)
def test_without_padding_the_order_is_that_of_the_torch_tower(grid, window_size):
    torch = pytest.importorskip("torch")
    vision_utils = pytest.importorskip("transformers.vision_utils")
    index, boundaries = vision_utils.get_vision_window_index(
        torch.tensor([[1, *grid]]), spatial_merge_size=2, window_size=window_size, patch_size=14
    )
    layout = window_layout(grid, window_size, **SQUARES)
    assert np.array_equal(np.argsort(layout.visual_slot), index.numpy())
    # Real patches in each window, windows in order: the differences of the torch boundaries.
    window = np.sort(layout.slot_of_patch // (window_size // 14) ** 2)
    counts = np.bincount(window, minlength=layout.windows)
    assert counts.tolist() == np.diff(boundaries.numpy()).tolist()


@pytest.mark.parity
@pytest.mark.parametrize("grid", GRIDS)
def test_rotary_positions_are_those_of_the_torch_tower(grid):
    torch = pytest.importorskip("torch")
    vision_utils = pytest.importorskip("transformers.vision_utils")
    expected = vision_utils.get_vision_position_ids(torch.tensor([[1, *grid]]), 2)
    assert np.array_equal(window_layout(grid, 112, **SQUARES).positions, expected.numpy())


@settings(max_examples=100, deadline=None)
@given(rows=st.integers(1, 40), columns=st.integers(1, 40), merge=st.integers(1, 3), side=st.integers(1, 5))
def test_slots_are_a_padded_permutation_with_whole_merge_units(rows, columns, merge, side):
    layout = window_layout((rows * merge, columns * merge), side * merge * 14, patch_size=14, merge_size=merge)
    per_window = (side * merge) ** 2
    slots = layout.slot_of_patch
    assert len(np.unique(slots)) == rows * columns * merge**2
    assert slots.min() == 0
    assert slots.max() < layout.windows * per_window
    # The patches of one merge unit are neighbours, and visual_slot names the unit.
    units = slots.reshape(-1, merge**2)
    assert np.array_equal(units, units[:, :1] + np.arange(merge**2))
    assert np.array_equal(units[:, 0], layout.visual_slot * merge**2)
    # Patches share a window exactly when they lie in the same square of the picture.
    row, column = layout.positions.T
    square = row // (side * merge) * 1000 + column // (side * merge)
    window = slots // per_window
    assert len(set(zip(square.tolist(), window.tolist(), strict=True))) == len(set(square.tolist())) == layout.windows
    # Visual tokens are in raster order of merge units.
    first = layout.positions.reshape(-1, merge**2, 2)[:, 0] // merge
    assert np.array_equal(first[:, 0] * columns + first[:, 1], np.arange(rows * columns))


def test_a_hand_made_window_order():
    # 4 x 6 patches, windows of 4 x 4 patches: 2 x 3 merge units, the second window half empty.
    layout = window_layout((4, 6), 56, **SQUARES)
    assert layout.windows == 2
    assert layout.visual_slot.tolist() == [0, 1, 4, 2, 3, 6]
    assert layout.slot_of_patch[:8].tolist() == [0, 1, 2, 3, 4, 5, 6, 7]
    assert layout.slot_of_patch[8:12].tolist() == [16, 17, 18, 19]


def test_cached_arrays_can_not_be_changed():
    with pytest.raises(ValueError, match="read-only"):
        window_layout((4, 4), 112, **SQUARES).slot_of_patch[0] = 7


@pytest.mark.parametrize(("grid", "window", "message"), [((3, 4), 112, "merge units"), ((4, 4), 42, "multiple")])
def test_bad_geometry_is_said(grid, window, message):
    with pytest.raises(ValueError, match=message):
        window_layout(grid, window, **SQUARES)
