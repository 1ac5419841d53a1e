"""Rejection sampling: what a checkpoint answers rightly becomes demonstrations that `sft.conversations` reads."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from jax.experimental import multihost_utils

from infimmr_jax.commands.annotate import Sampling, _seed
from infimmr_jax.config import ConfigError, RunConfig, SourceSection
from infimmr_jax.data.readers import read_source, source_name
from infimmr_jax.data.records import DataError, Problem
from infimmr_jax.names import Modality
from infimmr_jax.preprocess.prompts import user_text
from infimmr_jax.rewards.golds import GoldCheck
from infimmr_jax.rewards.pool import GraderPool
from infimmr_jax.rewards.router import Scores, score_groups
from infimmr_jax.rewards.verifiers import right_from
from infimmr_jax.rollout.policy import Answers, Policy, answer, plan, seen_by

Keep = Literal["shortest", "all"]


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
    said = f"{policy.name} k={sampling.samples} T={sampling.temperature:g} max={sampling.max_tokens} keep={keep}"
    done = _done(out, said)
    rows = policy.rows(batch_size)
    golds = GoldCheck(pool, config.reward)
    for source, modality in _sources(config):
        wanted = _problems(source, modality, policy, golds, limit)
        left = _agree([problem for problem in wanted if _key(source, modality, problem) not in done], wanted)
        say(f"{source_name(source)} ({modality}): {len(left)} of {len(wanted)} problems to ask")
        for start in range(0, len(left), rows):
            problems = left[start : start + rows]
            plans = [plan(policy, modality, problem) for problem in problems]
            answers = answer(policy, plans, sampling.settings, rows, _seed(sampling, problems))
            if jax.process_index() == 0:
                scores = _scores(config, [seen_by(policy, problem) for problem in problems], answers, pool)
                _write(out, said, source, modality, problems, answers, scores, keep, config)
    return _counted(out)


def chosen(
    texts: Sequence[str], right: Sequence[bool] | np.ndarray, lengths: Sequence[int] | np.ndarray, keep: Keep
) -> list[int]:
    """Which of a problem's answers are kept: the right one of fewest tokens (the first of equals), or all different."""
    found = [number for number, good in enumerate(right) if good]
    if keep == "shortest":
        return [min(found, key=lambda number: int(lengths[number]))] if found else []
    first = {texts[number]: number for number in reversed(found)}
    return sorted(first.values())


def _scores(config: RunConfig, problems: Sequence[Problem], answers: Answers, pool: GraderPool) -> Scores:
    # Accuracy and format are computed whatever the weights; judges and second passes belong to training.
    reward = config.reward.model_copy(update={"weights": {"accuracy": 1.0}})
    shown = answers.texts, answers.finished, answers.lengths
    return score_groups(problems, *shown, reward, config.prompt.format, pool)


def _write(
    out: Path,
    said: str,
    source: SourceSection,
    modality: Modality,
    problems: Sequence[Problem],
    answers: Answers,
    scores: Scores,
    keep: Keep,
    config: RunConfig,
) -> None:
    """Demonstrations first, then the lines that say these problems are done: what a kill leaves between is dropped."""
    least = np.asarray([right_from(problem.answer_type) for problem in problems])
    accuracy, form = scores.components["accuracy"] >= least[:, None], scores.components["format"] >= 0.5
    demonstrations, lines = [], []
    for row, problem in enumerate(problems):
        key = _key(source, modality, problem)
        right = accuracy[row] & form[row] & answers.finished[row]
        picked = chosen(answers.texts[row], right, answers.lengths[row], keep)
        images = [_copied(image, out) for image in problem.images] if picked and modality != "text" else []
        for number in picked:
            turns = [{"role": "user", "content": user_text(problem, modality, config.prompt)}]
            if config.prompt.system is not None:
                turns.insert(0, {"role": "system", "content": config.prompt.system})
            turns.append({"role": "assistant", "content": answers.texts[row][number]})
            demonstration = {"id": f"{key}#{number}", "messages": turns, "images": images, "key": key}
            demonstrations.append(demonstration | {"tokens": int(answers.lengths[row][number])})
        line = {"id": problem.id, "key": key, "pass_rate": float(np.mean(accuracy[row])), "right": int(right.sum())}
        lines.append(line | {"kept": len(picked), "policy": said})
    _append(out / "demonstrations.jsonl", demonstrations)
    _append(out / "sampled.jsonl", lines)


