"""Weights in and out of Hugging Face directories: safetensors only, layer by layer, straight into their shards."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from transformers import PreTrainedTokenizerBase

from infimmr_jax.config import ConfigError, ImageSection
from infimmr_jax.model.family import Model, read_model
from infimmr_jax.model.hf_table import (
    EMBEDDING,
    HEAD,
    HubTensor,
    Names,
    build_tree,
    hub_name,
    leaf_paths,
    transformers_name,
)
from infimmr_jax.model.trunk import Params
from infimmr_jax.parallel.mesh import parameter_shardings
from infimmr_jax.preprocess.images import MEAN, STD
from infimmr_jax.preprocess.tokenizer import save_tokenizer

DTYPES: dict[str, np.dtype] = {
    "float32": np.dtype(np.float32),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float16": np.dtype(np.float16),
}
_STORED_DTYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}
_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"
_COPIED_SUFFIXES = (".json", ".jinja", ".txt")
_SHARD_BYTES = 4 * 1024**3
# Smaller parameters are read with all their layers at once: that spares compiling a placing program for each.
AT_ONCE_BYTES = 64 * 1024**2


class Stored(NamedTuple):
    """A tensor in an open file: sliced like an array, without being read as a whole."""

    values: Any
    shape: tuple[int, ...]
    dtype: str


def load_params(directory: Path, model: Model, mesh: Mesh, only: str | None = None) -> Params:
    """Read the safetensors of a Hugging Face directory into parameters of a model, sharded over `mesh`.

    Tensors may carry the hub's names or those of today's transformers. They are read layer by layer and in blocks of
    rows, every process reading for its own devices: the host never holds more than about one layer. `only` names one
    part of the tree ("visual"), which then is all that is loaded.
    Raises ConfigError, naming every missing, unexpected, mis-shaped and unreadable tensor at once.
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
            loaded[path] = _load(groups[path], stored, leaf, shardings[path])
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
    Raises ConfigError when `directory` exists and is not a model directory.
    """
    _check_dtype(dtype)
    leaves = dict(leaf_paths(params))
    tensors = model.tensors()

    def value(tensor: HubTensor) -> np.ndarray:
        return tensor.write(_on_host(leaves[tensor.path], tensor.layer).astype(DTYPES[dtype]))

    with _replacing(directory, "config.json") as target:
        _write_json(target, "config.json", model.hf_config(dtype))
        _write_json(target, "generation_config.json", _generation_config(model))
        _write_json(target, "preprocessor_config.json", _preprocessor_config(model, image or ImageSection()))
        if tokenizer is not None and target is not None:
            save_tokenizer(tokenizer, target)
        sizes = [int(np.prod(tensor.shape)) * DTYPES[dtype].itemsize for tensor in tensors]
        _write_weights(target, [t.name for t in tensors], sizes, lambda i: value(tensors[i]), max_shard_bytes)


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
    with open_tensors(source) as stored, _replacing(target, "config.json") as directory:
        if directory is None:
            return
        tensors = check_tensors(stored, model, source)
        wanted = {t.name: DTYPES[dtype or _STORED_DTYPES[stored[t.name].dtype]] for t in tensors}
        for path in sorted(source.iterdir()):
            if path.suffix in _COPIED_SUFFIXES and path.name not in (_INDEX, "config.json"):
                shutil.copyfile(path, directory / path.name)
        tree = json.loads((source / "config.json").read_text(encoding="utf-8"))
        _write_json(directory, "config.json", tree if dtype is None else _with_dtype(tree, dtype))

        def value(index: int) -> np.ndarray:
            name = tensors[index].name
            return np.ascontiguousarray(stored[name].values[:]).astype(wanted[name])

        sizes = [int(np.prod(t.shape)) * wanted[t.name].itemsize for t in tensors]
        renamed = [t.name if names == "hub" else transformers_name(t.name) for t in tensors]
        _write_weights(directory, renamed, sizes, value, max_shard_bytes)


@contextlib.contextmanager
def open_tensors(directory: Path) -> Iterator[dict[str, Stored]]:
    """The tensors of a directory's safetensors by their hub names, without reading them.

    Raises ConfigError when there are none, a file of the index is missing or damaged, or a tensor is there twice.
    """
    found: dict[str, Stored] = {}
    with contextlib.ExitStack() as stack:
        for path in _weight_files(directory):
            try:
                file = stack.enter_context(safe_open(str(path), "numpy"))
                for name in file.keys():  # noqa: SIM118 - not a mapping
                    if hub_name(name) in found:
                        raise ConfigError(f"{directory} holds the tensor {hub_name(name)} twice, again in {path.name}")
                    part = file.get_slice(name)
                    found[hub_name(name)] = Stored(part, tuple(part.get_shape()), part.get_dtype())
            except (SafetensorError, OSError) as error:
                raise ConfigError(f"{path} can not be read as safetensors: {error}; fetch it again") from error
        yield found


def check_tensors(stored: dict[str, Stored], model: Model, directory: Path) -> list[HubTensor]:
    """The tensors that the model asks for; raises one ConfigError that names everything that does not fit."""
    tensors = model.tensors()
    wanted = {tensor.name: tensor.shape for tensor in tensors}
    unexpected = sorted(set(stored) - set(wanted))
    if model.config.text.tie_word_embeddings and HEAD in unexpected and _same(stored, HEAD, EMBEDDING):
        unexpected.remove(HEAD)  # Some trainers store the tied head a second time.
    faults = {
        "missing": sorted(set(wanted) - set(stored)),
        "unexpected": unexpected,
        "mis-shaped": [
            f"{name} is {list(stored[name].shape)} instead of {list(shape)}"
            for name, shape in wanted.items()
            if name in stored and stored[name].shape != shape
        ],
        "of a type that is not read": [
            f"{name} is {stored[name].dtype}"
            for name in wanted
            if name in stored and stored[name].dtype not in _STORED_DTYPES
        ],
    }
    if any(faults.values()):
        parts = [f"{len(names)} {kind} ({', '.join(names)})" for kind, names in faults.items() if names]
        raise ConfigError(
            f"the tensors of {directory} are not those of its architecture: {'; '.join(parts)}; "
            "give the config.json that belongs to these weights"
        )
    return tensors


def _same(stored: dict[str, Stored], one: str, other: str, rows: int = 4096) -> bool:
    if one not in stored or other not in stored or stored[one].shape != stored[other].shape:
        return False
    a, b = stored[one].values, stored[other].values
    size = stored[one].shape[0]
    cuts = [slice(start, min(start + rows, size)) for start in range(0, size, rows)]
    return all(np.array_equal(a[cut], b[cut]) for cut in cuts)


def _weight_files(directory: Path) -> list[Path]:
    index = directory / _INDEX
    if index.exists():
        try:
            names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (ValueError, KeyError, AttributeError) as error:
            raise ConfigError(f"{index} is not an index of safetensors: {error!r}") from error
        lost = [name for name in names if not (directory / name).is_file()]
        if lost:
            raise ConfigError(f"{directory} lacks the files {', '.join(lost)} that its index names; fetch them again")
        return [directory / name for name in names]
    if (directory / _WEIGHTS).is_file():
        return [directory / _WEIGHTS]
    raise ConfigError(
        f"{directory} holds neither {_WEIGHTS} nor {_INDEX}; weights are read from safetensors only "
        "(pickled .bin and .pt files can run code: save them as safetensors with transformers first)"
    )


def _load(
    tensors: list[HubTensor], stored: dict[str, Stored], leaf: jax.ShapeDtypeStruct, sharding: NamedSharding
) -> jax.Array:
    """One parameter from its tensors: at once when it is small, else a layer (or block of rows) at a time."""
    shape, size = leaf.shape, leaf.size * leaf.dtype.itemsize
    if size <= AT_ONCE_BYTES:
        return _read(tensors, stored, shape, leaf.dtype, sharding)
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
        whole = place(whole, _read(tensors, stored, block_shape, leaf.dtype, of_block, axis, start), start)
    return whole


def _read(
    tensors: list[HubTensor],
    stored: dict[str, Stored],
    shape: tuple[int, ...],
    dtype: Any,
    sharding: NamedSharding,
    axis: int = 0,
    start: int = 0,
) -> jax.Array:
    """The block of this shape that begins at `start` on `axis` of a parameter."""
    parts: dict[Any, np.ndarray] = {}

    def part(index: Any) -> np.ndarray:
        # Devices that hold the same part share one read.
        key = tuple(s.indices(size)[:2] for s, size in zip(index, shape, strict=True))
        if key not in parts:
            bounds = [(low + start, high + start) if n == axis else (low, high) for n, (low, high) in enumerate(key)]
            cuts = tuple(slice(*bound) for bound in bounds)
            if tensors[0].layer is None:
                values = tensors[0].read(stored[tensors[0].name].values, cuts)
            else:
                values = np.stack([t.read(stored[t.name].values, cuts[1:]) for t in tensors[cuts[0]]])
            parts[key] = values.astype(dtype)
        return parts[key]

    # Waiting bounds what the host holds: reading ahead of the devices would pile up blocks.
    return jax.block_until_ready(jax.make_array_from_callback(shape, sharding, part))


def _on_host(leaf: Any, layer: int | None) -> np.ndarray:
    if isinstance(leaf, np.ndarray):
        return leaf if layer is None else leaf[layer]
    one = leaf if layer is None else _take(leaf, layer)
    if one.is_fully_addressable:
        return np.asarray(one)
    return np.asarray(multihost_utils.process_allgather(one, tiled=True))


@jax.jit
def _take(leaf: jax.Array, layer: int) -> jax.Array:
    return jax.lax.dynamic_index_in_dim(leaf, layer, 0, keepdims=False)


@contextlib.contextmanager
def _replacing(directory: Path, proof: str) -> Iterator[Path | None]:
    """A temporary directory beside `directory` that takes its name on success; None on all processes but the first."""
    if jax.process_index() != 0:
        yield None
    else:
        taken = directory.exists() and not (directory / proof).is_file()
        if taken and (directory.is_file() or any(directory.iterdir())):
            raise ConfigError(f"{directory} exists and is not a model directory; name another one or move it away")
        directory.parent.mkdir(parents=True, exist_ok=True)
        target = directory.parent / f".{directory.name}.writing-{os.getpid()}"
        old = directory.parent / f".{directory.name}.old-{os.getpid()}"
        shutil.rmtree(target, ignore_errors=True)
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        try:
            yield target
            for path in (*target.iterdir(), target):
                _to_disk(path)
            if directory.exists():
                directory.rename(old)
            target.rename(directory)
            _to_disk(directory.parent)
        finally:
            shutil.rmtree(target, ignore_errors=True)
            shutil.rmtree(old, ignore_errors=True)
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(f"saved {directory.name}")


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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
        files = [_WEIGHTS]
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
        _write_json(directory, _INDEX, {"metadata": {"total_size": sum(sizes)}, "weight_map": weight_map})


def _write_json(directory: Path | None, name: str, tree: dict) -> None:
    if directory is not None:
        (directory / name).write_text(json.dumps(tree, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _with_dtype(tree: Any, dtype: str) -> Any:
    if isinstance(tree, dict):
        return {k: dtype if k in ("dtype", "torch_dtype") else _with_dtype(v, dtype) for k, v in tree.items()}
    return tree


def _check_dtype(dtype: str) -> None:
    if dtype not in DTYPES:
        raise ConfigError(f"weights can not be written as {dtype!r}; choose one of {', '.join(DTYPES)}")


def _generation_config(model: Model) -> dict[str, Any]:
    tokens = model.tokens
    ends = [tokens.eos] if tokens.pad == tokens.eos else [tokens.eos, tokens.pad]
    return {"bos_token_id": tokens.pad, "pad_token_id": tokens.pad, "eos_token_id": ends, "do_sample": True}


def _preprocessor_config(model: Model, image: ImageSection) -> dict[str, Any]:
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
