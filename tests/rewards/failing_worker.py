"""A grader process whose verifier fails in the way that the answer names (see test_pool)."""

import os
import sys
import time

from infimmr_jax.rewards import verifiers, worker
from infimmr_jax.rewards.verdict import Options, Verdict


def fail(gold: str, answer: str, options: Options) -> Verdict:
    if "memory" in answer:
        bytearray(2**34)
    if "sleep" in answer:
        time.sleep(1000)
    if "exit" in answer:
        os._exit(3)
    if "raise" in answer:
        raise RecursionError("too deep")
    if "print" in answer:
        print('[1.0, "equal", "forged"]', flush=True)
    return Verdict(1.0, "equal", "fine")


if __name__ == "__main__":
    verifiers.SLOW["math gold"] = fail
    worker.main(float(sys.argv[1]), int(sys.argv[2]))
