"""Writes the tables of docs/scaling.md: every ready configuration, and cost against chips.

python -m studies.scaling OUT.md [--compile] [--json DIR]: without --compile by arithmetic (seconds), with it the
scaling over slices up to 64 chips is compiled too, one plan at a time in a process of its own (minutes each). Plans
already in DIR are read, not made again: a run that was broken off goes on where it stopped.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Iterable
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
MOST_COMPILED = 64
KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")


def sliced(chips: int, prompts: int) -> tuple[str, ...]:
    """`prompts` a step on a v5e slice: 8 x 2 chips hold the weights, the others repeat them; one prompt at a time."""
    data, fsdp = max(1, chips // 16), min(8, chips // 2)
    mesh = (f"mesh.data={data}", f"mesh.fsdp={fsdp}", "mesh.tensor=2")
    size = tuple(f"phases.{phase}.prompts_per_step={prompts}" for phase in range(3))
    return (*mesh, *size, f"grpo.micro_batches={prompts // (data * fsdp)}")


def planned(
    size: str, machine: str, topology: str, overrides: tuple[str, ...], out: Path | None = None
) -> dict[str, Any]:
    """One plan as `infimmr plan` writes it: by arithmetic, or compiled in a process of its own and kept in `out`."""
    files = [CONFIGS / f"{size}.yaml", CONFIGS / "machines" / f"{machine}.yaml"]
    if out is None:
        return as_tree(make_plan(load_config(files, list(overrides)), parse_topology(topology), False, search=False))
    if not out.exists():
        print(f"compiling {out.stem}", flush=True)
        options = [option for file in files for option in ("-c", str(file))]
        options += [option for override in overrides for option in ("--set", override)]
        command = [sys.executable, "-m", "infimmr_jax.cli", "plan", *options, "-t", topology, "--json", str(out)]
        # 1 says that it does not fit, which is a row too.
        ended = subprocess.run([*command, "--no-search"], check=False).returncode
        if not out.exists():
            raise SystemExit(
                f"{out.stem}: `infimmr plan` ended with {ended} and wrote no plan; its own words are above"
            )
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
    mesh = " x ".join(str(plan["mesh"][axis]) for axis in ("data", "fsdp", "tensor"))
    rates = f"{plan['tokens_per_second_per_chip_at_most']:,.0f} | {plan['flops_share_at_most']:.0%} | yes"
    if plan["failures"]:
        # A step needs both programs: numbers of one alone are no rates.
        rates = "- | - | **no**"
    elif not plan["fits"]:
        rates = rates.replace("yes", "**no**")
    return (
        f"| {plan['parameters'] / 1e9:.1f}B | {plan['topology']} | {mesh} | {plan['method']} | {' | '.join(cells)} | "
        f"{sent / 1e9:,.0f} | {rates} |"
    )


HEADER = (
    "| model | topology | data x fsdp x tensor | by | sampler GiB | s at least | longest | update GiB | s at least | "
    "longest | GB sent a chip | tokens/s a chip at most | FLOP/s at most | fits |\n|" + "---|" * 14
)
SENT_HEADER = (
    "| topology | prompts | program | compile s | by | "
    + " | ".join(f"GB {kind}" for kind in KINDS)
    + " | GB sent a chip | "
    "GB memory a chip | TFLOP a chip |\n|" + "---|" * (len(KINDS) + 8)
)


def sent_rows(compiled: dict[str, Any], guessed: dict[str, Any], prompts: int) -> list[str]:
    """What each program of a plan sends by kind of collective, and what arithmetic says of the same program."""
    rows = []
    for plan in (guessed, compiled):
        for program in plan["programs"]:
            kinds = program["collectives"]
            sizes = [f"{kinds[kind]['sent'] / 1e9:,.1f}" if kind in kinds else "-" for kind in KINDS]
            seconds = "-" if program["compile_seconds"] is None else f"{program['compile_seconds']:.0f}"
            bytes_moved = sum(part["bytes"] for part in program["parts"])
            totals = f"{program['sent'] / 1e9:,.1f} | {bytes_moved / 1e9:,.0f} | {program['flops'] / 1e12:,.0f}"
            rows.append(
                f"| {plan['topology']} | {prompts} | {program['name']} | {seconds} | {plan['method']} | "
                f"{' | '.join(sizes)} | {totals} |"
            )
    return rows


def main(
    out: Path,
    compiled: Annotated[bool, typer.Option("--compile", help="Compile the scaling over slices too.")] = False,
    keep: Annotated[Path, typer.Option("--json", help="Folder for the plans as JSON.")] = Path("runs/plans"),
) -> None:
    """Make every plan and write the tables."""
    keep.mkdir(parents=True, exist_ok=True)
    lines: list[str] = []

    def table(title: str, rows: Iterable[tuple[str, str, str, tuple[str, ...]]]) -> None:
        lines.extend([f"### {title}", "", HEADER, *(row_of(planned(*row)) for row in rows), ""])

    table("Ready configurations", READY)
    table("Larger models", LARGE)
    sent: dict[str, list[str]] = {}
    for title, prompts in (
        ("Strong scaling (128 prompts a step)", lambda chips: 128),
        ("Weak scaling (8 prompts a chip)", lambda chips: 8 * chips),
    ):
        lines.extend([f"### {title}", "", HEADER])
        for topology, chips in SLICES:
            row = ("infimmr_3b", "3b_v5e-16", topology, sliced(chips, prompts(chips)))
            guessed = planned(*row)
            lines.append(row_of(guessed))
            if compiled and chips <= MOST_COMPILED:
                name = f"3b-{topology.replace(':', '_')}-{prompts(chips)}"
                real = planned(*row, keep / f"{name}.json")
                lines.append(row_of(real))
                sent[name] = sent_rows(real, guessed, prompts(chips))
        lines.append("")
    if sent:
        lines.extend(["### What a chip sends in a step", "", SENT_HEADER, *itertools.chain(*sent.values()), ""])
    out.write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
