"""Multimodal positions: against `get_rope_index` of the torch model, and by hand."""

import functools

import numpy as np
import pytest
from published import GEOMETRY

from infimmr_jax.preprocess.layout import VisionLayout
from infimmr_jax.preprocess.positions import mrope_positions

IMAGE, VIDEO, START, END = 7, 8, 5, 6


def layout_of(tokens_per_second: float = 2) -> VisionLayout:
    return VisionLayout(IMAGE, VIDEO, START, END, **GEOMETRY | {"tokens_per_second": tokens_per_second})


def _prompt(*parts):
    """Token ids of a prompt made of text lengths (int) and grids ("image"|"video", (t, h, w))."""
    tokens = []
    for part in parts:
        if isinstance(part, int):
            tokens += [11 + n % 3 for n in range(part)]
        else:
            kind, grid = part
            tokens += [START, *[IMAGE if kind == "image" else VIDEO] * (int(np.prod(grid)) // 4), END]
    return np.array(tokens, np.int32)


CASES = {
    "text": ((9,), ()),
    "one image": ((3, ("image", (1, 8, 8)), 5), ()),
    "two unequal images": ((1, ("image", (1, 4, 10)), 2, ("image", (1, 12, 6)), 7), ()),
    "adjacent images": ((("image", (1, 2, 2)), ("image", (1, 6, 4)), 1), ()),
    "odd aspect": ((2, ("image", (1, 2, 100)), 4), ()),
    "tall": ((2, ("image", (1, 100, 2)), 4), ()),
    "short video": ((2, ("video", (3, 8, 6)), 6), (1.0,)),
    "long video, time outruns space": ((2, ("video", (20, 4, 4)), 6), (1.0,)),
    "slow video": ((2, ("video", (5, 4, 4)), 30), (2.0,)),
    "fractional seconds": ((2, ("video", (7, 4, 6)), 6), (1 / 3,)),
    "mixed": (
        (4, ("image", (1, 6, 4)), 2, ("video", (4, 4, 8)), 3, ("image", (1, 2, 8)), ("video", (2, 6, 6)), 5),
        (0.5, 1.25),
    ),
}


@functools.cache
def _torch_model(tokens_per_second):
    torch = pytest.importorskip("torch")
    from transformers import Qwen2_5_VLConfig
    from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLModel

    torch.set_num_threads(1)
    config = Qwen2_5_VLConfig(
        text_config={
            "hidden_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "intermediate_size": 16,
            "vocab_size": 32,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]},
        },
        vision_config={
            "hidden_size": 16,
            "depth": 1,
            "num_heads": 2,
            "intermediate_size": 16,
            "out_hidden_size": 16,
            "tokens_per_second": tokens_per_second,
        },
        image_token_id=IMAGE,
        video_token_id=VIDEO,
        vision_start_token_id=START,
        vision_end_token_id=END,
    )
    return Qwen2_5_VLModel(config)


@pytest.mark.parity
@pytest.mark.parametrize("tokens_per_second", [2, 4, 25])
@pytest.mark.parametrize("case", CASES)
def test_positions_and_delta_equal_torch(case, tokens_per_second):
    import torch

    parts, seconds = CASES[case]
    tokens = _prompt(*parts)
    visuals = [part for part in parts if not isinstance(part, int)]
    grids = {kind: [grid for name, grid in visuals if name == kind] for kind in ("image", "video")}
    kinds = np.where(tokens == IMAGE, 1, np.where(tokens == VIDEO, 2, 0))
    expected, deltas = _torch_model(tokens_per_second).get_rope_index(
        torch.tensor(tokens, dtype=torch.long)[None],
        mm_token_type_ids=torch.tensor(kinds)[None],
        image_grid_thw=torch.tensor(grids["image"]) if grids["image"] else None,
        video_grid_thw=torch.tensor(grids["video"]) if grids["video"] else None,
        second_per_grid_ts=torch.tensor(seconds) if seconds else None,
    )
    found = mrope_positions(tokens, layout_of(tokens_per_second), grids["image"], grids["video"], seconds)
    assert found.positions.dtype == np.int32
    assert np.array_equal(found.positions, expected[:, 0].numpy())
    assert found.delta == int(deltas[0, 0])


def test_an_image_by_hand():
    # 2 text, start, a 2 x 3 grid of visual tokens, end, 1 text: rows and columns count from position 3.
    found = mrope_positions(_prompt(2, ("image", (1, 4, 6)), 1), layout_of(), [(1, 4, 6)])
    assert found.positions.tolist() == [
        [0, 1, 2, 3, 3, 3, 3, 3, 3, 6, 7],
        [0, 1, 2, 3, 3, 3, 4, 4, 4, 6, 7],
        [0, 1, 2, 3, 4, 5, 3, 4, 5, 6, 7],
    ]
    assert found.delta == 8 - 11


def test_a_text_end_has_equal_axes_and_follows_the_greatest_position():
    for parts, seconds in CASES.values():
        if seconds:
            continue  # A video's temporal positions may pass the text behind it, as they do in transformers.
        grids = [part[1] for part in parts if not isinstance(part, int)]
        positions = mrope_positions(_prompt(*parts), layout_of(), grids).positions
        assert len(set(positions[:, -1].tolist())) == 1
        assert positions[0, -1] == positions[:, :-1].max() + 1


@pytest.mark.parametrize(
    ("grids", "message"),
    [([], "no grid"), ([(1, 4, 4)], "needs 4 tokens"), ([(1, 4, 6), (1, 4, 6)], "more images")],
)
def test_runs_and_grids_must_match(grids, message):
    with pytest.raises(ValueError, match=message):
        mrope_positions(_prompt(2, ("image", (1, 4, 6)), 1), layout_of(), grids)
    with pytest.raises(ValueError, match="seconds_per_grid"):
        mrope_positions(_prompt(1), layout_of(), video_grids=[(1, 2, 2)])
