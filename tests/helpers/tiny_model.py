"""A small architecture, random weights and random prompts for tests that compare our model with itself."""

import dataclasses
import functools
from typing import Any

import jax
import numpy as np
from published import GEOMETRY

from infimmr_jax.model.config import ModelConfig, TextConfig, TokenIds, VisionConfig
from infimmr_jax.model.family import Model
from infimmr_jax.model.hf_table import leaf_paths
from infimmr_jax.model.options import ModelOptions
from infimmr_jax.preprocess.batching import PromptBatch, collate
from infimmr_jax.preprocess.layout import VisionLayout
from infimmr_jax.preprocess.prompts import EncodedPrompt, Picture, PromptPlan, plan_text
from infimmr_jax.preprocess.tokenizer import train_tokenizer

IMAGES = (3, 48)


@functools.cache
def tokenizer():
    return train_tokenizer(["how many cats are in the picture"], 300)


@functools.cache
def layout() -> VisionLayout:
    names = ("image_pad", "video_pad", "vision_start", "vision_end")
    ids = (tokenizer().convert_tokens_to_ids(f"<|{name}|>") for name in names)
    return VisionLayout(*ids, **GEOMETRY | {"window_size": 56})


def tiny(tied: bool = True, **options: Any) -> Model:
    """Two groups of (window, full) vision blocks and three decoder layers of 4 heads on 2."""
    ids = layout()
    config = ModelConfig(
        text=TextConfig(
            vocab_size=304,
            hidden_size=64,
            num_layers=3,
            num_heads=4,
            num_kv_heads=2,
            head_dim=16,
            intermediate_size=96,
            mrope_section=(2, 3, 3),
            rope_theta=1e4,
            tie_word_embeddings=tied,
        ),
        vision=VisionConfig(
            depth=4,
            hidden_size=32,
            num_heads=2,
            intermediate_size=64,
            out_hidden_size=64,
            fullatt_block_indexes=(1, 3),
            window_size=56,
        ),
        tokens=TokenIds(
            pad=tokenizer().pad_token_id,
            eos=tokenizer().eos_token_id,
            vision_start=ids.vision_start_token_id,
            vision_end=ids.vision_end_token_id,
            image=ids.image_token_id,
            video=ids.video_token_id,
        ),
    )
    return Model(config, ModelOptions(**options))


def random_params(model: Model, seed: int = 0) -> dict:
    """Unit-variance layers, biases and scales that matter."""
    numbers = np.random.default_rng(seed)

    def leaf(path: tuple[str, ...], shape: tuple[int, ...]) -> np.ndarray:
        values = numbers.standard_normal(shape, np.float32)
        if path[-1] == "scale":
            return 1 + 0.3 * values
        if path[-1] == "bias":
            return 0.3 * values
        return values * (shape[-1] if path[-1] == "embedding" else shape[-2]) ** -0.5

    tree = model.abstract_params()
    return jax.tree.unflatten(jax.tree.structure(tree), [leaf(path, one.shape) for path, one in leaf_paths(tree)])


def prompt(text: str, *grids: tuple[int, int], seed: int = 0) -> EncodedPrompt:
    """A prompt that shows pictures of these (rows, columns) of patches, with random pixels."""
    pictures = [Picture(b"", (1, *grid)) for grid in grids]
    plan = plan_text("<image>" * len(grids) + text, pictures, tokenizer(), layout())
    numbers = np.random.default_rng(seed)
    patches = [numbers.standard_normal((rows * columns, 1176), np.float32) for rows, columns in grids]
    fields = {field.name: getattr(plan, field.name) for field in dataclasses.fields(PromptPlan)}
    return EncodedPrompt(**fields, patches=tuple(patches))


def mixed_prompts() -> list[EncodedPrompt]:
    """No image, one, and two unequal ones whose windows are not full."""
    return [
        prompt("how many cats are in the picture"),
        prompt("how", (4, 6), seed=1),
        prompt("cats", (6, 6), (2, 10), seed=2),
    ]


def mixed_batch(length: int = 48, images: tuple[int, int] = IMAGES, rows: int = 3) -> PromptBatch:
    """`mixed_prompts` in one bucket."""
    return collate(mixed_prompts(), rows, length, (images[0], max(images[1], 64)), layout())
