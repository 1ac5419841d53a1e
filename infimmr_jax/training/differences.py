"""What may differ between the run that saved a checkpoint and the one that goes on from it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from pydantic import ValidationError

from infimmr_jax.config import PhaseSection, RunConfig, stage_lengths
from infimmr_jax.data.selection import SourceReport
from infimmr_jax.training.digests import Json

# What may differ between the run that saved and the one that goes on: none of it changes what is computed.
FREE = (
    "name",
    "output",
    "logging",
    "checkpoint",
    "guards",
    "mesh",
    "data.root",
    "data.threads",
    "data.prefetch",
    "data.workers",
    "model.path",
    "model.remat",
    "model.attention",
    "grpo.micro_batches",
    "grpo.micro_batch_tokens",
    "grpo.logprob_chunk",
    "rollout.compactions",
    "rollout.cache_sizes",
    "reward.workers",
    "reward.deadline_seconds",
    "reward.memory_mb",
    "reward.functions",
    "reward.judge.endpoint",
    "reward.judge.key_env",
    "reward.judge.timeout_seconds",
    "reward.judge.patience_seconds",
    "reward.judge.attempts",
    "reward.judge.parallel",
)
# A phase may have sections of its own, which follow the rule of the run's section of the same name.
_OF_PHASES = "|".join(sorted(set(PhaseSection.model_fields) & set(RunConfig.model_fields)))
_IN_PHASE = re.compile(rf"^phases\.\d+\.(?=(?:{_OF_PHASES})(?:\.|$))")


def differences(saved: Json, here: Json, free: Sequence[str] = ()) -> list[str]:
    """A sentence for every leaf that differs and is not below one of the keys in `free`; indices of lists are keys."""
    return [sentence for key, sentence in _leaves(saved, here) if not is_below(key, free)]


def is_below(key: str, prefixes: Sequence[str]) -> bool:
    """Whether a key is one of `prefixes` or below it; a section of a phase is also its namesake of the run."""
    keys = (key, _IN_PHASE.sub("", key))
    return any(name == prefix or name.startswith(prefix + ".") for name in keys for prefix in prefixes)


def with_new_keys(saved: dict[str, Json]) -> dict[str, Json]:
    """A saved configuration with the defaults of keys that the program did not have when it was saved."""
    try:
        return RunConfig.model_validate(saved).model_dump(mode="json")
    except ValidationError:
        return saved


def kept_problems(reports: Iterable[SourceReport]) -> dict[str, str]:
    """Number and digest of the problems that every source gives, by phase and source, for `Checkpoints`."""
    kept: dict[str, str] = {}
    for report in reports:
        name = f"{report.phase}: {report.source}"
        number = sum(other == name or other.startswith(f"{name} #") for other in kept)
        kept[f"{name} #{number + 1}" if number else name] = f"{report.kept} problems {report.digest}".strip()
    return kept


def saved_lengths(config: dict[str, Json]) -> tuple[int, ...] | None:
    """The planned steps of every stage of a saved configuration; None when it is not valid any more."""
    try:
        return stage_lengths(RunConfig.model_validate(config))
    except ValidationError:
        return None


def _leaves(saved: Json, here: Json, key: str = "") -> list[tuple[str, str]]:
    if isinstance(saved, list) and isinstance(here, list) and any(isinstance(x, dict | list) for x in [*saved, *here]):
        saved, here = ({str(i): item for i, item in enumerate(items)} for items in (saved, here))
    if isinstance(saved, dict) and isinstance(here, dict):
        names = [*saved, *(name for name in here if name not in saved)]
        prefix = f"{key}." if key else ""
        return [
            leaf
            for name in names
            for leaf in _leaves(saved.get(name), here.get(name), f"{prefix}{name}")
            if saved.get(name) != here.get(name)
        ]
    return [] if saved == here else [(key, f"{key} is {saved!s:.60} there and {here!s:.60} here")]


__all__ = ["FREE", "differences", "is_below", "kept_problems", "saved_lengths", "with_new_keys"]
