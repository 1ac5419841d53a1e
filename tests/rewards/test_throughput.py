"""At least 300 short answers a second on two cores, in processor time: a busy machine can not fail it."""

import psutil
import pytest

from infimmr_jax.rewards.pool import GraderPool
from infimmr_jax.rewards.verdict import Question

CORES = 2


def processor_seconds() -> float:
    """Processor time of this process and its grader processes."""
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    return sum(sum(process.cpu_times()[:2]) for process in processes)


def question(number: int) -> Question:
    """Seven of ten are plain numbers, as in DeepScaleR; every third answer is wrong."""
    answer, root = number + (number % 3 == 0), (2, 3, 5, 6, 7, 10, 11)[number % 7]
    forms = [
        (rf"{number}\sqrt{{{root}}}", rf"\sqrt{{{root * answer * answer}}}"),
        (rf"\frac{{{number}\pi}}{{7}}", rf"{answer}\pi/7"),
        (f"x^2+{number}x", f"x(x+{answer})"),
    ]
    gold, text = forms[number % 10] if number % 10 < 3 else (f"{number}", f"{answer}")
    return Question("math", gold, text)


@pytest.mark.slow
def test_three_hundred_short_answers_a_second() -> None:
    with GraderPool(workers=2) as pool:
        pool.verify([question(-number) for number in range(1, 40)])  # start-up
        before = processor_seconds()
        verdicts = pool.verify([question(number) for number in range(1, 1201)])
        spent = processor_seconds() - before
    assert [verdict.score for verdict in verdicts] == [float(number % 3 > 0) for number in range(1, 1201)]
    assert CORES * len(verdicts) / spent >= 300, f"{spent:.1f} s of processor time"
