"""What a step costs one chip, by arithmetic: where there is no compiler, and to choose what is worth compiling."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import jax
from jax.sharding import AbstractMesh, Mesh
from jaxtyping import PyTree

from infimmr_jax.config import GrpoSection, PhaseSection
from infimmr_jax.model.config import ModelConfig
from infimmr_jax.model.costs import (
    attention_flops,
    cache_numbers,
    head_weights,
    layer_weights,
    vision_attention_flops,
    vision_layer_weights,
)
from infimmr_jax.model.family import Model
from infimmr_jax.objectives.micro import micro_batches
from infimmr_jax.objectives.step import needs_reference
from infimmr_jax.parallel.mesh import AXES, axis_size, mesh_sizes
from infimmr_jax.plan.abstract import PlannedRun, StaticShapes, static_shapes
from infimmr_jax.plan.cost import Memory, Part
from infimmr_jax.training.programs import Programs


@dataclasses.dataclass(frozen=True)
class Forwards:
    """How often an update runs the model: `trained` times with a gradient and `beside` times without in every pass over
    the batch, and `once` before them.
    """

    trained: int
    beside: int
    once: int


@dataclasses.dataclass(frozen=True)
class Work:
    """The sizes that costs are made of: of one chip, for one phase.

    `micros` micro-batches and `steps` optimiser steps are made of one pass over a batch, `passes` passes of it.
    """

    model: ModelConfig
    shapes: StaticShapes
    prompts: float
    group: int
    response: int
    fsdp: int
    tensor: int
    data: int
    sequence: int
    micros: int
    steps: int
    passes: int
    width: int
    forwards: Forwards

    @property
    def trunk_tokens(self) -> float:
        return self.prompts * self.shapes.prompt / self.sequence

    @property
    def branch_tokens(self) -> float:
        return self.prompts * self.group / self.sequence * self.response

    @property
    def towers(self) -> int:
        """Tell into how many parts `sequence` deals out the pictures of a micro-batch: 1 where it does not divide."""
        slots = int(self.prompts) // self.micros * self.shapes.images
        return 1 if slots % self.sequence else self.sequence

    @property
    def patches(self) -> float:
        return self.prompts * self.shapes.images * self.shapes.patches / self.towers

    @property
    def cache_token(self) -> float:
        """Count the bytes of keys and values of one token in all layers, on one chip."""
        shared = self.tensor if self.model.text.num_kv_heads % self.tensor == 0 else 1
        return cache_numbers(self.model) / shared * self.width


def work_of(run: PlannedRun, phase: PhaseSection) -> Work:
    """Derive the sizes of a phase on one chip of the run's mesh."""
    mesh, grpo = run.mesh.shape, phase.grpo
    shapes = static_shapes(run.config, run.model)
    prompts = phase.prompts_per_step / (mesh["data"] * mesh["fsdp"])
    of_a_step = int(prompts) // grpo.minibatches
    micros = micro_batches(grpo, of_a_step, shapes.prompt, phase.group_size, phase.max_response)
    return Work(
        model=run.model.config,
        shapes=shapes,
        prompts=prompts,
        group=phase.group_size,
        response=phase.max_response,
        fsdp=mesh["fsdp"],
        tensor=mesh["tensor"],
        data=mesh["data"],
        sequence=axis_size(run.mesh, "sequence"),
        micros=micros * grpo.minibatches,
        steps=grpo.minibatches,
        passes=grpo.updates_per_batch,
        width=2 if run.model.options.compute_dtype == jax.numpy.bfloat16 else 4,
        forwards=forwards_of(grpo),
    )


def forwards_of(grpo: GrpoSection) -> Forwards:
    """Count what the terms of the loss cost in runs of the model; `grpo.step.grpo_update` is what is counted."""
    masked, steps = grpo.perception, grpo.updates_per_batch * grpo.minibatches
    compared, differentiated = needs_reference(grpo), masked.coefficient > 0 and masked.differentiate_masked
    # A KL in the reward, a masked image that is not differentiated and corrected log-probs are found before the steps.
    before = (
        compared and grpo.kl.place == "reward",
        masked.coefficient > 0 and not differentiated,
        grpo.importance.level != "none" and steps > 1,
    )
    return Forwards(1 + differentiated, int(compared and grpo.kl.place == "loss"), sum(before))


_STATES: dict[tuple, tuple[float, float, float]] = {}


