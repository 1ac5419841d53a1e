"""The vision tower layer by layer, its merger, and positions, against transformers' torch model in float32."""

import io
from pathlib import Path

import jax
import numpy as np
import pytest
import torch
from pair import OPTIONS, assert_close
from PIL import Image
from transformers import Qwen2VLImageProcessorPil

from infimmr_jax.config import DataSection, ImageSection
from infimmr_jax.model.options import layer_slice
from infimmr_jax.model.rope import vision_rope
from infimmr_jax.model.vision import VisionBlock, vision_forward
from infimmr_jax.preprocess.prompts import encode_plan, plan_picture, plan_text

pytestmark = pytest.mark.parity


def some_prompts(pair):
    return [
        pair.image("<image> and <image> how many", (6, 10), (2, 4)),
        pair.image("how many", (2, 26)),
        pair.video("sum", (2, 6, 4), 1.0),
    ]


def torch_layers(pair, prompts):
    """Outputs of every block (window order, without padding) and of the merger (prompt order) for all slots."""
    visual = pair.torch_model.model.visual
    kept = []
    hooks = [block.register_forward_hook(lambda _, __, output: kept.append(output)) for block in visual.blocks]
    patches, grids = [], []
    for prompt in prompts:
        patches += prompt.patches
        grids += [visual.grid for visual in prompt.visuals]
    with torch.no_grad():
        merged = visual(torch.from_numpy(np.concatenate(patches)), torch.tensor(grids)).pooler_output
    for hook in hooks:
        hook.remove()
    return [layer.numpy() for layer in kept], merged.numpy()


@pytest.mark.parametrize(
    "which",
    ["tied", pytest.param("untied", marks=pytest.mark.slow), pytest.param("real_heads", marks=pytest.mark.slow)],
)
def test_every_layer_and_the_merger(which, request):
    pair = request.getfixturevalue(which)
    prompts = some_prompts(pair)
    batch = pair.batch(prompts, rows=len(prompts))
    layers, merged = torch_layers(pair, prompts)
    config = pair.config.vision
    slots = [np.reshape(a, (-1, *a.shape[2:])) for a in (batch.patches, batch.patch_positions, batch.patch_mask)]
    patches, positions, mask = slots

    block = VisionBlock(config, OPTIONS)
    step = jax.jit(
        lambda x, params, full: block.apply({"params": params}, x, vision_rope(positions, config), mask, full)
    )
    x = patches @ pair.params["visual"]["patch_embed"]["kernel"]
    for index, theirs in enumerate(layers):
        x = step(x, layer_slice(pair.params["visual"]["blocks"], index), index in config.fullatt_block_indexes)
        ours = np.asarray(x)[mask]
        assert np.abs(ours - theirs).max() < 1e-4 * np.abs(theirs).max(), f"block {index}"

    run = jax.jit(lambda params: vision_forward(params, config, OPTIONS, patches, positions, mask))
    ours = np.asarray(run(pair.params["visual"])).reshape(len(prompts), -1, merged.shape[-1])
    shown = [row[index[index >= 0]] for row, index in zip(ours, batch.image_index, strict=True)]
    assert np.abs(np.concatenate(shown) - merged).max() < 1e-4 * np.abs(merged).max()


def test_positions_and_deltas_are_those_of_transformers(tied):
    prompts = [tied.image("how many cats"), *some_prompts(tied), tied.video("sum", (3, 6, 4), 0.25)]
    responses = np.full((len(prompts), 4), 20, np.int32)
    inputs = tied.torch_inputs(prompts, responses)
    names = ("input_ids", "mm_token_type_ids", "image_grid_thw", "video_grid_thw", "second_per_grid_ts")
    given = {name: inputs[name] for name in (*names, "attention_mask")}
    positions, deltas = tied.torch_model.model.get_rope_index(**given)
    batch = tied.batch(prompts, rows=len(prompts))
    for row, prompt in enumerate(prompts):
        theirs = positions[:, row].numpy()
        length = batch.lengths[row]
        assert np.array_equal(batch.positions[row, :, :length], theirs[:, :length])
        branch = batch.next_position[row] + np.arange(5)
        assert np.array_equal(np.broadcast_to(branch, (3, 5)), theirs[:, length : length + 5])
        assert branch[-1] + 1 - (length + 5) == deltas[row, 0] == prompt.positions.max() + 1 - len(prompt.tokens)


def test_from_png_to_logits(tied):
    """The whole way: an encoded picture through both preprocessings and both models."""
    numbers = np.random.default_rng(0)
    picture = Image.fromarray(numbers.integers(0, 255, (90, 131, 3), np.uint8))
    file = io.BytesIO()
    picture.save(file, "PNG")
    section = DataSection(image=ImageSection(min_pixels=56 * 56, max_pixels=100 * 28 * 28))
    shown = plan_picture(file.getvalue(), section.image, tied.layout)
    prompt = encode_plan(plan_text("<image>how many cats", [shown], tied.tokenizer, tied.layout), tied.layout, section)

    processor = Qwen2VLImageProcessorPil(min_pixels=56 * 56, max_pixels=100 * 28 * 28)
    theirs = processor(images=[picture], return_tensors="np")
    responses = numbers.integers(10, 250, (1, 5)).astype(np.int32)
    ids = np.concatenate([prompt.tokens, responses[0]])[None].astype(np.int64)
    assert (ids == tied.layout.image_token_id).sum() == theirs["image_grid_thw"].prod() // 4
    tied.torch_model.model.rope_deltas = None
    with torch.no_grad():
        logits = tied.torch_model(
            input_ids=torch.from_numpy(ids),
            mm_token_type_ids=torch.from_numpy((ids == tied.layout.image_token_id).astype(np.int64)),
            pixel_values=torch.from_numpy(theirs["pixel_values"]),
            image_grid_thw=torch.from_numpy(theirs["image_grid_thw"]),
        ).logits.numpy()
    assert_close(tied.our_logits(tied.batch([prompt]), responses), [logits[0]], 1e-4)


def test_video_frames_of_a_folder_to_logits(tied, tmp_path):
    """Four frames in a folder: two temporal patches, against torch given the same patches."""
    from infimmr_jax.config import VideoSection
    from infimmr_jax.preprocess.video import plan_video

    numbers = np.random.default_rng(3)
    for number in range(4):
        Image.fromarray(numbers.integers(0, 255, (60, 84, 3), np.uint8)).save(tmp_path / f"{number}.png")
    section = DataSection()
    video = plan_video(Path(tmp_path), VideoSection(), section.image, tied.layout)
    assert video.grid[0] == 2
    prompt = encode_plan(plan_text("<image>sum", [video], tied.tokenizer, tied.layout), tied.layout, section)
    responses = numbers.integers(10, 250, (1, 5)).astype(np.int32)
    ours = tied.our_logits(tied.batch([prompt], 1, prompt.length, prompt.image_shape), responses)
    assert_close(ours, tied.torch_logits([prompt], responses), 1e-4)
