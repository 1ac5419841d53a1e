"""Pass rates put together: bands of difficulty, and how much a picture helps."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from infimmr_jax.data.records import Problem
from infimmr_jax.names import JsonObject, JsonValue

# Never and always solved are bands of their own: a group of equal rewards has no advantage, nothing is learnt from it.
BANDS = ("0", "(0, 0.25]", "(0.25, 0.5]", "(0.5, 0.75]", "(0.75, 1)", "1")


def band(rate: float) -> str:
    """The band of difficulty of a pass rate in [0, 1]."""
    if rate in (0.0, 1.0):
        return BANDS[0] if rate == 0.0 else BANDS[-1]
    return BANDS[1 + int(np.searchsorted([0.25, 0.5, 0.75], rate))]


def difficulty_report(problems: Sequence[Problem], rates: Mapping[str, Mapping[str, JsonValue]]) -> JsonObject:
    """Bands, means by subject, and for problems with pictures the gap between the rates with and without them.

    `rates` has `pass_rate` and perhaps `pass_rate_text` for the id of every problem. `useless_pictures` are solved as
    often without the picture as with it, though not never: they do not train seeing.
    """
    bands = dict.fromkeys(BANDS, 0)
    subjects: dict[str, list[float]] = defaultdict(list)
    gaps: dict[str, float] = {}
    for problem in problems:
        row = rates[problem.id]
        bands[band(row["pass_rate"])] += 1
        subjects[problem.subject or "unknown"].append(row["pass_rate"])
        if row.get("pass_rate_text") is not None:
            gaps[problem.id] = row["pass_rate"] - row["pass_rate_text"]
    useless = [name for name, gap in gaps.items() if gap <= 0 and rates[name]["pass_rate_text"] > 0]
    return {
        "problems": len(problems),
        "mean": float(np.mean([rates[problem.id]["pass_rate"] for problem in problems])),
        "bands": bands,
        "subjects": {
            name: {"problems": len(values), "mean": float(np.mean(values))} for name, values in sorted(subjects.items())
        },
        "mean_gap": float(np.mean(list(gaps.values()))) if gaps else None,
        "useless_pictures": useless,
    }
