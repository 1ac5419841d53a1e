"""Compaction: rows keep their tokens wherever they are computed, and few computed rows are nobody's."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import ALLOWED, EOS, prompts, with_layers

from infimmr_jax.rollout.compaction import (
    compacted_shapes,
    first_places,
    fits,
    gather_branches,
    gather_prompts,
    next_places,
)
from infimmr_jax.rollout.sampler import begin_stages, initial_state, run_loop, sample
from infimmr_jax.rollout.stages import StageSteps, lengthen, next_stage, run_stages
from infimmr_jax.rollout.state import SampleSettings

# One layer: every shape is a token loop of its own to compile.
ONE = with_layers(1)
PARAMS = jax.jit(ONE.init)(jax.random.key(0))
NO_END = ALLOWED & (np.arange(len(ALLOWED)) != EOS)


def log_normal_lengths(P: int, G: int, longest: int, seed: int = 0) -> np.ndarray:
    """Lengths whose longest is 8 times their median."""
    draws = np.random.default_rng(seed).normal(size=(P, G))
    spread = np.log(8) / (draws.max() - np.median(draws))
    return np.maximum(1, np.round(longest * np.exp(spread * (draws - draws.max())))).astype(np.int32)


@functools.cache
def sampler(settings: SampleSettings, shards: int):
    return jax.jit(functools.partial(sample, model=ONE, settings=settings, shards=shards))


def run(settings: SampleSettings, batch, limits, allowed=NO_END, shards: int = 1):
    """Rollouts, and the number of rows times steps that were computed."""
    key = jax.random.key(3)
    return jax.device_get(sampler(settings, shards)(PARAMS, batch=batch, allowed=allowed, key=key, limits=limits))


PLAIN = SampleSettings(4, 32, temperature=2.0, repetition_penalty=1.2, entropies=True, gaps=True)
COMPACTED = dataclasses.replace(PLAIN, compactions=2, cache_sizes=3)


@pytest.fixture(scope="module")
def plain():
    """Sampled responses of log-normal lengths without compaction, with everything recorded."""
    batch, limits = prompts(4), log_normal_lengths(4, 4, 32)
    return batch, limits, run(PLAIN, batch, limits)


def test_compaction_changes_nothing_but_the_work(plain):
    batch, limits, (expected, plain_rows) = plain
    found, rows = run(COMPACTED, batch, limits, shards=2)
    for name in ("tokens", "mask", "finished"):
        assert np.array_equal(getattr(found, name), getattr(expected, name)), name
    for name in ("logprobs", "behaviour", "entropies", "gaps"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), atol=1e-5, err_msg=name)
    assert np.array_equal(expected.lengths, limits)
    assert rows < 0.75 * plain_rows
    assert plain_rows == 16 * limits.max()


def test_answers_that_end_by_themselves_survive_compaction():
    batch = dataclasses.replace(prompts(4), row_mask=np.asarray([True, True, False, True]))
    limits = np.full((4, 4), 32, np.int32)
    expected, _ = run(PLAIN, batch, limits, allowed=ALLOWED)
    found, _ = run(COMPACTED, batch, limits, allowed=ALLOWED, shards=2)
    assert np.array_equal(found.tokens, expected.tokens)
    assert np.array_equal(found.finished, expected.finished)
    assert expected.finished.any()
    assert not found.mask[2].any()


def test_moved_rows_keep_their_prompt_and_nobody_is_lost():
    P, G, shards = 6, 4, 2
    done = jnp.asarray(np.random.default_rng(0).random((P, G)) < 0.6)
    places = first_places(P // shards, G, shards)
    label = jnp.arange(P * G).reshape(P, G)
    owner = jnp.arange(P)
    shape = (4, 2)
    assert bool(fits(done, places, P // shards, shape, shards))
    moved, now_done, moves = next_places(done, places, P // shards, P // shards * G, shape, shards)
    rows, bundles = gather_branches({"label": label}, moves), gather_prompts(owner, moves)
    alive = ~np.asarray(now_done)
    assert sorted(np.asarray(rows["label"])[alive]) == sorted(np.asarray(label)[~np.asarray(done)])
    expected_owner = np.asarray(rows["label"]) // G
    assert (np.broadcast_to(np.asarray(bundles)[:, None], alive.shape)[alive] == expected_owner[alive]).all()
    assert (np.asarray(moved.home)[~alive] == P // shards * G).all()
    again, *_ = next_places(now_done, moved, P // shards, P // shards * G, (8, 1), shards)
    assert sorted(np.asarray(again.home)[np.asarray(again.home) < 12]) == sorted(np.asarray(moved.home)[alive])


def test_rows_that_do_not_fit_are_seen():
    places = first_places(2, 4, 1)
    done = jnp.asarray([[False, False, False, True], [True, True, True, False]])
    assert bool(fits(done, places, 2, (3, 2), 1))
    assert not bool(fits(done, places, 2, (2, 2), 1))
    assert bool(fits(done, places, 2, (4, 1), 1))
    assert not bool(fits(done, places, 2, (3, 1), 1))


@pytest.mark.parametrize(("P", "G"), [(8, 8), (32, 8), (16, 16), (1, 1), (3, 5)])
def test_shapes_get_smaller_and_are_at_most_as_many_as_asked(P, G):
    for count in (0, 1, 4, 12):
        shapes = compacted_shapes(P, G, count)
        rows = [P * G, *(bundles * branches for bundles, branches in shapes)]
        assert len(shapes) <= count
        assert all(later < earlier for earlier, later in itertools.pairwise(rows))
        assert all(bundles <= (4 if count >= 6 else 2) * P for bundles, branches in shapes)


@pytest.mark.parametrize(("count", "least"), [(3, 0.58), (6, 0.75), (12, 0.83), (16, 0.85)])
def test_share_of_useful_steps_on_log_normal_lengths(count, least):
    """Computed from the shapes alone: the sampler moves on as soon as the rows that are left fit the next shape."""
    shares = []
    for seed in range(5):
        lengths = log_normal_lengths(16, 8, 400, seed)
        shapes, executed, at = [(16, 8), *compacted_shapes(16, 8, count)], 0, 0
        for step in range(lengths.max()):
            left = (lengths > step).sum(1)
            while at + 1 < len(shapes) and (-(-left // shapes[at + 1][1])).sum() <= shapes[at + 1][0]:
                at += 1
            executed += shapes[at][0] * shapes[at][1]
        shares.append(lengths.sum() / executed)
    assert np.mean(shares) > least, shares


def test_stages_are_programs_of_their_own_and_what_they_finish_is_final():
    settings, batch, key = COMPACTED, prompts(4), jax.random.key(3)
    limits = np.full((4, 4), 32, np.int32)
    expected, rows = run(COMPACTED, batch, limits, allowed=ALLOWED, shards=2)

    @jax.jit
    def begin(params, batch, limits, key):
        trunk = ONE.trunk(params, batch)
        weights, stage = begin_stages(params, ONE, settings, trunk, key, limits, shards=2)
        return weights, stage, initial_state(ONE, settings, trunk.start, batch)

    @functools.partial(jax.jit, static_argnums=(3, 4))
    def loop(state, stage, weights, number, end):
        given = (state, stage, weights, ALLOWED, None, ONE, settings)
        return run_loop(*given, number=number, P=4, end=end, shards=2)

    def end(state, stage, earlier, number):
        return next_stage(state, stage, earlier, settings, number, 4, shards=2)

    steps = StageSteps(lambda: begin(PARAMS, batch, limits, key), loop, end, lengthen, gather_branches, gather_prompts)
    stages, executed = jax.device_get(run_stages(steps, settings, 4, shards=2))
    assert len(stages) == 3
    assert executed == rows
    # One program there and several here may be fused otherwise: log-probs are equal up to rounding.
    for name in vars(expected):
        np.testing.assert_allclose(getattr(stages[-1], name), getattr(expected, name), atol=1e-5, err_msg=name)
    early = stages[0].finished
    assert early.any()
    assert not early.all()
    for found in stages[:-1]:
        for name in ("tokens", "mask", "logprobs"):
            np.testing.assert_array_equal(getattr(found, name)[early], getattr(stages[-1], name)[early], err_msg=name)
