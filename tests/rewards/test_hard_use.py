"""What hard use found, and its siblings made by rule: no wrong 1, no wrong 0, no deadline."""

import json
import re
import time
from pathlib import Path

from variants import cases

from infimmr_jax.rewards.extract import extract
from infimmr_jax.rewards.math.verify_math import decide
from infimmr_jax.rewards.pool import GraderPool
from infimmr_jax.rewards.verdict import Options, Question
from infimmr_jax.rewards.verify_choice import verify_choice

REPORTED = Path(__file__).parent / "cases" / "hard_use.jsonl"


def test_what_was_reported_gets_its_score() -> None:
    rows = [json.loads(line) for line in REPORTED.read_text(encoding="utf-8").splitlines()]
    questions = []
    for row in rows:
        answer = extract(row["response"]).answer
        assert answer is not None
        options = Options(choices=tuple(row.get("choices", ())))
        questions.append(Question(row["answer_type"], row["answer"], answer, options))
    with GraderPool(workers=1) as pool:
        verdicts = pool.verify(questions)
    assert len(rows) == 51
    wrong = [
        (row["id"], verdict.reason)
        for row, verdict in zip(rows, verdicts, strict=True)
        if verdict.score != row["expected"]
    ]
    assert wrong == []


def test_variants_get_the_score_that_they_were_made_with() -> None:
    made = cases()
    assert len(made) >= 800
    assert {0.0, 1.0} == {case[4] for case in made}
    with GraderPool(workers=1) as pool:
        verdicts = pool.verify([Question(kind, g, a, Options(choices=c)) for _, kind, g, a, _, c in made])
        assert pool.counters["timeouts"] == pool.counters["crashes"] == 0
    wrong = [
        (kind, gold, answer, verdict.score, verdict.reason)
        for (kind, _, gold, answer, score, _), verdict in zip(made, verdicts, strict=True)
        if verdict.score != score
    ]
    assert wrong == []


def test_what_the_documentation_calls_refused_is_refused() -> None:
    """Every pair of the table "Refused by design" in docs/graders.md whose cells are formulas."""
    text = (Path(__file__).parents[2] / "docs" / "graders.md").read_text(encoding="utf-8")
    table = text.partition("### Refused by design")[2].partition("\n## ")[0]
    rows = [re.split(r"(?<!\\)\|", line)[1:3] for line in table.splitlines() if line.startswith("| `")]
    pairs = [
        (gold.replace(r"\|", "|"), answer.replace(r"\|", "|"))
        for golds, answers in rows
        for gold in re.findall("`(.+?)`", golds)
        for answer in re.findall("`(.+?)`", answers)
    ]
    assert len(pairs) >= 45
    kinds = ["choice" if gold == "B" else "math" for gold, _ in pairs]
    choices = [("12", "15", "18") if kind == "choice" else () for kind in kinds]
    asked = [
        Question(kind, gold, answer, Options(choices=texts))
        for kind, (gold, answer), texts in zip(kinds, pairs, choices, strict=True)
        if (gold, answer) not in (("B", "B"), ("B", "B - 15"), ("15", "B - 15"), ("-15", "B - 15"))
    ]
    with GraderPool(workers=1) as pool:
        verdicts = pool.verify(asked)
    assert [(q.gold, q.answer, v.reason) for q, v in zip(asked, verdicts, strict=True) if v.score] == []
    signed = Options(choices=("-15", "15"))
    assert verify_choice("B", "B - 15", signed).score == 0


def test_long_runs_of_blanks_take_no_time() -> None:
    started = time.process_time()
    for blank in (" ", "\t", "\n"):
        run = rf"\{{{blank * 1990}\}}"
        assert verify_choice("B", run, Options(choices=("12 cm", "15 cm"))).score == 0
        for gold in ("12", "x=5", r"\{x|x>3\}"):
            decide(gold, run)
    assert time.process_time() - started < 1