def _done(out: Path, said: str) -> set[str]:
    """Keys of the problems that are done; drops demonstrations of problems that a kill left half written."""
    rows = _rows(out / "sampled.jsonl")
    other = next((row["policy"] for row in rows if row["policy"] != said), None)
    if other is not None:
        raise DataError(f"{out} holds samples of {other!r}, not of {said!r}; give another --out")
    keys = {row["key"] for row in rows}
    if jax.process_index() == 0:
        for name in ("sampled.jsonl", "demonstrations.jsonl"):
            kept = [row for row in _rows(out / name) if row["key"] in keys]
            whole = out / f"{name}.new"
            whole.unlink(missing_ok=True)
            _append(whole, kept)
            whole.replace(out / name)
    return keys


def _rows(path: Path) -> list[dict[str, Any]]:
    """The whole rows of a JSONL file; a last line that a kill cut short is none."""
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")[:-1]
    return [json.loads(line) for line in lines]


def _append(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _counted(out: Path) -> dict[str, int]:
    sampled = _rows(out / "sampled.jsonl")
    return {
        "problems": len(sampled),
        "solved": sum(row["kept"] > 0 for row in sampled),
        "demonstrations": sum(row["kept"] for row in sampled),
    }


def _copied(image: str | bytes, out: Path) -> str:
    """The image below `out`, named by its content; the file's path relative to `out`."""
    content = image if isinstance(image, bytes) else Path(image).read_bytes()
    suffix = Path(image).suffix.lower() if isinstance(image, str) else ".png"
    name = f"images/{hashlib.sha256(content).hexdigest()[:24]}{suffix}"
    (out / "images").mkdir(exist_ok=True)
    if not (out / name).exists():
        part = out / f"{name}.part"
        part.write_bytes(content)
        part.replace(out / name)
    return name


def _sources(config: RunConfig) -> Iterator[tuple[SourceSection, Modality]]:
    """Every different source of the phases, in the modality it is used under."""
    used = {
        (source.model_dump_json(), phase.modality): source for phase in config.grpo_phases for source in phase.sources
    }
    for (_, modality), source in used.items():
        yield source, modality


def _problems(
    source: SourceSection, modality: Modality, policy: Policy, golds: GoldCheck, limit: int | None
) -> list[Problem]:
    """The problems of a source that can be shown, in the file's order."""
    problems, _ = read_source(source, modality, policy.config.data, golds)
    shown: list[Problem] = []
    for index in range(len(problems)):
        if len(shown) == limit:
            break
        try:
            plan(policy, modality, problems[index])
        except DataError:
            continue  # too long for data.max_prompt: training rejects it too, and lists it in data.json
        shown.append(problems[index])
    if not shown:
        raise ConfigError(f"{source_name(source)}: no problem can be shown; is data.max_prompt too small?")
    return shown


def _key(source: SourceSection, modality: Modality, problem: Problem) -> str:
    return f"{source_name(source)}:{source.seed}:{modality}:{problem.id}"


def _agree(left: list[Problem], wanted: list[Problem]) -> list[Problem]:
    """What is left to ask as process 0 sees it: only it writes, and all must sample the same batches."""
    if jax.process_count() == 1:
        return left
    names = {id(problem) for problem in left}
    mine = np.asarray([id(problem) in names for problem in wanted])
    agreed = multihost_utils.broadcast_one_to_all(mine)
    return [problem for problem, asked in zip(wanted, agreed, strict=True) if asked]
