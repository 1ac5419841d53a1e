"""What `infimmr caption` and `infimmr difficulty` do: annotations made by a policy, stored beside the problems."""

from __future__ import annotations

import dataclasses
import functools
import json
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Bool

from infimmr_jax.config import ConfigError, RewardSection, RunConfig, SourceSection
from infimmr_jax.data.annotation import (
    CAPTION_REQUEST,
    annotate,
    annotation_name,
    annotation_path,
    measure_pass_rates,
    read_annotations,
)
from infimmr_jax.data.captions import CaptionFile, caption_row
from infimmr_jax.data.difficulty import difficulty_report
from infimmr_jax.data.readers import read_source, source_name
from infimmr_jax.data.records import DataError, Problem
from infimmr_jax.names import Modality
from infimmr_jax.preprocess.prompts import IMAGE_MARK, PromptPlan, plan_picture, plan_text
from infimmr_jax.rewards.golds import GoldCheck
from infimmr_jax.rewards.pool import GraderPool
from infimmr_jax.rewards.router import score_groups
from infimmr_jax.rewards.verifiers import right_from
from infimmr_jax.rollout.policy import Policy, answer, plan, seen_by
from infimmr_jax.rollout.state import SampleSettings

Say = Callable[[str], None]
SECONDS_BETWEEN_LINES = 10.0


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How a policy is asked: samples a problem, their longest length in tokens, temperature, top-p and seed."""

    samples: int = 1
    max_tokens: int = 512
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0

    @property
    def settings(self) -> SampleSettings:
        """The sampler's settings."""
        return SampleSettings(self.samples, self.max_tokens, self.temperature, 0, self.top_p)


def caption(
    config: RunConfig, maker: Policy | CaptionFile, sampling: Sampling, batch_size: int, say: Say, replace: bool = False
) -> None:
    """Give every problem with pictures a caption, in a file beside each source; goes on where it was stopped.

    `maker` is a policy, which is shown the pictures without the question, or a file of captions. Problems that bring
    their own caption are left alone unless `replace`. A summary with every flagged caption is written beside it.
    """
    make: Callable[[Sequence[Problem]], list[dict[str, Any]]]
    if isinstance(maker, Policy):
        batch_size = maker.rows(batch_size)
        make = functools.partial(_described, maker, sampling, batch_size)
    else:
        make = functools.partial(_copied, maker)
    for source, _ in _sources(config, ("image", "caption"), heldout=True):
        problems = _problems(source, "image", config)
        own = sum(problem.caption is not None for problem in problems)
        wanted = problems if replace else [problem for problem in problems if problem.caption is None]
        if isinstance(maker, CaptionFile):
            found = [problem for problem in wanted if maker.find(problem) is not None]
            _say(say, f"{source_name(source)}: {len(wanted) - len(found)} of {len(wanted)} have none in {maker.path}")
            wanted = found
        if not wanted:
            _say(say, f"{source_name(source)}: nothing to caption ({own} of {len(problems)} bring their own)")
            continue
        path = annotation_path(source, config.data, "captions")
        made = annotate(wanted, path, make, batch_size, _counter(say, source, len(wanted)), **_together())
        if jax.process_index() == 0:
            rows = {p.id: row for p in wanted for row in [read_annotations(path).get(p.id)] if row is not None}
            report = {"source": source_name(source), "problems": len(problems), "own": own, **_flagged(rows)}
            path.with_suffix(".report.json").write_text(json.dumps(report, ensure_ascii=False, indent=1))
            flags = ", ".join(f"{len(ids)} flagged: {flag}" for flag, ids in report["flags"].items())
            name = annotation_name(source, config.data, "captions")
            _say(say, f"{source_name(source)}: {made} captions made, {len(rows)} in all{f'; {flags}' if flags else ''}")
            _say(say, f"  use them with `captions: {name}` in the source")


def difficulty(
    config: RunConfig, policy: Policy, pool: GraderPool, sampling: Sampling, batch_size: int, say: Say
) -> None:
    """Measure how often a policy solves every training problem, with and without its pictures; resumable.

    Rates and a report (bands, gaps, by subject) are written beside each source. Raises DataError when a file holds
    rates of another policy or of other sampling.
    """
    golds = GoldCheck(pool, config.reward)
    batch_size = policy.rows(batch_size)
    said = f"{policy.name} k={sampling.samples} T={sampling.temperature:g} max={sampling.max_tokens}"
    for source, modality in _sources(config, ("text", "caption", "image")):
        problems, too_long = [], 0
        for problem in _problems(source, modality, config, golds):
            try:
                plan(policy, modality, problem)
                problems.append(problem)
            except DataError:
                too_long += 1
        if not problems:
            _say(say, f"{source_name(source)}: no problem can be shown; see the run's data.json for the reasons")
            continue
        path = annotation_path(source, config.data, "pass_rates")
        solve = functools.partial(_solved, policy, config.reward, pool, sampling, batch_size, modality)
        blind = functools.partial(_solved, policy, config.reward, pool, sampling, batch_size, "text")
        counter = _counter(say, source, len(problems))
        measure_pass_rates(problems, path, solve, said, batch_size, blind, counter, **_together())
        if jax.process_index() == 0:
            known = read_annotations(path, "pass_rate")
            report = difficulty_report(problems, {p.id: known[p.id] for p in problems})
            report = {"source": source_name(source), "policy": said, "not_shown": too_long, **report}
            path.with_suffix(".report.json").write_text(json.dumps(report, ensure_ascii=False, indent=1))
            gap = "" if report["mean_gap"] is None else f", {report['mean_gap']:+.3f} by its picture"
            _say(say, f"{source_name(source)}: mean pass rate {report['mean']:.3f}{gap}; bands {report['bands']}")
            name = annotation_name(source, config.data, "pass_rates")
            _say(say, f"  use them with `pass_rates: {name}` in the source, `filters` and `order: easy_to_hard`")


