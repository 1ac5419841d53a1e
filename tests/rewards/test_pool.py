"""The grader pool: deadlines by kill, memory cap, order, threads, clean ends, no process left behind."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from infimmr_jax.rewards.pool import GraderError, GraderPool
from infimmr_jax.rewards.verdict import Question
from infimmr_jax.rewards.worker import main as worker_main

# The gold holds a binomial, so a binomial is not refused; in a matrix it is not evaluated numerically either.
MATRIX = r"\begin{pmatrix} \binom{10^9}{%s} \\ 1 \end{pmatrix}"
HANG = Question("math", MATRIX % "3", MATRIX % r"5 \cdot 10^8")
FINE = Question("math", r"\frac{\sqrt{2}}{2}", r"\frac{1}{\sqrt{2}}")


# Other tests of this process may have left one for good: multiprocessing keeps its resource tracker until the end.
OTHERS: set[psutil.Process] = set()


def children() -> list[psutil.Process]:
    """All processes below this one since the test began, zombies too."""
    return [process for process in psutil.Process().children(recursive=True) if process not in OTHERS]


def graders() -> list[psutil.Process]:
    """All grader processes below this one (workers, and the children that grade)."""
    return [process for process in children() if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


def wait_for(condition: Callable[[], bool], seconds: float = 20.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return False


@pytest.fixture(autouse=True)
def _nothing_is_left() -> object:
    OTHERS.clear()
    OTHERS.update(psutil.Process().children(recursive=True))
    yield
    assert wait_for(lambda: not children()), "a grader process or zombie is left"


def test_plain_numbers_start_no_process_and_are_fast() -> None:
    with GraderPool(workers=2) as pool:
        questions = [Question("math", str(i), str(i + i % 2)) for i in range(512)]
        started = time.thread_time()
        verdicts = pool.verify(questions)
        assert time.thread_time() - started < 0.1
        assert [verdict.score for verdict in verdicts] == [float(i % 2 == 0) for i in range(512)]
        assert graders() == []
        assert pool.counters["graded"] == 512


def test_verdicts_come_in_order_and_are_cached() -> None:
    questions = [Question("math", rf"{i}\sqrt{{2}}", rf"\sqrt{{{2 * (i + i % 3) ** 2}}}") for i in range(1, 40)]
    wanted = [float(i % 3 == 0) for i in range(1, 40)]
    with GraderPool(workers=2) as pool:
        assert [verdict.score for verdict in pool.verify(questions)] == wanted
        assert pool.counters["cached"] == 0
        assert [verdict.score for verdict in pool.verify(questions)] == wanted
        assert pool.counters["cached"] == 39
        assert len(graders()) == 4  # two workers, each with the child that grades


def test_what_is_begun_is_verified_without_waiting_and_is_no_repetition() -> None:
    with GraderPool(workers=1) as pool:
        pool.begin([FINE, FINE, Question("math", "1", "1")])
        assert pool.counters == {}
        assert wait_for(lambda: pool._cache[FINE].done())
        pool.close()
        pool._open = True  # without a worker only what is known already can be answered
        assert pool.verify([FINE])[0].score == 1.0
        assert (pool.counters["graded"], pool.counters["cached"]) == (1, 0)
        pool.verify([FINE])
        assert pool.counters["cached"] == 1
    with pytest.raises(GraderError, match="closed"):
        pool.begin([FINE])


def test_a_hanging_answer_is_killed_and_the_next_ones_are_graded() -> None:
    with GraderPool(workers=1, deadline_seconds=1.0) as pool:
        pool.verify([FINE])
        started = time.monotonic()
        verdicts = pool.verify([HANG, Question("math", "x+1", "1+x"), Question("math", "x+1", "x+2")])
        assert time.monotonic() - started < 15
        assert (verdicts[0].score, verdicts[0].reason) == (0.0, "timeout")
        assert [verdict.score for verdict in verdicts[1:]] == [1.0, 0.0]
        assert pool.counters["timeouts"] == 1


def test_every_way_to_fail_is_a_verdict_and_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infimmr_jax.rewards.pool.WORKER", "failing_worker")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    ways = ["fine", "memory", "fine 2", "sleep", "fine 3", "exit", "fine 4", "raise", "fine 5", "print", "fine 6"]
    with GraderPool(workers=1, deadline_seconds=1.0, memory_mb=256) as pool:
        verdicts = pool.verify([Question("math gold", "gold", way) for way in ways])
        found = {way: (verdict.score, verdict.reason) for way, verdict in zip(ways, verdicts, strict=True)}
        assert {found[way] for way in ways if way.startswith("fine")} == {(1.0, "fine")}
        assert found["memory"] == (0.0, "memory")
        assert found["sleep"] == (0.0, "timeout")
        assert found["exit"] == (0.0, "crash: process died")
        assert found["raise"] == (0.0, "crash: RecursionError")
        assert found["print"] == (1.0, "fine")  # what a library prints is no verdict
        assert pool.counters == {"graded": 11, "out_of_memory": 1, "timeouts": 1, "crashes": 2}


@pytest.mark.parametrize("victim", ["worker", "child"])
def test_a_grader_killed_from_outside_is_replaced(victim: str) -> None:
    with GraderPool(workers=1, deadline_seconds=30.0) as pool:
        pool.verify([FINE])
        worker = next(process for process in graders() if process.ppid() == os.getpid())
        process = worker if victim == "worker" else worker.children()[0]
        verdicts: list[object] = []
        thread = threading.Thread(target=lambda: verdicts.extend(pool.verify([HANG])))
        thread.start()
        time.sleep(0.3)
        process.send_signal(signal.SIGKILL)
        thread.join(timeout=60)
        assert not thread.is_alive()
        assert "crash" in str(verdicts[0])
        assert pool.counters["crashes"] == 1
        assert pool.verify([Question("math", "x+1", "1+x")])[0].score == 1


def test_several_threads_share_the_pool() -> None:
    results: dict[int, list[float]] = {}

    def grade(pool: GraderPool, k: int) -> None:
        questions = [Question("math", rf"{k}x^{{{i}}}", rf"x^{{{i}}} \cdot {k}") for i in range(2, 12)]
        results[k] = [verdict.score for verdict in pool.verify(questions)]

    with GraderPool(workers=2) as pool:
        threads = [threading.Thread(target=grade, args=(pool, k)) for k in range(2, 7)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert results == {k: [1.0] * 10 for k in range(2, 7)}
        assert pool.counters["graded"] == 50


def test_closing_ends_a_question_under_way() -> None:
    pool = GraderPool(workers=1, deadline_seconds=60.0)
    with pool:
        pool.verify([FINE])
        verdicts: list[object] = []
        thread = threading.Thread(target=lambda: verdicts.extend(pool.verify([HANG])))
        thread.start()
        time.sleep(0.3)
        started = time.monotonic()
    thread.join(timeout=10)
    assert time.monotonic() - started < 10
    assert "cancelled" in str(verdicts[0])
    with pytest.raises(GraderError, match="closed"):
        pool.verify([FINE])


def test_an_exception_in_the_block_ends_the_processes() -> None:
    def interrupted() -> None:
        with GraderPool(workers=1) as pool:
            pool.verify([FINE])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()


def test_a_pool_needs_a_worker_and_its_block() -> None:
    with pytest.raises(ValueError, match="at least one worker"):
        GraderPool(workers=0)
    with pytest.raises(GraderError, match="closed"):
        GraderPool().verify([FINE])


def test_a_grader_that_can_not_start_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infimmr_jax.rewards.pool.WORKER", "infimmr_jax.rewards.missing")
    with GraderPool(workers=1) as pool, pytest.raises(GraderError, match="did not start"):
        pool.verify([FINE])


TRAINER = """
    import signal, sys, time, psutil
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background starts with it ignored
    from infimmr_jax.rewards.pool import GraderPool
    from infimmr_jax.rewards.verdict import Question
    from test_pool import HANG
    with GraderPool(workers=1, deadline_seconds=600) as pool:
        pool.verify([Question("math", "x+1", "1+x")])
        print(*[process.pid for process in psutil.Process().children(recursive=True)], flush=True)
        pool.verify([HANG])
