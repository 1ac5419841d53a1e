"""Transcripts for the page: a spread selection within a size budget, pictures as data URIs, distributions over time."""

from __future__ import annotations

import base64
import io
import itertools
import json
import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from infimmr_jax.data.pictures import FORMATS
from infimmr_jax.names import JsonValue
from infimmr_jax.report.page_data import Json, page_bytes
from infimmr_jax.report.reading import Run
from infimmr_jax.report.transcript_file import Summary, is_number, summaries_of

BUDGET_BYTES = 3_500_000
# Texts, responses and files beyond these are cut down or left out, and the page says so.
SHOWN_CHARACTERS = 12_000
RESPONSES = 64
MAX_FILE_BYTES = 32_000_000
# So many transcripts in a row that do not fit any more end the selection.
MISFITS = 20
IMAGE_PIXELS = 384
PLAIN_IMAGE_BYTES = 16_000
WINDOWS_PER_PHASE = 6
LENGTH_BINS = 8
REWARD_BINS = 8


def pack_transcripts(run: Run, budget: int = BUDGET_BYTES) -> Json:
    """Pack as many transcripts as fit in `budget` bytes of the page, spread evenly over each kind, phase and modality.

    Returns {"items", "images" (data URIs, items refer to them by index), "found" (number before the selection)}. At
    least one transcript is packed; very long texts are shortened in the middle, which they say.
    """
    images: list[str | None] = []
    index_of: dict[str, int] = {}
    chosen: list[tuple[int, Json]] = []
    spent = misfits = 0
    for place in _spread_order(summaries_of(run.transcripts)):
        if misfits == MISFITS:
            break
        item = _pack(run.transcripts[place])
        size = page_bytes(item)
        encoded: dict[str, str | None] = {}
        for name in dict.fromkeys(item["images"]):
            # What does not fit without the rest of its pictures is not worth them.
            if name not in index_of and spent + size <= budget:
                encoded[name] = data_uri(run.directory, name)
                size += len(encoded[name] or "")
        if chosen and spent + size > budget:
            misfits += 1
            continue
        spent, misfits = spent + size, 0
        for name, uri in encoded.items():
            index_of[name] = len(images)
            images.append(uri)
        chosen.append((place, {**item, "images": [index_of[name] for name in item["images"] if name in index_of]}))
    return {"items": [item for _, item in sorted(chosen, key=lambda pair: pair[0])], "images": images} | {
        "found": len(run.transcripts)
    }


def data_uri(directory: Path, name: str) -> str | None:
    """Encode a transcript's picture as a data URI of at most 384 pixels; None when it is missing or no picture.

    Paths that lead out of the run directory count as missing.
    """
    path = (directory / name).resolve()
    if not path.is_relative_to(directory.resolve()) or not path.is_file():
        return None
    if path.stat().st_size > MAX_FILE_BYTES:
        return None
    data = path.read_bytes()
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
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


def distributions(run: Run) -> list[Json]:
    """Bin reward and length of the transcribed training responses, over windows of steps.

    One entry a quantity: {"title", "bins" (labels, top first), "columns": [{"phase", "label", "count", "shares"}],
    "phases": [{"name", "span" (number of columns)}]}.
    """
    rows = sorted((row for row in summaries_of(run.transcripts) if row.kind == "train"), key=lambda row: row.step)
    by_phase: dict[str, list[Summary]] = defaultdict(list)
    for row in rows:
        by_phase[row.phase].append(row)
    entries = []
    for title, key, count in (("Reward", "total", REWARD_BINS), ("Length in tokens", "length", LENGTH_BINS)):
        every = [value for row in rows for value in row.values[key]]
        if len(set(every)) < 2:
            continue
        edges, labels = _bins(every, count)
        columns = []
        for phase, phase_rows in by_phase.items():
            for part in np.array_split(np.arange(len(phase_rows)), min(WINDOWS_PER_PHASE, len(phase_rows))):
                window = [phase_rows[int(index)] for index in part]
                values = [value for row in window for value in row.values[key]]
                if values:
                    shares = np.histogram(values, edges)[0] / len(values)
                    first, last = window[0].step, window[-1].step
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


def _pack(row: Json) -> Json:
    """Keep of a transcript row only what the page shows; missing keys become empty."""
    keys = ("step", "phase", "problem_id", "modality", "question", "caption", "answer", "answer_type", "prompt")
    item: Json = {key: _shorten(row.get(key)) for key in keys}
    item["kind"] = row.get("kind", "train")
    sizes = [size for key in ("image_size", "seen_size") if isinstance(size := row.get(key), list) and size]
    if len(sizes) == 2 and all(is_number(side) for size in sizes for side in size):
        gold, shown = (" x ".join(f"{side:g}" for side in size) for size in sizes)
        item["answer"] = f"{item['answer']} (in an image of {gold}, shown at {shown})"
    item["choices"] = [_shorten(str(choice)) for choice in (row.get("choices") or ())[:RESPONSES]]
    item["images"] = [str(name) for name in (row.get("images") or ())[:RESPONSES]]
    responses = [response for response in row["responses"] if isinstance(response, dict)]
    item["responses"] = [_pack_response(response) for response in responses[:RESPONSES]]
    item["left_out"] = max(0, len(responses) - RESPONSES)
    return item


def _pack_response(response: Json) -> Json:
    keys = ("text", "total", "components", "extracted", "reason", "length", "finish")
    packed = {key: _shorten(response.get(key)) for key in keys}
    tokens, logprobs = response.get("tokens") or [], response.get("logprobs") or []
    # What was shortened is shown as its text, without the colours of single tokens.
    if len(tokens) == len(logprobs) and packed["text"] == response.get("text") and len(tokens) <= SHOWN_CHARACTERS:
        packed["tokens"] = [str(token) for token in tokens]
        packed["logprobs"] = [round(float(x), 2) if is_number(x) else None for x in logprobs]
    return packed


def _shorten(value: object) -> JsonValue:
    """Leave out the middle of a text of more than 12,000 characters, and say so."""
    if isinstance(value, str) and len(value) > SHOWN_CHARACTERS:
        head, tail = 2 * SHOWN_CHARACTERS // 3, SHOWN_CHARACTERS // 4
        left_out = len(value) - head - tail
        return f"{value[:head]}\n[… {left_out:,} more characters, in transcripts.jsonl …]\n{value[-tail:]}"
    if isinstance(value, dict):
        return {str(key)[:80]: _shorten(item) for key, item in list(value.items())[:RESPONSES]}
    if isinstance(value, list):
        return _shorten(json.dumps(value, ensure_ascii=False))
    return value


def _spread_order(rows: Sequence[Summary]) -> list[int]:
    """Order row numbers such that every beginning of the list is spread over all strata and over time."""
    strata: dict[tuple[str, str, str], list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        strata[row.kind, row.phase, row.modality].append(index)
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


def _bins(values: list[float], count: int) -> tuple[np.ndarray, list[str]]:
    """Choose edges and labels of at most `count` bins."""
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
