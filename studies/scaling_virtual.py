"""The nano update compiled for 1, 2, 4 and 8 virtual CPU devices: FLOPs, bytes and sent bytes of one device.

python -m studies.scaling_virtual: prints the table of docs/scaling.md.
"""

from __future__ import annotations

import os
from pathlib import Path

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
os.environ["JAX_PLATFORMS"] = "cpu"

import jax

from infimmr_jax.config import load_config
from infimmr_jax.parallel.mesh import make_mesh
from infimmr_jax.plan.abstract import lower_update, planned_run
from infimmr_jax.plan.compile import read_costs
from infimmr_jax.plan.planner import largest_phase

NANO = Path(__file__).parents[1] / "configs" / "nano.yaml"


def main() -> None:
    """Compile and print."""
    print("| devices | data x fsdp x tensor | prompts a device | MFLOP | MB memory | MB sent | collectives |")
    print("|---|---|---|---|---|---|---|")
    for devices, fsdp, tensor, prompts in (
        *((1, 1, 1, 32), (2, 2, 1, 32), (4, 4, 1, 32), (8, 8, 1, 32)),
        *((8, 1, 1, 32), (8, 4, 2, 32), (8, 8, 1, 256)),
    ):
        changes = [f"mesh.fsdp={fsdp}", f"mesh.tensor={tensor}"]
        changes += [f"phases.{number}.prompts_per_step={prompts}" for number in range(3)]
        config = load_config(NANO, changes)
        mesh = make_mesh(config.mesh, jax.devices()[:devices])
        run = planned_run(config, mesh, "xla")
        text = lower_update(run, largest_phase(config)).compile().as_text()
        parts, kinds = read_costs(text, run)
        sizes = " x ".join(str(mesh.shape[axis]) for axis in ("data", "fsdp", "tensor"))
        numbers = (sum(part.flops for part in parts), sum(p.bytes for p in parts), sum(p.sent for p in parts))
        found = ", ".join(f"{kind} {times:.0f}" for kind, (times, _) in kinds.items()) or "none"
        cells = " | ".join(f"{number / 1e6:,.1f}" for number in numbers)
        print(f"| {devices} | {sizes} | {prompts // (mesh.shape['data'] * fsdp)} | {cells} | {found} |", flush=True)


if __name__ == "__main__":
    main()