"""


@pytest.mark.parametrize("way", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_graders_end_when_the_trainer_dies(way: signal.Signals, tmp_path: Path) -> None:
    script = tmp_path / "trainer.py"
    script.write_text(textwrap.dedent(TRAINER))
    trainer = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent)},
    )
    assert trainer.stdout is not None
    pids = [int(pid) for pid in trainer.stdout.readline().split()]
    assert len(pids) == 2
    trainer.send_signal(way)
    trainer.wait(timeout=30)
    trainer.stdout.close()
    assert wait_for(lambda: not any(_alive(pid) for pid in pids)), f"graders outlive {way.name}"


def _alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def test_a_worker_imports_no_jax_and_no_numpy() -> None:
    code = (
        "import sys, infimmr_jax.rewards.worker, infimmr_jax.rewards.verifiers, infimmr_jax.rewards.math.symbolic;"
        "print([m for m in ('jax', 'numpy', 'torch', 'transformers', 'pydantic') if m in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


def test_children_can_write_no_file(tmp_path: Path) -> None:
    """The limits a grading child runs under, in a process of its own."""
    code = (
        "from infimmr_jax.rewards.worker import _limit\n"
        "_limit(256)\n"
        f"file = open({str(tmp_path / 'file')!r}, 'w')\n"
        "try:\n    file.write('x'); file.flush()\n    print('written')\n"
        "except OSError:\n    print('refused')\n"
        "try:\n    bytearray(600 * 2**20)\n    print('taken')\n"
        "except MemoryError:\n    print('capped')\n"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert answer.stdout.split() == ["refused", "capped"]
    assert callable(worker_main)
    assert os.path.getsize(tmp_path / "file") == 0


def test_no_file_of_the_working_directory_stands_in_for_a_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sympy.py").write_text("raise SystemExit('the wrong sympy')")
    monkeypatch.chdir(tmp_path)
    with GraderPool(workers=1) as pool:
        assert pool.verify([FINE])[0].score == 1


def test_half_a_surrogate_pair_passes_through() -> None:
    with GraderPool(workers=1) as pool:
        verdicts = pool.verify([Question("math", r"\sqrt{2}", "\ud800 \\sqrt{2}"), FINE])
    assert [verdict.score for verdict in verdicts] == [0.0, 1.0]
