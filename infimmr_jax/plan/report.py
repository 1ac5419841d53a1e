"""A plan as tables for people and as a tree for programs."""

from __future__ import annotations

import dataclasses

from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from infimmr_jax.names import JsonObject
from infimmr_jax.plan.chips import GIB
from infimmr_jax.plan.cost import Memory, ProgramCost
from infimmr_jax.plan.planner import Plan
from infimmr_jax.plan.quantities import BINARY, BYTES, TIME, WORK, choose_unit, count_words, seconds_words


def as_tree(plan: Plan) -> JsonObject:
    """Everything of a plan as JSON types: bytes, FLOPs and seconds of one chip."""
    chip = plan.topology.chip
    return {
        "config": plan.config,
        "topology": plan.topology.name,
        "chips": plan.topology.chips,
        "chip": dataclasses.asdict(chip),
        "mesh": plan.mesh,
        "phase": plan.phase,
        "shapes": plan.shapes,
        "parameters": plan.parameters,
        "method": "compiler" if plan.compiled else "arithmetic",
        "fits": plan.fits,
        "seconds_at_least": plan.seconds,
        "tokens_per_second_at_most": plan.tokens_per_second,
        "tokens_per_second_per_chip_at_most": plan.tokens_per_second / plan.topology.chips,
        "flops_share_at_most": plan.flops_share,
        "programs": [_program(program, plan) for program in plan.programs],
        "failures": plan.failures,
        "advice": plan.advice,
    }


def _program(program: ProgramCost, plan: Plan) -> JsonObject:
    chip = plan.topology.chip
    parts = [
        {
            **dataclasses.asdict(part),
            "seconds": part.seconds(chip),
            "bound": part.bound(chip),
        }
        for part in program.parts
    ]
    return {
        "name": program.name,
        "memory": dataclasses.asdict(program.memory),
        "peak": program.peak,
        "fits": program.peak <= chip.usable,
        "flops": program.flops,
        "sent": program.sent,
        "collectives": {kind: {"times": n, "sent": sent} for kind, (n, sent) in program.collectives.items()},
        "seconds_at_least": program.least(chip),
        "compile_seconds": program.compile_seconds,
        "kernels": program.kernels,
        "parts": parts,
    }


def show(plan: Plan, console: Console) -> None:
    """Print the tables of a plan."""
    chip = plan.topology.chip
    how = "compiled ahead of time" if plan.compiled else "by arithmetic, nothing compiled"
    axes = ", ".join(f"{name} {size}" for name, size in plan.mesh.items())
    console.print(
        f"[bold]{plan.config}[/] on {plan.topology.name}: {plan.topology.chips} chips, {axes}; {how}\n"
        f"phase {plan.phase!r}: {plan.shapes}; {count_words(plan.parameters)} parameters"
    )
    if plan.programs:
        console.print(_memory_table(plan))
        for program in plan.programs:
            console.print(_parts_table(program, plan))
    if plan.programs and not plan.failures:
        console.print(
            f"One step takes at least {seconds_words(plan.seconds)} (every resource at its peak), so at most "
            f"{plan.tokens_per_second:,.0f} sampled tokens/s, {plan.tokens_per_second / plan.topology.chips:,.0f} a "
            f"chip; {plan.flops_share:.0%} of the chips' FLOP/s. Chip numbers: {chip.source}"
        )
    for name, message in plan.failures.items():
        console.print(f"[red]{name} does not fit:[/] {escape(message)}", soft_wrap=True)
    verdict = "[green]It fits.[/]" if plan.fits else "[red]It does not fit.[/]"
    console.print(verdict)
    for line in plan.advice:
        console.print(f"  {line}", soft_wrap=True, highlight=False, markup=False)


