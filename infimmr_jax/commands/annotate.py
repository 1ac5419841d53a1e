"""What `infimmr caption` and `infimmr difficulty` do: annotations made by a policy, stored beside the problems."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Bool

from infimmr_jax.config import ConfigError, RewardSection, RolloutSection, RunConfig, SourceSection
from infimmr_jax.data.annotation import CAPTION_REQUEST, annotation_name, annotation_path, read_annotations
from infimmr_jax.data.captions import CaptionFile, caption_row
from infimmr_jax.data.difficulty import difficulty_report
from infimmr_jax.data.readers import read_source, source_name
from infimmr_jax.data.records import DataError, Problem
from infimmr_jax.files import append_rows, replace_file
from infimmr_jax.names import JsonObject, JsonValue, Modality
from infimmr_jax.preprocess.prompts import IMAGE_MARK, PromptPlan, plan_picture, plan_text
from infimmr_jax.rewards.golds import GoldCheck
from infimmr_jax.rewards.pool import GraderPool
from infimmr_jax.rewards.router import score_groups
from infimmr_jax.rewards.verifiers import right_from
from infimmr_jax.rollout.policy import Policy, Sampling, answer, ask, batch_seed, identity, plan, seen_by
from infimmr_jax.rollout.state import SampleSettings

Say = Callable[[str], None]
SECONDS_BETWEEN_LINES = 10.0


def caption(
    config: RunConfig, maker: Policy | CaptionFile, sampling: Sampling, batch_size: int, say: Say, replace: bool = False
) -> None:
    """Give every problem with pictures a caption, in a file beside each source; goes on where it was stopped.

    `maker` is a policy, which is shown the pictures without the question, or a file of captions. Problems that bring
    their own caption are left alone unless `replace`. A summary with every flagged caption is written beside it.
    Raises DataError when a file holds captions of other weights or other sampling, unless `replace`.
    """
    batch_size = maker.rows(batch_size) if isinstance(maker, Policy) else batch_size
    for source, _, rollout in _sources(config, ("image", "caption"), heldout=True):
        problems = _problems(source, "image", config)
        own = sum(problem.caption is not None for problem in problems)
        wanted = problems if replace else [problem for problem in problems if problem.caption is None]
        if isinstance(maker, CaptionFile):
            covered = [problem for problem in wanted if maker.find(problem) is not None]
            _say(say, f"{source_name(source)}: {len(wanted) - len(covered)} of {len(wanted)} have none in {maker.path}")
            wanted = covered
        if not wanted:
            _say(say, f"{source_name(source)}: nothing to caption ({own} of {len(problems)} bring their own)")
            continue
        path = annotation_path(source, config.data, "captions")
        stored = read_annotations(path) if path.exists() else {}
        make: Callable[[Sequence[Problem]], list[JsonObject]]
        if isinstance(maker, Policy):
            settings = sampling.settings(rollout)
            said = identity(maker, settings, sampling.seed)
            make = functools.partial(_describe, maker, settings, sampling.seed, batch_size, said)
            # A row without `made_by` is of a file of captions, or of an older version of this command.
            others = {
                name: row.get("made_by", maker.name)
                for name, row in stored.items()
                if row.get("made_by", said if row.get("maker") != maker.name else None) != said
            }
            if others and not replace:
                raise DataError(_mixed(path, "captions", set(others.values()), said, "pass --replace, or remove it"))
            known = [problem.id in stored and problem.id not in others for problem in wanted]
        else:
            make = functools.partial(_copy, maker)
            copies = {problem.id: {"id": problem.id, **row} for problem, row in zip(wanted, make(wanted), strict=True)}
            known = [
                name in stored and (stored[name] == row or (stored[name]["maker"] != row["maker"] and not replace))
                for name, row in copies.items()
            ]
        made = _annotate(wanted, known, path, make, batch_size, _counter(say, source, len(wanted)))
        if jax.process_index() == 0:
            stored = read_annotations(path)
            report: JsonObject = {"source": source_name(source), "problems": len(problems), "own": own}
            report |= _flagged({problem.id: stored[problem.id] for problem in wanted if problem.id in stored})
            replace_file(path.with_suffix(".report.json"), json.dumps(report, ensure_ascii=False, indent=1))
            flags = ", ".join(f"{len(ids)} flagged: {flag}" for flag, ids in report["flags"].items())
            name, count = annotation_name(source, config.data, "captions"), report["captioned"]
            _say(say, f"{source_name(source)}: {made} captions made, {count} in all{f'; {flags}' if flags else ''}")
            _say(say, f"  use them with `captions: {name}` in the source")


def difficulty(
    config: RunConfig, policy: Policy, pool: GraderPool, sampling: Sampling, batch_size: int, say: Say
) -> None:
    """Measure how often a policy solves every training problem, with and without its pictures; resumable.

    Rates and a report (bands, gaps, by subject) are written beside each source. Raises DataError when a file holds
    rates of other weights or of other sampling.
    """
    golds = GoldCheck(pool, config.reward)
    batch_size = policy.rows(batch_size)
    for source, modality, rollout in _sources(config, ("text", "caption", "image")):
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
        settings = sampling.settings(rollout)
        said = identity(policy, settings, sampling.seed)
        stored = read_annotations(path, "pass_rate") if path.exists() else {}
        others = {str(row.get("checkpoint")) for row in stored.values()} - {said}
        if others:
            raise DataError(
                _mixed(path, "pass rates", others, said, "remove it, or name another file as the source's `pass_rates`")
            )
        solve = functools.partial(_solved, policy, config.reward, pool, settings, sampling.seed, batch_size)
        measure = functools.partial(measure_pass_rates, solve, modality, said)
        known = [problem.id in stored for problem in problems]
        _annotate(problems, known, path, measure, batch_size, _counter(say, source, len(problems)))
        if jax.process_index() == 0:
            stored = read_annotations(path, "pass_rate")
            report = difficulty_report(problems, {problem.id: stored[problem.id] for problem in problems})
            report = {"source": source_name(source), "policy": said, "not_shown": too_long, **report}
            replace_file(path.with_suffix(".report.json"), json.dumps(report, ensure_ascii=False, indent=1))
            gap = "" if report["mean_gap"] is None else f", {report['mean_gap']:+.3f} by its picture"
            _say(say, f"{source_name(source)}: mean pass rate {report['mean']:.3f}{gap}; bands {report['bands']}")
            name = annotation_name(source, config.data, "pass_rates")
            _say(say, f"  use them with `pass_rates: {name}` in the source, `filters` and `order: easy_to_hard`")


def measure_pass_rates(
    solve: Callable[[Modality, Sequence[Problem]], Bool[np.ndarray, "problems samples"]],
    modality: Modality,
    checkpoint: str,
    problems: Sequence[Problem],
) -> list[JsonObject]:
    """Give each problem the share of a checkpoint's samples that are right, as rows of an annotation file.

    Problems with pictures get a second rate without them, for the gap between the two (the idea of RAP, Li et al. 2025:
    a problem whose picture changes nothing does not train seeing).
    """
    rows: list[JsonObject] = [
        {"pass_rate": float(right.mean()), "samples": len(right), "checkpoint": checkpoint}
        for right in solve(modality, problems)
    ]
    pictured = [place for place, problem in enumerate(problems) if problem.images]
    if pictured:
        for place, right in zip(pictured, solve("text", [problems[place] for place in pictured]), strict=True):
            rows[place]["pass_rate_text"] = float(right.mean())
    return rows


def _annotate(
    problems: Sequence[Problem],
    known: Sequence[bool],
    path: Path,
    make: Callable[[Sequence[Problem]], Sequence[JsonObject]],
    rows: int,
    progress: Callable[[int], None],
) -> int:
    """Append what `make` returns for every problem that is not known; a kill loses at most the batch under way."""

    def record(batch: Sequence[Problem], made: Sequence[JsonObject]) -> None:
        append_rows(path, ({"id": problem.id, **row} for problem, row in zip(batch, made, strict=True)))

    return ask(problems, known, rows, make, record, progress)


def _mixed(path: Path, what: str, others: set[str], said: str, instead: str) -> str:
    return f"{path} holds {what} of {', '.join(sorted(others))}, not of {said}: {instead}"


def _describe(
    policy: Policy, settings: SampleSettings, seed: int, rows: int, said: str, problems: Sequence[Problem]
) -> list[JsonObject]:
    plans = [_caption_plan(policy, problem) for problem in problems]
    answers = answer(policy, plans, settings, rows, batch_seed([problem.id for problem in problems], seed))
    special = [token.content for token in policy.tokenizer.added_tokens_decoder.values() if token.special]
    rows_made = []
    for problem, (text,), (finished,) in zip(problems, answers.texts, answers.finished, strict=True):
        for token in special:  # spelled out letter by letter, it would make the prompt of phase 2 unusable
            text = text.replace(token, "")
        rows_made.append(caption_row(problem, _spoken(text), policy.name, bool(finished)) | {"made_by": said})
    return rows_made


def _spoken(text: str) -> str:
    """Keep what a policy that thinks first says after its thoughts; nothing when they do not end."""
    _, ended, said = text.rpartition("</think>")
    if not ended and text.lstrip().startswith("<think>"):
        return ""
    return said


def _caption_plan(policy: Policy, problem: Problem) -> PromptPlan:
    """Plan the pictures and the request for a description, without the question: the answer must not slip in."""
    pictures = [plan_picture(image, policy.config.data.image, policy.layout) for image in problem.images]
    text = IMAGE_MARK * len(pictures) + CAPTION_REQUEST
    return plan_text(text, pictures, policy.tokenizer, policy.layout, policy.config.prompt.system, name=problem.id)


def _copy(file: CaptionFile, problems: Sequence[Problem]) -> list[JsonObject]:
    return [caption_row(problem, file.find(problem) or "", file.path.name) for problem in problems]


def _solved(
    policy: Policy,
    reward: RewardSection,
    pool: GraderPool,
    settings: SampleSettings,
    seed: int,
    rows: int,
    modality: Modality,
    problems: Sequence[Problem],
) -> Bool[np.ndarray, "problems samples"]:
    plans = [plan(policy, modality, problem) for problem in problems]
    answers = answer(policy, plans, settings, rows, batch_seed([problem.id for problem in problems], seed))
    if jax.process_index() != 0:
        return np.zeros((len(problems), settings.group_size), bool)  # Process 0 writes; one grading is enough.
    # Accuracy alone, whatever the run's weights are: judges and second passes belong to training.
    reward = reward.model_copy(update={"weights": {"accuracy": 1.0}})
    response_format = policy.config.prompt.format
    sized = [seen_by(policy, problem) for problem in problems]
    scores = score_groups(sized, answers.texts, answers.finished, answers.lengths, reward, response_format, pool)
    least = np.asarray([right_from(problem.answer_type) for problem in problems])
    return scores.components["accuracy"] >= least[:, None]


def _sources(
    config: RunConfig, modalities: Sequence[Modality], heldout: bool = False
) -> Iterator[tuple[SourceSection, Modality, RolloutSection]]:
    """Give every different file source, with the barest modality it is used under (image before caption) and its
    sampling there."""
    order: tuple[Modality, ...] = ("text", "caption", "image")
    uses = [(phase.modality, phase.rollout, phase.sources) for phase in config.grpo_phases]
    if heldout:
        uses += [(modality, config.rollout, sources) for modality, sources in config.evaluation.sources.items()]
    used: dict[str, tuple[SourceSection, Modality, RolloutSection]] = {}
    for modality, rollout, sources in uses:
        for source in sources if modality in modalities else ():
            if source.reader != "synthetic":
                key = source.model_copy(update={"weight": 1.0, "seed": 0}).model_dump_json()
                if key not in used or order.index(modality) >= order.index(used[key][1]):
                    used[key] = source, modality, rollout
    if not used:
        raise ConfigError(
            f"the configuration has no file source of modality {' or '.join(modalities)}: there is nothing to annotate "
            "(procedural problems bring captions and levels)"
        )
    yield from used.values()


def _problems(
    source: SourceSection, modality: Modality, config: RunConfig, golds: GoldCheck | None = None
) -> list[Problem]:
    """Read the problems of a source that a phase could use; captions and rates it has already play no part."""
    captions = source.captions if modality == "caption" else None
    bare = source.model_copy(update={"captions": captions, "pass_rates": None})
    golds = golds or GoldCheck(None, config.reward)
    return list(read_source(bare, modality, config.data, golds)[0])


def _flagged(rows: Mapping[str, Mapping[str, JsonValue]]) -> JsonObject:
    flags: dict[str, list[str]] = {}
    for name, row in rows.items():
        for flag in row.get("flags", []):
            flags.setdefault(flag, []).append(name)
    return {"captioned": len(rows), "flags": flags}


def _counter(say: Say, source: SourceSection, total: int) -> Callable[[int], None]:
    """Make a function that says every ten seconds how far the call is."""
    last = time.monotonic()

    def count(passed: int) -> None:
        nonlocal last
        if time.monotonic() - last >= SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            _say(say, f"{source_name(source)}: {passed} of {total} problems")

    return count


def _say(say: Say, line: str) -> None:
    if jax.process_index() == 0:
        say(line)
