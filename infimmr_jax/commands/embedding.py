"""Pictures as vectors of a policy's own vision tower, to find copies of benchmark pictures."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from PIL import Image

from infimmr_jax.config import ConfigError, RunConfig
from infimmr_jax.data.curation import Embed
from infimmr_jax.data.image_similarity import trimmed
from infimmr_jax.data.pictures import open_image
from infimmr_jax.model.family import read_model
from infimmr_jax.model.hf import load_params
from infimmr_jax.model.options import model_options
from infimmr_jax.model.trunk import Params
from infimmr_jax.parallel.hosts import row_share
from infimmr_jax.parallel.mesh import batch_divisor, make_mesh, replicated, shard_batch
from infimmr_jax.preprocess.images import patchify
from infimmr_jax.preprocess.windows import window_layout

SIDE = 224  # pixels every picture is stretched to, rounded to whole windows: one program, and stretching does no harm
CELLS = 2  # the picture is pooled in CELLS x CELLS parts: a mean over all of it forgets where things are
BATCH = 16


def vision_embedder(config: RunConfig, directory: Path | None = None) -> Embed:
    """A function from pictures to unit vectors of the vision tower of a model directory (default: `model.path`).

    The margin is cut off, the picture stretched to a square, and the visual tokens averaged over four quarters.
    Raises ConfigError when there is no model.
    """
    directory = directory or config.model.path
    if directory is None:
        raise ConfigError(
            "data.curation.image_cosine needs a trained vision tower: set model.path to a model directory"
        )
    model = read_model(directory, model_options(config.model.model_copy(update={"path": directory})))
    layout, mesh = model.layout, make_mesh(config.mesh)
    params = load_params(directory, model, mesh, only="visual")
    side = -(-SIDE // layout.window_size) * layout.window_size
    grid = (side // layout.patch_size,) * 2
    windows = window_layout(grid, layout.window_size, layout.patch_size, layout.merge_size)
    merged = grid[0] // layout.merge_size
    rows = -(-BATCH // batch_divisor(mesh)) * batch_divisor(mesh)

    @functools.partial(jax.jit, out_shardings=replicated(mesh))
    def tower(params: Params, patches: Float[Array, "B N X"]) -> Float[Array, "B D"]:
        B, N, _ = patches.shape
        places = jnp.zeros((N, 2), jnp.int32).at[windows.slot_of_patch].set(windows.positions)
        places, mask = jnp.broadcast_to(places, (B, N, 2)), jnp.ones((B, N), bool)
        tokens = model.embed_images(params, patches, places, mask).astype(jnp.float32)
        tokens = tokens[:, windows.visual_slot].reshape(B, merged, merged, -1)
        part = merged // CELLS
        tokens = tokens.reshape(B, CELLS, part, CELLS, part, -1).mean((2, 4))
        return tokens.reshape(B, -1) / jnp.linalg.norm(tokens.reshape(B, -1), axis=-1, keepdims=True)

    def patches_of(source: str | bytes) -> np.ndarray:
        image = trimmed(open_image(source, config.data.image))
        square = image.resize((side, side), Image.Resampling.BICUBIC)
        flat = patchify(square, (1, *grid), layout.patch_size, layout.merge_size, layout.temporal_patch_size)
        return flat[np.argsort(windows.slot_of_patch)]

    def embed(images: Sequence[str | bytes]) -> Float[np.ndarray, "images width"]:
        found = []
        share = row_share(mesh).rows(rows)
        for start in range(0, len(images), rows):
            chunk = images[start : start + rows]
            mine = chunk[share.start : share.stop]
            filled = np.zeros((len(share), grid[0] * grid[1], layout.patch_width), np.float32)
            for row, image in enumerate(mine):
                filled[row] = patches_of(image)
            with jax.set_mesh(mesh):
                found.append(np.asarray(tower(params, shard_batch(filled, mesh)))[: len(chunk)])
        return np.concatenate(found)

    return embed
