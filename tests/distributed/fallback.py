"""One of two processes that save twice, damage what was saved last, and resume: `fallback.py INDEX PORT RUN DAMAGE`."""

import shutil
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from tiny import tiny_config

from infimmr_jax.model.config import TokenIds, config_from_shape
from infimmr_jax.objectives.train_state import TrainState
from infimmr_jax.parallel.hosts import wait_for_hosts
from infimmr_jax.training.checkpoints import Checkpoints
from infimmr_jax.training.place import Place


def damaged(newest: Path, damage: str) -> None:
    """Spoil the newer checkpoint: one process's own arrays, the facts, or bits that still can be read."""
    if damage == "arrays of one":
        files = [path for path in (newest / "state").rglob("*") if path.is_file()]
        max(files, key=lambda path: path.stat().st_size).unlink()
    elif damage == "facts":
        (newest / "facts" / "metadata").write_text("{}")
    elif damage == "swapped":  # another checkpoint's arrays: they are read without an error
        shutil.rmtree(newest / "state")
        shutil.copytree(newest.parent / "1" / "state", newest / "state")


def main(index: int, port: str, run: Path, damage: str) -> None:
    """Print the step that is resumed, and whether its arrays are those that were saved."""
    jax.distributed.initialize(f"127.0.0.1:{port}", 2, index)
    mesh = jax.make_mesh((jax.device_count(),), ("fsdp",))
    split = NamedSharding(mesh, PartitionSpec("fsdp"))

    def state(step: int) -> TrainState:
        make = jax.jit(lambda key: jax.random.normal(key, (512, 64)), out_shardings=split)
        whole = jax.jit(lambda: jnp.int32(step), out_shardings=NamedSharding(mesh, PartitionSpec()))
        return TrainState(step=whole(), params={"kernel": make(jax.random.key(step))}, moments=(), estimator=())

    config = tiny_config(run)
    model = config_from_shape(config.model.shape, 400, TokenIds(0, 1, 2, 3, 4, 5))
    with Checkpoints(config, model) as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, Place(step=step), state(step))
            checkpoints.wait()
    wait_for_hosts("saved")
    if index == 0:
        damaged(run / "checkpoints" / "2", damage)
    wait_for_hosts("damaged")
    with Checkpoints(config, model) as checkpoints:
        abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state(1))
        place, restored = checkpoints.resume(abstract)
    mine, saved = (each.params["kernel"].addressable_shards for each in (restored, state(place.step)))
    same = all(np.array_equal(one.data, two.data) for one, two in zip(mine, saved, strict=True))
    print(f"process {index} goes on from {place.step}, {'the same' if same else 'other'} arrays", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), sys.argv[4])
