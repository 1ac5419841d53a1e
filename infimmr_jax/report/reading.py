"""A run directory as the report sees it: whatever is there, for a run may still be going on or have been killed."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from infimmr_jax.config import ConfigError
from infimmr_jax.config.yaml_file import read_yaml
from infimmr_jax.errors import UserError
from infimmr_jax.names import JsonValue
from infimmr_jax.report.ending import read_ending
from infimmr_jax.report.page_data import Json
from infimmr_jax.report.transcript_file import TranscriptFile

MAX_CONFIG_BYTES = 200_000
# Modalities in the order of the curriculum, as the page names them.
MODALITIES = {"text": "text", "caption": "image + caption", "image": "image alone"}


class ReportError(UserError, ValueError):
    """A report can not be made: the message names the directory and says what is missing."""


@dataclasses.dataclass(frozen=True)
class Run:
    """What was found in one run directory.

    `phases` are (name, modality or None, planned steps or None) in curriculum order. `notes` are sentences about what
    was missing or unreadable, for the reader of the report. `ending` is what the last attempt ended with ("status",
    "reason"), where it said so.
    """

    directory: Path
    name: str
    config: Json
    config_text: str
    environment: Json
    sft: list[Json]
    grpo: list[Json]
    evals: list[Json]
    transcripts: Sequence[Json]
    notes: tuple[str, ...]
    ending: Json | None = None

    @property
    def phases(self) -> list[tuple[str, str | None, int | None]]:
        """The curriculum as configured; without a configuration, the phases that rows were found of."""
        if self.config.get("phases"):
            return [(str(part.get("name")), part.get("modality"), part.get("steps")) for part in self.config["phases"]]
        return [(name, None, None) for name in dict.fromkeys(str(row.get("phase")) for row in self.grpo)]

    @property
    def steps_planned(self) -> int | None:
        """GRPO steps of all phases together, None where the configuration does not tell."""
        counts = [steps for _, _, steps in self.phases]
        return sum(counts) if counts and all(isinstance(count, int) for count in counts) else None  # type: ignore[arg-type]


def read_run(directory: Path) -> Run:
    """Read a run directory; anything may be missing except all of metrics.jsonl, evals.jsonl and transcripts.jsonl.

    Raises ReportError when the directory holds no rows at all.
    """
    if not directory.is_dir():
        raise ReportError(f"there is no run directory {directory}")
    notes: list[str] = []
    rows = {name: read_rows(directory / f"{name}.jsonl", notes) for name in ("metrics", "evals")}
    transcripts = TranscriptFile(directory / "transcripts.jsonl", notes)
    if not any(rows.values()) and not transcripts:
        raise ReportError(
            f"{directory} holds no rows of a run (metrics.jsonl, evals.jsonl, transcripts.jsonl): "
            "give the directory that `infimmr train` wrote to"
        )
    config_text, config = _read_config(directory / "config.yaml", notes)
    return Run(
        directory=directory,
        name=directory.resolve().name,
        config=config,
        config_text=config_text,
        environment=_read_environment(directory / "environment.json", notes),
        sft=[row for row in rows["metrics"] if row.get("kind") == "sft"],
        grpo=[row for row in rows["metrics"] if row.get("kind") == "grpo"],
        evals=[row for row in rows["evals"] if _has_numbers(row, "stage_index", "accuracy")],
        transcripts=transcripts,
        notes=tuple(notes),
        ending=read_ending(directory),
    )


def read_rows(path: Path, notes: list[str]) -> list[Json]:
    """Rows of a JSONL file; lines that are not a JSON object (the torn last one of a kill) are left out and noted."""
    if not path.exists():
        return []
    rows, bad = [], 0
    for line in path.read_bytes().splitlines():
        try:
            row = json.loads(line, parse_constant=lambda _: None)
        except (ValueError, RecursionError):
            bad += 1
            continue
        if isinstance(row, dict):
            rows.append(row)
        else:
            bad += 1
    if bad:
        notes.append(f"{path.name}: {bad} line{'s' if bad > 1 else ''} could not be read, and left out.")
    return rows


def _read_config(path: Path, notes: list[str]) -> tuple[str, Json]:
    if not path.exists():
        notes.append("config.yaml is missing: planned steps are not known.")
        return "", {}
    with path.open("rb") as file:
        text = file.read(MAX_CONFIG_BYTES + 1).decode("utf-8", "replace")
    if len(text) > MAX_CONFIG_BYTES:
        notes.append(f"config.yaml is left out: it is larger than {MAX_CONFIG_BYTES // 1000} kB.")
        return "", {}
    try:
        tree = read_yaml(text, "config.yaml")
    except ConfigError as error:
        notes.append(f"{str(error).splitlines()[0]}.")
        return text, {}
    return text, tree if isinstance(tree, dict) else {}


def _read_environment(path: Path, notes: list[str]) -> Json:
    if not path.exists():
        notes.append("environment.json is missing: versions and devices are not known.")
        return {}
    try:
        tree = json.loads(path.read_text(encoding="utf-8", errors="replace"))
    except ValueError:
        notes.append("environment.json is not valid JSON.")
        return {}
    return tree if isinstance(tree, dict) else {"environment": tree}


def _has_numbers(row: Json, *keys: str) -> bool:
    return all(isinstance(row.get(key), int | float) for key in keys)


def flatten(tree: JsonValue, prefix: str = "") -> Json:
    """A nested mapping or list as `a.b.0.c -> value`; empty ones stay as values."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    pairs = [(f"{prefix}.{key}" if prefix else str(key), value) for key, value in items]
    if not pairs:
        return {prefix: tree} if prefix else {}
    return {name: leaf for key, value in pairs for name, leaf in flatten(value, key).items()}


def config_differences(runs: list[Run]) -> list[tuple[str, list[str]]]:
    """Configuration keys on which the runs differ, each with one text a run (`-` where the key is absent).

    A whole phase that some run does not have is one row.
    """
    flat = [_with_phases_as_one(run.config, runs) for run in runs]
    keys = list(dict.fromkeys(key for tree in flat for key in tree))
    table = [(key, ["-" if key not in tree else _yaml_text(tree[key]) for tree in flat]) for key in keys]
    return [(key, texts) for key, texts in table if len(set(texts)) > 1]


def _with_phases_as_one(config: Json, runs: list[Run]) -> Json:
    """The flat configuration; phases beyond those of the run with the fewest are told by name, modality and steps."""

    def phases(tree: Json) -> list[JsonValue]:
        found = tree.get("phases")
        return found if isinstance(found, list) else []

    common = min(len(phases(run.config)) for run in runs)
    further = phases(config)[common:]
    if not further:
        return flatten(config)
    told = {
        f"phases.{common + index}": f"{phase.get('name')}: {phase.get('modality')}, {phase.get('steps')} steps"
        for index, phase in enumerate(further)
        if isinstance(phase, dict)
    }
    return flatten({**config, "phases": phases(config)[:common]}) | told


def _yaml_text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
