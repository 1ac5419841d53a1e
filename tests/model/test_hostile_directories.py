"""Model directories as nobody should write them: every fault is one sentence, soon."""

import json
import os
import shutil
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from infimmr_jax.config import ConfigError, ModelShape
from infimmr_jax.model.config import TokenIds, config_from_shape
from infimmr_jax.model.family import Model, read_model
from infimmr_jax.model.hf import save_params
from infimmr_jax.model.hf_directory import read_directory
from infimmr_jax.model.hf_files import check_tensors, open_tensors
from infimmr_jax.preprocess.processor_config import check_processor, directory_image
from infimmr_jax.preprocess.tokenizer import SPECIAL_TOKENS, read_tokenizer, train_tokenizer

VALUES = [
    None,
    True,
    -1,
    0,
    1,
    3,
    10**12,
    10**400,
    1.5,
    float("nan"),
    float("inf"),
    "",
    "silu",
    "\ud800",
    [],
    [None],
    [[1]],
    ["a", -5],
    {},
    {"a": {"b": 1}},
    [0] * 5000,
    "x" * 100_000,
]
BYTES = [
    b"",
    b"\xff\xfe\x00",
    b"null",
    b"[]",
    b"{",
    b"[" * 200_000,
    b'{"a": ' + b"9" * 100_000 + b"}",
    b'{"architectures": [' + b'"a",' * 1000 + b"1]}",
    b"\x00" * 4096,
    b"\x08\x00\x00\x00\x00\x00\x00\x00{}      ",
    b"\xff" * 8 + b"{}",
    b"\x02\x00\x00\x00\x00\x00\x00\x00{}",
]
SECONDS = 10  # far above what any takes, so that a busy machine does not fail


@pytest.fixture(scope="module")
def healthy(tmp_path_factory):
    """A model directory of a few kilobytes with everything in it."""
    tokenizer = train_tokenizer(["how many cats"], 300)
    ids = dict(zip(SPECIAL_TOKENS, tokenizer.convert_tokens_to_ids(list(SPECIAL_TOKENS)), strict=True))
    names = ("<|endoftext|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
    shape = ModelShape(hidden_size=24, num_layers=1, intermediate_size=16, mrope_section=(1, 1, 1))
    model = Model(config_from_shape(shape, 320, TokenIds(*[ids[name] for name in names])))
    params = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), model.abstract_params())
    directory = tmp_path_factory.mktemp("hostile") / "model"
    save_params(params, model, directory, tokenizer, "float32", max_shard_bytes=20_000)
    return directory


@pytest.fixture
def directory(healthy, tmp_path):
    shutil.copytree(healthy, tmp_path / "model")
    return tmp_path / "model"


def sentence(function, *given) -> str | None:
    """What is said of a fault, None when there is none; anything but one short sentence in good time fails."""
    began = time.monotonic()
    try:
        function(*given)
    except ConfigError as error:
        message = str(error)
        assert "\n" not in message.strip()
        assert len(message) < 3000
        return message
    finally:
        assert time.monotonic() - began < SECONDS
    return None


def read_all(directory):
    """Everything that is read of a directory before its weights."""
    model, _ = read_directory(directory)
    directory_image(directory)
    with open_tensors(directory) as stored:
        check_tensors(stored, model, directory)


def read_pictures(directory):
    directory_image(directory)
    check_processor(directory, read_model(directory).layout)


def read_weights(directory):
    with open_tensors(directory) as stored:
        assert isinstance(stored, dict)


def places(tree, path=()):
    """Every key of a tree of objects."""
    for key, value in tree.items():
        yield (*path, key)
        if isinstance(value, dict):
            yield from places(value, (*path, key))


def spoiled(tree, path, value):
    copy = json.loads(json.dumps(tree))
    node = copy
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    return copy


@pytest.mark.parametrize(
    ("name", "function", "values"),
    [
        ("config.json", read_model, VALUES),
        ("generation_config.json", read_model, VALUES),
        ("preprocessor_config.json", read_pictures, VALUES),
        ("tokenizer_config.json", read_tokenizer, VALUES[::3]),
        ("model.safetensors.index.json", read_weights, VALUES),
    ],
)
def test_any_value_at_any_key(directory, name, function, values):
    path = directory / name
    tree = json.loads(path.read_text())
    said = []
    keys = list(places(tree))
    for key in keys if len(keys) < 60 else keys[:8]:
        for value in values:
            path.write_text(json.dumps(spoiled(tree, key, value)))
            said.append(sentence(function, directory))
    assert sum(message is not None for message in said) >= len(said) // 8


@pytest.mark.parametrize(
    "name",
    [
        "config.json",
        "generation_config.json",
        "preprocessor_config.json",
        "chat_template.json",
        "tokenizer.json",
        "model.safetensors.index.json",
        "model-00001-of-00009.safetensors",
    ],
)
def test_any_bytes_in_any_file(directory, name):
    path = directory / name
    if name.endswith("of-00009.safetensors"):
        path = next(directory.glob("model-00001-*.safetensors"))
    optional = name in ("generation_config.json", "preprocessor_config.json", "chat_template.json")
    for content in BYTES:
        path.write_bytes(content)
        message = sentence(read_all, directory)
        # An object with keys that say nothing of the model is no fault of the files that need not be there.
        assert message is not None or (optional and content.startswith(b'{"architectures"'))
    path.unlink()
    path.mkdir()
    assert sentence(read_all, directory) is not None
    path.rmdir()
    path.symlink_to(directory / "nowhere")
    assert sentence(read_all, directory) is not None or optional
    path.unlink()
    os.mkfifo(path)
    assert sentence(read_all, directory) is not None


def test_cut_and_flipped_weights(directory):
    path = next(directory.glob("model-00001-*.safetensors"))
    whole = path.read_bytes()
    numbers = np.random.default_rng(0)
    for size in [0, 1, 7, 8, 9, 40, len(whole) // 2, len(whole) - 1]:
        path.write_bytes(whole[:size])
        assert sentence(read_all, directory) is not None
    for place in numbers.integers(0, 400, 30):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ (1 << numbers.integers(8))]) + whole[place + 1 :])
        sentence(read_all, directory)
