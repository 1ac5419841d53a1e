"""A Hugging Face directory as a whole: what its files say of each other, checked before anything is computed."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from infimmr_jax.config import ConfigError
from infimmr_jax.model.config import ModelConfig
from infimmr_jax.model.family import Model, read_model
from infimmr_jax.model.options import PLAIN, ModelOptions
from infimmr_jax.preprocess.processor_config import check_processor
from infimmr_jax.preprocess.tokenizer import (
    IMAGE_PAD,
    VIDEO_PAD,
    VISION_END,
    VISION_START,
    end_of_turn,
    has_tokenizer,
    load_tokenizer,
    read_tokenizer,
)


def read_directory(directory: Path, options: ModelOptions = PLAIN) -> tuple[Model, PreTrainedTokenizerBase]:
    """Read the architecture and the tokenizer of a directory, and compare them.

    A response ends with the template's own end of a turn, and with every end that config.json, generation_config.json
    and the tokenizer name. Raises ConfigError when the tokenizer has more entries than the embedding table has rows,
    or another id for a mark of pictures than config.json, or pictures are to be prepared otherwise than here.
    """
    model = read_model(directory, options)
    check_processor(directory, model.layout)
    tokenizer = load_tokenizer(directory)
    return dataclasses.replace(model, config=with_tokenizer(model.config, tokenizer, directory)), tokenizer


def with_tokenizer(config: ModelConfig, tokenizer: PreTrainedTokenizerBase, directory: Path) -> ModelConfig:
    """Give the configuration all ends of a response; raises ConfigError as `read_directory` does."""
    _compare_sizes(directory, tokenizer, config)
    tokens = config.tokens
    for name, ours in (
        (IMAGE_PAD, tokens.image),
        (VIDEO_PAD, tokens.video),
        (VISION_START, tokens.vision_start),
        (VISION_END, tokens.vision_end),
    ):
        known = tokenizer.get_vocab().get(name)
        if known is not None and known != ours:
            raise ConfigError(
                f"{directory}: config.json gives {name} the id {ours}, its tokenizer {known}; give the tokenizer that "
                "belongs to the model"
            )
    own = end_of_turn(tokenizer)
    first = () if own is None else (own,)
    named = tokenizer.eos_token_id
    last = (named,) if isinstance(named, int) else ()
    return dataclasses.replace(config, tokens=tokens.with_ends((*first, *tokens.ends, *last)))


def check_table(directory: Path, config: ModelConfig) -> None:
    """Raise ConfigError when the directory has a tokenizer with more entries than the embedding table has rows."""
    if has_tokenizer(directory):
        _compare_sizes(directory, read_tokenizer(directory), config)


def _compare_sizes(directory: Path, tokenizer: PreTrainedTokenizerBase, config: ModelConfig) -> None:
    entries = max(tokenizer.get_vocab().values(), default=-1) + 1
    if entries > config.text.vocab_size:
        raise ConfigError(
            f"{directory}: its tokenizer has {entries} entries, its embedding table {config.text.vocab_size} rows; "
            "give the tokenizer that belongs to the model, or resize its table with transformers"
        )
