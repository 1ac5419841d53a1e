"""What `infimmr doctor --model` looks at: everything that a run would find out about a model directory later."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

from infimmr_jax.config import ImageSection
from infimmr_jax.model.family import read_model
from infimmr_jax.model.hf_directory import read_directory
from infimmr_jax.model.hf_files import check_tensors, open_tensors
from infimmr_jax.preprocess.json_file import read_json
from infimmr_jax.preprocess.processor_config import check_processor, directory_image


def model_checks(directory: Path, image: ImageSection | None = None) -> dict[str, Callable[[], str]]:
    """Give a check for every kind of file of a model directory; each returns what it says, or raises ConfigError.

    `image` is the pixel budget of a configuration, which is compared with the directory's.
    """
    return {
        "model": functools.partial(_architecture, directory),
        "weights": functools.partial(_weights, directory),
        "tokenizer": functools.partial(_tokenizer, directory),
        "pictures": functools.partial(_pictures, directory, image),
    }


def _architecture(directory: Path) -> str:
    model = read_model(directory)
    text = model.config.text
    scaling = text.rope_scaling
    words = "" if scaling is None else f", rotary scaling {scaling.kind} by {scaling.factor:g}"
    return (
        f"{directory}: {model.model_type}, {text.num_layers} layers of width {text.hidden_size}, a table of "
        f"{text.vocab_size:,} rows, {text.max_position_embeddings:,} positions{words}"
    )


def _weights(directory: Path) -> str:
    model = read_model(directory)
    with open_tensors(directory) as stored:
        check_tensors(stored, model, directory)
        dtypes = sorted({tensor.dtype for tensor in stored.values()})
        return f"{len(stored)} tensors of the right shapes, stored as {', '.join(dtypes)}"


def _tokenizer(directory: Path) -> str:
    model, tokenizer = read_directory(directory)
    ends = model.tokens.ends
    names = ", ".join(str(name) for name in tokenizer.convert_ids_to_tokens(list(ends)))
    said = f"{len(tokenizer):,} entries; a response ends with {names}"
    missing = [index for index in ends if index not in read_model(directory).tokens.ends]
    if missing:
        said += f" ({', '.join(map(str, tokenizer.convert_ids_to_tokens(missing)))} not in config.json or "
        said += "generation_config.json: other programs may not stop there)"
    path = directory / "tokenizer_config.json"
    tree = read_json(path) if path.exists() else {}
    if isinstance(tree.get("extra_special_tokens"), list) or tree.get("tokenizer_class") == "TokenizersBackend":
        said += "; its files are in the form of transformers 5 alone, older ones can not load them"
    return said


def _pictures(directory: Path, image: ImageSection | None) -> str:
    layout = read_model(directory).layout
    check_processor(directory, layout)
    own = directory_image(directory)
    tokens = own.max_pixels // layout.factor**2
    said = f"{own.min_pixels:,} to {own.max_pixels:,} pixels each, at most {tokens:,} tokens"
    if image is not None and (image.min_pixels, image.max_pixels) != (own.min_pixels, own.max_pixels):
        said += f"; the configuration shows {image.min_pixels:,} to {image.max_pixels:,} (data.image)"
    return said
