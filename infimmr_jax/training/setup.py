"""Everything a run needs before its first step: tokenizer, architecture, data, shapes. What can be refused is, here."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh

from infimmr_jax.config import ConfigError, RunConfig, SftPhaseSection, SourceSection
from infimmr_jax.data.conversations import read_conversations
from infimmr_jax.data.curriculum import Curriculum, build_curriculum, heldout
from infimmr_jax.data.readers import below_root, read_source
from infimmr_jax.data.records import Problem
from infimmr_jax.data.selection import SourceReport
from infimmr_jax.model.config import TokenIds, config_from_shape
from infimmr_jax.model.family import Model, preset_model
from infimmr_jax.model.hf_directory import read_directory
from infimmr_jax.model.options import model_options
from infimmr_jax.model.presets import check_preset
from infimmr_jax.names import MODALITIES, JsonObject, Modality, Tokenizer
from infimmr_jax.parallel.hosts import RowShare, row_share
from infimmr_jax.parallel.mesh import batch_divisor, make_mesh
from infimmr_jax.preprocess import tokenizer as tokenizers
from infimmr_jax.preprocess.batching import PromptBatch, Shaped, choose_bucket, collate, plan_buckets
from infimmr_jax.preprocess.demonstrations import demonstration
from infimmr_jax.preprocess.layout import VisionLayout
from infimmr_jax.preprocess.prompts import IMAGE_MARK, EncodedPrompt, PromptPlan, encode_prompt, plan_prompt, user_text
from infimmr_jax.rewards.golds import GoldCheck
from infimmr_jax.rewards.pool import GraderPool
from infimmr_jax.rollout.vocabulary import allowed_tokens
from infimmr_jax.training.demonstration_batches import DemonstrationBatcher, Planner, build_demonstrations

TOKENIZER_PROBLEMS = 1000
BUCKET_PROBES = 256


class Shapes:
    """The static shapes of a run: given by the configuration, or chosen from the prompts seen while reading."""

    def __init__(self, config: RunConfig):
        self.prompts: tuple[int, ...] = config.data.prompt_buckets
        self.images: tuple[tuple[int, int], ...] = config.data.image_buckets
        self._seen: list[tuple[int, tuple[int, int], str]] = []

    def see(self, plan: PromptPlan, modality: Modality) -> None:
        """Remember the shape of a prompt that a batch may hold; raises DataError when no given bucket holds it."""
        largest = self.prompts[-1:] or (plan.length,), self.images[-1:] or (plan.image_shape,)
        choose_bucket([plan], *largest)
        self._seen.append((plan.length, plan.image_shape, modality))

    def choose(self, rows: int) -> None:
        """Choose the buckets that the configuration leaves open, for batches of `rows` prompts."""
        lengths, images, modalities = zip(*self._seen, strict=True)
        # A batch holds prompts of one modality: text phases get a shape without image slots where that saves enough.
        planned = plan_buckets(lengths, images, rows=rows, groups=modalities)
        self.prompts = self.prompts or planned.prompts
        self.images = self.images or planned.images

    @property
    def single(self) -> bool:
        """Whether every batch has the same shape."""
        return len(self.prompts) == len(self.images) == 1


@dataclasses.dataclass(frozen=True)
class Setup:
    """What every part of a run shares; nothing in it changes while the run goes on."""

    config: RunConfig
    run_dir: Path
    mesh: Mesh
    tokenizer: Tokenizer
    model: Model
    allowed: np.ndarray
    shapes: Shapes
    encode: Callable[[Problem, Modality], EncodedPrompt]
    curriculum: Curriculum
    evaluation: dict[Modality, list[Problem]]
    demonstrations: tuple[DemonstrationBatcher, ...]
    reports: tuple[SourceReport, ...]
    share: RowShare
    measure: Callable[[Problem, Modality], PromptPlan | None] | None

    def collate(self, prompts: Sequence[EncodedPrompt], rows: int, others: Sequence[Shaped | None] = ()) -> PromptBatch:
        """Prompts in the cheapest bucket that holds them and the other processes', filled up to `rows`."""
        return _collate(prompts, rows, self.shapes, self.model.layout, others)


