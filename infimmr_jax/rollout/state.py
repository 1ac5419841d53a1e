"""What travels through sampling: settings, rollouts, the carry of the token loop, and what a stage of it keeps."""

from __future__ import annotations

import dataclasses

import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from infimmr_jax.config import RolloutSection
from infimmr_jax.model.trunk import BranchStart, LayerCache, LayerTrunk
from infimmr_jax.rollout.compaction import Places


@dataclasses.dataclass(frozen=True)
class SampleSettings:
    """Static settings of a sampler: G responses of at most R tokens a prompt; temperature 0 is greedy.

    `stop` are texts that end a response; their automata are given to the sampler as `stops`.
    `compactions` is how many smaller shapes unfinished rows are gathered into as others finish; `cache_sizes` how many
    sizes the cache of the whole batch grows through, since every step reads the whole of it. `entropies` and `gaps`
    record the entropy of each token's distribution and the lead of its likeliest token over the second. What is not
    asked for is not in the program.
    """

    group_size: int
    max_response: int
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    stop: tuple[str, ...] = ()
    compactions: int = 0
    cache_sizes: int = 1
    entropies: bool = False
    gaps: bool = False

    @classmethod
    def of(
        cls,
        rollout: RolloutSection,
        group_size: int,
        max_response: int,
        *,
        temperature: float | None = None,
        top_p: float | None = None,
    ) -> SampleSettings:
        """Read a `rollout` section; a given temperature or top-p takes the place of the section's.

        Truncation changes no greedy answer, so that a greedy sampler is compiled without it.
        """
        temperature = rollout.temperature if temperature is None else temperature
        top_p = rollout.top_p if top_p is None else top_p
        greedy = temperature == 0
        return cls(
            group_size,
            max_response,
            temperature,
            0 if greedy else rollout.top_k,
            1.0 if greedy else top_p,
            0.0 if greedy else rollout.min_p,
            rollout.repetition_penalty,
            rollout.stop,
            rollout.compactions_for(max_response),
            rollout.cache_sizes,
        )


@struct.dataclass
class Rollouts:
    """Sampled responses of P prompts x G.

    `mask` is True on sampled tokens, the end token included. `logprobs` are of the policy at the sampling temperature
    over allowed tokens (what the trainer computes again); `behaviour` are of the distribution really drawn from (after
    the repetition penalty, top-k, top-p and min-p). `finished` responses ended by themselves, the others were cut.
    `entropies` and `gaps` are of the distribution that `logprobs` are of.
    """

    tokens: Int[Array, "P G R"]
    mask: Bool[Array, "P G R"]
    logprobs: Float[Array, "P G R"]
    behaviour: Float[Array, "P G R"]
    finished: Bool[Array, "P G"]
    entropies: Float[Array, "P G R"] | None = None
    gaps: Float[Array, "P G R"] | None = None

    @property
    def lengths(self) -> Int[Array, "P G"]:
        return self.mask.sum(-1)


@struct.dataclass
class RowInputs:
    """What a row keeps from its first token to its last: random key, length limit."""

    keys: Array
    limits: Int[Array, "P G"] | None


@struct.dataclass
class SamplerState:
    """Carry of the token loop.

    `executed` counts rows times steps that the loop computed; `stops` are states of the stop automata, `seen` the
    tokens a penalty falls on.
    """

    slot: Int[Array, ""]
    last: Int[Array, "P G"]
    done: Bool[Array, "P G"]
    rollouts: Rollouts
    executed: Int[Array, ""]
    caches: tuple[LayerCache, ...]
    stops: Int[Array, "P G N"] | None = None
    seen: Bool[Array, "P G V"] | None = None


@struct.dataclass
class Stage:
    """What does not change while a token loop runs: where its rows belong, what they keep, and their prompts.

    `start` and `kv` are the prompts' trunk, its keys and values layer by layer.
    """

    places: Places
    inputs: RowInputs
    start: BranchStart
    kv: tuple[LayerTrunk, ...]


def finish_reasons(rollouts: Rollouts, ends: tuple[int, ...]) -> np.ndarray:
    """Say why each response ended, as strings [P, G]: "end" (token), "stop" (text), "length", "" without any token."""
    tokens, mask = np.asarray(rollouts.tokens), np.asarray(rollouts.mask)
    lengths = mask.sum(-1)
    last = np.take_along_axis(tokens, np.maximum(lengths - 1, 0)[..., None], axis=-1)[..., 0]
    by_itself = np.where(np.isin(last, ends), "end", "stop")
    return np.where(lengths == 0, "", np.where(np.asarray(rollouts.finished), by_itself, "length"))
