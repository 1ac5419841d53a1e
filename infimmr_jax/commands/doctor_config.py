"""What `infimmr doctor --config` looks at: the model, every source, and the directories a run would write to."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from infimmr_jax.commands.doctor_model import model_checks
from infimmr_jax.config import ConfigError, PhaseSection, RunConfig, SftPhaseSection, SourceSection
from infimmr_jax.data.conversations import read_conversations
from infimmr_jax.data.readers import below_root, read_source, source_name
from infimmr_jax.model.family import read_model
from infimmr_jax.model.presets import check_preset
from infimmr_jax.names import Modality
from infimmr_jax.rewards.golds import GoldCheck
from infimmr_jax.rewards.judge import try_judge
from infimmr_jax.training.checkpoints import checkpoint_directory

ROWS = 4  # a source is read until so many can be used: a look, not the check that training makes


class TroubleError(Exception):
    """A check that failed; the message says what is wrong and what to do."""


def configured_checks(config: RunConfig) -> dict[str, Callable[[], str]]:
    """A check for everything on disk that a configuration names; each returns what it found, or raises."""
    path, preset = config.model.path, config.model.preset
    checks: dict[str, Callable[[], str]] = {"model": lambda: "made from scratch"}
    if path is not None:
        checks = model_checks(path, config.data.image)
    if path is not None and preset is not None:
        checks["preset"] = functools.partial(_preset, path, preset)
    for where, source, modality in _sources(config):
        checks[f"{where} ({modality})"] = functools.partial(_source, source, modality, config)
    for given in (given for section in config.demonstrations for given in section.conversations):
        checks[f"sft.conversations ({given.path})"] = functools.partial(_conversations, given.path, config)
    judges = dict.fromkeys(
        section.judge for section in (config.reward, *(phase.reward for phase in config.grpo_phases))
    )
    for judge in (judge for judge in judges if judge is not None):
        checks[f"judge ({judge.endpoint or judge.function})"] = functools.partial(try_judge, judge)
    checks["output"] = functools.partial(_writable, config.output, "output")
    directory = checkpoint_directory(config.checkpoint, config.output)
    if "://" not in str(directory):
        checks["checkpoints"] = functools.partial(_writable, Path(directory), "checkpoint.directory")
    return checks


def _preset(path: Path, preset: str) -> str:
    check_preset(read_model(path).config, preset, str(path))
    return f"{path} is a {preset}"


def _sources(config: RunConfig) -> Iterator[tuple[str, SourceSection, Modality]]:
    """Every different source with the modality it is read for, and the key that names it first."""
    named = [
        (f"phases.{index}.sources.{number}", source, phase.modality)
        for index, phase in enumerate(config.phases)
        if isinstance(phase, PhaseSection)
        for number, source in enumerate(phase.sources)
    ]
    sections = {"evaluation.sources": config.evaluation.sources}
    if config.sft is not None:
        sections["sft.sources"] = config.sft.sources
    for index, phase in enumerate(config.phases):
        if isinstance(phase, SftPhaseSection):
            sections[f"phases.{index}.sources"] = phase.sources
    for key, by_modality in sections.items():
        for modality, sources in by_modality.items():
            named += [(f"{key}.{modality}.{number}", source, modality) for number, source in enumerate(sources)]
    seen = set()
    for where, source, modality in named:
        what = source.model_dump_json(exclude={"weight"}), modality
        if what not in seen:
            seen.add(what)
            yield where, source, modality


def _source(source: SourceSection, modality: Modality, config: RunConfig) -> str:
    few = source.model_copy(update={"size": min(ROWS, source.size or ROWS)})
    problems, rejected = read_source(few, modality, config.data, GoldCheck(None, config.reward))
    name = source_name(source)
    if not problems:
        why = f"the first: {rejected[0]}" if rejected else "the file is empty"
        raise TroubleError(f"no row of {name} can be used for {modality} problems; {why}")
    beside = f", {len(rejected)} before them can not: {rejected[0]}" if rejected else ""
    return f"{name}: the first {len(problems)} rows can be used{beside}"


def _conversations(name: str, config: RunConfig) -> str:
    path = below_root(name, config.data, "sft.conversations")
    found, _ = read_conversations(path, config.data.max_images, config.data.image, ROWS)
    return f"{path}: the first {len(found)} rows can be used"


def _writable(directory: Path, key: str) -> str:
    nearest = next(path for path in (directory.resolve(), *directory.resolve().parents) if path.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        raise ConfigError(f"{directory} can not be written ({nearest} is in the way): set {key} to another place")
    return f"{directory} can be written"
