"""What digests add to a checkpoint: seconds to save some gigabytes, of which for the digests; per gigabyte and at 3B.

    python studies/checkpoint_cost.py --gigabytes 1

The bytes of a state decide both: parameters and two moments in float32, saved by `training.checkpoints`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import jax
import numpy as np

from infimmr_jax.config import parse_config
from infimmr_jax.model.config import TokenIds, config_from_shape
from infimmr_jax.objectives.train_state import TrainState
from infimmr_jax.training.checkpoints import Checkpoints
from infimmr_jax.training.digests import array_digests
from infimmr_jax.training.place import Place

BYTES_3B = 3.75e9 * 4 * 3  # Qwen2.5-VL-3B: parameters and two moments in float32
SOURCE = {"reader": "synthetic", "families": ["bars"], "size": 8}
PHASE = {"name": "t", "modality": "text", "steps": 1, "sources": [SOURCE]}


def state_of(gigabytes: float) -> TrainState:
    """A state of random arrays like stacked layers, a third of it parameters."""
    rows = int(gigabytes * 1e9 / 4 / 3 / 4 / 2048)
    draw = jax.jit(lambda key: [jax.random.normal(k, (rows, 2048)) for k in jax.random.split(key, 4)])
    trees = [draw(jax.random.key(seed)) for seed in range(3)]
    return TrainState(step=jax.numpy.int32(0), params=trees[0], moments=tuple(trees[1:]), estimator=())


def main() -> None:
    """Save twice and print a row of JSON: the second save has nothing left to compile."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--directory", type=Path, help="where to write (default: a temporary directory)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.directory) as folder:
        config = parse_config({"output": folder, "phases": [PHASE]})
        state = jax.block_until_ready(state_of(options.gigabytes))
        size = sum(array.nbytes for array in jax.tree.leaves(state))
        with Checkpoints(config, config_from_shape(config.model.shape, 400, TokenIds(0, 1, 2, 3, 4, 5))) as checkpoints:
            for number in (1, 2):
                began = time.perf_counter()
                checkpoints.save(number, Place(step=number), state)
                blocked = time.perf_counter() - began
                checkpoints.wait()
                seconds = time.perf_counter() - began
        digests = []
        for _ in range(3):
            began = time.perf_counter()
            array_digests(state)
            digests.append(time.perf_counter() - began)
    digest = float(np.median(digests))
    row = {
        "device": jax.devices()[0].device_kind,
        "gigabytes": round(size / 1e9, 3),
        "save_seconds": round(seconds, 3),
        "blocked_seconds": round(blocked, 3),
        "digest_seconds": round(digest, 4),
        "ratio": round(seconds / (seconds - digest), 4),
        "save_seconds_3b": round(seconds / size * BYTES_3B, 1),
        "digest_seconds_3b": round(digest / size * BYTES_3B, 2),
    }
    print(json.dumps(row))


if __name__ == "__main__":
    main()