def state_memory(run: PlannedRun) -> tuple[float, float, float]:
    """Count the bytes of parameters, moments and reference policy on one chip, from the trainer's own shardings."""
    config = run.config
    key = (
        *(run.model.config, str(run.model.options.param_dtype), tuple(run.mesh.shape.items())),
        *(config.optimizer.model_dump_json(), keeps_reference(run)),
    )
    if key not in _STATES:
        programs = Programs(run)
        state, shardings = programs.abstract_state(), programs.shardings
        _STATES[key] = (
            bytes_on_a_chip(state.params, shardings.params),
            bytes_on_a_chip(state.moments, shardings.moments),
            bytes_on_a_chip(state.reference, shardings.reference),
        )
    return _STATES[key]


def bytes_on_a_chip(tree: PyTree, shardings: PyTree) -> float:
    """Count the bytes of the shards of one device."""
    sizes = jax.tree.map(lambda x, s: math.prod(s.shard_shape(x.shape)) * x.dtype.itemsize, tree, shardings)
    return float(sum(jax.tree.leaves(sizes)))


def update_parts(work: Work, recomputed: bool) -> list[Part]:
    """Count FLOPs, bytes and link bytes of the update; `recomputed`: layers run forward again for their gradient."""
    text, vision, t = work.model.text, work.model.vision, work.tensor
    # Over all passes of the batch: runs of the model with a gradient, runs without, and both in units of one forward.
    trained = work.forwards.trained * work.passes
    plain = work.forwards.beside * work.passes + work.forwards.once
    forwards = (4 if recomputed else 3) * trained + plain
    # As compiled: a layer is gathered forward and once more backward, where it is recomputed and differentiated; of its
    # two sums over `tensor` each way, one is made again when it is recomputed.
    gathers = 2 * trained + plain
    sums = (2.5 if recomputed else 2) * trained + plain
    micros, width = work.micros, work.width
    share = (work.fsdp - 1) / work.fsdp
    layers = layer_weights(work.model) * text.num_layers / t

    def part(
        name: str, flops: float, weights: float, tokens: float, inner: float, reduced: float, gathered: float = 0.0
    ) -> Part:
        # Per token and layer about 16 rows of the model's width and 8 of the feed-forward's go through memory.
        traffic = forwards * (weights * width * micros + inner * tokens * width)
        sent = (gathers + trained) * weights * width * share * micros
        copies = work.data * (work.towers if name == "vision" else work.sequence)
        sent += 2 * weights / work.fsdp * 4 * (copies - 1) / copies * micros * trained
        sent += sums * reduced * 2 * (t - 1) / t + forwards * gathered
        return Part(name, forwards * flops, traffic, sent)

    patches = work.patches
    vision_flops = 2 * vision_layer_weights(work.model) * vision.depth * patches
    vision_flops += vision_attention_flops(work.model, patches * work.shapes.patches, patches * vision.window_patches)
    attention = attention_flops(work.model, 1)
    inner = text.num_layers * (16 * text.hidden_size + 8 * text.intermediate_size / t)
    rows = 2 * text.num_layers * text.hidden_size * width
    parts = [
        part(
            "vision",
            vision_flops / t,
            vision_layer_weights(work.model) * vision.depth / t,
            patches,
            vision.depth * (16 * vision.hidden_size + 8 * vision.intermediate_size),
            # The halves of qkv do not lie on borders between q, k and v: its rows are gathered too.
            (2 + 1.5) * vision.depth * vision.hidden_size * width * patches,
        ),
        part(
            "trunk",
            work.trunk_tokens * (2 * layers + attention / t * work.shapes.prompt / 2),
            layers,
            work.trunk_tokens,
            inner,
            # Keys and values are gathered along `sequence`: their bytes in all layers are the cache's.
            rows * work.trunk_tokens,
            gathered=work.trunk_tokens * (work.sequence - 1) * work.cache_token,
        ),
        part(
            "branch",
            work.branch_tokens * (2 * layers + attention / t * (work.shapes.prompt + work.response / 2)),
            layers,
            work.branch_tokens,
            inner,
            rows * work.branch_tokens,
        ),
    ]
    head = head_weights(work.model) / t
    # Chunks of logits are computed again for their gradient, whatever the layers do.
    products = 4 * trained + plain
    logits = (6 * trained + 2 * plain) * text.vocab_size / t * 4
    parts.append(
        Part(
            "head",
            2 * products * head * work.branch_tokens,
            logits * work.branch_tokens + products * head * width * micros,
            (3 * trained + plain) * head * 4 * share * micros,
        )
    )
    numbers = parameter_count(work.model) / (work.fsdp * t)
    parts.append(Part("optimizer", 0.0, 8 * 4 * numbers * work.passes * work.steps, 0.0))
    return parts


