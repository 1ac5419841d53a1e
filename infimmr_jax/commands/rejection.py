"""Rejection sampling: what a checkpoint answers rightly becomes demonstrations that `sft.conversations` reads."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import jax
import numpy as np

from infimmr_jax.config import ConfigError, RolloutSection, RunConfig, SourceSection
from infimmr_jax.data.readers import read_source, source_name
from infimmr_jax.data.records import DataError, Problem
from infimmr_jax.files import append_rows, complete_lines, content_name, json_line, replace_file, store_once
from infimmr_jax.names import JsonObject, Modality
from infimmr_jax.preprocess.prompts import user_text
from infimmr_jax.rewards.golds import GoldCheck
from infimmr_jax.rewards.pool import GraderPool
from infimmr_jax.rewards.router import score_groups
from infimmr_jax.rewards.verifiers import right_from
from infimmr_jax.rollout.policy import Policy, Sampling, answer, ask, batch_seed, identity, plan, seen_by
from infimmr_jax.rollout.state import SampleSettings

Keep = Literal["shortest", "all"]
Answered = tuple[list[str], np.ndarray, np.ndarray]  # texts, whether they ended by themselves, lengths: of one problem


def rejection_sample(
    config: RunConfig,
    policy: Policy,
    pool: GraderPool,
    sampling: Sampling,
    out: Path,
    keep: Keep,
    batch_size: int,
    say: Callable[[str], None],
    limit: int | None = None,
) -> dict[str, int]:
    """Ask a policy every training problem several times; keep its right answers as demonstrations below `out`.

    Kept is what is right, ended by itself and has the run's format: the shortest one of a problem, or all that differ.
    `demonstrations.jsonl` holds conversations, `images/` their pictures, `sampled.jsonl` a line a problem with its
    share of right answers. A call that was stopped goes on; at most `limit` problems a source. Returns the numbers of
    problems asked, problems solved and demonstrations in the files.
    Raises DataError when `out` holds samples made in another way.
    """
    out.mkdir(parents=True, exist_ok=True)
    rows = policy.rows(batch_size)
    golds = GoldCheck(pool, config.reward)
    sources = list(_sources(config))
    done = _done(out, {_made_by(policy, sampling, keep, rollout) for _, _, rollout in sources})
    for source, modality, rollout in sources:
        problems = _problems(source, modality, policy, golds, limit)
        known = [_key(source, modality, problem) in done for problem in problems]
        say(f"{source_name(source)} ({modality}): {known.count(False)} of {len(problems)} problems to ask")
        respond = functools.partial(_respond, policy, modality, sampling.settings(rollout), sampling.seed, rows)
        said = _made_by(policy, sampling, keep, rollout)
        record = functools.partial(_record, out, said, source, modality, keep, config, policy, pool)
        ask(problems, known, rows, respond, record)
    return _counted(out)


def chosen(
    texts: Sequence[str], right: Sequence[bool] | np.ndarray, lengths: Sequence[int] | np.ndarray, keep: Keep
) -> list[int]:
    """Choose which of a problem's answers are kept: the right one of fewest tokens (the first of equals), or all that
    differ."""
    correct = [number for number, good in enumerate(right) if good]
    if keep == "shortest":
        return [min(correct, key=lambda number: int(lengths[number]))] if correct else []
    first = {texts[number]: number for number in reversed(correct)}
    return sorted(first.values())


def _respond(
    policy: Policy, modality: Modality, settings: SampleSettings, seed: int, rows: int, problems: Sequence[Problem]
) -> list[Answered]:
    plans = [plan(policy, modality, problem) for problem in problems]
    answers = answer(policy, plans, settings, rows, batch_seed([problem.id for problem in problems], seed))
    return list(zip(answers.texts, answers.finished, answers.lengths, strict=True))


def _record(
    out: Path,
    said: str,
    source: SourceSection,
    modality: Modality,
    keep: Keep,
    config: RunConfig,
    policy: Policy,
    pool: GraderPool,
    problems: Sequence[Problem],
    answered: Sequence[Answered],
) -> None:
    """Write demonstrations, then the lines that say these problems are done: what a kill leaves between is dropped."""
    texts = [one[0] for one in answered]
    ended, tokens = (np.stack([one[part] for one in answered]) for part in (1, 2))
    # Accuracy and format are computed whatever the weights; judges and second passes belong to training.
    reward = config.reward.model_copy(update={"weights": {"accuracy": 1.0}})
    sized = [seen_by(policy, problem) for problem in problems]
    scores = score_groups(sized, texts, ended, tokens, reward, config.prompt.format, pool)
    least = np.asarray([right_from(problem.answer_type) for problem in problems])
    accuracy, form = scores.components["accuracy"] >= least[:, None], scores.components["format"] >= 0.5
    demonstrations, lines = [], []
    for row, problem in enumerate(problems):
        key = _key(source, modality, problem)
        right = accuracy[row] & form[row] & ended[row]
        picked = chosen(texts[row], right, tokens[row], keep)
        images = [_stored(image, out) for image in problem.images] if picked and modality != "text" else []
        for number in picked:
            turns = [{"role": "user", "content": user_text(problem, modality, config.prompt)}]
            if config.prompt.system is not None:
                turns.insert(0, {"role": "system", "content": config.prompt.system})
            turns.append({"role": "assistant", "content": texts[row][number]})
            demonstration = {"id": f"{key}#{number}", "messages": turns, "images": images, "key": key}
            demonstrations.append(demonstration | {"tokens": int(tokens[row][number])})
        line = {"id": problem.id, "key": key, "pass_rate": float(np.mean(accuracy[row])), "right": int(right.sum())}
        lines.append(line | {"kept": len(picked), "policy": said})
    append_rows(out / "demonstrations.jsonl", demonstrations)
    append_rows(out / "sampled.jsonl", lines)


def _made_by(policy: Policy, sampling: Sampling, keep: Keep, rollout: RolloutSection) -> str:
    return f"{identity(policy, sampling.settings(rollout), sampling.seed)} keep={keep}"


def _done(out: Path, allowed: set[str]) -> set[str]:
    """Read the keys of the problems that are done; drop demonstrations of problems that a kill left half written."""
    sampled = _rows(out / "sampled.jsonl")
    other = next((row["policy"] for row in sampled if row["policy"] not in allowed), None)
    if other is not None:
        raise DataError(f"{out} holds samples of {other!r}, not of {sorted(allowed)[0]!r}; give another --out")
    keys = {row["key"] for row in sampled}
    if jax.process_index() == 0:
        for name in ("sampled.jsonl", "demonstrations.jsonl"):
            kept = (row for row in _rows(out / name) if row["key"] in keys)
            replace_file(out / name, b"".join(map(json_line, kept)))
    return keys


def _rows(path: Path) -> list[JsonObject]:
    return [json.loads(line) for line in complete_lines(path)] if path.exists() else []


def _counted(out: Path) -> dict[str, int]:
    sampled = _rows(out / "sampled.jsonl")
    return {
        "problems": len(sampled),
        "solved": sum(row["kept"] > 0 for row in sampled),
        "demonstrations": sum(row["kept"] for row in sampled),
    }


def _stored(image: str | bytes, out: Path) -> str:
    """Copy the image below `out`, named by its content; give its path relative to `out`."""
    content = image if isinstance(image, bytes) else Path(image).read_bytes()
    name = f"images/{content_name(content, Path(image).suffix.lower() if isinstance(image, str) else '.png')}"
    store_once(out / name, content)
    return name


def _sources(config: RunConfig) -> Iterator[tuple[SourceSection, Modality, RolloutSection]]:
    """Give every different source of the phases, with the modality it is used under and its sampling there."""
    used = {
        (source.model_dump_json(), phase.modality): (source, phase.modality, phase.rollout)
        for phase in config.grpo_phases
        for source in phase.sources
    }
    yield from used.values()


def _problems(
    source: SourceSection, modality: Modality, policy: Policy, golds: GoldCheck, limit: int | None
) -> list[Problem]:
    """Read the problems of a source that can be shown, in the file's order."""
    problems, _ = read_source(source, modality, policy.config.data, golds)
    usable: list[Problem] = []
    for index in range(len(problems)):
        if len(usable) == limit:
            break
        try:
            plan(policy, modality, problems[index])
        except DataError:
            continue  # too long for data.max_prompt: training rejects it too, and lists it in data.json
        usable.append(problems[index])
    if not usable:
        raise ConfigError(f"{source_name(source)}: no problem can be shown; is data.max_prompt too small?")
    return usable


def _key(source: SourceSection, modality: Modality, problem: Problem) -> str:
    return f"{source_name(source)}:{source.seed}:{modality}:{problem.id}"
