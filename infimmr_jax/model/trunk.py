"""What the verbs of a model hand to each other: parameters, the trunk of prompts, caches of branches."""

from __future__ import annotations

from flax import struct
from jaxtyping import Array, Bool, Float, Int

from infimmr_jax.names import JsonObject
from infimmr_jax.parallel.sequence import with_copies

Params = JsonObject  # A nested dictionary of arrays; "decoder" holds the language model.
LayerCache = tuple[Float[Array, "P G K R D"], Float[Array, "P G K R D"]]
LayerTrunk = tuple[Float[Array, "P K S D"], Float[Array, "P K S D"]]


@struct.dataclass
class BranchStart:
    """Where the branches of P prompts start: real trunk slots, first input token, and its position."""

    mask: Bool[Array, "P S"]
    bridge: Int[Array, "P"]
    next_position: Int[Array, "P"]


@struct.dataclass
class Trunk:
    """What branches need of their P prompts: keys and values of every layer, and where they start."""

    k: Float[Array, "L P K S D"]
    v: Float[Array, "L P K S D"]
    start: BranchStart

    def dealt(self, parts: int) -> Trunk:
        """Copy the trunks for groups that are dealt out in `parts`: P * parts of them."""
        start = self.start
        k, v = (with_copies(x, parts, axis=1) for x in (self.k, self.v))
        return Trunk(
            k, v, BranchStart(*(with_copies(x, parts) for x in (start.mask, start.bridge, start.next_position)))
        )
