"""The report of `prepare`: per source what was kept, and every row that was dropped with its reason."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

LISTED = 20  # dropped rows shown a kind in the Markdown report; the JSON report has all


@dataclasses.dataclass(frozen=True)
class SourceSummary:
    """What became of one source; `path` is its TFDS directory below the output folder.

    `rejected` rows could not be used under a modality, `duplicates` repeat another training problem, `contaminated`
    ones copy an evaluation or benchmark problem, `surplus` counts what balancing left out. `leaking_captions` are ids
    that were kept although their caption holds the answer verbatim.
    """

    source: str
    path: str
    split: str
    modalities: list[str]
    rows: int
    kept: int
    rejected: list[dict[str, Any]]
    duplicates: list[dict[str, Any]]
    contaminated: list[dict[str, Any]]
    surplus: int
    leaking_captions: list[str]
    answer_types: dict[str, int]
    subjects: dict[str, int]
    levels: dict[str, int]
    images: dict[str, int]
    captioned: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return dataclasses.asdict(self)


def histogram(values: Iterable[str | None]) -> dict[str, int]:
    """How often each value occurs, the most frequent first; None counts as "unknown"."""
    return dict(Counter("unknown" if value is None else value for value in values).most_common())


def as_markdown(summaries: Sequence[SourceSummary], reference_problems: int) -> str:
    """The report as a Markdown page: a table of all sources, then what was dropped from each and why."""
    parts = [
        "# What `prepare` made of the sources",
        "",
        f"Copies were looked for among {reference_problems} evaluation and benchmark problems.",
        "",
        "| source | used as | rows | rejected | copies | repetitions | surplus | kept | captions with the answer |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for s in summaries:
        rejected = len({row["row"] for row in s.rejected})
        parts.append(
            f"| {_cell(s.source)} | {', '.join(s.modalities)} | {s.rows} | {rejected} | {len(s.contaminated)} | "
            f"{len(s.duplicates)} | {s.surplus} | {s.kept} | {len(s.leaking_captions)} |"
        )
    for s in summaries:
        parts += ["", f"## {s.source}", "", f"Written to `{s.path}`, split `{s.split}`.", ""]
        for name in ("answer_types", "subjects", "levels", "images"):
            counts = list(getattr(s, name).items())
            shown = ", ".join(f"{_cell(str(value))} {count}" for value, count in counts[:LISTED])
            more = f", and {len(counts) - LISTED} more" if len(counts) > LISTED else ""
            parts += [f"- {name.replace('_', ' ')}: {shown or 'none'}{more}"]
        parts += _listed("Rejected", _rejections(s.rejected))
        parts += _listed("Copies", [f"{d['id']} of {d['other']}: {d['reason']}" for d in s.contaminated])
        parts += _listed("Repetitions", [f"{d['id']} of {d['other']}: {d['reason']}" for d in s.duplicates])
        parts += _listed("Kept, but the caption holds the answer", s.leaking_captions)
    return "\n".join(parts) + "\n"


def _rejections(rejected: Sequence[dict[str, Any]]) -> list[str]:
    """A line a row and reason: a row refused under several modalities for one reason is one line."""
    modalities: dict[tuple[int, str | None, str], list[str]] = {}
    for row in rejected:
        modalities.setdefault((row["row"], row["id"], row["reason"]), []).append(row["modality"])
    return [
        f"row {number}{f' ({name})' if name is not None else ''}, as {' and '.join(used)}: {reason}"
        for (number, name, reason), used in modalities.items()
    ]


def _listed(title: str, lines: Sequence[str]) -> list[str]:
    if not lines:
        return []
    shown = [f"- {_cell(line)}" for line in lines[:LISTED]]
    more = [f"- and {len(lines) - LISTED} more in report.json"] if len(lines) > LISTED else []
    return ["", f"### {title}: {len(lines)}", "", *shown, *more]


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
