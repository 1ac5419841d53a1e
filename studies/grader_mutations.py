r"""Grade gold answers against random re-formattings and mutations of themselves, and print every surprise.

    python studies/grader_mutations.py DATA_ROOT [--pairs 5000] [--seed 1]

DATA_ROOT holds `NAME/train.jsonl` (see docs/graders.md). A re-formatting should be accepted, a mutation refused. What
is printed needs a look: some mutations are equal after all (`\frac{1}{2}` and `\frac{1}{2} \cdot 1`).
"""

from __future__ import annotations

import argparse
import json
import random
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from infimmr_jax.rewards.pool import GraderPool
from infimmr_jax.rewards.verdict import Question

Change = Callable[[str], str]


def replaced(pattern: str, by: str) -> Change:
    """A change that replaces a pattern."""
    return lambda text: re.sub(pattern, by, text)


def around(form: str) -> Change:
    """A change that puts the text into a form, at `@`."""
    return lambda text: form.replace("@", text)


SAME: tuple[Change, ...] = (
    *map(around, ("$@$", r"\(@\)", r"\[@\]", "@.", " @ ", r"\boxed{@}", r"\displaystyle @", "**@**", "{@}")),
    around("The answer is $@$"),
    replaced(r"\\frac", r"\\dfrac"),
    replaced(r"\\d?frac", r"\\tfrac"),
    replaced(r"(?<=[0-9a-z)])([+=])(?=[0-9a-z(\\])", r" \1 "),
    replaced(r"\\sqrt\{(\d)\}", r"\\sqrt\1"),
    replaced(r"\\frac\{(\d)\}\{(\d)\}", r"\\frac\1\2"),
    replaced(r"\\cdot", r"\\times"),
    replaced(r"\\left|\\right", ""),
    replaced(r"\\pi", "π"),
    replaced(r"\\infty", "∞"),
    replaced(r"\\leq?(?![a-z])", "≤"),
    replaced(r"\\geq?(?![a-z])", "≥"),
    replaced(r"(\d)(?=(\d{3})+$)", r"\1,"),
    replaced(r"\^\\circ", r"^{\\circ}"),
    replaced("-", "−"),
    lambda text: re.sub(r"\d", lambda m: chr(ord(m[0]) + 0xFEE0), text),
)  # fmt: skip
FORMS = (
    "-(@)", "@+1", "2(@)", "@, 1729",
    "(@, @)", r"@ \text{ or } 1729", r"@ \pm 1", r"\{@, 1729\}", r"\frac{@}{3}", "(@)^2",
    r"\sqrt{@}", "x+@", "@1", "1@", "@i", r"@ \ldots", r"(@, \infty)", r"@ \ne 0", r"@ \approx 1729", r"\text{not } @",
    "@!", "@^{2}", "@_{3}", r"\overline{@}", "|@|-1", "[@, @]", r"@ \cup \{1729\}", "@ = 1729", "1729 = @", "@ < x",
    r"@\%\%", r"\log(@)", r"@ \text{ thousand}", "@e1", r"@\cdot 10", "@@",
)  # fmt: skip
OTHER: tuple[Change, ...] = (
    *map(around, FORMS),
    *[lambda text: _other_digit(text)] * 3,
    lambda text: text[::-1],
    lambda text: text[:-1],
    lambda text: text[1:],
    replaced(r"\\sqrt", ""),
    replaced(r"\(", "["),
    replaced(r"\)", "]"),
    replaced(r"\+", "-"),
    replaced(r"\\pi", "e"),
    replaced(r"([a-z])(?![a-z])", r"\1^2"),
    replaced("x", "y"),
    replaced(",", "."),
)


def _other_digit(text: str) -> str:
    places = [match.start() for match in re.finditer(r"\d", text)]
    if not places:
        return text
    place = random.choice(places)
    return text[:place] + random.choice([d for d in "0123456789" if d != text[place]]) + text[place + 1 :]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("--pairs", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    random.seed(arguments.seed)
    files = sorted(arguments.root.glob("*/train.jsonl"))
    rows = [json.loads(line) for file in files for line in file.open(encoding="utf-8")]
    golds = sorted({row["answer"] for row in rows if row["answer_type"] == "math"})
    formulas = [gold for gold in golds if not re.fullmatch(r"-?\d+", gold)]
    asked: list[tuple[bool, Question]] = []
    while len(asked) < arguments.pairs:
        gold = random.choice(formulas if random.random() < 0.75 else golds)
        same = random.random() < 0.5
        answer = gold
        for change in random.sample(SAME, random.randint(1, 3)) if same else [random.choice(OTHER)]:
            answer = change(answer)
        if same or answer != gold:
            asked.append((same, Question("math", gold, answer)))
    with GraderPool(workers=2) as pool:
        verdicts = pool.verify([question for _, question in asked])
        print("pool:", dict(pool.counters))
    tally = Counter((same, verdict.score == 1) for (same, _), verdict in zip(asked, verdicts, strict=True))
    print(f"re-formatted: {tally[True, True]} accepted, {tally[True, False]} refused")
    print(f"mutated: {tally[False, False]} refused, {tally[False, True]} accepted")
    for (same, question), verdict in zip(asked, verdicts, strict=True):
        if same != (verdict.score == 1):
            print(f"  {'refused' if same else 'accepted'}: {question.gold!r} <- {question.answer!r}: {verdict.reason}")


if __name__ == "__main__":
    main()