def _memory_table(plan: Plan) -> Table:
    unit, size = choose_unit(max(program.peak for program in plan.programs), BINARY)
    title = f"{unit} on one chip (of {plan.topology.chip.usable / GIB:.2f} GiB)"
    table = Table("", title=title, title_justify="left", box=SIMPLE)
    for program in plan.programs:
        table.add_column(program.name, justify="right")
    for field in dataclasses.fields(Memory):
        table.add_row(field.name, *(f"{getattr(program.memory, field.name) / size:.2f}" for program in plan.programs))
    table.add_row("peak", *(f"{program.peak / size:.2f}" for program in plan.programs), style="bold")
    return table


def _parts_table(program: ProgramCost, plan: Plan) -> Table:
    chip = plan.topology.chip
    compiled = f", compiled in {program.compile_seconds:.0f} s" if program.compile_seconds is not None else ""
    table = Table(title=f"{program.name}, one chip{compiled}", title_justify="left", box=SIMPLE)
    whole = program.least(chip)
    # What is too short to be seen beside the whole is left out.
    parts = [part for part in program.parts if part.least(chip) >= min(1e-3, whole / 1000)]
    flops, flop = choose_unit(max((part.flops for part in parts), default=0), WORK)
    largest = max((max(part.bytes, part.sent) for part in parts), default=0)
    unit, size = choose_unit(largest, BYTES)
    clock, second = choose_unit(max((part.least(chip) for part in parts), default=0), TIME)
    # Two lines a heading: the numbers must be whole on a terminal of 80 columns.
    times = (f"{clock}\ncompute", f"{clock}\nmemory", f"{clock}\nlinks")
    for name in ("part", flops, f"{unit}\nmemory", f"{unit}\nlinks", *times, "bound"):
        table.add_column(name, justify="left" if name in ("part", "bound") else "right", no_wrap=True)
    for part in parts:
        table.add_row(
            part.name,
            f"{part.flops / flop:,.1f}",
            f"{part.bytes / size:,.1f}",
            f"{part.sent / size:,.1f}",
            *(f"{seconds / second:.2f}" for seconds in part.seconds(chip).values()),
            part.bound(chip),
        )
    return table


def markdown(plan: Plan) -> str:
    """The tables of a plan as Markdown, for docs/scaling.md."""
    chip = plan.topology.chip
    lines = [
        f"### {plan.config} on {plan.topology.name} ({plan.topology.chips} chips)",
        "",
        f"Mesh {', '.join(f'{name} {size}' for name, size in plan.mesh.items())}; phase {plan.phase!r}: {plan.shapes}. "
        f"{'Compiled ahead of time' if plan.compiled else 'By arithmetic'}. "
        f"{'Fits' if plan.fits else 'Does not fit'} in {chip.usable / GIB:.2f} GiB.",
        "",
        "| program | parameters | optimiser | gradients | caches | activations | peak GiB | compile s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for program in plan.programs:
        memory = program.memory
        cells = (memory.parameters, memory.optimizer, memory.gradients, memory.caches, memory.activations, program.peak)
        seconds = f"{program.compile_seconds:.0f}" if program.compile_seconds is not None else "-"
        lines.append(f"| {program.name} | {' | '.join(f'{cell / GIB:.2f}' for cell in cells)} | {seconds} |")
    lines += ["", "| part | TFLOP | GB memory | GB links | s compute | s memory | s links | bound |", "|" + "---|" * 8]
    for program in plan.programs:
        for part in program.parts:
            if part.least(chip) < 1e-2:
                continue
            times = " | ".join(f"{seconds:.2f}" for seconds in part.seconds(chip).values())
            lines.append(
                f"| {program.name}: {part.name} | {part.flops / 1e12:,.1f} | {part.bytes / 1e9:,.1f} | "
                f"{part.sent / 1e9:,.2f} | {times} | {part.bound(chip)} |"
            )
    if plan.programs and not plan.failures:
        lines += [
            "",
            f"At least {plan.seconds:.1f} s a step, at most {plan.tokens_per_second:,.0f} sampled tokens/s "
            f"({plan.tokens_per_second / plan.topology.chips:,.0f} a chip).",
        ]
    lines += [f"- {name}: {message}" for name, message in plan.failures.items()]
    lines += [f"- {line}" for line in plan.advice]
    return "\n".join(lines) + "\n"
