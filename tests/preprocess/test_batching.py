"""Static batches: every array read back to the prompt it came from, and bucket choice against exhaustive search."""

import io
import itertools

import numpy as np
import pytest
from PIL import Image
from published import GEOMETRY

from infimmr_jax.config import DataSection, ImageSection, PromptSection
from infimmr_jax.data.records import DataError, Problem
from infimmr_jax.preprocess.batching import choose_bucket, collate, plan_buckets
from infimmr_jax.preprocess.layout import VisionLayout
from infimmr_jax.preprocess.prompts import encode_prompt
from infimmr_jax.preprocess.tokenizer import IMAGE_PAD, VIDEO_PAD, VISION_END, VISION_START, train_tokenizer

DATA = DataSection(max_prompt=512, max_images=3, image=ImageSection(min_pixels=28 * 28))


def _png(width, height):
    pixels = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


# Collating asks for the geometry alone.
LAYOUT = VisionLayout(0, 1, 2, 3, **GEOMETRY | {"window_size": 56})


@pytest.fixture(scope="module")
def encoded():
    tokenizer = train_tokenizer(["How many?"], 300)
    ids = tokenizer.convert_tokens_to_ids([IMAGE_PAD, VIDEO_PAD, VISION_START, VISION_END])
    layout = VisionLayout(*ids, **GEOMETRY | {"window_size": 56})
    sizes = {"none": [], "one": [(84, 56)], "two": [(56, 140), (140, 140)], "long": [(28, 280)]}
    return {
        name: encode_prompt(
            Problem(name, "How many?", "3", "math", images=tuple(_png(*size) for size in images)),
            "image",
            tokenizer,
            layout,
            DATA,
            PromptSection(instruction=""),
        )
        for name, images in sizes.items()
    }


@pytest.mark.parametrize("bucket", [(64, (2, 144)), (80, (3, 160))])
def test_every_array_leads_back_to_the_prompts(encoded, bucket):
    prompts = list(encoded.values())
    batch = collate(prompts, 4, *bucket, layout=LAYOUT)
    length, (slots, patch_slots) = bucket
    assert batch.tokens.shape == batch.image_index.shape == (4, length)
    assert batch.patches.shape == (4, slots, patch_slots, 1176)
    assert batch.row_mask.all()
    for row, prompt in enumerate(prompts):
        trunk = batch.lengths[row]
        assert [*batch.tokens[row, :trunk], batch.bridge[row]] == prompt.tokens.tolist()
        assert np.array_equal(batch.positions[row, :, :trunk], prompt.positions[:, :-1])
        assert (batch.next_position[row] == prompt.positions[:, -1]).all()
        assert not batch.tokens[row, trunk:].any()
        assert (batch.image_index[row, trunk:] == -1).all()
        assert batch.patch_mask[row].sum() == sum(len(patches) for patches in prompt.patches)
        assert not batch.patches[row][~batch.patch_mask[row]].any()
        _check_visual_tokens(batch, row, prompt, patch_slots)


