"""Writes the tables of docs/scaling.md: every ready configuration, and cost against chips.

python -m studies.scaling OUT.md [--compile] [--json DIR]: without --compile by arithmetic (seconds), with it each plan
is compiled in a process of its own (minutes each). Plans already in DIR are read, not made again.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from infimmr_jax.config import load_config
from infimmr_jax.plan.chips import parse_topology
from infimmr_jax.plan.planner import make_plan
from infimmr_jax.plan.report import as_tree

CONFIGS = Path(__file__).parents[1] / "configs"
GIB = 2**30

READY = (
    ("infimmr_3b", "3b_v5e-16", "v5e:4x4", ()),
    ("infimmr_3b", "3b_v5p-8", "v5p:2x2x1", ()),
    ("infimmr_3b", "3b_v5p-8", "v5p:2x2x2", ()),
    ("infimmr_3b", "3b_v6e-8", "v6e:2x4", ()),
    ("infimmr_3b", "3b_8xh100", "gpu:h100x8", ()),
    ("infimmr_7b", "7b_v5p-16", "v5p:2x2x2", ()),
)
# 32B and 72B: no ready configuration, the 7B one with another size on slices that hold them.
LARGE = tuple(
    ("infimmr_7b", "7b_v5p-16", topology, (f"model.preset=qwen2.5-vl-{size}", *split))
    for topology, size, split in (
        ("v5p:4x4x4", "32b", ("mesh.fsdp=8", "mesh.tensor=8", "grpo.micro_batches=16")),
        ("gpu:h100x64", "32b", ("mesh.fsdp=8", "mesh.tensor=8", "grpo.micro_batches=16")),
        ("v5p:4x4x8", "72b", ("mesh.fsdp=16", "mesh.tensor=8", "grpo.micro_batches=8")),
        ("gpu:h200x128", "72b", ("mesh.fsdp=16", "mesh.tensor=8", "grpo.micro_batches=8")),
    )
)
SLICES = (("v5e:2x4", 8), ("v5e:4x4", 16), ("v5e:4x8", 32), ("v5e:8x8", 64), ("v5e:8x16", 128))


def strong(chips: int) -> tuple[str, ...]:
    """The same 128 prompts a step on more chips: 8 x 2 devices hold the weights, the others repeat them."""
    data = max(1, chips // 16)
    fsdp = min(8, chips // 2)
    return (f"mesh.data={data}", f"mesh.fsdp={fsdp}", "mesh.tensor=2", f"grpo.micro_batches={128 // (data * fsdp)}")


def weak(chips: int) -> tuple[str, ...]:
    """8 prompts a chip and step, whatever the number of chips."""
    prompts = tuple(f"phases.{phase}.prompts_per_step={8 * chips}" for phase in range(3))
    return (*strong(chips)[:3], "grpo.micro_batches=16", *prompts)


def planned(
    size: str, machine: str, topology: str, overrides: tuple[str, ...], method: str, out: Path
) -> dict[str, Any]:
    """One plan as `infimmr plan` writes it; the compiler gets a process of its own."""
    files = [CONFIGS / f"{size}.yaml", CONFIGS / "machines" / f"{machine}.yaml"]
    if method == "arithmetic":
        return as_tree(make_plan(load_config(files, list(overrides)), parse_topology(topology), False, search=False))
    if not out.exists():
        options = [option for file in files for option in ("-c", str(file))]
        options += [option for override in overrides for option in ("--set", override)]
        command = [sys.executable, "-m", "infimmr_jax.cli", "plan", *options, "-t", topology, "--json", str(out)]
        subprocess.run([*command, "--no-search"], check=False)
    return json.loads(out.read_text(encoding="utf-8"))


def row_of(plan: dict[str, Any]) -> str:
    """One line of a table of plans."""
    programs = {program["name"]: program for program in plan["programs"]}
    cells = []
    for name in ("sampler", "update"):
        if name not in programs:
            cells += ["refused", "-", "-"]
            continue
        program = programs[name]
        parts = sorted(program["parts"], key=lambda part: max(part["seconds"].values()), reverse=True)
        least = f"{program['seconds_at_least']:.1f}"
        cells += [f"{program['peak'] / GIB:.2f}", least, f"{parts[0]['name']}: {parts[0]['bound']}"]
    sent = sum(program["sent"] for program in programs.values())
    mesh = " x ".join(str(size) for size in plan["mesh"].values())
    fits = "yes" if plan["fits"] else "**no**"
    rate = plan["tokens_per_second_per_chip_at_most"]
    return (
        f"| {plan['parameters'] / 1e9:.1f}B | {plan['topology']} | {mesh} | {plan['method']} | {' | '.join(cells)} | "
        f"{sent / 1e9:,.0f} | {rate:,.0f} | {plan['flops_share_at_most']:.0%} | {fits} |"
    )


HEADER = (
    "| model | topology | data x fsdp x tensor | by | sampler GiB | s at least | longest | update GiB | s at least | "
    "longest | GB sent a chip | tokens/s a chip at most | FLOP/s at most | fits |\n|" + "---|" * 14
)


def main(
    out: Path,
    compiled: Annotated[bool, typer.Option("--compile", help="Compile the TPU plans of the first table.")] = False,
    keep: Annotated[Path, typer.Option("--json", help="Folder for the plans as JSON.")] = Path("runs/plans"),
) -> None:
    """Make every plan and write the tables."""
    keep.mkdir(parents=True, exist_ok=True)

    def table(title: str, rows: Any, compile_them: bool) -> list[str]:
        lines = [f"### {title}", "", HEADER]
        for number, (size, machine, topology, overrides) in enumerate(rows):
            method = "compile" if compile_them and not topology.startswith("gpu") else "arithmetic"
            name = f"{size}-{machine}-{topology}-{number}.json".replace(":", "_")
            lines.append(row_of(planned(size, machine, topology, overrides, method, keep / name)))
        return [*lines, ""]

    base = ("infimmr_3b", "3b_v5e-16")
    lines = table("Ready configurations", READY, False)
    if compiled:
        lines += table("Compiled ready configurations", [row for row in READY if not row[2].startswith("gpu")], True)
    lines += table("Larger models", LARGE, False)
    lines += table(
        "Strong scaling (128 prompts a step)", [(*base, name, strong(chips)) for name, chips in SLICES], False
    )
    lines += table("Weak scaling (8 prompts a chip)", [(*base, name, weak(chips)) for name, chips in SLICES], False)
    out.write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
