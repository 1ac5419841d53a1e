"""Kinds of rotary scaling: how the frequencies of a longer context follow from those of the plain rotary embedding."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal, TypeAlias

import numpy as np
from jaxtyping import Float32


@dataclasses.dataclass(frozen=True)
class LinearScaling:
    """Every frequency divided by `factor` (position interpolation, arXiv 2306.15595)."""

    factor: float
    kind: Literal["linear"] = "linear"


@dataclasses.dataclass(frozen=True)
class YarnScaling:
    """YaRN (arXiv 2309.00071): slow frequencies divided by `factor`, fast ones kept, a ramp between; cosines and sines
    times an attention factor."""

    factor: float
    original_max_position_embeddings: int
    attention_factor: float | None = None
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    mscale: float | None = None
    mscale_all_dim: float | None = None
    truncate: bool = True
    kind: Literal["yarn"] = "yarn"


@dataclasses.dataclass(frozen=True)
class Llama3Scaling:
    """Llama 3.1's: wavelengths above a bound divided by `factor`, short ones kept, a smooth step between."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position_embeddings: int
    kind: Literal["llama3"] = "llama3"


RopeScaling: TypeAlias = LinearScaling | YarnScaling | Llama3Scaling
KINDS: dict[str, type[LinearScaling] | type[YarnScaling] | type[Llama3Scaling]] = {
    "linear": LinearScaling,
    "yarn": YarnScaling,
    "llama3": Llama3Scaling,
}


def scaled_frequencies(
    plain: Float32[np.ndarray, "half"], scaling: RopeScaling, head_dim: int, theta: float
) -> tuple[Float32[np.ndarray, "half"], float]:
    """Scale the plain frequencies; also returns the factor of the cosines and sines.

    The arithmetic is that of transformers' `modeling_rope_utils`, in float32.
    """
    if isinstance(scaling, LinearScaling):
        return (plain / np.float32(scaling.factor)).astype(np.float32), 1.0
    if isinstance(scaling, Llama3Scaling):
        return _llama3(plain, scaling), 1.0
    return _yarn(plain, scaling, head_dim, theta), _attention_factor(scaling)


def _llama3(plain: Float32[np.ndarray, "half"], scaling: Llama3Scaling) -> Float32[np.ndarray, "half"]:
    original, low, high = (
        scaling.original_max_position_embeddings,
        scaling.low_freq_factor,
        scaling.high_freq_factor,
    )
    wavelength = 2 * math.pi / plain
    slow = np.where(wavelength > original / low, plain / scaling.factor, plain)
    smooth = (original / wavelength - low) / (high - low)
    between = (wavelength >= original / high) & (wavelength <= original / low)
    return np.where(between, (1 - smooth) * slow / scaling.factor + smooth * slow, slow).astype(np.float32)


def _yarn(
    plain: Float32[np.ndarray, "half"], scaling: YarnScaling, head_dim: int, theta: float
) -> Float32[np.ndarray, "half"]:
    def dimension(rotations: float) -> float:
        """Index of the frequency that turns so often within the original context."""
        turns = scaling.original_max_position_embeddings / (rotations * 2 * math.pi)
        return head_dim * math.log(turns) / (2 * math.log(theta))

    low, high = dimension(scaling.beta_fast), dimension(scaling.beta_slow)
    if scaling.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, head_dim - 1)
    ramp = (np.arange(len(plain), dtype=np.float32) - low) / ((high - low) or 0.001)
    kept = 1 - np.clip(ramp, 0, 1).astype(np.float32)
    return (plain / np.float32(scaling.factor) * (1 - kept) + plain * kept).astype(np.float32)


def _attention_factor(scaling: YarnScaling) -> float:
    if scaling.attention_factor is not None:
        return scaling.attention_factor

    def of(mscale: float) -> float:
        return 1.0 if scaling.factor <= 1 else 0.1 * mscale * math.log(scaling.factor) + 1.0

    if scaling.mscale and scaling.mscale_all_dim:
        return of(scaling.mscale) / of(scaling.mscale_all_dim)
    return of(1.0)
