"""How much packing saves in the cold start: useful tokens, seconds a step and the first losses, padded and packed.

    python -m studies.packing [--config configs/nano.yaml] [--lengths 128 256] [--steps 10] [--set a.b=c]

Useful are the tokens of demonstrations (prompt and response), computed are the slots of the batch's arrays.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import jax
import numpy as np

from infimmr_jax.config import load_config
from infimmr_jax.objectives.supervised import SftBatch
from infimmr_jax.preprocess.packing import PackedBatch
from infimmr_jax.rewards.pool import GraderPool
from infimmr_jax.training.demonstration_batches import supervised_rate
from infimmr_jax.training.programs import Programs
from infimmr_jax.training.setup import prepare


def slots(batch: SftBatch | PackedBatch) -> tuple[int, int, int]:
    """Useful tokens, token slots and image slots of a batch."""
    if isinstance(batch, PackedBatch):
        return int((batch.segments > 0).sum()), batch.tokens.size, len(batch.patch_mask)
    useful = int(batch.prompts.lengths.sum() + batch.mask.sum())
    computed = batch.prompts.tokens.size + batch.responses.size
    return useful, computed, int(np.prod(batch.prompts.patch_mask.shape[:2]))


def measure(config_path: Path, overrides: list[str], steps: int) -> str:
    """A line of the table for one way to make batches."""
    with tempfile.TemporaryDirectory() as folder, GraderPool() as pool:
        config = load_config(config_path, [f"output={folder}", "evaluation={}", *overrides])
        setup = prepare(config, Path(folder), pool)
    assert setup.demonstrations
    assert config.sft is not None
    programs = Programs(setup)
    state = programs.start()
    batches = [setup.demonstrations[0](step) for step in range(steps)]
    counts = np.asarray([slots(batch) for batch in batches])
    seconds, losses = [], []
    for step, batch in enumerate(batches):
        began = time.monotonic()
        state, metrics = programs.supervise(state, batch, supervised_rate(step, config.sft))
        losses.append(float(jax.device_get(metrics["loss"])))
        seconds.append(time.monotonic() - began)
    # The steps that compiled are known by their time: a median of the others is what a long run sees.
    pace = float(np.median(seconds[1:]))
    useful, computed, images = counts.mean(axis=0)
    shown = " ".join(f"{loss:.6f}" for loss in losses[:3])
    name = f"packed, {config.sft.packed_length}" if config.sft.packed_length else "padded"
    share = f"{useful:.0f} of {computed:.0f} ({100 * useful / computed:.0f}%)"
    return f"| {name} | {share} | {images:.0f} | {1000 * pace:.0f} | {useful / pace:,.0f} | {shown} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("configs/nano.yaml"))
    parser.add_argument("--lengths", type=int, nargs="+", default=[128, 256])
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--set", nargs="+", default=[], dest="overrides", help="changes of the configuration")
    options = parser.parse_args()
    print("| rows | useful tokens of those computed | image slots | ms a step | useful tokens/s | first losses |")
    print("|---|---|---|---|---|---|", flush=True)
    print(measure(options.config, options.overrides, options.steps), flush=True)
    for length in options.lengths:
        packed = [*options.overrides, f"sft.packed_length={length}"]
        print(measure(options.config, packed, options.steps), flush=True)


if __name__ == "__main__":
    main()
