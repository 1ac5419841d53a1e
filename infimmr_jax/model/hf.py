"""Weights in and out of Hugging Face directories: safetensors only, layer by layer, straight into their shards."""

from __future__ import annotations

import contextlib
import functools
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from safetensors.numpy import save_file
from transformers import PreTrainedTokenizerBase

from infimmr_jax.config import ConfigError, ImageSection
from infimmr_jax.model.config import read_tree
from infimmr_jax.model.family import Model, read_model
from infimmr_jax.model.hf_directory import check_table
from infimmr_jax.model.hf_files import (
    INDEX,
    STORED_DTYPES,
    WEIGHTS,
    Stored,
    cast,
    check_tensors,
    is_finite,
    open_tensors,
)
from infimmr_jax.model.hf_replace import replacing
from infimmr_jax.model.hf_table import HubTensor, Names, build_tree, leaf_paths, transformers_name
from infimmr_jax.model.trunk import Params
from infimmr_jax.parallel.mesh import parameter_shardings
from infimmr_jax.preprocess.images import MEAN, STD
from infimmr_jax.preprocess.json_file import JsonObject
from infimmr_jax.preprocess.tokenizer import save_tokenizer

DTYPES: dict[str, np.dtype] = {
    "float32": np.dtype(np.float32),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float16": np.dtype(np.float16),
}
_COPIED_SUFFIXES = (".json", ".jinja", ".txt")
_SHARD_BYTES = 4 * 1024**3
# Smaller parameters are read with all their layers at once: that spares compiling a placing program for each.
AT_ONCE_BYTES = 64 * 1024**2


def load_params(directory: Path, model: Model, mesh: Mesh, only: str | None = None) -> Params:
    """Read the safetensors of a Hugging Face directory into parameters of a model, sharded over `mesh`.

    Tensors may carry the hub's names or those of today's transformers. They are read layer by layer and in blocks of
    rows, every process reading for its own devices: the host never holds more than about one layer. `only` names one
    part of the tree ("visual"), which then is all that is loaded.
    Raises ConfigError for tensors that are missing, unexpected, mis-shaped, of a type that is not read, or not finite.
    """
    abstract = model.abstract_params()
    abstract = abstract if only is None else {only: abstract[only]}
    shardings = dict(leaf_paths(parameter_shardings(abstract, mesh)))
    loaded: dict[tuple[str, ...], jax.Array] = {}
    with open_tensors(directory) as stored:
        tensors = check_tensors(stored, model, directory)
        groups: dict[tuple[str, ...], list[HubTensor]] = {}
        for tensor in tensors:
            groups.setdefault(tensor.path, []).append(tensor)
        for path, leaf in leaf_paths(abstract):
            loaded[path] = _load(directory, groups[path], stored, leaf, shardings[path])
    return build_tree(loaded)


def save_params(
    params: Params,
    model: Model,
    directory: Path,
    tokenizer: PreTrainedTokenizerBase | None = None,
    dtype: str = "bfloat16",
    max_shard_bytes: int = _SHARD_BYTES,
    image: ImageSection | None = None,
) -> None:
    """Write a Hugging Face directory that transformers and vLLM load: hub names, index, configs, tokenizer.

    The directory appears at once under its name when everything is written, and replaces an older model of that name.
    With several processes all must call it; the first one writes. The host holds one shard at a time.
    Raises ConfigError when `directory` exists and is no model directory, the disk is full, or a weight is not finite.
    """
    _check_dtype(dtype)
    leaves = dict(leaf_paths(params))
    tensors = model.tensors()

    sizes = [int(np.prod(tensor.shape)) * DTYPES[dtype].itemsize for tensor in tensors]

    def value(index: int) -> np.ndarray:
        tensor = tensors[index]
        found = tensor.write(cast(_on_host(leaves[tensor.path], tensor.layer), DTYPES[dtype]))
        if not is_finite(found):
            raise ConfigError(
                f"the model is not written to {directory}: {tensor.name} holds values that are no finite {dtype} "
                "numbers, so training diverged or its checkpoint is damaged; go back to an older one (what was there "
                "is unchanged)"
            )
        return found

    with _written_by_one(directory, sum(sizes)) as target:
        _write_json(target, "config.json", model.hf_config(dtype))
        _write_json(target, "generation_config.json", _generation_config(model))
        _write_json(target, "preprocessor_config.json", _preprocessor_config(model, image or ImageSection()))
        if tokenizer is not None and target is not None:
            save_tokenizer(tokenizer, target)
        _write_weights(target, [t.name for t in tensors], sizes, value, max_shard_bytes)