def _described(policy: Policy, sampling: Sampling, rows: int, problems: Sequence[Problem]) -> list[dict[str, Any]]:
    plans = [_caption_plan(policy, problem) for problem in problems]
    answers = answer(policy, plans, sampling.settings, rows, _seed(sampling, problems))
    special = [token.content for token in policy.tokenizer.added_tokens_decoder.values() if token.special]
    rows_made = []
    for problem, (text,), (finished,) in zip(problems, answers.texts, answers.finished, strict=True):
        for token in special:  # spelled out letter by letter, it would make the prompt of phase 2 unusable
            text = text.replace(token, "")
        rows_made.append(caption_row(problem, _spoken(text), policy.name, bool(finished)))
    return rows_made


def _spoken(text: str) -> str:
    """What a policy that thinks first says after its thoughts; nothing when they do not end."""
    _, ended, said = text.rpartition("</think>")
    if not ended and text.lstrip().startswith("<think>"):
        return ""
    return said


def _caption_plan(policy: Policy, problem: Problem) -> PromptPlan:
    """The pictures and the request for a description: without the question, so that the answer can not slip in."""
    pictures = [plan_picture(image, policy.config.data.image, policy.layout) for image in problem.images]
    text = IMAGE_MARK * len(pictures) + CAPTION_REQUEST
    return plan_text(text, pictures, policy.tokenizer, policy.layout, policy.config.prompt.system, name=problem.id)


def _copied(file: CaptionFile, problems: Sequence[Problem]) -> list[dict[str, Any]]:
    return [caption_row(problem, file.find(problem) or "", file.path.name) for problem in problems]


def _solved(
    policy: Policy,
    reward: RewardSection,
    pool: GraderPool,
    sampling: Sampling,
    rows: int,
    modality: Modality,
    problems: Sequence[Problem],
) -> Bool[np.ndarray, "problems samples"]:
    plans = [plan(policy, modality, problem) for problem in problems]
    answers = answer(policy, plans, sampling.settings, rows, _seed(sampling, problems))
    if jax.process_index() != 0:
        return np.zeros((len(problems), sampling.samples), bool)  # Process 0 writes; one grading is enough.
    # Accuracy alone, whatever the run's weights are: judges and second passes belong to training.
    reward = reward.model_copy(update={"weights": {"accuracy": 1.0}})
    response_format = policy.config.prompt.format
    seen = [seen_by(policy, problem) for problem in problems]
    scores = score_groups(seen, answers.texts, answers.finished, answers.lengths, reward, response_format, pool)
    least = np.asarray([right_from(problem.answer_type) for problem in problems])
    return scores.components["accuracy"] >= least[:, None]


def _seed(sampling: Sampling, problems: Sequence[Problem]) -> int:
    """From the batch's problems, not from a counter: a run that goes on samples what an unbroken one would have."""
    return (zlib.crc32(repr([problem.id for problem in problems]).encode()) + sampling.seed) % 2**31


def _sources(
    config: RunConfig, modalities: Sequence[Modality], heldout: bool = False
) -> Iterator[tuple[SourceSection, Modality]]:
    """Every different file source, with the barest modality it is used under (image before caption)."""
    order: tuple[Modality, ...] = ("text", "caption", "image")
    groups: list[tuple[Modality, tuple[SourceSection, ...]]] = [
        (phase.modality, phase.sources) for phase in config.grpo_phases
    ]
    if heldout:
        groups += config.evaluation.sources.items()
    used: dict[str, tuple[SourceSection, Modality]] = {}
    for modality, sources in groups:
        for source in sources if modality in modalities else ():
            if source.reader != "synthetic":
                key = source.model_copy(update={"weight": 1.0, "seed": 0}).model_dump_json()
                before = used.get(key, (source, modality))[1]
                used[key] = source, max(before, modality, key=order.index)
    if not used:
        raise ConfigError(
            f"the configuration has no file source of modality {' or '.join(modalities)}: there is nothing to annotate "
            "(procedural problems bring captions and levels)"
        )
    yield from used.values()


def _problems(
    source: SourceSection, modality: Modality, config: RunConfig, golds: GoldCheck | None = None
) -> list[Problem]:
    """The problems of a source that a phase could use; captions and rates it has already play no part."""
    captions = source.captions if modality == "caption" else None
    bare = source.model_copy(update={"captions": captions, "pass_rates": None})
    golds = golds or GoldCheck(None, config.reward)
    return list(read_source(bare, modality, config.data, golds)[0])


def _flagged(rows: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    flags: dict[str, list[str]] = {}
    for name, row in rows.items():
        for flag in row.get("flags", []):
            flags.setdefault(flag, []).append(name)
    return {"captioned": len(rows), "flags": flags}


def _together() -> dict[str, Any]:
    """How several processes write one file: the first one does, and its list of what is done counts."""
    if jax.process_count() == 1:
        return {}
    return {"agree": multihost_utils.broadcast_one_to_all, "writes": jax.process_index() == 0}


def _counter(say: Say, source: SourceSection, total: int) -> Callable[[int], None]:
    """A line every ten seconds."""
    begun = last = time.monotonic()
    made = 0

    def count(finished: int) -> None:
        nonlocal last, made
        made += finished
        now = time.monotonic()
        if now - last >= SECONDS_BETWEEN_LINES:
            last = now
            _say(say, f"{source_name(source)}: {made} of at most {total}, {made / (now - begun):.1f} a second")

    return count


def _say(say: Say, line: str) -> None:
    if jax.process_index() == 0:
        say(line)
