"""`infimmr plan`: does a run fit a machine, what bounds it, and what to change when it does not fit."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator

import jax.numpy as jnp

from infimmr_jax.config import ConfigError, PhaseSection, RunConfig
from infimmr_jax.model.attention import best_attention
from infimmr_jax.plan import arithmetic
from infimmr_jax.plan.abstract import PlannedRun, check_divides, planned_model, planned_run, static_shapes
from infimmr_jax.plan.chips import GIB, Topology
from infimmr_jax.plan.compile import DoesNotFitError, compile_sampler, compile_update, described_devices
from infimmr_jax.plan.cost import ProgramCost
from infimmr_jax.plan.quantities import seconds_words

# Arithmetic leaves out what only the compiler knows: a candidate must leave this share of the memory free.
MARGIN = 0.08


@dataclasses.dataclass(frozen=True)
class Plan:
    """What one step of a run costs on a topology; `failures` are programs that the compiler refused."""

    config: str
    topology: Topology
    mesh: dict[str, int]
    phase: str
    shapes: str
    parameters: int
    compiled: bool
    programs: tuple[ProgramCost, ...]
    failures: dict[str, str]
    responses: int
    advice: tuple[str, ...] = ()

    @property
    def fits(self) -> bool:
        """Whether every program stays within what a chip's memory can be used for."""
        usable = self.topology.chip.usable
        return not self.failures and all(program.peak <= usable for program in self.programs)

    @property
    def seconds(self) -> float:
        """Least seconds of a step: sampler and update, every resource at its peak."""
        return sum(program.least(self.topology.chip) for program in self.programs)

    @property
    def tokens_per_second(self) -> float:
        """Most sampled tokens a second, on all chips."""
        return self.responses / self.seconds if self.seconds else 0.0

    @property
    def flops_share(self) -> float:
        """Share of the chips' FLOP/s that a step of the least time uses."""
        flops = sum(program.flops for program in self.programs)
        return flops / (self.seconds * self.topology.chip.flops) if self.seconds else 0.0


def largest_phase(config: RunConfig) -> PhaseSection:
    """The phase with the most tokens a step (of equals one with pictures): what fits it fits all."""

    def size(phase: PhaseSection) -> tuple[int, bool]:
        return phase.prompts_per_step * phase.group_size * phase.max_response, phase.modality != "text"

    return max(config.grpo_phases, key=size)


def make_plan(config: RunConfig, topology: Topology, compiled: bool, search: bool = True) -> Plan:
    """Plan a run: compile it for TPUs (`compiled`), or estimate it; when it does not fit, look for a change that does.

    Raises ConfigError for a mesh or batch that can not be divided over the chips.
    """
    if compiled and topology.chip.kind != "tpu":
        raise ConfigError(f"{topology.name} can only be planned by arithmetic: there is no compiler for it here")
    plan = _measure(config, topology, compiled)
    if plan.fits:
        return dataclasses.replace(plan, advice=_remarks(plan))
    if not search:
        return plan
    return dataclasses.replace(plan, advice=_search(config, topology, compiled))


def _measure(config: RunConfig, topology: Topology, compiled: bool) -> Plan:
    phase = largest_phase(config)
    attention = best_attention(topology.chip.kind, jnp.dtype(config.model.compute_dtype))
    mesh = (
        described_devices(topology, config.mesh) if compiled else arithmetic.described_mesh(config.mesh, topology.chips)
    )
    run = planned_run(config, mesh, attention)  # type: ignore[arg-type]
    programs, failures = [], {}
    for name, make in (("sampler", compile_sampler), ("update", compile_update)):
        if not compiled:
            programs.append(estimated(name, run, phase))
            continue
        try:
            programs.append(make(run, phase)[0])
        except DoesNotFitError as error:
            failures[name] = str(error)
    shapes = static_shapes(config, run.model)
    described = (
        f"{phase.prompts_per_step} prompts of {shapes.prompt} tokens and {shapes.images} x {shapes.patches} patches, "
        f"{phase.group_size} responses of {phase.max_response}, {arithmetic.work_of(run, phase).micros} micro-batches"
    )
    return Plan(
        config=config.name,
        topology=topology,
        mesh=dict(mesh.shape),
        phase=phase.name,
        shapes=described,
        parameters=arithmetic.parameter_count(run.model.config),
        compiled=compiled,
        programs=tuple(programs),
        failures=failures,
        responses=phase.prompts_per_step * phase.group_size * phase.max_response,
    )


def estimated(name: str, run: PlannedRun, phase: PhaseSection) -> ProgramCost:
    """A program's cost by arithmetic."""
    work = arithmetic.work_of(run, phase)
    if name == "sampler":
        parts, memory = arithmetic.sampler_parts(work), arithmetic.sampler_memory(run, phase)
    else:
        parts = arithmetic.update_parts(work, run.model.options.remat == "full")
        memory = arithmetic.update_memory(run, phase)
    return ProgramCost(name, tuple(parts), memory, memory.total, {})


