"""Measure the graders: short answers a second, plain numbers and LaTeX apart, after start-up.

python studies/grader_throughput.py [--workers 2] [--answers 2000]

The last line is the whole way of `infimmr grade` with one worker: a file of LaTeX answers read, extracted, graded and
written, start-up included.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import unittest.mock
from pathlib import Path

import psutil

from infimmr_jax.cli import GRADING_ONLY
from infimmr_jax.config import parse_config
from infimmr_jax.rewards import grade_file
from infimmr_jax.rewards.pool import GraderPool
from infimmr_jax.rewards.verdict import Question


def plain(number: int) -> Question:
    """A whole number, a fraction or a decimal; every other one wrong."""
    answer = number + number % 2
    forms = [(f"{number}", f"{answer}"), (rf"\frac{{{number}}}{{7}}", f"{answer}/7"), (f"{number}.5", f"{answer}.50")]
    gold, text = forms[number % 3]
    return Question("math", gold, text)


def latex(number: int) -> Question:
    """A root, a multiple of pi, a polynomial, a tuple or a rationalised fraction; every third one wrong."""
    answer, root = number + (number % 3 == 0), number % 7 + 2
    forms = [
        (rf"{number}\sqrt{{{root}}}", rf"\sqrt{{{root * answer * answer}}}"),
        (rf"\frac{{{number}\pi}}{{7}}", rf"{answer}\pi/7"),
        (f"x^2+{number}x", f"x(x+{answer})"),
        (rf"({number},\sqrt{{{root}}})", rf"({answer}, \sqrt{{{root}}})"),
        (rf"\frac{{{number}}}{{\sqrt{{2}}}}", rf"\frac{{{answer}\sqrt{{2}}}}{{2}}"),
    ]
    gold, text = forms[number % 5]
    return Question("math", gold, text)


def processor_seconds() -> float:
    """Processor time of this process and its grader processes."""
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    return sum(sum(process.cpu_times()[:2]) for process in processes)


def rate(questions: list[Question], pool: GraderPool) -> tuple[float, float]:
    """Answers a second by the clock, and a second of processor time."""
    clock, processor = time.monotonic(), processor_seconds()
    pool.verify(questions)
    return len(questions) / (time.monotonic() - clock), len(questions) / (processor_seconds() - processor)


def file_rate(answers: int) -> float:
    """Rows of a file that `grade_file` grades in a second of processor time, all processes and their start together."""
    seconds = []

    class Watched(GraderPool):
        def close(self) -> None:
            seconds.append(processor_seconds())
            super().close()

    with tempfile.TemporaryDirectory() as folder, unittest.mock.patch.object(grade_file, "GraderPool", Watched):
        path = Path(folder) / "responses.jsonl"
        questions = [latex(number) for number in range(1, answers + 1)]
        rows = [
            {
                "question": "?",
                "answer": q.gold,
                "answer_type": "math",
                "response": rf"<think>a</think> \boxed{{{q.answer}}}",
            }
            for q in questions
        ]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        before = processor_seconds()
        grade_file.grade_file(path, path.with_name("graded.jsonl"), parse_config(GRADING_ONLY))
    return answers / (seconds[0] - before)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--answers", type=int, default=2000)
    arguments = parser.parse_args()
    numbers = range(1, arguments.answers + 1)
    with GraderPool(workers=arguments.workers) as pool:
        started = time.monotonic()
        pool.verify([latex(-number) for number in range(1, 4 * arguments.workers + 1)])
        print(f"start-up: {time.monotonic() - started:.1f} s")
        mixed = [latex(n) if n % 10 < 3 else plain(n) for n in range(10**6, 10**6 + arguments.answers)]
        for name, questions in (
            ("plain numbers", [plain(number) for number in numbers]),
            ("LaTeX", [latex(number) for number in numbers]),
            ("7 plain to 3 LaTeX, as in DeepScaleR", mixed),
        ):
            clock, processor = rate(questions, pool)
            print(f"{name}: {clock:,.0f} answers/s, {processor:,.0f} a second of processor time")
        print("counters:", dict(pool.counters))
    rows = file_rate(arguments.answers)
    print(f"infimmr grade, LaTeX, one worker, start-up included: {rows:,.0f} rows a second of processor time")


if __name__ == "__main__":
    main()