def prepare(config: RunConfig, run_dir: Path, pool: GraderPool) -> Setup:
    """Read and check everything a run needs, before any array is put on a device.

    Raises ConfigError or DataError, as one sentence each, for what can not work.
    """
    mesh = make_mesh(config.mesh)
    _check_batches(config, mesh)
    tokenizer, model = _policy(config, run_dir)
    layout = model.layout
    shapes = Shapes(config)
    common = {"tokenizer": tokenizer, "layout": layout, "data": config.data, "prompt": config.prompt}
    encode = functools.partial(_encode, **common)

    def check(problem: Problem, modality: Modality, **own: Any) -> None:
        shapes.see(plan_prompt(problem, modality, **common | own), modality)

    def measure(problem: Problem, modality: Modality, **own: Any) -> PromptPlan | None:
        return None if shapes.single else plan_prompt(problem, modality, **common | own)

    def collate_all(prompts: Sequence[EncodedPrompt], others: Sequence[Shaped | None] = ()) -> PromptBatch:
        return _collate(prompts, len(prompts), shapes, layout, others)

    share = row_share(mesh)
    elsewhere = measure if share.count > 1 else None
    curriculum = build_curriculum(
        config, encode, collate_all, share.index, share.count, check=check, golds=GoldCheck(pool), measure=elsewhere
    )
    reports = list(curriculum.report)
    evaluation: dict[Modality, list[Problem]] = {}
    for modality, sources in by_modality(config.evaluation.sources):
        count = config.evaluation.problems
        checks: JsonObject = {"check": check, "golds": GoldCheck(pool, config.reward)}
        evaluation[modality], found = heldout(sources, modality, count, config.data, **checks)
        reports += found
    batchers: list[DemonstrationBatcher] = []
    for number, section in enumerate(config.demonstrations):
        cold_start = section is config.sft
        sections = section, config.data, config.prompt, config.reward
        planner = Planner(*sections, tokenizer, layout, model.tokens.eos)
        make = functools.partial(
            DemonstrationBatcher,
            sft=section,
            stream=(7,) if cold_start else (7, number),
            plan=planner,
            pixels=planner.pixels,
            collate=collate_all,
            pad=model.tokens.pad,
            layout=layout,
            seed=config.seed,
            share=share,
            measure=elsewhere,
        )
        name = "cold start" if cold_start else section.stages[0].name
        batcher, found = build_demonstrations(config, planner, shapes.see, make, batch_divisor(mesh), name)
        batchers.append(batcher)
        reports += found
    sizes = [phase.prompts_per_step for phase in config.grpo_phases]
    shapes.choose(min(sizes or [section.batch_size for section in config.demonstrations]))
    return Setup(
        config=config,
        run_dir=run_dir,
        mesh=mesh,
        tokenizer=tokenizer,
        model=model,
        allowed=allowed_tokens(tokenizer, model),
        shapes=shapes,
        encode=encode,
        curriculum=curriculum,
        evaluation=evaluation,
        demonstrations=tuple(batchers),
        reports=tuple(reports),
        share=share,
        measure=elsewhere,
    )


def by_modality(sources: dict[Modality, Any]) -> list[tuple[Modality, Any]]:
    """Sources in the order text, caption, image: the order of keys in a file must not change a run's numbers."""
    return [(modality, sources[modality]) for modality in MODALITIES if modality in sources]


