"""The Qwen2.5-VL vision tower: window and full attention over patches, 2-D RoPE, 2x2 merger.

One slot is one image (or one temporal patch of a video): slots never see each other. The patches of a slot come in
window order, each window padded to its full size, so a window layer is plain attention over blocks of `window_patches`.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from infimmr_jax.model.attention import choose_attention, vision_attention
from infimmr_jax.model.config import VisionConfig
from infimmr_jax.model.layers import DEFAULT_INIT, RESIDUAL_INIT, Dense, RMSNorm, SwiGLU, apply
from infimmr_jax.model.options import ModelOptions, run_layers
from infimmr_jax.model.rope import Rope, rotate, vision_rope
from infimmr_jax.names import JsonObject
from infimmr_jax.parallel.gather import whole_parameters


class VisionBlock(nn.Module):
    """One pre-norm transformer block; `full` chooses between full and window attention."""

    config: VisionConfig
    options: ModelOptions

    @nn.compact
    def __call__(
        self, x: Float[Array, "B N E"], rope: Rope, mask: Bool[Array, "B N"], full: Bool[Array, ""] | bool
    ) -> Float[Array, "B N E"]:
        config, options = self.config, self.options
        B, N, E = x.shape

        def dense(features: int, name: str, init: nn.initializers.Initializer = DEFAULT_INIT) -> Dense:
            dtypes: JsonObject = {"dtype": options.compute_dtype, "param_dtype": options.param_dtype}
            return Dense(features, kernel_init=init, name=name, **dtypes)

        def norm(name: str) -> RMSNorm:
            return RMSNorm(config.rms_norm_eps, options.param_dtype, name=name)

        def over_windows(q: Array, k: Array, v: Array) -> Array:
            q_, k_, v_, mask_ = (x.reshape(-1, config.window_patches, *x.shape[2:]) for x in (q, k, v, mask))
            return vision_attention(q_, k_, v_, mask_).reshape(q.shape)

        def over_all(q: Array, k: Array, v: Array) -> Array:
            implementation = choose_attention(options.attention, options.compute_dtype)
            return vision_attention(q, k, v, mask, implementation)

        qkv = dense(3 * E, "qkv")(norm("norm1")(x)).reshape(B, N, 3, config.num_heads, config.head_dim)
        q, k, v = rotate(qkv[:, :, 0], rope), rotate(qkv[:, :, 1], rope), qkv[:, :, 2]
        if isinstance(full, bool):
            mixed = over_all(q, k, v) if full else over_windows(q, k, v)
        else:
            mixed = jax.lax.cond(full, over_all, over_windows, q, k, v)
        x = x + dense(E, "proj", RESIDUAL_INIT)(mixed.reshape(B, N, E))
        mlp = SwiGLU(E, config.intermediate_size, True, options.compute_dtype, options.param_dtype, name="mlp")
        return x + mlp(norm("norm2")(x))


class PatchMerger(nn.Module):
    """Four neighbouring patches become one visual token of the decoder's width."""

    config: VisionConfig
    options: ModelOptions

    @nn.compact
    def __call__(self, x: Float[Array, "B N E"]) -> Float[Array, "B M O"]:
        config, options = self.config, self.options
        wide = config.hidden_size * config.merge_unit

        def dense(features: int, name: str) -> Dense:
            return Dense(features, dtype=options.compute_dtype, param_dtype=options.param_dtype, name=name)

        x = RMSNorm(config.rms_norm_eps, options.param_dtype, name="norm")(x)
        x = x.reshape(x.shape[0], x.shape[1] // config.merge_unit, wide)
        return dense(config.out_hidden_size, "fc2")(nn.gelu(dense(wide, "fc1")(x), approximate=False))


def _patch_embed(config: VisionConfig, options: ModelOptions) -> Dense:
    return Dense(config.hidden_size, use_bias=False, dtype=options.compute_dtype, param_dtype=options.param_dtype)


def init_vision(key: Array, config: VisionConfig, options: ModelOptions) -> dict:
    """Random parameters of the vision tower; the blocks are stacked on axis 0."""
    keys = jax.random.split(key, config.depth + 2)
    x = jnp.zeros((1, config.window_patches, config.hidden_size), options.compute_dtype)
    rope = vision_rope(jnp.zeros((1, config.window_patches, 2), jnp.int32), config)
    mask = jnp.ones((1, config.window_patches), bool)
    block = VisionBlock(config, options)
    patches = jnp.zeros((1, config.patch_dim))
    return {
        "patch_embed": _patch_embed(config, options).init(keys[0], patches)["params"],
        "blocks": jax.vmap(lambda k: block.init(k, x, rope, mask, True)["params"])(keys[2:]),
        "merger": PatchMerger(config, options).init(keys[1], x)["params"],
    }


@jax.named_scope("vision")
def vision_forward(
    params: dict,
    config: VisionConfig,
    options: ModelOptions,
    patches: Float[Array, "B N X"],
    positions: Int[Array, "B N 2"],
    mask: Bool[Array, "B N"],
) -> Float[Array, "B M O"]:
    """Visual tokens of B image slots; rows of padding hold values nobody reads."""
    ends = {name: params[name] for name in ("patch_embed", "merger")}
    ends = whole_parameters(ends, "visual", options.compute_dtype)
    x = apply(_patch_embed(config, options), ends["patch_embed"], patches.astype(options.compute_dtype))
    rope = vision_rope(positions, config)
    full = np.isin(np.arange(config.depth), config.fullatt_block_indexes)
    block = VisionBlock(config, options)

    def layer(x: Array, layer_params: dict, flag: Array | bool, _: None) -> tuple[Array, None]:
        return apply(block, layer_params, x, rope, mask, flag), None

    x, _ = run_layers(layer, x, params["blocks"], full, options)
    return apply(PatchMerger(config, options), ends["merger"], x)