def changed(config: RunConfig, changes: dict[str, object]) -> RunConfig:
    """`config` with dotted keys of `mesh`, `model` and `grpo` set (the last in every phase)."""
    sections: dict[str, dict[str, object]] = {}
    for key, value in changes.items():
        section, name = key.split(".")
        sections.setdefault(section, {})[name] = value
    updates: dict[str, object] = {
        name: getattr(config, name).model_copy(update=values) for name, values in sections.items()
    }
    if "grpo" in sections:
        updates["phases"] = tuple(
            phase.model_copy(update={"grpo": phase.grpo.model_copy(update=sections["grpo"])})
            if isinstance(phase, PhaseSection)
            else phase
            for phase in config.phases
        )
    return config.model_copy(update=updates)


def candidates(config: RunConfig, chips: int) -> Iterator[dict[str, object]]:
    """Changes that may save memory, as dotted keys: other meshes, more micro-batches, smaller chunks, more remat."""
    phase = largest_phase(config)
    heads = planned_model(config).config.text.num_kv_heads
    split = chips // config.mesh.sequence
    meshes = [
        {"mesh.data": split // (fsdp * tensor), "mesh.fsdp": fsdp, "mesh.tensor": tensor}
        for tensor in (1, 2, 4, 8)
        if heads % tensor == 0 and split % tensor == 0
        for fsdp in (1, 2, 4, 8, 16, 32, 64, 128, 256)
        if split % (fsdp * tensor) == 0
    ]
    micros = [phase.grpo.micro_batches * factor for factor in (1, 2, 4, 8, 16)]
    chunk = phase.grpo.logprob_chunk
    # Fewer than asked for; what is not asked for is few already.
    chunks = [None] if chunk is None else sorted({min(chunk, size) for size in (chunk, 512, 256)}, reverse=True)
    remats = [config.model.remat] if config.model.remat == "full" else [config.model.remat, "full"]
    for mesh, remat, micro, chunk in itertools.product(meshes, remats, micros, chunks):
        change: dict[str, object] = {**mesh, "model.remat": remat, "grpo.micro_batches": micro}
        change["grpo.logprob_chunk"] = chunk
        yield change | ({"grpo.micro_batch_tokens": None} if phase.grpo.micro_batch_tokens else {})


def _search(config: RunConfig, topology: Topology, compiled: bool, tries: int = 3) -> tuple[str, ...]:
    limit = topology.chip.usable * (1 - MARGIN)
    fitting: list[tuple[float, dict[str, object]]] = []
    least: tuple[float, dict[str, object]] | None = None
    for changes in candidates(config, topology.chips):
        other = changed(config, changes)
        mesh = arithmetic.described_mesh(other.mesh, topology.chips)
        try:
            check_divides(other, mesh)
        except ConfigError:
            continue
        plan = _measure(other, topology, False)
        peak = max(program.peak for program in plan.programs)
        if least is None or peak < least[0]:
            least = (peak, changes)
        if peak <= limit:
            fitting.append((plan.seconds, changes))
    found: list[str] = []
    for seconds, changes in sorted(fitting, key=lambda item: item[0])[: tries if compiled else 1]:
        if not compiled:
            return (f"Fits by arithmetic, about {seconds:.0f} s a step at least: {_flags(config, changes)}",)
        plan = _measure(changed(config, changes), topology, True)
        if plan.fits:
            peak = max(program.peak for program in plan.programs)
            found.append(
                f"Fits (compiled: {peak / GIB:.2f} GiB, {plan.seconds:.0f} s a step at least) with "
                f"{_flags(config, changes)}"
            )
            return tuple(found)
        found.append(f"Compiled, does not fit either: {_flags(config, changes)}")
    if least is not None:
        found.append(
            f"No change of micro-batches, log-prob chunk, remat or mesh was found that fits; the least is "
            f"{least[0] / GIB:.1f} GiB a chip with {_flags(config, least[1])}. Take more chips, shorter prompts or "
            "responses, fewer prompts_per_step (the sampler's caches), or model.param_dtype: bfloat16."
        )
    return tuple(found)


def _flags(config: RunConfig, changes: dict[str, object]) -> str:
    """The changes that differ from the configuration, as options of the command line."""
    now = {
        **{f"mesh.{name}": getattr(config.mesh, name) for name in ("data", "fsdp", "tensor")},
        "model.remat": config.model.remat,
        "grpo.micro_batches": largest_phase(config).grpo.micro_batches,
        "grpo.logprob_chunk": largest_phase(config).grpo.logprob_chunk,
        "grpo.micro_batch_tokens": largest_phase(config).grpo.micro_batch_tokens,
    }
    different = [
        f"--set {key}={'null' if value is None else value}" for key, value in changes.items() if now[key] != value
    ]
    return " ".join(different) or "no change"


def _remarks(plan: Plan) -> tuple[str, ...]:
    chip = plan.topology.chip
    times = [(part.least(chip), program.name, part) for program in plan.programs for part in program.parts]
    seconds, program, part = max(times, key=lambda item: item[0])
    remarks = [f"The longest part is {program}: {part.name}, {seconds_words(seconds)}, bound by {part.bound(chip)}."]
    free = chip.usable - max(cost.peak for cost in plan.programs)
    if free > chip.usable / 3:
        remarks.append(
            f"{free / GIB:.1f} GiB of a chip stay free: fewer micro-batches gather the weights less often, "
            "model.remat: dots computes less twice."
        )
    return tuple(remarks)
