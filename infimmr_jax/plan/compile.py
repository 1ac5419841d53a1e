"""Compiles the sampler and the update for described TPU chips on this machine and reads what they cost."""

from __future__ import annotations

import collections
import re
import time
from typing import Any

import jax
from jax.sharding import Mesh

from infimmr_jax.config import MeshSection, PhaseSection
from infimmr_jax.parallel.mesh import make_mesh
from infimmr_jax.plan import arithmetic, hlo
from infimmr_jax.plan.abstract import PlannedRun, lower_sampler, lower_update
from infimmr_jax.plan.chips import Topology
from infimmr_jax.plan.cost import Memory, Part, ProgramCost, merged

# The first pattern found in the name of an operation says which part of the program it belongs to.
PARTS: tuple[tuple[str, str], ...] = (
    (r"\bvision\b|VisionBlock|PatchMerger", "vision"),
    (r"\btrunk\b|DecoderLayer\.trunk", "trunk"),
    (r"\bbranch\b|DecoderLayer\.branch", "branch"),
    (r"\bdecode\b|DecoderLayer\.decode", "decode"),
    (r"\bhead\b|ev->\.\.\.v", "head"),
    (r"\boptimizer\b", "optimizer"),
)


class DoesNotFitError(Exception):
    """The compiler found no way to run the program in the chip's memory; the message is its own."""


def described_devices(topology: Topology, section: MeshSection) -> Mesh:
    """The mesh of a run over the chips of a slice that is not here."""
    from jax.experimental import topologies

    described = topologies.get_topology_desc(platform="tpu", topology_name=topology.name)
    return make_mesh(section, list(described.devices))


def compile_update(run: PlannedRun, phase: PhaseSection) -> tuple[ProgramCost, str]:
    """The compiled update of a phase: its cost on one chip, and its text."""
    return _compiled("update", lower_update(run, phase), run, arithmetic.update_memory(run, phase))


def compile_sampler(run: PlannedRun, phase: PhaseSection) -> tuple[ProgramCost, str]:
    """The compiled sampler of a phase; what stays in memory beside it (optimiser, reference) is part of its peak."""
    return _compiled("sampler", lower_sampler(run, phase), run, arithmetic.sampler_memory(run, phase))


def _compiled(name: str, lowered: Any, run: PlannedRun, expected: Memory) -> tuple[ProgramCost, str]:
    began = time.monotonic()
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" in str(error):
            raise DoesNotFitError(_first_lines(str(error))) from error
        raise
    seconds = time.monotonic() - began
    text = compiled.as_text()
    parts, collectives = read_costs(text, run)
    analysis = compiled.memory_analysis()
    peak = float(analysis.peak_memory_in_bytes)
    beside = expected.optimizer + expected.reference if name == "sampler" else 0.0
    held = expected.parameters + expected.optimizer + expected.reference + expected.gradients + expected.caches
    memory = Memory(
        expected.parameters,
        expected.optimizer,
        expected.reference,
        expected.gradients,
        expected.caches,
        max(0.0, peak + beside - held),
    )
    kernels = text.count('custom_call_target="tpu_custom_call"')
    return ProgramCost(name, parts, memory, peak + beside, collectives, seconds, kernels), text


def read_costs(text: str, run: PlannedRun) -> tuple[tuple[Part, ...], dict[str, tuple[float, float]]]:
    """The parts of a compiled program with what each costs, and its collectives by kind (times, bytes sent)."""
    module = hlo.parse_module(text)
    vision = run.model.config.vision
    full = len(vision.fullatt_block_indexes) / vision.depth
    parts = []
    kinds: dict[str, list[float]] = collections.defaultdict(lambda: [0.0, 0.0])
    for instruction, computation, times in hlo.walk(module, (1 - full, full), r"\bdecode\b"):
        found = hlo.collective(instruction, computation)
        sent = 0.0
        if found is not None and found.group > 1:
            sent = found.sent * times
            kinds[found.kind][0] += times
            kinds[found.kind][1] += sent
        parts.append(
            Part(
                part_of(instruction.scope),
                hlo.flops(module, instruction, computation) * times,
                hlo.memory_bytes(module, instruction, computation) * times,
                sent,
            )
        )
    return merged(parts), {kind: (times, sent) for kind, (times, sent) in sorted(kinds.items())}


def part_of(scope: str) -> str:
    """The part of the program that an operation's name belongs to."""
    return next((name for pattern, name in PARTS if re.search(pattern, scope)), "other")


def _first_lines(message: str) -> str:
    return " ".join(line.strip() for line in message.splitlines()[:4])[:600]
