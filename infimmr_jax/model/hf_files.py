"""The safetensors of a Hugging Face directory: which files, which tensors, and whether they are the model's."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open

from infimmr_jax.config import ConfigError
from infimmr_jax.model.family import Model
from infimmr_jax.model.hf_table import EMBEDDING, HEAD, HubTensor, hub_name
from infimmr_jax.preprocess.json_file import read_json, shorten

STORED_DTYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
# Endings of the tensors that quantised layers have instead of (or beside) a weight.
_QUANTISED = (".qweight", ".qzeros", ".g_idx", ".scales", ".weight_scale", ".weight_scale_inv", ".SCB", ".absmax")
_ADAPTER = (".lora_A.", ".lora_B.", ".base_layer.", "lora_A.weight", "lora_B.weight")
NAMED = 5  # tensors that an error names of each fault


class Stored(NamedTuple):
    """A tensor in an open file: sliced like an array, without being read as a whole."""

    values: Any
    shape: tuple[int, ...]
    dtype: str


@contextlib.contextmanager
def open_tensors(directory: Path) -> Iterator[dict[str, Stored]]:
    """Open the tensors of a directory's safetensors by their hub names, without reading them.

    Raises ConfigError when there are none or two sets of them, a file of the index is missing, damaged or elsewhere,
    an adapter lies beside them, or a tensor is there twice.
    """
    opened: dict[str, Stored] = {}
    with contextlib.ExitStack() as stack:
        for path in weight_files(directory):
            try:
                file = stack.enter_context(safe_open(str(path), "numpy"))
                for name in file.keys():  # noqa: SIM118 - not a mapping
                    if hub_name(name) in opened:
                        raise ConfigError(f"{directory} holds the tensor {hub_name(name)} twice, again in {path.name}")
                    part = file.get_slice(name)
                    opened[hub_name(name)] = Stored(part, tuple(part.get_shape()), str(part.get_dtype()))
            except (SafetensorError, OSError) as error:
                raise ConfigError(f"{path} can not be read as safetensors: {error}; fetch it again") from error
        yield opened


def weight_files(directory: Path) -> list[Path]:
    """Name the safetensors files of a directory; raises ConfigError as `open_tensors` does."""
    index, single = directory / INDEX, directory / WEIGHTS
    if (directory / "adapter_config.json").exists():
        raise ConfigError(
            f"{directory} holds an adapter (adapter_config.json); merge it into its base model first (merge_and_unload "
            "of PEFT), or remove it if the weights beside it are merged"
        )
    if index.exists():
        names = _indexed(index)
        if names != [WEIGHTS] and single.exists():
            raise ConfigError(
                f"{directory} holds two sets of weights, {WEIGHTS} and the {len(names)} files of {INDEX} ({names[0]}, "
                "..), of which only one belongs to it; remove the other"
            )
        lost = [name for name in names if not (directory / name).is_file()]
        if lost:
            raise ConfigError(f"{directory} lacks the files {_few(lost)} that its index names; fetch them again")
        return [directory / name for name in names]
    if single.is_file():
        return [single]
    raise ConfigError(
        f"{directory} holds neither {WEIGHTS} nor {INDEX}; weights are read from safetensors only "
        "(pickled .bin and .pt files can run code: save them as safetensors with transformers first)"
    )


def _indexed(index: Path) -> list[str]:
    tree = read_json(index).get("weight_map")
    if not isinstance(tree, dict) or not tree or not all(isinstance(name, str) for name in tree.values()):
        raise ConfigError(f"{index} is not an index of safetensors: it has no weight_map of tensors to file names")
    names = sorted(set(tree.values()))
    for name in names:
        path = Path(name)
        if path.is_absolute() or ".." in path.parts or path.suffix != ".safetensors":
            raise ConfigError(f"{index} names {shorten(name)}, which is no safetensors file of this directory")
    return names


def check_tensors(stored: dict[str, Stored], model: Model, directory: Path) -> list[HubTensor]:
    """Return the tensors that the model asks for.

    Raises one ConfigError that says what does not fit, in the words of the likeliest cause: quantised weights, an
    adapter, names with a prefix, a part of a model; at most five names for each fault.
    """
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
            if name in stored and stored[name].dtype not in STORED_DTYPES
        ],
    }
    if any(faults.values()):
        parts = [f"{len(names)} {kind} ({_few(names)})" for kind, names in faults.items() if names]
        raise ConfigError(
            f"the tensors of {directory} are not those of its architecture: {'; '.join(parts)}; "
            + _advice(faults["missing"], unexpected, set(wanted), any(faults["of a type that is not read"]))
        )
    return tensors


def cast(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Convert to another type of floats; what is too large for it becomes infinite, which `is_finite` finds."""
    with np.errstate(over="ignore"):
        return values.astype(dtype)


def is_finite(values: np.ndarray) -> bool:
    """Whether no value of an array of floats is infinite or no number."""
    if values.dtype.itemsize != 2:
        return bool(np.isfinite(values).all())
    # By the bits of the exponent: NumPy computes with these types one number at a time.
    exponent = np.uint16(0x7C00 if values.dtype == np.float16 else 0x7F80)
    return not bool(((values.view(np.uint16) & exponent) == exponent).any())


def _few(names: list[str]) -> str:
    # A name is shown whole up to the length of any that transformers gives.
    shown = [name if len(name) <= 120 else f"{name[:100]}.." for name in names[:NAMED]]
    return ", ".join(shown) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")


def _advice(missing: list[str], unexpected: list[str], wanted: set[str], other_types: bool) -> str:
    if other_types or any(name.endswith(_QUANTISED) for name in unexpected):
        return "they are quantised: give the directory of the bf16 weights"
    prefix = _prefix(unexpected, wanted)
    if any(part in name for name in unexpected for part in _ADAPTER) or (prefix or "").startswith("base_model."):
        return "they are those of an adapter: merge it into its base model first (merge_and_unload of PEFT)"
    if prefix:
        return f"their names begin with {prefix!r}, as a wrapper saves them: save the model inside it"
    if missing and not unexpected and len(missing) < len(wanted):
        return "they are a part of the model: give all files of it"
    return "give the config.json that belongs to these weights"


def _prefix(unexpected: Iterable[str], wanted: set[str]) -> str | None:
    """The prefix with which most of the unexpected names are wanted ones, if there is one."""
    found: Counter[str] = Counter()
    total = 0
    for name in unexpected:
        total += 1
        parts = name.split(".")
        for cut in range(1, min(len(parts), 6)):
            if hub_name(".".join(parts[cut:])) in wanted:
                found[".".join(parts[:cut]) + "."] += 1
                break
    if not found:
        return None
    prefix, count = found.most_common(1)[0]
    return prefix if 2 * count > total else None


def _same(stored: dict[str, Stored], one: str, other: str, rows: int = 4096) -> bool:
    if one not in stored or other not in stored or stored[one].shape != stored[other].shape:
        return False
    a, b = stored[one].values, stored[other].values
    size = stored[one].shape[0] if stored[one].shape else 0
    cuts = [slice(start, min(start + rows, size)) for start in range(0, size, rows)]
    return all(np.array_equal(a[cut], b[cut]) for cut in cuts)
