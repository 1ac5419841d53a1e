"""Model: an architecture and how it is computed, with the verbs over its parameters; FAMILIES by `model_type`.

The verbs are pure functions of parameters and arrays. A model is hashable: it can be a static argument of jitted
functions. Whoever computes with a model needs this module and `trunk` alone.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from infimmr_jax.config import ConfigError
from infimmr_jax.model import decoder, vision
from infimmr_jax.model.config import ModelConfig, TokenIds, config_from_hf, read_tree, to_hf_config, vision_layout
from infimmr_jax.model.hf_table import TABLE, HubTensor, Layout, hub_tensors
from infimmr_jax.model.options import PLAIN, ModelOptions
from infimmr_jax.model.presets import PRESETS
from infimmr_jax.model.trunk import BranchStart, LayerCache, LayerTrunk, Params, Trunk
from infimmr_jax.names import JsonObject
from infimmr_jax.parallel.sequence import lay
from infimmr_jax.preprocess.batching import PromptBatch
from infimmr_jax.preprocess.json_file import shorten
from infimmr_jax.preprocess.layout import VisionLayout
from infimmr_jax.preprocess.packing import PackedBatch


@dataclasses.dataclass(frozen=True)
class Family:
    """What models of one `model_type` do not share with others: their files, their vision tower, published sizes.

    `read` makes a configuration of the tree of a config.json (and the file's path, for errors), `write` the tree of a
    configuration and a dtype's name. `init_tower` and `tower` are the parameters and the forward of the tower. `table`
    names every parameter's tensors in a model directory.
    """

    read: Callable[[JsonObject, Path], ModelConfig]
    write: Callable[[ModelConfig, str], JsonObject]
    init_tower: Callable[..., Params]
    tower: Callable[..., Float[Array, "B M E"]]
    table: tuple[tuple[str, str, Layout], ...]
    presets: Mapping[str, ModelConfig]


FAMILIES: dict[str, Family] = {
    "qwen2_5_vl": Family(
        read=config_from_hf,
        write=to_hf_config,
        init_tower=vision.init_vision,
        tower=vision.vision_forward,
        table=TABLE,
        presets=PRESETS,
    ),
}


@dataclasses.dataclass(frozen=True)
class Model:
    """One model without its numbers: architecture, how it is computed, and the family that it belongs to."""

    config: ModelConfig
    options: ModelOptions = PLAIN
    model_type: str = "qwen2_5_vl"

    @property
    def family(self) -> Family:
        return FAMILIES[self.model_type]

    @property
    def tokens(self) -> TokenIds:
        return self.config.tokens

    @property
    def vocab_size(self) -> int:
        return self.config.text.vocab_size

    @property
    def layout(self) -> VisionLayout:
        """What preprocessing must know of the model."""
        return vision_layout(self.config)

    def init(self, key: Array) -> Params:
        """Make random parameters: {"visual": .., "decoder": ..}; layers are stacked on axis 0."""
        visual, text = jax.random.split(key)
        return {
            "visual": self.family.init_tower(visual, self.config.vision, self.options),
            "decoder": decoder.init_decoder(text, self.config.text, self.options),
        }

    def abstract_params(self) -> Params:
        """Shapes and dtypes of the parameters, without making them."""
        return jax.eval_shape(lambda: self.init(jax.random.key(0)))

    def tensors(self) -> list[HubTensor]:
        """Every tensor of a model directory, layer by layer."""
        return hub_tensors(self.family.table, self.abstract_params(), self.config)

    def hf_config(self, dtype: str = "float32") -> JsonObject:
        """The tree of the config.json of a model directory."""
        return self.family.write(self.config, dtype)

    def embed_images(
        self,
        params: Params,
        patches: Float[Array, "B N X"],
        positions: Int[Array, "B N 2"],
        mask: Bool[Array, "B N"],
    ) -> Float[Array, "B M E"]:
        """Compute the visual tokens of B image slots of N patches; only `params["visual"]` is read."""
        given = patches, positions, mask
        return self.family.tower(params["visual"], self.config.vision, self.options, *given)

    def embed(self, params: Params, batch: PromptBatch | PackedBatch) -> Float[Array, "B S E"]:
        """Embed tokens, with the visual tokens of the batch's image slots put in place.

        Slots of prompts are their own row's, slots of packed rows are the whole batch's; `image_index` counts alike.
        """
        x = decoder.embed_tokens(params["decoder"], batch.tokens, self.options)
        if batch.patches.size == 0:
            return x
        slots = [batch.patches, batch.patch_positions, batch.patch_mask]
        by_row = isinstance(batch, PromptBatch)
        if by_row:
            slots = [lay(part.reshape(-1, *part.shape[2:]), "branches") for part in slots]
        visual = self.embed_images(params, *slots)
        index = jnp.maximum(batch.image_index, 0)
        if by_row:
            visual = visual.reshape(x.shape[0], -1, visual.shape[-1])
            placed = jnp.take_along_axis(visual, index[..., None], axis=1)
        else:
            placed = visual.reshape(-1, visual.shape[-1])[index]
        return jnp.where((batch.image_index >= 0)[..., None], placed.astype(x.dtype), x)

    def prompt_hidden(self, params: Params, batch: PromptBatch) -> tuple[Float[Array, "P S E"], Trunk]:
        """Final hidden states (after the norm) of the prompts, and their trunk."""
        x, text = self.embed(params, batch), self.config.text
        mask = jnp.arange(batch.tokens.shape[1]) < batch.lengths[:, None]
        positions = jnp.moveaxis(batch.positions, 1, -1)
        x, k, v = decoder.trunk_layers(params["decoder"], text, self.options, x, positions, mask)
        start = BranchStart(mask=mask, bridge=batch.bridge, next_position=batch.next_position)
        return decoder.final_norm(params["decoder"], x, text), Trunk(k, v, start)

    def trunk(self, params: Params, batch: PromptBatch) -> Trunk:
        """Compute vision once and prompt once: everything the G branches of each prompt share."""
        return self.prompt_hidden(params, batch)[1]

    def branch(self, params: Params, trunk: Trunk, responses: Int[Array, "P G R"]) -> Float[Array, "P G R E"]:
        """Hidden states that predict every response token, teacher forced, for all G responses of every prompt."""
        # The bridge (last prompt token) predicts the first of them, each of them the next.
        bridge = jnp.broadcast_to(trunk.start.bridge[:, None, None], (*responses.shape[:2], 1))
        inputs = jnp.concatenate([bridge.astype(responses.dtype), responses[..., :-1]], axis=-1)
        return decoder.branch_layers(params["decoder"], self.config.text, self.options, trunk, inputs)

    def packed(self, params: Params, batch: PackedBatch) -> Float[Array, "B T E"]:
        """Final hidden states (after the norm) of packed rows; each sequence is computed as if it were alone."""
        x, positions = self.embed(params, batch), jnp.moveaxis(batch.positions, 1, -1)
        text = self.config.text
        return decoder.packed_layers(params["decoder"], text, self.options, x, positions, batch.segments)

    def decode_inputs(self, params: Params, trunk: Trunk) -> tuple[Params, tuple[LayerTrunk, ...]]:
        """Weights, and keys and values of the trunk, as `decode` reads them: made once, before a token loop."""
        return decoder.decode_inputs(params["decoder"], self.config.text, self.options, trunk)

    def empty_caches(self, P: int, G: int, R: int) -> tuple[LayerCache, ...]:
        """One pair of zero caches per layer, for R tokens of P x G branches."""
        return decoder.empty_caches(self.config.text, P, G, R, self.options.compute_dtype)

    def decode(
        self,
        weights: Params,
        start: BranchStart,
        kv: tuple[LayerTrunk, ...],
        tokens: Int[Array, "P G"],
        slot: Int[Array, ""],
        caches: tuple[LayerCache, ...],
    ) -> tuple[Float[Array, "P G E"], tuple[LayerCache, ...]]:
        """Final hidden states of one token of every branch, and the caches with it in `slot`."""
        return decoder.decode_layers(weights, self.config.text, self.options, start, kv, tokens, slot, caches)

    def head_kernel(self, params: Params) -> Float[Array, "E V"]:
        """The matrix that turns final hidden states into logits."""
        return decoder.head_kernel(params["decoder"], self.config.text)

    def logits(self, params: Params, hidden: Float[Array, "*lead E"]) -> Float[Array, "*lead V"]:
        """Float32 logits of hidden states: for a few rows; long sequences go through `token_logprobs`."""
        kernel = self.head_kernel(params).astype(hidden.dtype)
        return jnp.einsum("...e,ev->...v", hidden, kernel, preferred_element_type=jnp.float32)


def read_model(directory: Path, options: ModelOptions = PLAIN) -> Model:
    """Read the architecture of a Hugging Face directory from its config.json, of whichever family it is.

    Raises ConfigError when there is none, or when its `model_type` is not in FAMILIES.
    """
    path = directory / "config.json"
    tree = read_tree(directory)
    model_type = tree.get("model_type")
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        near = difflib.get_close_matches(str(model_type), FAMILIES, n=1)
        raise ConfigError(
            f"{path} says model_type {shorten(model_type)}; only {', '.join(map(repr, FAMILIES))} is supported"
            + (f" (the nearest is {near[0]!r})" if near else "")
        )
    return Model(FAMILIES[model_type].read(tree, path), options, model_type)


def preset_model(name: str, options: ModelOptions = PLAIN) -> Model:
    """The model of a published size; raises ConfigError, naming all, when there is none of that name."""
    for model_type, family in FAMILIES.items():
        if name in family.presets:
            return Model(family.presets[name], options, model_type)
    known = [preset for family in FAMILIES.values() for preset in family.presets]
    raise ConfigError(f"there is no published size {name!r}; choose one of {', '.join(known)}")
