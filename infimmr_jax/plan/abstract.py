"""The sampler and the update of a configuration with abstract arguments: they can be lowered, nothing is computed."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jaxtyping import PyTree

from infimmr_jax.config import ConfigError, PhaseSection, RunConfig
from infimmr_jax.model.config import TokenIds, config_from_shape
from infimmr_jax.model.family import Model, preset_model, read_model
from infimmr_jax.model.options import model_options
from infimmr_jax.model.presets import PRESETS
from infimmr_jax.objectives.schedules import Clock, coefficients
from infimmr_jax.objectives.step import Rewards
from infimmr_jax.parallel.mesh import batch_divisor, batch_sharding, replicated
from infimmr_jax.preprocess.batching import PromptBatch
from infimmr_jax.rollout.state import Rollouts
from infimmr_jax.training.programs import Programs


@dataclasses.dataclass(frozen=True)
class PlannedRun:
    """What the programs of a run depend on, without its data and tokenizer."""

    config: RunConfig
    mesh: Mesh
    model: Model

    @property
    def allowed(self) -> np.ndarray:
        """Every token: which ones are not allowed does not change a program."""
        return np.ones(self.model.vocab_size, bool)


@dataclasses.dataclass(frozen=True)
class StaticShapes:
    """The largest static shapes of a run: trunk length S, image slots I of N patch slots each."""

    prompt: int
    images: int
    patches: int


def planned_model(config: RunConfig) -> Model:
    """The model of a configuration: of its directory when that is here, else of its preset or shape."""
    section, options = config.model, model_options(config.model)
    if section.path is not None and (section.path / "config.json").is_file():
        return read_model(section.path, options)
    if section.preset is not None:
        return preset_model(section.preset, options)
    if section.path is not None:
        raise ConfigError(
            f"model.path: {section.path} is not here; to plan without the weights, name the size with model.preset "
            f"({', '.join(PRESETS)})"
        )
    # The tokenizer that a run trains has this many entries, in multiples of 16.
    vocabulary = -(-section.vocab_size // 16) * 16
    return Model(config_from_shape(section.shape, vocabulary, TokenIds(0, 1, 2, 3, 4, 5)), options)


def static_shapes(config: RunConfig, model: Model) -> StaticShapes:
    """The largest buckets of the configuration; where it leaves them to the data, the largest that it allows."""
    data, layout = config.data, model.layout
    prompt = max(data.prompt_buckets, default=data.max_prompt)
    if data.image_buckets:
        return StaticShapes(prompt, *max(data.image_buckets, key=lambda size: size[0] * size[1]))
    if all(phase.modality == "text" for phase in config.grpo_phases):
        return StaticShapes(prompt, 0, 0)
    # A picture of the most pixels; windows cut by its edges fill up to a quarter more slots on a square one.
    window = layout.window_size
    side = math.sqrt(data.image.max_pixels)
    windows = math.ceil(side / window) * math.ceil(data.image.max_pixels / side / window)
    return StaticShapes(prompt, data.max_images, windows * layout.window_patches)


def planned_run(config: RunConfig, mesh: Mesh, attention: str) -> PlannedRun:
    """A run on a mesh of (described) devices; `attention` is what `auto` means on them."""
    check_divides(config, mesh)
    model = planned_model(config)
    if model.options.attention == "auto":
        model = dataclasses.replace(model, options=dataclasses.replace(model.options, attention=attention))
    return PlannedRun(config, mesh, model)


def check_divides(config: RunConfig, mesh: Any) -> None:
    """Raise ConfigError when the prompts of a phase can not be divided over the devices and micro-batches."""
    for index, phase in enumerate(config.grpo_phases):
        parts = phase.grpo.micro_batches * phase.grpo.minibatches
        divisor = batch_divisor(mesh) * parts
        if phase.prompts_per_step % divisor:
            raise ConfigError(
                f"phases.{index}.prompts_per_step: {phase.prompts_per_step} can not be divided over "
                f"{batch_divisor(mesh)} devices and {parts} micro-batches; use a multiple of "
                f"{divisor}"
            )


def abstract_batch(P: int, shapes: StaticShapes, patch_width: int, mesh: Mesh) -> PromptBatch:
    """A batch of P prompts as the trainer puts it on the devices."""
    S, images, patches = shapes.prompt, shapes.images, shapes.patches
    rows = batch_sharding(mesh)

    def array(*shape: int, dtype: Any = jnp.int32) -> PyTree:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=rows)

    return PromptBatch(
        tokens=array(P, S),
        lengths=array(P),
        bridge=array(P),
        positions=array(P, 3, S),
        next_position=array(P),
        image_index=array(P, S),
        patches=array(P, images, patches, patch_width, dtype=jnp.float32),
        patch_positions=array(P, images, patches, 2),
        patch_mask=array(P, images, patches, dtype=jnp.bool_),
        row_mask=array(P, dtype=jnp.bool_),
    )


def abstract_rollouts(run: PlannedRun, phase: PhaseSection) -> tuple[Rollouts, jax.ShapeDtypeStruct, Rewards]:
    """Sampled responses, the number of executed rows and the rewards, as the update takes them."""
    P, G, R = phase.prompts_per_step, phase.group_size, phase.max_response
    rows, everywhere = batch_sharding(run.mesh), replicated(run.mesh)

    def array(*shape: int, dtype: Any = jnp.float32, sharding: NamedSharding = rows) -> PyTree:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)

    rollouts = Rollouts(
        tokens=array(P, G, R, dtype=jnp.int32),
        mask=array(P, G, R, dtype=jnp.bool_),
        logprobs=array(P, G, R),
        behaviour=array(P, G, R),
        finished=array(P, G, dtype=jnp.bool_),
    )
    components = {name: array(P, G) for name in phase.reward.weights}
    rewards = Rewards(array(P, G), components, array(P, dtype=jnp.int32), array(P, dtype=jnp.bool_))
    return rollouts, array(dtype=jnp.int32, sharding=everywhere), rewards


def lower_sampler(run: PlannedRun, phase: PhaseSection) -> PyTree:
    """The lowered sampler of a phase."""
    programs = Programs(run)
    batch = _abstract_batch(run, phase)
    params = programs.restore_target().params
    program: Any = programs.sampler(programs.phase_settings(phase))
    with jax.set_mesh(run.mesh):
        return program.lower(params, batch, *_common(run))


def lower_update(run: PlannedRun, phase: PhaseSection) -> PyTree:
    """The lowered update of a phase."""
    programs = Programs(run)
    batch = _abstract_batch(run, phase)
    allowed, key = _common(run)
    scheduled = jax.tree.map(np.float32, coefficients(phase.grpo, Clock(0, 1, 0, 1)))
    state, rollouts = programs.restore_target(), abstract_rollouts(run, phase)
    program: Any = programs.updater(phase)
    with jax.set_mesh(run.mesh):
        return program.lower(state, batch, *rollouts, allowed, np.float32(0), scheduled, key)


def _abstract_batch(run: PlannedRun, phase: PhaseSection) -> PromptBatch:
    shapes = static_shapes(run.config, run.model)
    return abstract_batch(phase.prompts_per_step, shapes, run.model.layout.patch_width, run.mesh)


def _common(run: PlannedRun) -> tuple[PyTree, PyTree]:
    """The allowed tokens and a random key, on every device."""
    everywhere = replicated(run.mesh)
    key = jax.eval_shape(lambda: jax.random.key(0))
    return (
        jax.ShapeDtypeStruct(run.allowed.shape, jnp.bool_, sharding=everywhere),
        jax.ShapeDtypeStruct(key.shape, key.dtype, sharding=everywhere),
    )