def convert(
    source: Path, target: Path, dtype: str | None = None, names: Names = "hub", max_shard_bytes: int = _SHARD_BYTES
) -> None:
    """Rewrite a model directory tensor by tensor: other dtype, other shard size, names of the hub or of transformers.

    Everything is checked against the source's config.json first; its other text files are copied as they are.
    Raises ConfigError as `load_params` does.
    """
    if dtype is not None:
        _check_dtype(dtype)
    model = read_model(source)
    check_table(source, model.config)
    with open_tensors(source) as stored:
        tensors = check_tensors(stored, model, source)
        wanted = {t.name: DTYPES[dtype or STORED_DTYPES[stored[t.name].dtype]] for t in tensors}
        sizes = [int(np.prod(t.shape)) * wanted[t.name].itemsize for t in tensors]

        def value(index: int) -> np.ndarray:
            name = tensors[index].name
            found = cast(np.ascontiguousarray(stored[name].values[:]), wanted[name])
            if not is_finite(found):
                raise ConfigError(
                    f"the tensor {name} of {source} holds values that are no finite {found.dtype} numbers"
                )
            return found

        with _written_by_one(target, sum(sizes)) as directory:
            if directory is None:
                return
            for path in sorted(source.iterdir()):
                if path.suffix in _COPIED_SUFFIXES and path.name not in (INDEX, "config.json"):
                    shutil.copyfile(path, directory / path.name)
            tree = read_tree(source)
            _write_json(directory, "config.json", tree if dtype is None else _with_dtype(tree, dtype))
            renamed = [t.name if names == "hub" else transformers_name(t.name) for t in tensors]
            _write_weights(directory, renamed, sizes, value, max_shard_bytes)


