"""The one table between the parameter tree and the tensor names of a Hugging Face Qwen2.5-VL directory."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import jax
import numpy as np
from jaxtyping import PyTree

from infimmr_jax.model.config import ModelConfig
from infimmr_jax.model.trunk import Params

Layout = Literal["same", "transposed", "patches"]
Names = Literal["hub", "transformers"]

# (parameter path, tensor name, layout). A name with {} is one tensor per layer, stacked on axis 0 of the parameter.
# `transposed`: PyTorch keeps kernels as [out, in]. `patches`: a Conv3d kernel [E, 3, 2, 14, 14], one step a patch.
TABLE: tuple[tuple[str, str, Layout], ...] = (
    ("visual/patch_embed/kernel", "visual.patch_embed.proj.weight", "patches"),
    ("visual/blocks/norm1/scale", "visual.blocks.{}.norm1.weight", "same"),
    ("visual/blocks/norm2/scale", "visual.blocks.{}.norm2.weight", "same"),
    ("visual/blocks/qkv/kernel", "visual.blocks.{}.attn.qkv.weight", "transposed"),
    ("visual/blocks/qkv/bias", "visual.blocks.{}.attn.qkv.bias", "same"),
    ("visual/blocks/proj/kernel", "visual.blocks.{}.attn.proj.weight", "transposed"),
    ("visual/blocks/proj/bias", "visual.blocks.{}.attn.proj.bias", "same"),
    ("visual/blocks/mlp/gate/kernel", "visual.blocks.{}.mlp.gate_proj.weight", "transposed"),
    ("visual/blocks/mlp/gate/bias", "visual.blocks.{}.mlp.gate_proj.bias", "same"),
    ("visual/blocks/mlp/up/kernel", "visual.blocks.{}.mlp.up_proj.weight", "transposed"),
    ("visual/blocks/mlp/up/bias", "visual.blocks.{}.mlp.up_proj.bias", "same"),
    ("visual/blocks/mlp/down/kernel", "visual.blocks.{}.mlp.down_proj.weight", "transposed"),
    ("visual/blocks/mlp/down/bias", "visual.blocks.{}.mlp.down_proj.bias", "same"),
    ("visual/merger/norm/scale", "visual.merger.ln_q.weight", "same"),
    ("visual/merger/fc1/kernel", "visual.merger.mlp.0.weight", "transposed"),
    ("visual/merger/fc1/bias", "visual.merger.mlp.0.bias", "same"),
    ("visual/merger/fc2/kernel", "visual.merger.mlp.2.weight", "transposed"),
    ("visual/merger/fc2/bias", "visual.merger.mlp.2.bias", "same"),
    ("decoder/embed/embedding", "model.embed_tokens.weight", "same"),
    ("decoder/layers/input_norm/scale", "model.layers.{}.input_layernorm.weight", "same"),
    ("decoder/layers/post_norm/scale", "model.layers.{}.post_attention_layernorm.weight", "same"),
    ("decoder/layers/q/kernel", "model.layers.{}.self_attn.q_proj.weight", "transposed"),
    ("decoder/layers/q/bias", "model.layers.{}.self_attn.q_proj.bias", "same"),
    ("decoder/layers/k/kernel", "model.layers.{}.self_attn.k_proj.weight", "transposed"),
    ("decoder/layers/k/bias", "model.layers.{}.self_attn.k_proj.bias", "same"),
    ("decoder/layers/v/kernel", "model.layers.{}.self_attn.v_proj.weight", "transposed"),
    ("decoder/layers/v/bias", "model.layers.{}.self_attn.v_proj.bias", "same"),
    ("decoder/layers/o/kernel", "model.layers.{}.self_attn.o_proj.weight", "transposed"),
    ("decoder/layers/mlp/gate/kernel", "model.layers.{}.mlp.gate_proj.weight", "transposed"),
    ("decoder/layers/mlp/up/kernel", "model.layers.{}.mlp.up_proj.weight", "transposed"),
    ("decoder/layers/mlp/down/kernel", "model.layers.{}.mlp.down_proj.weight", "transposed"),
    ("decoder/norm/scale", "model.norm.weight", "same"),
    ("decoder/lm_head/kernel", "lm_head.weight", "transposed"),
)
HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"

# Prefixes that today's transformers uses in memory -> those of the files on the hub.
_TO_HUB = (
    (re.compile(r"^model\.visual\."), "visual."),
    (re.compile(r"^model\.language_model\."), "model."),
)
_TO_TRANSFORMERS = (
    (re.compile(r"^visual\."), "model.visual."),
    (re.compile(r"^model\."), "model.language_model."),
)


@dataclasses.dataclass(frozen=True)
class HubTensor:
    """One tensor of a model directory: its hub name and shape, and the parameter (and layer of it) that it holds."""

    name: str
    shape: tuple[int, ...]
    path: tuple[str, ...]
    layer: int | None
    layout: Layout

    def read(self, stored: PyTree, index: tuple[slice, ...]) -> np.ndarray:
        """Read the part `index` of the parameter from a stored tensor that is sliced without being read as a whole."""
        if self.layout == "same":
            return stored[index]
        rows, columns = index
        if self.layout == "transposed":
            return stored[columns, rows].T
        kernels = stored[(columns, *[slice(None)] * (len(self.shape) - 1))]
        return kernels.reshape(len(kernels), -1)[:, rows].T

    def write(self, value: np.ndarray) -> np.ndarray:
        """Lay out the stored tensor of a whole parameter (of this layer of it)."""
        return np.ascontiguousarray(value if self.layout == "same" else value.T).reshape(self.shape)


def hub_tensors(table: Sequence[tuple[str, str, Layout]], params: Params, config: ModelConfig) -> list[HubTensor]:
    """List the tensors of a directory that holds parameters of these shapes, layer by layer in the order of `table`."""
    found = {path: leaf.shape for path, leaf in leaf_paths(params)}
    vision = config.vision
    conv = (vision.in_channels, vision.temporal_patch_size, vision.patch_size, vision.patch_size)
    tensors = []
    for path, name, layout in table:
        parts = tuple(path.split("/"))
        if parts not in found:
            continue  # A tied head has no parameter of its own.
        shape = found.pop(parts)
        stacked = "{}" in name
        one = shape[1:] if stacked else shape
        stored = {"same": one, "transposed": one[::-1], "patches": (one[-1], *conv)}[layout]
        for layer in range(shape[0]) if stacked else (None,):
            tensors.append(HubTensor(name.format(layer), stored, parts, layer, layout))
    if found:
        raise ValueError(f"no tensor name for the parameters {sorted('/'.join(p) for p in found)}; add them to TABLE")
    return tensors


def hub_name(name: str) -> str:
    """Give the hub's name of a tensor that may carry the name of today's transformers."""
    return _renamed(name, _TO_HUB)


def transformers_name(name: str) -> str:
    """Give the name that today's transformers has in memory for a tensor of the hub's files."""
    return _renamed(name, _TO_TRANSFORMERS)


def leaf_paths(tree: PyTree) -> Iterator[tuple[tuple[str, ...], PyTree]]:
    """Walk over every leaf of a nested dictionary with its path."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        yield tuple(str(part.key) for part in path), leaf


def build_tree(values: dict[tuple[str, ...], PyTree], make: Callable[[PyTree], PyTree] = lambda value: value) -> dict:
    """Build the nested dictionary of values by path."""
    tree: dict = {}
    for path, value in values.items():
        node = tree
        for part in path[:-1]:
            node = node.setdefault(part, {})
        node[path[-1]] = make(value)
    return tree


def _renamed(name: str, rules: tuple[tuple[re.Pattern, str], ...]) -> str:
    for pattern, prefix in rules:
        if pattern.match(name):
            return pattern.sub(prefix, name)
    return name
