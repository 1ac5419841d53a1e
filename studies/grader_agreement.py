"""Compare our graders with math-verify on the answers of real data sets: each gold against itself and re-formatted.

    python studies/grader_agreement.py DATA_ROOT [--sample N]

DATA_ROOT holds `NAME/train.jsonl` and `NAME/val.jsonl` (see docs/graders.md). Every distinct gold answer is graded
against forms of itself (which should be accepted) and against changed values (which should be refused), once by our
verifier through the pool and once by math-verify alone; where they disagree, the pair is printed.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path

from math_verify import parse, verify

from infimmr_jax.rewards.pool import GraderPool
from infimmr_jax.rewards.verdict import Options, Question

NAUGHT = re.compile(r"0(?![.0-9])|.*matrix")
PATIENCE = 60  # seconds; math-verify's own limit of 5 trips on a busy machine
ONLY_MATH = ("left right", "dfrac", "label", "sign changed", "one added", "another element")
SAME: dict[str, Callable[[str], str]] = {
    "itself": lambda gold: gold,
    "in dollars": lambda gold: f"${gold}$",
    "spaces": lambda gold: re.sub(r"(?<=[a-z0-9 ])([=+])(?=[a-z0-9 ])", r" \1 ", gold),
    "dfrac": lambda gold: gold.replace(r"\frac", r"\dfrac"),
    "left right": lambda gold: re.sub(
        r"(?<![\\t])\(", r"\\left(", gold.replace(r"\left", "").replace(r"\right", "")
    ).replace(")", r"\right)"),
    "label": lambda gold: gold if re.search(r"[=<>,]|\\(?:le|ge|text|cong|in)", gold) else f"x = {gold}",
    "full stop": lambda gold: f"{gold}.",
    "full width": lambda gold: re.sub(r"[0-9]", lambda m: chr(ord(m.group()) + 0xFEE0), gold),
}
CHANGED: dict[str, Callable[[str], str]] = {
    "last digit changed": lambda gold: re.sub(
        r"([0-9])(?!.*[0-9])", lambda m: str((int(m[1]) + 1) % 10), gold, count=1
    ),
    "sign changed": lambda gold: gold[1:] if gold.startswith("-") else gold if NAUGHT.match(gold) else f"-{gold}",
    "one added": lambda gold: f"{gold} + 1",
    "another element": lambda gold: f"{gold}, 97",
}


def outside(gold: str, answer: str) -> bool:
    """math-verify's verdict, gold first, with its default configuration on boxed LaTeX."""
    left, right = (parse(rf"\boxed{{{text}}}", parsing_timeout=PATIENCE) for text in (gold, answer))
    return verify(left, right, timeout_seconds=PATIENCE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("--sample", type=int, default=400, help="distinct gold answers a data set (0: all)")
    parser.add_argument("--shown", type=int, default=12, help="disagreements printed a form")
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)
    with GraderPool(workers=2) as pool:
        for folder in sorted(path for path in arguments.root.iterdir() if (path / "train.jsonl").exists()):
            study(folder, arguments.sample, arguments.shown, pool)
        cross(arguments.root, pool)
        print("pool:", dict(pool.counters))


def study(folder: Path, sample: int, shown: int, pool: GraderPool) -> None:
    """Print the table of one data set."""
    lines = [
        line
        for split in ("train", "val")
        for line in (folder / f"{split}.jsonl").read_text(encoding="utf-8").split("\n")
        if line
    ]
    rows = {(row["answer_type"], row["answer"], tuple(row.get("choices") or ())): row for row in map(json.loads, lines)}
    golds = sorted(rows)
    random.Random(0).shuffle(golds)
    golds = golds[: sample or None]
    print(f"\n## {folder.name}: {len(golds)} of {len(rows)} distinct gold answers")
    table: dict[str, Counter[str]] = defaultdict(Counter)
    for wanted, forms in ((True, SAME), (False, CHANGED)):
        for name, form in forms.items():
            pairs = [(kind, gold, form(gold), options) for kind, gold, options in golds]
            pairs = [pair for pair in pairs if wanted or pair[1] != pair[2]]
            if name in ONLY_MATH:
                pairs = [pair for pair in pairs if pair[0] == "math"]
            questions = [
                Question(kind, gold, answer, Options(choices=choices)) for kind, gold, answer, choices in pairs
            ]
            started = time.monotonic()
            ours = [verdict.score == 1 for verdict in pool.verify(questions)]
            table[name]["seconds ours"] = round(time.monotonic() - started)
            started = time.monotonic()
            theirs = [outside(gold, answer) if kind == "math" else None for kind, gold, answer, _ in pairs]
            table[name]["seconds theirs"] = round(time.monotonic() - started)
            for pair, our, their in zip(pairs, ours, theirs, strict=True):
                table[name]["pairs"] += 1
                table[name]["ours wrong"] += our != wanted
                table[name]["theirs wrong"] += their is not None and their != wanted
                table[name]["disagree"] += their is not None and our != their
                if (our != wanted or (their is not None and our != their)) and table[name]["shown"] < shown:
                    table[name]["shown"] += 1
                    print(f"  {name}: gold {pair[1]!r} answer {pair[2]!r}: wanted {wanted}, ours {our}, theirs {their}")
    columns = ("pairs", "ours wrong", "theirs wrong", "disagree", "seconds ours", "seconds theirs")
    print("| form | " + " | ".join(columns) + " |")
    for name, row in ((name, row) for name, row in table.items() if row["pairs"]):
        print(f"| {name} | " + " | ".join(str(row[column]) for column in columns) + " |")


def cross(root: Path, pool: GraderPool) -> None:
    """Grade each math gold against twelve others of all sets, and print what we accept: all of it should be equal."""
    rows = [json.loads(line) for file in sorted(root.glob("*/train.jsonl")) for line in file.open(encoding="utf-8")]
    golds = sorted({row["answer"] for row in rows if row["answer_type"] == "math"})
    generator = random.Random(0)
    pairs = [(gold, other) for gold in golds for other in generator.sample(golds, 12) if other != gold]
    verdicts = pool.verify([Question("math", gold, other) for gold, other in pairs])
    print(f"\n## {len(pairs)} pairs of different gold answers; accepted:")
    for (gold, other), verdict in zip(pairs, verdicts, strict=True):
        if verdict.score:
            print(f"  {gold!r} and {other!r}: {verdict.reason}")


if __name__ == "__main__":
    main()
