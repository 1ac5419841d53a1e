"""The Qwen2 decoder of Qwen2.5-VL in three forms: trunk (prompts), branches (whole responses), decode (one token)."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from infimmr_jax.model.attention import branch_attention, choose_attention, decode_attention, trunk_attention
from infimmr_jax.model.config import TextConfig
from infimmr_jax.model.layers import RESIDUAL_INIT, Dense, RMSNorm, SwiGLU, apply
from infimmr_jax.model.options import ModelOptions, layer_slice, run_layers
from infimmr_jax.model.rope import Rope, decoder_rope, rotate
from infimmr_jax.model.trunk import BranchStart, LayerCache, LayerTrunk, Params, Trunk
from infimmr_jax.names import JsonObject
from infimmr_jax.parallel.gather import whole_parameters
from infimmr_jax.parallel.sequence import lay
from infimmr_jax.preprocess.batching import Numbers


class DecoderLayer(nn.Module):
    """One pre-norm decoder layer; the attention form is chosen by which method is applied."""

    config: TextConfig
    options: ModelOptions

    def setup(self) -> None:
        config, options = self.config, self.options
        self.attention = choose_attention(options.attention, options.compute_dtype)
        dtypes: JsonObject = {"dtype": options.compute_dtype, "param_dtype": options.param_dtype}
        self.input_norm = RMSNorm(config.rms_norm_eps, options.param_dtype)
        self.post_norm = RMSNorm(config.rms_norm_eps, options.param_dtype)
        self.q = Dense(config.num_heads * config.head_dim, **dtypes)
        self.k = Dense(config.num_kv_heads * config.head_dim, **dtypes)
        self.v = Dense(config.num_kv_heads * config.head_dim, **dtypes)
        self.o = Dense(config.hidden_size, use_bias=False, kernel_init=RESIDUAL_INIT, **dtypes)
        self.mlp = SwiGLU(
            config.hidden_size, config.intermediate_size, False, options.compute_dtype, options.param_dtype
        )

    def _project(self, x: Array, rope: Rope) -> tuple[Array, Array, Array]:
        """Rotated queries [.., H, D] and keys, values [.., K, D] of normalised inputs."""
        config = self.config
        x = self.input_norm(x)
        q = self.q(x).reshape(*x.shape[:-1], config.num_heads, config.head_dim)
        k = self.k(x).reshape(*x.shape[:-1], config.num_kv_heads, config.head_dim)
        v = self.v(x).reshape(*x.shape[:-1], config.num_kv_heads, config.head_dim)
        return rotate(q, rope), rotate(k, rope), v

    def _finish(self, x: Array, mixed: Array) -> Array:
        x = x + self.o(mixed.reshape(*x.shape[:-1], -1))
        return x + self.mlp(self.post_norm(x))

    def trunk(
        self,
        x: Float[Array, "P S E"],
        rope: Rope,
        mask: Bool[Array, "P S"],
        segments: Int[Array, "P S"] | None = None,
    ) -> tuple[Array, tuple[Array, Array]]:
        """The prompts, or rows of several sequences; also returns their keys and values [P, K, S, D]."""
        x = lay(x, "tokens")
        q, k, v = self._project(x, rope)
        k, v = lay(k.swapaxes(-2, -3), "keys"), lay(v.swapaxes(-2, -3), "keys")
        return self._finish(x, trunk_attention(q, k, v, mask, self.attention, segments)), (k, v)

    def branch(
        self,
        x: Float[Array, "P G R E"],
        rope: Rope,
        trunk_k: Float[Array, "P K S D"],
        trunk_v: Float[Array, "P K S D"],
        trunk_mask: Bool[Array, "P S"],
    ) -> Float[Array, "P G R E"]:
        """Whole responses, teacher forced, over the trunk they share."""
        q, k, v = self._project(x, rope)
        k, v = k.swapaxes(-2, -3), v.swapaxes(-2, -3)
        return self._finish(x, branch_attention(q, k, v, trunk_k, trunk_v, trunk_mask, self.attention))

    def decode(
        self,
        x: Float[Array, "P G E"],
        rope: Rope,
        trunk_k: Float[Array, "P K S D"],
        trunk_v: Float[Array, "P K S D"],
        trunk_mask: Bool[Array, "P S"],
        cache: LayerCache,
        slot: Int[Array, ""],
    ) -> tuple[Float[Array, "P G E"], LayerCache]:
        """One token of every branch; writes its key and value to `slot` of the cache."""
        q, k, v = self._project(x, rope)
        keys = jax.lax.dynamic_update_index_in_dim(cache[0], k[:, :, :, None], slot, axis=3)
        values = jax.lax.dynamic_update_index_in_dim(cache[1], v[:, :, :, None], slot, axis=3)
        mixed = decode_attention(q, keys, values, trunk_k, trunk_v, trunk_mask, slot)
        return self._finish(x, mixed), (keys, values)


def init_decoder(key: Array, config: TextConfig, options: ModelOptions) -> Params:
    """Random parameters of the decoder; the layers are stacked on axis 0."""
    keys = jax.random.split(key, config.num_layers + 2)
    layer = DecoderLayer(config, options)
    x = jnp.zeros((1, 1, config.hidden_size), options.compute_dtype)
    rope = decoder_rope(jnp.zeros((1, 1, 3), jnp.int32), config)
    mask = jnp.ones((1, 1), bool)

    def init_layer(key: Array) -> Params:
        return layer.init(key, x, rope, mask, method=DecoderLayer.trunk)["params"]

    # Unit-variance logits at the start: the final norm gives rows of length sqrt(E).
    spread = nn.initializers.normal(config.hidden_size**-0.5)
    params = {
        "embed": {"embedding": spread(keys[0], (config.vocab_size, config.hidden_size), options.param_dtype)},
        "layers": jax.vmap(init_layer)(keys[2:]),
        "norm": {"scale": jnp.ones((config.hidden_size,), options.param_dtype)},
    }
    if not config.tie_word_embeddings:
        params["lm_head"] = {"kernel": spread(keys[1], (config.hidden_size, config.vocab_size), options.param_dtype)}
    return params


def embed_tokens(params: Params, tokens: Int[Numbers, "*lead"], options: ModelOptions) -> Float[Array, "*lead E"]:
    """Rows of the embedding table in the compute dtype."""
    return params["embed"]["embedding"][tokens].astype(options.compute_dtype)


def head_kernel(params: Params, config: TextConfig) -> Float[Array, "E V"]:
    """The matrix that turns final hidden states into logits."""
    return params["embed"]["embedding"].T if config.tie_word_embeddings else params["lm_head"]["kernel"]


def final_norm(params: Params, x: Float[Array, "*lead E"], config: TextConfig) -> Float[Array, "*lead E"]:
    """The last normalisation, before the head."""
    return apply(RMSNorm(config.rms_norm_eps), params["norm"], x)


@jax.named_scope("trunk")
def trunk_layers(
    params: Params,
    config: TextConfig,
    options: ModelOptions,
    x: Float[Array, "P S E"],
    positions: Int[Array, "P S 3"],
    mask: Bool[Array, "P S"],
) -> tuple[Float[Array, "P S E"], Float[Array, "L P K S D"], Float[Array, "L P K S D"]]:
    """Run embedded prompts through all layers; returns the last hidden states (before the norm), keys and values."""
    rope = decoder_rope(positions, config)
    layer = DecoderLayer(config, options)

    def step(x: Array, layer_params: Params, _: object, __: None) -> tuple[Array, tuple[Array, Array]]:
        return apply(layer, layer_params, x, rope, mask, method=DecoderLayer.trunk)

    x, (k, v) = run_layers(step, x, params["layers"], np.zeros(config.num_layers, bool), options)
    return x, k, v


def packed_layers(
    params: Params,
    config: TextConfig,
    options: ModelOptions,
    x: Float[Array, "B T E"],
    positions: Int[Array, "B T 3"],
    segments: Int[Array, "B T"],
) -> Float[Array, "B T E"]:
    """Final hidden states (after the norm) of rows of several sequences; segment 0 is padding."""
    rope = decoder_rope(positions, config)
    layer = DecoderLayer(config, options)

    def step(x: Array, layer_params: Params, _: object, __: None) -> tuple[Array, None]:
        return apply(layer, layer_params, x, rope, segments > 0, segments, method=DecoderLayer.trunk)[0], None

    x, _ = run_layers(step, x, params["layers"], np.zeros(config.num_layers, bool), options)
    return final_norm(params, x, config)


@jax.named_scope("branch")
def branch_layers(
    params: Params, config: TextConfig, options: ModelOptions, trunk: Trunk, inputs: Int[Array, "P G R"]
) -> Float[Array, "P G R E"]:
    """Final hidden states (after the norm) of whole branches; `inputs` begin with the bridge token."""
    rope = decoder_rope(branch_positions(trunk.start, jnp.arange(inputs.shape[-1])), config)
    layer = DecoderLayer(config, options)

    def step(x: Array, layer_params: Params, _: object, kv: tuple[Array, Array]) -> tuple[Array, None]:
        args = (x, rope, *kv, trunk.start.mask)
        return apply(layer, layer_params, *args, method=DecoderLayer.branch), None

    x = embed_tokens(params, inputs, options)
    flags = np.zeros(config.num_layers, bool)
    x, _ = run_layers(step, x, params["layers"], flags, options, (trunk.k, trunk.v))
    return final_norm(params, x, config)


def decode_inputs(
    params: Params, config: TextConfig, options: ModelOptions, trunk: Trunk
) -> tuple[Params, tuple[LayerTrunk, ...]]:
    """Split what token loops read by layers: weights ("decoder", and a tuple of "layers"), and the trunk's K and V.

    Sliced before a loop begins: inside it, XLA copies every layer's matrices again for every token. On a mesh the
    weights are gathered here, once and in the compute dtype, and not with every token.
    """
    slices = [layer_slice((params["layers"], trunk.k, trunk.v), index) for index in range(config.num_layers)]
    layers = tuple(whole_parameters(layer, "layers", options.compute_dtype) for layer, _, _ in slices)
    ends = {name: part for name, part in params.items() if name != "layers"}
    weights = {"decoder": whole_parameters(ends, "decoder", options.compute_dtype), "layers": layers}
    return weights, tuple((k, v) for _, k, v in slices)


@jax.named_scope("decode")
def decode_layers(
    weights: Params,
    config: TextConfig,
    options: ModelOptions,
    start: BranchStart,
    kv: tuple[LayerTrunk, ...],
    tokens: Int[Array, "P G"],
    slot: Int[Array, ""],
    caches: tuple[LayerCache, ...],
) -> tuple[Float[Array, "P G E"], tuple[LayerCache, ...]]:
    """Final hidden states of one token of every branch, and the caches with it; `weights`, `kv` from `decode_inputs`.

    The layers are unrolled: a scan inside the token loop copies caches.
    """
    rope = decoder_rope(branch_positions(start, slot[None])[:, :, 0], config)
    layer = DecoderLayer(config, options)
    x = embed_tokens(weights["decoder"], tokens, options)
    updated = []
    for layer_params, (k, v), cache in zip(weights["layers"], kv, caches, strict=True):
        x, new = apply(layer, layer_params, x, rope, k, v, start.mask, cache, slot, method=DecoderLayer.decode)
        updated.append(new)
    return final_norm(weights["decoder"], x, config), tuple(updated)


def branch_positions(start: BranchStart, slots: Int[Array, "R"]) -> Int[Array, "P 1 R 3"]:
    """mRoPE positions of branch slots: text, so the three axes are equal, and the same for all branches of a prompt."""
    positions = start.next_position[:, None, None] + slots
    return jnp.broadcast_to(positions[..., None], (*positions.shape, 3))


def empty_caches(config: TextConfig, P: int, G: int, R: int, dtype: jnp.dtype) -> tuple[LayerCache, ...]:
    """One pair of zero caches per layer, for R tokens of P x G branches."""
    shape = (P, G, config.num_kv_heads, R, config.head_dim)
    return tuple((jnp.zeros(shape, dtype), jnp.zeros(shape, dtype)) for _ in range(config.num_layers))