def sampler_parts(work: Work) -> list[Part]:
    """Count FLOPs, bytes and link bytes of sampling R tokens of every branch (none ends early)."""
    text, vision, t, width = work.model.text, work.model.vision, work.tensor, work.width
    share = (work.fsdp - 1) / work.fsdp
    layers, head = layer_weights(work.model) * text.num_layers / t, head_weights(work.model) / t
    attention = attention_flops(work.model, 1) / t
    patches = work.patches
    tower = vision_layer_weights(work.model) * vision.depth / t
    prefill = work.trunk_tokens * (2 * layers + attention * work.shapes.prompt / 2) + 2 * tower * patches
    rows = 2 * text.num_layers * text.hidden_size * width * 2 * (t - 1) / t
    seen = (2 + 1.5) * vision.depth * vision.hidden_size * width * 2 * (t - 1) / t * patches
    branches, R = work.prompts * work.group / work.sequence, work.response
    every_token = (layers + head) * width + caches(work)
    decode = branches * R * (2 * (layers + head) + attention * (work.shapes.prompt + R))
    return [
        Part(
            "prefill",
            prefill,
            (layers + tower) * width,
            (layers + tower) * width * share + rows * work.trunk_tokens + seen,
        ),
        Part("decode", decode, every_token * R, (layers + head) * width * share + rows * branches * R),
    ]


def update_memory(run: PlannedRun, phase: PhaseSection) -> Memory:
    """Count the bytes that the update holds at its peak."""
    work, text = work_of(run, phase), run.model.config.text
    parameters, moments, reference = state_memory(run)
    prompts = work.prompts / work.micros
    responses = prompts * work.group / work.sequence * work.response
    tokens = prompts * work.shapes.prompt / work.sequence + responses
    width = work.width
    kept = text.num_layers * text.hidden_size * width * tokens
    if run.model.options.remat != "full":
        kept += text.num_layers * (8 * text.hidden_size + 3 * text.intermediate_size) / work.tensor * width * tokens
    # One layer at work, the chunk of logits (four float32 copies), the output matrix and its gradient.
    layer = (12 * text.hidden_size + 6 * text.intermediate_size / work.tensor) * width * tokens
    chunk = min(phase.grpo.chunk_for(text.vocab_size), responses)
    head = 4 * 4 * chunk * text.vocab_size / work.tensor
    head += text.hidden_size * text.vocab_size / work.tensor * (width + 4)
    trunk = 2 * prompts * work.shapes.prompt * work.cache_token
    vision = work.model.vision.depth * work.model.vision.hidden_size * width * prompts
    kept += vision * work.shapes.images * work.shapes.patches + trunk
    kept *= work.forwards.trained
    copies = parameters * width / 4
    gradients = parameters * (2 if work.micros > 1 else 1)
    return Memory(parameters, moments, reference, gradients, 0.0, kept + max(layer, head) + copies)


def sampler_memory(run: PlannedRun, phase: PhaseSection) -> Memory:
    """Count the bytes that are held while sampling: the whole state, the gathered weights and the caches."""
    work = work_of(run, phase)
    parameters, moments, reference = state_memory(run)
    gathered = 0.0
    if work.fsdp > 1:
        numbers = layer_weights(work.model) * work.model.text.num_layers
        numbers += head_weights(work.model) * (1 if work.model.text.tie_word_embeddings else 2)
        gathered = numbers * work.width / work.tensor
    branches = work.prompts * work.group / work.sequence
    logits = 6 * 4 * branches * work.model.text.vocab_size / work.tensor
    return Memory(parameters, moments, reference, 0.0, caches(work), gathered + logits)


def caches(work: Work) -> float:
    """Count the bytes of keys and values of trunks (whole on each device along `sequence`) and branches on a chip."""
    return (work.prompts * work.shapes.prompt + work.branch_tokens) * work.cache_token


@functools.lru_cache(maxsize=16)
def parameter_count(model: ModelConfig) -> int:
    """Count the numbers in all parameters."""
    return sum(math.prod(x.shape) for x in jax.tree.leaves(Model(model).abstract_params()))


def keeps_reference(run: PlannedRun) -> bool:
    """Tell whether any phase compares with a reference policy."""
    return any(needs_reference(phase.grpo) for phase in run.config.grpo_phases)


def described_mesh(section: Any, chips: int) -> AbstractMesh | Mesh:
    """Describe a mesh of `chips` devices that are nowhere."""
    return AbstractMesh(mesh_sizes(section, chips), AXES)
