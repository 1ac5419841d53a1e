"""How many micro-batches an update needs to stay within a budget of tokens."""

from __future__ import annotations

import jax

from infimmr_jax.config import GrpoSection
from infimmr_jax.parallel.mesh import batch_divisor


def micro_batches(grpo: GrpoSection, prompts: int, trunk: int, group: int, response: int) -> int:
    """The number of micro-batches of a step on `prompts` prompts of `trunk` tokens with `group` x `response` tokens.

    Without `grpo.micro_batch_tokens` it is `grpo.micro_batches`. With it, the fewest equal parts of the prompts of
    each device of the current mesh whose tokens, padding included, are at most that many a device; one prompt a device
    when even that is more. The trunk counts once: the budget is of tokens that are computed.
    """
    if grpo.micro_batch_tokens is None:
        return grpo.micro_batches
    mesh = jax.sharding.get_abstract_mesh()
    own = prompts // (1 if mesh.empty else batch_divisor(mesh))
    most = max(1, grpo.micro_batch_tokens // (trunk + group * response))
    return next(parts for parts in range(1, own + 1) if own % parts == 0 and (own // parts <= most or parts == own))