def _check_visual_tokens(batch, row, prompt, patch_slots):
    """Each visual token leads to the four patches it is made of: right pixels, right rows and columns, same window."""
    flat_patches = batch.patches[row].reshape(-1, 1176)
    flat_positions = batch.patch_positions[row].reshape(-1, 2)
    index = batch.image_index[row]
    index = index[index >= 0]
    expected = [
        (number, line, column, prompt.patches[number].reshape(visual.grid[1] // 2, visual.grid[2] // 2, 4, 1176))
        for number, visual in enumerate(prompt.visuals)
        for line in range(visual.grid[1] // 2)
        for column in range(visual.grid[2] // 2)
    ]
    assert len(index) == len(expected)
    for found, (number, line, column, patches) in zip(index, expected, strict=True):
        assert found // (patch_slots // 4) == number
        members = slice(found * 4, found * 4 + 4)
        assert np.array_equal(flat_patches[members], patches[line, column])
        corners = [[2 * line + a, 2 * column + b] for a, b in itertools.product((0, 1), (0, 1))]
        assert flat_positions[members].tolist() == corners


def test_filler_rows_repeat_a_real_prompt(encoded):
    batch = collate([encoded["none"], encoded["one"]], 5, 64, (1, 64), layout=LAYOUT)
    assert batch.row_mask.tolist() == [True, True, False, False, False]
    for name in ("tokens", "lengths", "positions", "patches", "patch_mask", "image_index", "next_position", "bridge"):
        values = getattr(batch, name)
        assert all(np.array_equal(values[row], values[1]) for row in (2, 3, 4))


def test_a_text_batch_may_have_no_image_slots(encoded):
    batch = collate([encoded["none"]], 2, 32, (0, 0), layout=LAYOUT)
    assert batch.patches.shape == (2, 0, 0, 1176)
    assert batch.patch_positions.shape == (2, 0, 0, 2)
    assert (batch.image_index == -1).all()
    with_slots = collate([encoded["none"]], 2, 32, (1, 16), layout=LAYOUT)
    assert not with_slots.patch_mask.any()
    assert np.array_equal(batch.tokens, with_slots.tokens)


def test_the_cheapest_bucket_that_holds_all_is_chosen(encoded):
    prompts, images = (32, 64, 128), ((0, 0), (1, 64), (3, 64), (2, 160), (4, 160))
    chosen = {name: choose_bucket([prompt], prompts, images) for name, prompt in encoded.items()}
    # Windows of 16 patch slots: 84 x 56 pixels need 2 of them, 140 x 140 need 9, 28 x 280 need 5.
    assert [chosen[name][1] for name in ("none", "one", "two", "long")] == [(0, 0), (1, 64), (2, 160), (2, 160)]
    for name, prompt in encoded.items():
        assert chosen[name][0] == min(size for size in prompts if size >= prompt.length)
    assert choose_bucket(list(encoded.values()), prompts, images)[1] == (2, 160)
    # Two slots may cost less than one: 2 x 160 patch slots against 1 x 640.
    assert choose_bucket([encoded["one"]], prompts, ((1, 640), (2, 160)))[1] == (2, 160)


def test_what_fits_nowhere_is_named(encoded):
    with pytest.raises(DataError, match=r"problem two: .* fits none of data\.prompt_buckets \[8, 32\]"):
        choose_bucket(list(encoded.values()), (8, 32), ((4, 160),))
    with pytest.raises(DataError, match=r"problem two: 2 image slots of 144 patch slots fit none"):
        choose_bucket(list(encoded.values()), (64,), ((1, 160), (2, 64)))
    with pytest.raises(DataError, match="problem one"):
        collate([encoded["one"]], 1, 64, (0, 0), layout=LAYOUT)
    with pytest.raises(ValueError, match="1 to 2 prompts, got 3"):
        collate([encoded["none"]] * 3, 2, 64, (0, 0), layout=LAYOUT)
    with pytest.raises(ValueError, match="got 0"):
        collate([], 2, 64, (0, 0), layout=LAYOUT)


@pytest.mark.parametrize("seed", range(5))
def test_planned_buckets_are_close_to_the_best(seed):
    rng = np.random.default_rng(seed)
    lengths = rng.choice([17, 40, 41, 90, 200, 210], 60, p=[0.4, 0.2, 0.1, 0.1, 0.1, 0.1])
    images = [(0, 0) if n else (int(rng.integers(1, 3)), 64 * int(rng.integers(1, 12))) for n in rng.random(60) < 0.3]
    plan = plan_buckets(lengths.tolist(), images, max_prompt_buckets=3, max_image_buckets=3, least_saving=0.0)
    assert len(plan.prompts) <= 3
    assert len(plan.images) <= 3
    assert all(size % 8 == 0 for size in plan.prompts)

    def waste(sizes, needs):
        return sum(min(s[0] * s[1] for s in sizes if s[0] >= n[0] and s[1] >= n[1]) for n in needs)

    candidates = list(itertools.product(sorted({n[0] for n in images}), sorted({n[1] for n in images})))
    top = (max(n[0] for n in images), max(n[1] for n in images))
    best = min(waste([top, *pair], images) for pair in itertools.combinations(candidates, 2))
    assert waste(plan.images, images) <= 1.05 * best
    flat = [(1, int(-(-n // 8) * 8)) for n in lengths]
    options = sorted(set(flat))
    best = min(waste([options[-1], *pair], flat) for pair in itertools.combinations(options, 2))
    assert waste([(1, size) for size in plan.prompts], flat) <= 1.05 * best


def test_large_batches_need_their_greatest_member():
    lengths = [20] * 90 + [200] * 10
    shapes = [(0, 0)] * 100
    assert plan_buckets(lengths, shapes, max_prompt_buckets=2).prompts == (24, 200)
    # Nearly every batch of 64 prompts holds a long one: a short bucket would save next to nothing.
    assert plan_buckets(lengths, shapes, rows=64, max_prompt_buckets=2).prompts == (200,)
    assert plan_buckets(lengths, shapes, max_prompt_buckets=1).prompts == (200,)


def test_phases_that_do_not_mix_keep_their_own_shapes():
    lengths, shapes = [24] * 50 + [200] * 50, [(0, 0)] * 50 + [(1, 64)] * 50
    phases = ["text"] * 50 + ["image"] * 50
    assert plan_buckets(lengths, shapes, rows=32) == ((200,), ((1, 64),))
    assert plan_buckets(lengths, shapes, rows=32, groups=phases) == ((24, 200), ((0, 0), (1, 64)))


def test_a_bucket_that_saves_next_to_nothing_is_not_compiled():
    lengths = [192] * 50 + [200] * 50
    assert plan_buckets(lengths, [(0, 0)] * 100).prompts == (200,)
    assert plan_buckets(lengths, [(0, 0)] * 100, least_saving=0.01).prompts == (192, 200)


def test_no_prompts_is_said():
    with pytest.raises(ValueError, match="one length and one image shape"):
        plan_buckets([], [])
