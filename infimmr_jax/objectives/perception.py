"""PAPO's perception term: how much the policy's token probabilities depend on seeing the image."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from infimmr_jax.objectives.kl import limited

# PAPO's code bounds each token's value, so that one token can not run away with the term.
_GAP_LIMIT = 10.0
_CHANNELS = 3


def perception_gap(logprobs: Float[Array, "*shape"], masked_image: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Per-token k3 divergence between seeing the image and seeing it masked: e^d - 1 - d with d = masked - whole.

    d is kept within +-20 and the value below 10, as in PAPO's code (arXiv 2507.06448).
    """
    gap = limited(masked_image - logprobs)
    return jnp.clip(jnp.expm1(gap) - gap, -_GAP_LIMIT, _GAP_LIMIT)


def mask_patches(
    patches: Float[Array, "P I N D"],
    patch_mask: Bool[Array, "P I N"],
    key: PRNGKeyArray,
    share: float,
    black: Float[Array, "3"],
) -> Float[Array, "P I N D"]:
    """Patches with each real one blacked out with probability `share`, independently, once per prompt.

    `black` is a black pixel after normalisation, (0 - mean) / std per channel. Patches are flattened with the channel
    outermost (3 x 2 x 14 x 14), as transformers' Qwen2-VL image processor does. PAPO masks 14 x 14 pixel squares of the
    file's image; these are 14 x 14 pixel squares of the resized one.
    """
    dark = jnp.repeat(black.astype(patches.dtype), patches.shape[-1] // _CHANNELS)
    hit = jax.random.bernoulli(key, share, patch_mask.shape) & patch_mask
    return jnp.where(hit[..., None], dark, patches)


__all__ = ["mask_patches", "perception_gap"]