def _load(
    directory: Path,
    tensors: list[HubTensor],
    stored: dict[str, Stored],
    leaf: jax.ShapeDtypeStruct,
    sharding: NamedSharding,
) -> jax.Array:
    """One parameter from its tensors: at once when it is small, else a layer (or block of rows) at a time."""
    shape, size = leaf.shape, leaf.size * leaf.dtype.itemsize
    if size <= AT_ONCE_BYTES:
        return _read(directory, tensors, stored, shape, leaf.dtype, sharding)
    # Blocks of a single tensor lie along its stored rows, which are read in one go.
    axis = 1 if tensors[0].layer is None and tensors[0].layout == "transposed" else 0
    width = max(1, AT_ONCE_BYTES * shape[axis] // size) if tensors[0].layer is None else 1
    axes = [*sharding.spec, *[None] * (len(shape) - len(sharding.spec))]
    of_block = NamedSharding(sharding.mesh, PartitionSpec(*[None if n == axis else a for n, a in enumerate(axes)]))

    @functools.partial(jax.jit, donate_argnums=0, out_shardings=sharding)
    def place(whole: jax.Array, block: jax.Array, start: int) -> jax.Array:
        return jax.lax.dynamic_update_slice_in_dim(whole, block, start, axis)

    whole = jax.jit(functools.partial(jnp.zeros, shape, leaf.dtype), out_shardings=sharding)()
    for start in range(0, shape[axis], width):
        block_shape = (*shape[:axis], min(width, shape[axis] - start), *shape[axis + 1 :])
        whole = place(whole, _read(directory, tensors, stored, block_shape, leaf.dtype, of_block, axis, start), start)
    return whole


def _read(
    directory: Path,
    tensors: list[HubTensor],
    stored: dict[str, Stored],
    shape: tuple[int, ...],
    dtype: np.dtype,
    sharding: NamedSharding,
    axis: int = 0,
    start: int = 0,
) -> jax.Array:
    """The block of this shape that begins at `start` on `axis` of a parameter."""
    parts: dict[tuple[tuple[int, ...], ...], np.ndarray] = {}

    def one(tensor: HubTensor, cuts: tuple[slice, ...]) -> np.ndarray:
        values = cast(tensor.read(stored[tensor.name].values, cuts), dtype)
        if not is_finite(values):
            raise ConfigError(
                f"the tensor {tensor.name} of {directory} holds values that are no finite {jnp.dtype(dtype).name} "
                "numbers: the file is damaged, or the training that made it diverged; give another checkpoint"
            )
        return values

    def part(index: tuple[slice, ...] | None) -> np.ndarray:
        # Devices that hold the same part share one read.
        key = tuple(s.indices(size)[:2] for s, size in zip(index or (), shape, strict=True))
        if key not in parts:
            bounds = [(low + start, high + start) if n == axis else (low, high) for n, (low, high) in enumerate(key)]
            cuts = tuple(slice(*bound) for bound in bounds)
            if tensors[0].layer is None:
                values = one(tensors[0], cuts)
            else:
                values = np.stack([one(tensor, cuts[1:]) for tensor in tensors[cuts[0]]])
            parts[key] = values
        return parts[key]

    # Waiting bounds what the host holds: reading ahead of the devices would pile up blocks.
    return jax.block_until_ready(jax.make_array_from_callback(shape, sharding, part))


def _on_host(leaf: np.ndarray | jax.Array, layer: int | None) -> np.ndarray:
    if isinstance(leaf, np.ndarray):
        return leaf if layer is None else leaf[layer]
    one = leaf if layer is None else _take(leaf, layer)
    if one.is_fully_addressable:
        return np.asarray(one)
    return np.asarray(multihost_utils.process_allgather(one, tiled=True))


@jax.jit
def _take(leaf: jax.Array, layer: int | jax.Array) -> jax.Array:
    return jax.lax.dynamic_index_in_dim(leaf, layer, 0, keepdims=False)


@contextlib.contextmanager
def _written_by_one(directory: Path, size: int) -> Iterator[Path | None]:
    """Give the directory that will take the name of `directory` to the first process, None to the others."""
    if jax.process_index() != 0:
        yield None
    else:
        with replacing(directory, size) as target:
            yield target
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(f"saved {directory.name}")


def _write_weights(
    directory: Path | None, names: Sequence[str], sizes: Sequence[int], value: Callable[[int], np.ndarray], limit: int
) -> None:
    """Write tensors to files of at most `limit` bytes (or one tensor), with an index when there are several."""
    shards: list[list[int]] = [[]]
    used = 0
    for index, size in enumerate(sizes):
        if shards[-1] and used + size > limit:
            shards.append([])
            used = 0
        shards[-1].append(index)
        used += size
    files = [f"model-{k:05d}-of-{len(shards):05d}.safetensors" for k in range(1, len(shards) + 1)]
    if len(shards) == 1:
        files = [WEIGHTS]
    for file, shard in zip(files, shards, strict=True):
        tensors: dict[str, np.ndarray] = {}
        for index in shard:
            array = value(index)  # A collective: every process takes part, only the first keeps it.
            if directory is not None:
                tensors[names[index]] = array
        if directory is not None:
            save_file(tensors, directory / file, metadata={"format": "pt"})
    if len(shards) > 1:
        weight_map = {names[index]: file for file, shard in zip(files, shards, strict=True) for index in shard}
        _write_json(directory, INDEX, {"metadata": {"total_size": sum(sizes)}, "weight_map": weight_map})


def _write_json(directory: Path | None, name: str, tree: object) -> None:
    if directory is not None:
        (directory / name).write_text(json.dumps(tree, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _with_dtype(tree: object, dtype: str) -> object:
    if isinstance(tree, dict):
        return {k: dtype if k in ("dtype", "torch_dtype") else _with_dtype(v, dtype) for k, v in tree.items()}
    return tree


def _check_dtype(dtype: str) -> None:
    if dtype not in DTYPES:
        raise ConfigError(f"weights can not be written as {dtype!r}; choose one of {', '.join(DTYPES)}")


def _generation_config(model: Model) -> JsonObject:
    pad = model.tokens.pad
    return {"bos_token_id": pad, "pad_token_id": pad, "eos_token_id": list(model.tokens.ends), "do_sample": True}


def _preprocessor_config(model: Model, image: ImageSection) -> JsonObject:
    layout = model.layout
    return {
        "image_processor_type": "Qwen2VLImageProcessor",
        "processor_class": "Qwen2_5_VLProcessor",
        "image_mean": list(MEAN),
        "image_std": list(STD),
        "min_pixels": image.min_pixels,
        "max_pixels": image.max_pixels,
        "patch_size": layout.patch_size,
        "temporal_patch_size": layout.temporal_patch_size,
        "merge_size": layout.merge_size,
    }
