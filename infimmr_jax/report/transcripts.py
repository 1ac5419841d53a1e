"""Transcripts for the page: a spread selection within a size budget, pictures as data URIs, distributions over time."""

from __future__ import annotations

import base64
import io
import itertools
import json
import math
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from infimmr_jax.report.reading import Run

BUDGET_BYTES = 3_500_000
IMAGE_PIXELS = 384
PLAIN_IMAGE_BYTES = 16_000
WINDOWS_PER_PHASE = 6
LENGTH_BINS = 8
REWARD_BINS = 8


def pack_transcripts(run: Run, budget: int = BUDGET_BYTES) -> dict[str, Any]:
    """As many transcripts as fit in `budget` bytes of JSON, spread evenly over each kind, phase and modality.

    Returns {"items", "images" (data URIs, items refer to them by index), "found" (number before the selection)}.
    """
    images: list[str | None] = []
    index_of: dict[str, int] = {}
    chosen: list[tuple[int, dict[str, Any]]] = []
    spent = 0
    for place in _spread_order(run.transcripts):
        item = _pack(run.transcripts[place])
        fresh = [name for name in dict.fromkeys(item["images"]) if name not in index_of]
        encoded = {name: data_uri(run.directory, name) for name in fresh}
        size = len(json.dumps(item)) + sum(len(uri or "") for uri in encoded.values())
        if chosen and spent + size > budget:
            continue
        spent += size
        for name, uri in encoded.items():
            index_of[name] = len(images)
            images.append(uri)
        chosen.append((place, {**item, "images": [index_of[name] for name in item["images"]]}))
    return {"items": [item for _, item in sorted(chosen, key=lambda pair: pair[0])], "images": images} | {
        "found": len(run.transcripts)
    }


def data_uri(directory: Path, name: str) -> str | None:
    """A transcript's picture as a data URI, scaled to at most 384 pixels; None when it is missing or no picture.

    Paths that lead out of the run directory count as missing.
    """
    path = (directory / name).resolve()
    if not path.is_relative_to(directory.resolve()) or not path.is_file():
        return None
    data = path.read_bytes()
    try:
        with Image.open(io.BytesIO(data)) as picture:
            if picture.format == "PNG" and len(data) <= PLAIN_IMAGE_BYTES:
                picture.verify()
                return _uri("png", data)
            picture.thumbnail((IMAGE_PIXELS, IMAGE_PIXELS))
            encoded = io.BytesIO()
            picture.convert("RGB").save(encoded, "WEBP", quality=80)
            return _uri("webp", encoded.getvalue())
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError):
        # A picture that a kill or a person damaged must not cost the report.
        return None


def distributions(run: Run) -> list[dict[str, Any]]:
    """Histograms of reward and length of the transcribed training responses, over windows of steps.

    One entry a quantity: {"title", "bins" (labels, top first), "columns": [{"phase", "label", "count", "shares"}],
    "phases": [{"name", "span" (number of columns)}]}.
    """
    rows = sorted((row for row in run.transcripts if row.get("kind", "train") == "train"), key=lambda row: row["step"])
    by_phase: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        by_phase[str(row.get("phase"))].append(row)
    entries = []
    for title, key, count in (("Reward", "total", REWARD_BINS), ("Length in tokens", "length", LENGTH_BINS)):
        every = [value for row in rows for value in _values(row, key)]
        if len(set(every)) < 2:
            continue
        edges, labels = _bins(every, count)
        columns = []
        for phase, phase_rows in by_phase.items():
            for part in np.array_split(np.arange(len(phase_rows)), min(WINDOWS_PER_PHASE, len(phase_rows))):
                window = [phase_rows[int(index)] for index in part]
                values = [value for row in window for value in _values(row, key)]
                if values:
                    shares = np.histogram(values, edges)[0] / len(values)
                    first, last = window[0]["step"], window[-1]["step"]
                    columns.append(
                        {
                            "phase": phase,
                            "label": str(first) if first == last else f"{first}–{last}",
                            "count": len(values),
                            "shares": [round(float(share), 4) for share in shares[::-1]],
                        }
                    )
        spans = Counter(column["phase"] for column in columns)
        phases = [{"name": name, "span": span} for name, span in spans.items()]
        entries.append({"title": title, "bins": labels[::-1], "columns": columns, "phases": phases})
    return entries


def _pack(row: dict[str, Any]) -> dict[str, Any]:
    """A transcript row with only what the page shows; missing keys become empty."""
    keys = ("step", "phase", "problem_id", "modality", "question", "caption", "answer", "answer_type", "prompt")
    item: dict[str, Any] = {key: row.get(key) for key in keys}
    item["kind"] = row.get("kind", "train")
    if row.get("image_size") and row.get("seen_size"):
        gold, seen = (" x ".join(f"{side:g}" for side in row[key]) for key in ("image_size", "seen_size"))
        item["answer"] = f"{row.get('answer')} (in an image of {gold}, shown at {seen})"
    item["choices"] = [str(choice) for choice in row.get("choices") or ()]
    item["images"] = [str(name) for name in row.get("images") or ()]
    item["responses"] = [_pack_response(response) for response in row["responses"] if isinstance(response, dict)]
    return item


def _pack_response(response: dict[str, Any]) -> dict[str, Any]:
    keys = ("text", "total", "components", "extracted", "reason", "length", "finish")
    packed = {key: response.get(key) for key in keys}
    tokens, logprobs = response.get("tokens") or [], response.get("logprobs") or []
    if len(tokens) == len(logprobs):
        packed["tokens"] = [str(token) for token in tokens]
        packed["logprobs"] = [None if value is None else round(float(value), 2) for value in logprobs]
    return packed


def _spread_order(rows: list[dict[str, Any]]) -> list[int]:
    """Row numbers such that every beginning of the list is spread over all strata and over time."""
    strata: dict[tuple[str, str, str], list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        strata[str(row.get("kind")), str(row.get("phase")), str(row.get("modality"))].append(index)
    ranked = []
    for members in strata.values():
        # The last row first (the newest is the most wanted), then halves, quarters, ... of the time before it.
        places = dict.fromkeys([len(members) - 1, *_halvings(len(members))])
        ranked += [(rank, members[place]) for rank, place in enumerate(places)]
    return [index for _, index in sorted(ranked)]


def _halvings(count: int) -> list[int]:
    bits = max(1, math.ceil(math.log2(count))) if count > 1 else 1
    reverse = [int(f"{i:0{bits}b}"[::-1], 2) for i in range(1 << bits)]
    return [place for place in reverse if place < count]


def _values(row: dict[str, Any], key: str) -> list[float]:
    found = [response.get(key) for response in row["responses"] if isinstance(response, dict)]
    return [value for value in found if isinstance(value, int | float) and math.isfinite(value)]


def _bins(values: list[float], count: int) -> tuple[np.ndarray, list[str]]:
    """Edges and labels of at most `count` bins."""
    distinct = sorted(set(values))
    if len(distinct) <= count:
        # A bin for each value: rewards often take four values, and bins of a width would hide that.
        middles = [(low + high) / 2 for low, high in itertools.pairwise(distinct)]
        return np.array([distinct[0] - 0.5, *middles, distinct[-1] + 0.5]), [f"{value:g}" for value in distinct]
    edges = np.linspace(distinct[0], distinct[-1], count + 1)
    form = ".0f" if distinct[-1] - distinct[0] >= count else ".2f"
    return edges, [f"{low:{form}}–{high:{form}}" for low, high in itertools.pairwise(edges)]


def _uri(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
