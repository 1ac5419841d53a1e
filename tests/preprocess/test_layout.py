"""Geometry derived from a vision layout."""

import pytest
from published import GEOMETRY

from infimmr_jax.preprocess.layout import VisionLayout

IDS = {"image_token_id": 1, "video_token_id": 2, "vision_start_token_id": 3, "vision_end_token_id": 4}


def test_published_geometry():
    layout = VisionLayout(**IDS, **GEOMETRY)
    assert (layout.factor, layout.merge_unit, layout.window_patches, layout.patch_width) == (28, 4, 64, 1176)


def test_a_window_that_cuts_merge_units_is_refused():
    with pytest.raises(ValueError, match="not a multiple of patch_size x merge_size = 28"):
        VisionLayout(**IDS, **GEOMETRY | {"window_size": 70})
