"""What can not work in a run although every section is right by itself, as sentences that name the key."""

from __future__ import annotations

import difflib

from infimmr_jax.config.data import PhaseSection
from infimmr_jax.config.sections import RunSections
from infimmr_jax.names import ANSWER_TYPES

# The pool of graders is made once, before the first phase.
OF_THE_RUN = ("workers", "deadline_seconds", "memory_mb")
LEARNING_RATE_MOVES = ("schedule", "warmup_steps", "final_share")


def sequence_mistake(config: RunSections) -> str | None:
    """What `mesh.sequence` does not divide, as a sentence; None when it divides all it splits."""
    parts = config.mesh.sequence
    for index, phase in _grpo_phases(config):
        if phase.group_size % parts:
            return (
                f"mesh.sequence: {parts} devices split every group, and phases.{index}.group_size {phase.group_size} "
                f"can not be divided by {parts}; change one of them"
            )
    for size in config.data.prompt_buckets:
        if size % parts:
            return (
                f"mesh.sequence: {parts} devices split the tokens of a prompt, and {size} of data.prompt_buckets can "
                f"not be divided by {parts}; make it a multiple"
            )
    if not config.data.prompt_buckets and 8 % parts:
        return (
            f"mesh.sequence: buckets that are chosen from the data are multiples of 8, which {parts} does not divide; "
            "give data.prompt_buckets, or another mesh.sequence"
        )
    return None


def phase_mistakes(config: RunSections) -> str | None:
    """The first thing that can not work in one of the phases, as a sentence that names its key; None when all can."""
    moved_reference = None
    for index, phase in _grpo_phases(config):
        where = f"phases.{index}"
        mistake = _reward_mistake(phase) or _draw_mistake(phase) or _truncation_mistake(phase)
        if mistake is not None:
            return f"{where}.{mistake}"
        if phase.promotion.kind == "accuracy" and phase.modality not in config.evaluation.sources:
            return (
                f"{where}.promotion: kind 'accuracy' needs held-out problems: give evaluation.sources.{phase.modality}"
            )
        if phase.prompt.format != config.prompt.format:
            return f"{where}.prompt.format: held-out sets are graded by one format after every phase; set prompt.format"
        if phase.optimizer.kind != config.optimizer.kind:
            return f"{where}.optimizer.kind: moments are kept from phase to phase; set optimizer.kind for the run"
        if phase.grpo.kl.coefficient and phase.grpo.kl.reference == "initial" and moved_reference is not None:
            return (
                f"{where}.grpo.kl.reference: 'initial' is no longer there after {moved_reference!r} in an earlier "
                "phase, one reference is kept; use 'phase_start' here, or 'initial' everywhere"
            )
        if phase.grpo.kl.coefficient and phase.grpo.kl.reference != "initial":
            moved_reference = phase.grpo.kl.reference
        for key in OF_THE_RUN:
            if getattr(phase.reward, key) != getattr(config.reward, key):
                return f"{where}.reward.{key}: the graders are started once for all phases; set reward.{key}"
        optimizer = phase.optimizer
        for key in LEARNING_RATE_MOVES:
            if optimizer.span == "run" and getattr(optimizer, key) != getattr(config.optimizer, key):
                return (
                    f"{where}.optimizer.{key}: with span 'run' the schedule is one for the whole curriculum; "
                    "set span: phase, or change the run's optimizer"
                )
        total = phase.steps if optimizer.span == "phase" else sum(part.steps for part in config.grpo_phases)
        if optimizer.warmup_steps >= total:
            return (
                f"{where}.optimizer.warmup_steps: {optimizer.warmup_steps} leaves nothing of the {total} steps; "
                "make it smaller"
            )
        for name in ("kl", "entropy", "perception"):
            part = getattr(phase.grpo, name)
            span = phase.steps if part.span == "phase" else sum(part.steps for part in config.grpo_phases)
            if part.schedule != "constant" and part.end_step is None and part.start_step >= span:
                return (
                    f"{where}.grpo.{name}.start_step: {part.start_step} is not before the end of the {span} steps; "
                    "lower it or set end_step"
                )
        overlong = phase.grpo.overlong
        if overlong.mode == "soft" and overlong.buffer > phase.max_response:
            return (
                f"{where}.grpo.overlong.buffer: {overlong.buffer} tokens do not fit into responses of "
                f"{phase.max_response}; choose a buffer of at most max_response"
            )
    return None


def _grpo_phases(config: RunSections) -> list[tuple[int, PhaseSection]]:
    return [(index, phase) for index, phase in enumerate(config.phases) if isinstance(phase, PhaseSection)]


def _reward_mistake(phase: PhaseSection) -> str | None:
    reward, grpo = phase.reward, phase.grpo
    if grpo.estimator in ("gdpo", "component_mean") and reward.combine != "sum":
        return (
            f"reward.combine: estimator {grpo.estimator!r} normalises the components apart, {reward.combine!r} would "
            "be lost; use sum"
        )
    known = {"accuracy", "format", *reward.weights}
    read = grpo.group_weight.kind != "none" or grpo.kl.sample_weight != "none"
    if read and grpo.group_weight.component not in known:
        return (
            f"grpo.group_weight.component: {grpo.group_weight.component!r} is no component of this phase's reward; it "
            f"has {', '.join(sorted(known))}"
        )
    for task in grpo.group_weight.tasks or ():
        if task not in ANSWER_TYPES:
            near = difflib.get_close_matches(task, ANSWER_TYPES, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"tasks are answer types: {', '.join(ANSWER_TYPES)}"
            return f"grpo.group_weight.tasks: {task!r} is no answer type; {hint}"
    return None


def _truncation_mistake(phase: PhaseSection) -> str | None:
    rollout, importance = phase.rollout, phase.grpo.importance
    cuts = {
        "top_k": rollout.top_k if rollout.top_k > 0 else None,
        "top_p": rollout.top_p if rollout.top_p < 1 else None,
        "min_p": rollout.min_p if rollout.min_p > 0 else None,
    }
    for key, value in cuts.items():
        if value is not None and importance.level != "none":
            return (
                f"rollout.{key}: {value} leaves tokens out, so the sampler gives those that stay more than the trainer "
                f"does, and grpo.importance (level {importance.level!r}) would make the policy term smaller for it; "
                f"drop {key}, or importance"
            )
    return None


def _draw_mistake(phase: PhaseSection) -> str | None:
    first, last = phase.caption_dropout
    if phase.rollout.draws.at_most > 1 and first != last:
        return (
            "caption_dropout: its share would move with the draws, whose number is not known; with rollout.draws give "
            "the same share twice"
        )
    if phase.grpo.estimator in ("gdpo", "component_mean"):
        unused = "looks at the total reward, which this estimator does not use"
        if phase.rollout.draws.keep == "spread":
            return f"rollout.draws.keep: 'spread' {unused}; take first"
        if phase.rollout.draws.drop == "equal":
            return f"rollout.draws.drop: 'equal' {unused}; take accuracy"
    return None
