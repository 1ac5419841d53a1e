"""The programs of a sampler in stages, compiled for a TPU that is not here: what each keeps in memory, and how it lies.

    python -m studies.staged_ahead [--topology v5e:4x4] [-c configs/infimmr_3b.yaml -c configs/machines/3b_v5e-16.yaml]

`infimmr plan` compiles the same token loops as one program; training runs them one by one (`rollout/staged.py`), and
between them moves the keys and values layer by layer. GiB of one chip: arguments, temporaries, and their sum with
results that take no argument's place. A move's arguments are all layers as they were; its "all" is with one moved.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
from pathlib import Path
from typing import Any

from infimmr_jax.config import load_config
from infimmr_jax.plan.chips import GIB, parse_topology
from infimmr_jax.plan.environment import prepare_compiler, prepare_process

CONFIGS = Path(__file__).parents[1] / "configs"


def abstract(shapes: Any, shardings: Any) -> Any:
    """Arrays of a compiled program's results, as the arguments of the next one."""
    import jax

    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, shardings)


def report(name: str, compiled: Any) -> None:
    """One row of the table."""
    found = compiled.memory_analysis()
    held = found.argument_size_in_bytes
    whole = held + found.temp_size_in_bytes + found.output_size_in_bytes - found.alias_size_in_bytes
    numbers = (held, found.temp_size_in_bytes, whole)
    print(f"| {name} | {' | '.join(f'{number / GIB:.2f}' for number in numbers)} |", flush=True)


def moving(move: Any, layers: tuple, moves: Any) -> tuple[tuple, float, float]:
    """The layers as a move leaves them; GiB of them as they were, and of what the move of one adds."""
    import jax

    lowered = move.lower(layers[0], moves)
    compiled = lowered.compile()
    found = compiled.memory_analysis()
    one = abstract(lowered.out_info, compiled.output_shardings)
    own = sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(layers))
    return (one,) * len(layers), own / GIB, (found.temp_size_in_bytes + found.output_size_in_bytes) / GIB


def main() -> None:
    """Compile and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--topology", default="v5e:4x4")
    parser.add_argument("-c", "--config", type=Path, action="append")
    options = parser.parse_args()
    files = options.config or [CONFIGS / "infimmr_3b.yaml", CONFIGS / "machines" / "3b_v5e-16.yaml"]
    prepare_process()
    prepare_compiler(quick=True)
    import jax

    from infimmr_jax.parallel.mesh import batch_divisor
    from infimmr_jax.plan.abstract import abstract_batch, planned_run, static_shapes
    from infimmr_jax.plan.compile import described_devices
    from infimmr_jax.plan.planner import largest_phase
    from infimmr_jax.rollout.stages import stage_count
    from infimmr_jax.training.programs import Programs

    config = load_config(files)
    mesh = described_devices(parse_topology(options.topology), config.mesh)
    run, phase = planned_run(config, mesh, "splash"), largest_phase(config)
    programs, P = Programs(run), phase.prompts_per_step
    settings = programs.phase_settings(phase)
    staged, params = programs.staged(settings), programs.restore_target().params
    batch = abstract_batch(P, static_shapes(config, run.model), run.model.layout.patch_width, mesh)
    key = jax.eval_shape(lambda: jax.random.key(0))
    print("| program | arguments | temporaries | all |\n|---|---|---|---|")
    with jax.set_mesh(mesh):
        lowered = staged.begin.lower(params, batch, key)
        begin = lowered.compile()
        report("prefill", begin)
        weights, stage = abstract(lowered.out_info, begin.output_shardings)
        lowered = staged.empty.lower(stage, batch)
        empty = lowered.compile()
        report("empty caches", empty)
        state = abstract(lowered.out_info, empty.output_shardings)
        print(f"caches: {state.caches[0][0].shape} {state.caches[0][0].sharding.spec}", flush=True)
        whole = None
        for number in range(stage_count(P, settings.group_size, settings, batch_divisor(mesh))):
            lowered = staged.loop.lower(state, stage, weights, run.allowed, number, P, settings.max_response)
            loop = lowered.compile()
            report(f"token loop {number}", loop)
            state = abstract(lowered.out_info, loop.output_shardings)
            caches, kv = state.caches, stage.kv
            state, stage = dataclasses.replace(state, caches=()), dataclasses.replace(stage, kv=())
            lowered = staged.end.lower(state, stage, whole, number, P)
            end = lowered.compile()
            report(f"end of stage {number}", end)
            whole, stage, state, moves = abstract(lowered.out_info, end.output_shardings)
            if moves is None:
                break
            moved = [
                moving(move, layers, moves) for move, layers in ((staged.move_rows, caches), (staged.move_bundles, kv))
            ]
            (caches, held, most), (kv, others, more) = moved
            print(f"| move {number} | {held + others:.2f} | 0.00 | {held + others + max(most, more):.2f} |", flush=True)
            state, stage = dataclasses.replace(state, caches=caches), dataclasses.replace(stage, kv=kv)


if __name__ == "__main__":
    main()
