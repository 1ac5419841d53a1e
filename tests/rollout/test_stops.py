"""Texts that end a response: found in whatever tokens they come, and the response ends there."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from small import ALLOWED, MODEL, PAD, prompts, with_layers

from infimmr_jax.preprocess.tokenizer import train_tokenizer
from infimmr_jax.rollout.sampler import sample
from infimmr_jax.rollout.state import SampleSettings, finish_reasons
from infimmr_jax.rollout.vocabulary import response_texts, stop_tables


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(["so it is </answer> and on it goes", "ababab aabaab", "naïve café"] * 3, 340)


def found_at(table: np.ndarray, tokens: list[int]) -> int | None:
    state = 0
    for place, token in enumerate(tokens):
        state = table[state, token]
        if state == len(table) - 1:
            return place
    return None


@pytest.mark.parametrize("stop", ["</answer>", "aab", "abab", "é", "it is"])
def test_a_text_is_found_where_the_decoded_text_first_holds_it(tokenizer, stop):
    vocabulary = len(tokenizer)
    # Two texts: the table of the shorter one is padded.
    table = stop_tables(tokenizer, (stop, "x" * 12), vocabulary)[0]
    rng = np.random.default_rng(0)
    hits = 0
    pieces = ["</answer>", "</", "answer", ">", "a", "aa", "ab", "b", " it is", " it", " is", "é", "caf", "x", " "]
    for _ in range(200):
        text = "".join(rng.choice(pieces, size=12))
        tokens = tokenizer.encode(text, add_special_tokens=False)
        bytes_so_far, expected = b"", None
        for place, token in enumerate(tokens):
            bytes_so_far += stop_bytes(tokenizer, token)
            if expected is None and stop.encode() in bytes_so_far:
                expected = place
        assert found_at(table, tokens) == expected, text
        hits += expected is not None
    assert hits >= 5


def stop_bytes(tokenizer, token: int) -> bytes:
    """A token's bytes by way of the tokenizer's own byte alphabet, the other way round than the code under test."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    back = {character: byte for byte, character in bytes_to_unicode().items()}
    text = tokenizer.convert_ids_to_tokens(token)
    return bytes(back[c] for c in text) if all(c in back for c in text) else text.encode()


def test_special_tokens_begin_anew(tokenizer):
    a, special = tokenizer.convert_tokens_to_ids("a"), tokenizer.eos_token_id
    table = stop_tables(tokenizer, ("aa",), len(tokenizer))[0]
    assert found_at(table, [a, a]) == 1
    assert found_at(table, [a, special, a]) is None


def test_responses_end_with_the_stop_and_at_their_limits():
    """An automaton that waits for any two tokens above 30 in a row; rows have their own limits."""
    one = with_layers(1)
    params = jax.jit(one.init)(jax.random.key(0))
    V = MODEL.vocab_size
    high = np.arange(V) > 30
    table = np.stack([np.where(high, 1, 0), np.where(high, 2, 0), np.full(V, 2)])[None].astype(np.int16)
    limits = np.asarray([[3, 12], [12, 1]], np.int32)
    function = functools.partial(sample, model=one, settings=SampleSettings(2, 12))
    drawn = jax.jit(function)(
        params, batch=prompts(2), allowed=ALLOWED, key=jax.random.key(0), limits=limits, stops=table
    )[0]
    tokens, lengths = np.asarray(drawn.tokens), np.asarray(drawn.lengths)
    reasons = finish_reasons(drawn, MODEL.tokens.ends)
    for row in np.ndindex(2, 2):
        kept = tokens[row][: lengths[row]]
        pairs = np.flatnonzero((kept[:-1] > 30) & (kept[1:] > 30))
        assert lengths[row] <= limits[row]
        assert list(pairs) == ([lengths[row] - 2] if reasons[row] == "stop" else []), row
        assert (reasons[row] == "length") == (not drawn.finished[row])
        assert (tokens[row][lengths[row] :] == PAD).all()
    assert "stop" in reasons
    assert reasons[1, 1] in ("length", "end")


def test_every_end_ends_a_response():
    """With other ends the same random numbers give the same tokens, up to the first end of any kind."""
    params = jax.jit(with_layers(1).init)(jax.random.key(0))
    one, others = with_layers(1), tuple(range(30, 50))
    tokens = dataclasses.replace(one.config.tokens, other_ends=others)
    many = dataclasses.replace(one, config=dataclasses.replace(one.config, tokens=tokens))
    settings = SampleSettings(4, 12)
    drawn = [
        jax.jit(functools.partial(sample, model=model, settings=settings))(
            params, batch=prompts(2), allowed=ALLOWED, key=jax.random.key(3)
        )[0]
        for model in (one, many)
    ]
    plain, ended = (np.asarray(rollouts.tokens) for rollouts in drawn)
    lengths, reasons = np.asarray(drawn[1].lengths), finish_reasons(drawn[1], tokens.ends)
    for row in np.ndindex(2, 4):
        ends = np.flatnonzero(np.isin(plain[row], tokens.ends))
        expected = ends[0] + 1 if len(ends) else 12
        assert lengths[row] == expected
        assert np.array_equal(ended[row][:expected], plain[row][:expected])
        assert reasons[row] == ("end" if len(ends) else "length")
    assert (reasons == "end").sum() >= 4


def test_an_end_that_is_no_special_token_is_not_in_the_text(tokenizer):
    ids = tokenizer.encode("so it is a", add_special_tokens=False)
    tokens = np.asarray([[ids, ids[::-1]]])
    mask = np.ones_like(tokens, bool)
    assert response_texts(tokenizer, tokens, mask, (ids[-1],))[0][0] == tokenizer.decode(ids[:-1])
    assert response_texts(tokenizer, tokens, mask)[0][0] == "so it is a"
    assert response_texts(tokenizer, tokens, mask, (ids[-1],))[0][1] == tokenizer.decode(ids[::-1])
