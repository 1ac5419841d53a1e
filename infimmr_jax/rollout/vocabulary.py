"""Tokens on their way out: which may be sampled, and their text, piece by piece."""

from __future__ import annotations

import codecs
import functools
import json
from typing import Any

import numpy as np
from jaxtyping import Bool

from infimmr_jax.config import ConfigError
from infimmr_jax.model.config import ModelConfig


def allowed_tokens(tokenizer: Any, model: ModelConfig) -> Bool[np.ndarray, "V"]:
    """Which ids a response may hold: ordinary tokens and the end token, never vision or chat marks.

    A sampled image token would be read as an image that is not there; ids beyond the tokenizer have no text.
    """
    allowed = np.arange(model.text.vocab_size) < len(tokenizer)
    special = {index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    allowed[sorted(special | set(tokenizer.all_special_ids))] = False
    allowed[model.tokens.eos] = True
    return allowed


class TextStream:
    """Text of tokens as they come, for byte-level tokenizers (Qwen's, and the ones made here).

    A token may end in the middle of a character: its bytes are kept back until the character is whole. The pieces
    joined are what the tokenizer decodes from all ids at once, special tokens left out.
    Raises ConfigError when the tokenizer is not byte-level.
    """

    def __init__(self, tokenizer: Any):
        backend = getattr(tokenizer, "backend_tokenizer", None)
        decoder = json.loads(backend.to_str())["decoder"] if backend is not None else None
        if decoder is None or decoder["type"] != "ByteLevel":
            raise ConfigError(f"text can be streamed from byte-level tokenizers only, this one's decoder is {decoder}")
        self._tokenizer = tokenizer
        self._special = set(tokenizer.all_special_ids) | {
            index for index, token in tokenizer.added_tokens_decoder.items() if token.special
        }
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token: int) -> str:
        """The text that is whole now that `token` has come; empty for special tokens and parts of characters."""
        return "" if token in self._special else self._decoder.decode(self._bytes(token))

    def finish(self) -> str:
        """What was kept back, with U+FFFD for a character that never became whole."""
        return self._decoder.decode(b"", final=True)

    def _bytes(self, token: int) -> bytes:
        text = self._tokenizer.convert_ids_to_tokens(token)
        if text is None:
            return b""  # The model's table is longer than the vocabulary.
        table = _byte_of_character()
        if all(character in table for character in text):
            return bytes(table[character] for character in text)
        return text.encode()  # Added tokens stand for themselves.


@functools.cache
def _byte_of_character() -> dict[str, int]:
    """GPT-2's printable stand-ins: bytes that print as Latin-1 stand for themselves, the others follow from U+0100."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in set(plain)]
    return {chr(byte): byte for byte in plain} | {chr(256 + place): byte for place, byte in enumerate(others)}
