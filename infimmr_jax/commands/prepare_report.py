"""The report of `prepare`: per source what was kept, and every row that was dropped with its reason."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Sequence

from infimmr_jax.names import JsonObject

LISTED = 20  # dropped rows shown a kind in the Markdown report; the JSON report has all


@dataclasses.dataclass(frozen=True)
class Sample:
    """A row as it was read, for a person to compare with the file: its number there, and the sizes of its pictures."""

    row: int
    id: str
    question: str
    gold: str
    answer_type: str
    choices: list[str]
    pictures: list[str]

    def __str__(self) -> str:
        options = f", of {_quoted(', '.join(self.choices))}" if self.choices else ""
        pictures = f", pictures {', '.join(self.pictures)}" if self.pictures else ""
        gold = f"gold {_quoted(self.gold)} ({self.answer_type}{options})"
        return f"row {self.row} ({self.id[:60]}): {_quoted(self.question)}: {gold}{pictures}"


@dataclasses.dataclass(frozen=True)
class SourceSummary:
    """What became of one source; `path` is its TFDS directory below the output folder.

    `rejected` rows could not be used under a modality, `duplicates` repeat another training problem, `contaminated`
    ones copy an evaluation or benchmark problem, `surplus` counts what balancing left out. `leaking_captions` are ids
    that were kept although their caption holds the answer verbatim. `notes` counts what the reader took for something
    else than its column is called, or left aside; `samples` are three rows as they were read.
    """

    source: str
    path: str
    split: str
    modalities: list[str]
    rows: int
    kept: int
    rejected: list[JsonObject]
    duplicates: list[JsonObject]
    contaminated: list[JsonObject]
    surplus: int
    leaking_captions: list[str]
    answer_types: dict[str, int]
    subjects: dict[str, int]
    levels: dict[str, int]
    images: dict[str, int]
    captioned: int
    notes: dict[str, int]
    samples: list[JsonObject]

    def to_dict(self) -> JsonObject:
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
        parts += [f"- {_cell(str(Sample(**sample)))}" for sample in s.samples]
        parts += [f"- {_cell(line)}" for line in note_lines(s.notes)]
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


def note_lines(notes: dict[str, int]) -> list[str]:
    """What is worth knowing about how rows were read, with how many they are."""
    return [f"{count} rows: {what}" for what, count in notes.items()]


def _rejections(rejected: Sequence[JsonObject]) -> list[str]:
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


def _quoted(text: str) -> str:
    """A text on one line, in quotes; of a long one both ends: what is asked often stands at the end."""
    text = " ".join(text.split())
    return f'"{text if len(text) <= 120 else f"{text[:60]} .. {text[-56:]}"}"'


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
