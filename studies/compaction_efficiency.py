"""Useful row-steps over executed ones on log-normal lengths, for numbers of compactions and of prompts.

    python -m studies.compaction_efficiency [--group 8] [--new-tokens 400] [--longest 8] [--draws 5]

Computed from the lengths and the sampler's shapes, nothing is run: the sampler moves on to the next shape as soon as
the rows that are left fit it. `tests/studies/test_compaction_efficiency.py` compares with the sampler's own counter.
"""

from __future__ import annotations

import argparse
import statistics

import numpy as np
from jaxtyping import Int

from infimmr_jax.bench.work import Size, lognormal_limits
from infimmr_jax.rollout.compaction import compacted_shapes

COMPACTIONS = (0, 2, 3, 6, 12, 16)
PROMPTS = (8, 16, 32)


def executed_steps(lengths: Int[np.ndarray, "P G"], compactions: int) -> int:
    """Rows times steps that the sampler computes for responses of these lengths."""
    P, G = lengths.shape
    shapes = [(P, G), *compacted_shapes(P, G, compactions)]
    executed = at = 0
    for step in range(lengths.max()):
        left = (lengths > step).sum(1)
        while at + 1 < len(shapes) and np.ceil(left / shapes[at + 1][1]).sum() <= shapes[at + 1][0]:
            at += 1
        executed += shapes[at][0] * shapes[at][1]
    return executed


def efficiency(size: Size, longest: float, compactions: int, draws: int) -> float:
    """Useful over executed row-steps, the mean of several draws of lengths."""
    lengths = [lognormal_limits(size, longest, seed) for seed in range(draws)]
    return statistics.mean(float(drawn.sum()) / executed_steps(drawn, compactions) for drawn in lengths)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--new-tokens", type=int, default=400)
    parser.add_argument("--longest", type=float, default=8.0)
    parser.add_argument("--draws", type=int, default=5)
    options = parser.parse_args()
    sizes = [Size(prompts=count, group=options.group, new_tokens=options.new_tokens) for count in PROMPTS]
    print("| compactions |" + "".join(f" {size.prompts} x {size.group} |" for size in sizes))
    print("|---|" + "---|" * len(sizes))
    for count in COMPACTIONS:
        shares = [efficiency(size, options.longest, count, options.draws) for size in sizes]
        print(f"| {count} |" + "".join(f" {share:.2f} |" for share in shares))


if __name__ == "__main__":
    main()
