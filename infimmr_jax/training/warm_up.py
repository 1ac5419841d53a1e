"""The largest shapes first: a run that needs more memory than there is says so in its first minute."""

from __future__ import annotations

import time
from collections.abc import Callable

import jax
import numpy as np

from infimmr_jax.config import PhaseSection
from infimmr_jax.objectives.schedules import Clock
from infimmr_jax.objectives.step import Rewards
from infimmr_jax.preprocess.batching import PromptBatch
from infimmr_jax.training.programs import Programs
from infimmr_jax.training.setup import Setup


def warm_up(setup: Setup, programs: Programs, say: Callable[[str], None]) -> int:
    """Compile and run sampler and update of every phase on a batch of the largest buckets, the largest phase first.

    Not where the first step already is the largest: one shape of batches, phases of one size, no cold start. The rows
    are fillers, for which no token is sampled, and the state is a throw-away one; memory is taken as for a full batch.
    `say` is told before it begins, and after every phase. Returns the number of phases that were run. Call it before
    the run's own state exists.
    """
    shapes = setup.shapes
    phases: dict[tuple, PhaseSection] = {}
    for phase in setup.curriculum.phases:
        known = programs.phase_settings(phase), programs.update_settings(phase), phase.prompts_per_step
        phases.setdefault(known, phase)
    if len(shapes.prompts) * len(shapes.images) * len(phases) == 1 and setup.config.sft is None:
        return 0
    say("the largest shapes are compiled and run once: memory that is not enough shows now")
    ordered = sorted(phases.values(), key=lambda phase: -_tokens(phase, shapes.prompts[-1]))
    state = programs.start()
    for phase in ordered:
        began = time.monotonic()
        rows = len(setup.share.rows(phase.prompts_per_step))
        batch = filler_batch(rows, shapes.prompts[-1], shapes.images[-1], setup.model.layout.patch_width)
        settings = programs.phase_settings(phase)
        stages, executed = programs.sample_in_stages(state.params, batch, settings, jax.random.key(0))
        none = np.zeros((rows, phase.group_size), np.float32)
        names = sorted({"accuracy", "format", *phase.reward.weights})
        rewards = Rewards(none, dict.fromkeys(names, none), np.zeros(rows, np.int32), np.ones(rows, bool))
        state, metrics = programs.update(state, batch, stages[-1], executed, rewards, phase, 0.0, Clock(0, 1, 0, 1))
        jax.block_until_ready(metrics)
        say(f"{phase.name}: sampler and update are compiled, {time.monotonic() - began:.0f} s")
    return len(ordered)


def filler_batch(rows: int, prompt: int, image: tuple[int, int], patch_width: int) -> PromptBatch:
    """A batch of prompts of which none is real, in a bucket."""
    slots, patches = image
    return PromptBatch(
        tokens=np.zeros((rows, prompt), np.int32),
        lengths=np.full(rows, prompt, np.int32),
        bridge=np.zeros(rows, np.int32),
        positions=np.zeros((rows, 3, prompt), np.int32),
        next_position=np.full(rows, prompt, np.int32),
        image_index=np.full((rows, prompt), -1, np.int32),
        patches=np.zeros((rows, slots, patches, patch_width), np.float32),
        patch_positions=np.zeros((rows, slots, patches, 2), np.int32),
        patch_mask=np.zeros((rows, slots, patches), bool),
        row_mask=np.zeros(rows, bool),
    )


def _tokens(phase: PhaseSection, prompt: int) -> int:
    return phase.prompts_per_step * (prompt + phase.group_size * phase.max_response)
