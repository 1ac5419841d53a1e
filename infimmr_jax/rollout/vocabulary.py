"""Tokens on their way out: which may be sampled, and their text, piece by piece."""

from __future__ import annotations

import codecs
import functools
import json
from typing import cast

import numpy as np
from jaxtyping import Bool, Int
from transformers import PreTrainedTokenizerBase

from infimmr_jax.config import ConfigError
from infimmr_jax.model.family import Model


def allowed_tokens(tokenizer: PreTrainedTokenizerBase, model: Model) -> Bool[np.ndarray, "V"]:
    """Say which ids a response may hold: ordinary tokens and those that end it, never vision or chat marks.

    A sampled image token would be read as an image that is not there; ids beyond the tokenizer have no text.
    """
    allowed = np.arange(model.vocab_size) < len(tokenizer)
    special = {index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    allowed[sorted(special | set(tokenizer.all_special_ids))] = False
    allowed[list(model.tokens.ends)] = True
    return allowed


def response_texts(
    tokenizer: PreTrainedTokenizerBase,
    tokens: Int[np.ndarray, "P G R"],
    mask: Bool[np.ndarray, "P G R"],
    ends: tuple[int, ...] = (),
) -> list[list[str]]:
    """Decode the responses, without special tokens and without an end token, which need not be special (`ends`).

    No responses are fine: a host may have nothing finished yet.
    """
    P, G, R = tokens.shape
    rows = zip(tokens.reshape(P * G, R), mask.reshape(P * G, R), strict=True)
    ids = [row[kept].tolist() for row, kept in rows]
    ids = [row[:-1] if row and row[-1] in ends else row for row in ids]
    texts = tokenizer.batch_decode(ids, skip_special_tokens=True)
    return [texts[row * G : (row + 1) * G] for row in range(P)]


def stop_tables(
    tokenizer: PreTrainedTokenizerBase, stops: tuple[str, ...], vocabulary: int
) -> Int[np.ndarray, "N T V"]:
    """Build an automaton per stop text: `table[n, state, token]` is the state after a token; the last means "seen".

    A state is how many bytes of the text the response ends with (Knuth, Morris and Pratt, 1977). So a text is found
    in whatever tokens it comes, also in the middle of one. Special tokens have no text: they begin anew. T is that of
    the longest text; a shorter one never stays between its length and T - 1.
    Raises ConfigError when the tokenizer is not byte-level.
    """
    stream = TextStream(tokenizer)
    pieces = [stream.bytes_of(token) for token in range(vocabulary)]
    lengths = np.asarray([len(piece) for piece in pieces])
    letters = np.zeros((vocabulary, max(1, int(lengths.max()))), np.uint8)
    for token, piece in enumerate(pieces):
        letters[token, : len(piece)] = np.frombuffer(piece, np.uint8)
    wanted = [stop.encode() for stop in stops]
    tables = np.zeros((len(wanted), max(map(len, wanted), default=0) + 1, vocabulary), np.int16)
    for table, text in zip(tables, wanted, strict=True):
        moves, seen = _byte_moves(text), len(text)
        for state in range(seen):
            states = np.full(vocabulary, state)
            for place in range(letters.shape[1]):
                moved = np.where(states == seen, seen, moves[np.minimum(states, seen - 1), letters[:, place]])
                states = np.where(place < lengths, moved, states)
            table[state] = np.where(lengths == 0, 0, np.where(states == seen, len(table) - 1, states))
        table[-1] = len(table) - 1
    return tables


def _byte_moves(text: bytes) -> Int[np.ndarray, "T 256"]:
    """State after a byte, from every state but the last."""
    moves = np.zeros((len(text), 256), np.int64)
    fallback = 0
    for state, byte in enumerate(text):
        moves[state] = moves[fallback] if state else 0
        moves[state, byte] = state + 1
        if state:
            fallback = int(moves[fallback, byte])
    return moves


class TextStream:
    """Text of tokens as they come, for byte-level tokenizers (Qwen's, and the ones made here).

    A token may end in the middle of a character: its bytes are kept back until the character is whole. The pieces
    joined are what the tokenizer decodes from all ids at once, special tokens left out.
    Raises ConfigError when the tokenizer is not byte-level.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
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
        """Give the text that is whole now that `token` has come; empty for special tokens and parts of characters."""
        return self._decoder.decode(self.bytes_of(token))

    def finish(self) -> str:
        """Give what was kept back, with U+FFFD for a character that never became whole."""
        return self._decoder.decode(b"", final=True)

    def bytes_of(self, token: int) -> bytes:
        """Give the bytes of a token's text; none for special tokens and ids beyond the vocabulary."""
        if token in self._special:
            return b""
        text = cast(str | None, self._tokenizer.convert_ids_to_tokens(token))
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