def _policy(config: RunConfig, run_dir: Path) -> tuple[Any, Model]:
    """Tokenizer and model: of the given model directory, or of a model made from scratch for these sources."""
    options = model_options(config.model)
    if config.model.path is not None:
        model, tokenizer = read_directory(config.model.path, options)
        if config.model.preset is not None:
            check_preset(model.config, config.model.preset, str(config.model.path))
        return tokenizer, model
    saved = run_dir / "tokenizer"
    if saved.exists():
        tokenizer = tokenizers.load_tokenizer(saved)
    else:
        tokenizer = tokenizers.train_tokenizer(_texts(config), config.model.vocab_size)
    ids: JsonObject = {name: tokenizer.convert_tokens_to_ids(name) for name in tokenizers.SPECIAL_TOKENS}
    tokens = TokenIds(
        pad=ids[tokenizers.END_OF_TEXT],
        eos=ids[tokenizers.IM_END],
        vision_start=ids[tokenizers.VISION_START],
        vision_end=ids[tokenizers.VISION_END],
        image=ids[tokenizers.IMAGE_PAD],
        video=ids[tokenizers.VIDEO_PAD],
    )
    if config.model.preset is not None:
        preset = preset_model(config.model.preset, options)
        return tokenizer, dataclasses.replace(preset, config=dataclasses.replace(preset.config, tokens=tokens))
    # Rows of the embedding in multiples of 16, so that a mesh can divide them.
    architecture = config_from_shape(config.model.shape, -(-len(tokenizer) // 16) * 16, tokens)
    return tokenizer, Model(architecture, options)


def _texts(config: RunConfig) -> Iterator[str]:
    """What a tokenizer made from scratch is trained on: turns and demonstrations of every source's first problems."""
    wanted = [(source, phase.modality) for phase in config.grpo_phases for source in phase.sources]
    for section in config.demonstrations:
        wanted += [(source, modality) for modality, sources in section.sources.items() for source in sources]
    for source, modality in wanted:
        for problem in _first_problems(source, modality, config):
            yield "user\n" + user_text(problem, "text", config.prompt)
            yield "assistant\n"
            if problem.caption:
                yield f"Image description: {problem.caption}\n"
            if problem.solution:
                yield demonstration(problem, True, config.prompt.format)
    for given in (given for section in config.demonstrations for given in section.conversations):
        path = below_root(given.path, config.data, "sft.conversations")
        limits = config.data.max_images, config.data.image
        for conversation in read_conversations(path, *limits, TOKENIZER_PROBLEMS)[0]:
            yield from (f"{turn.role}\n{turn.text.replace(IMAGE_MARK, ' ')}" for turn in conversation.turns)


def _first_problems(source: SourceSection, modality: Modality, config: RunConfig) -> Iterator[Problem]:
    if source.reader != "jsonl":
        problems, _ = read_source(source, modality, config.data, GoldCheck(None, config.reward))
        describe = getattr(problems, "describe", problems.__getitem__)
        for index in range(min(TOKENIZER_PROBLEMS, len(problems))):
            problem = describe(index)
            yield dataclasses.replace(problem, question=problem.question.replace(IMAGE_MARK, " "), images=())
        return
    # Only the words matter here: rows that are wrong are reported when the source is read for good.
    path = (config.data.root or Path()) / str(source.path)
    if not path.is_file():
        return
    with path.open("rb") as lines:
        for number, line in zip(range(TOKENIZER_PROBLEMS), lines, strict=False):
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(row, dict):
                text = [str(row.get(key) or "") for key in ("question", "caption", "answer")]
                solution = str(row.get("solution") or "") or None
                words = " ".join(text).replace(IMAGE_MARK, " ")
                yield Problem(str(number), words, "", "string", solution=solution)


def _encode(problem: Problem, modality: Modality, **common: Any) -> EncodedPrompt:
    return encode_prompt(problem, modality, **common)


def _collate(
    prompts: Sequence[EncodedPrompt],
    rows: int,
    shapes: Shapes,
    layout: VisionLayout,
    others: Sequence[Shaped | None] = (),
) -> PromptBatch:
    # Processes hold different rows of a batch and must still run the same program.
    everyone: list[Shaped] = [*prompts, *(other for other in others if other is not None)]
    return collate(prompts, rows, *choose_bucket(everyone, shapes.prompts, shapes.images), layout)


def _check_batches(config: RunConfig, mesh: Mesh) -> None:
    """Refuse batch sizes that the mesh or the micro-batches can not divide."""
    devices = batch_divisor(mesh)
    sizes, divisors = {}, {}
    for i, phase in enumerate(config.phases):
        if isinstance(phase, SftPhaseSection):
            name = f"phases.{i}.batch_size"
            sizes[name], divisors[name] = phase.batch_size, devices
        else:
            name = f"phases.{i}.prompts_per_step"
            sizes[name] = phase.prompts_per_step
            divisors[name] = devices * phase.grpo.micro_batches * phase.grpo.minibatches
    if config.sft is not None:
        sizes["sft.batch_size"], divisors["sft.batch_size"] = config.sft.batch_size, devices
    if config.evaluation.sources:
        name = "evaluation.batch_size"
        sizes[name], divisors[name] = config.evaluation.batch_size, devices
    for name, size in sizes.items():
        if size % divisors[name]:
            raise ConfigError(
                f"{name}: {size} can not be divided over {devices} devices"
                + (
                    f" and {divisors[name] // devices} mini- and micro-batches"
                    if name.endswith("prompts_per_step")
                    else ""
                )
                + f"; use a multiple of {divisors[name]}"
            )
