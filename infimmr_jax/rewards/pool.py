"""Graders that can be neither hung nor crashed: worker processes with a deadline and a memory cap per answer."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import select
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import Future

from infimmr_jax.errors import StoppedError
from infimmr_jax.rewards.functions import FunctionPool, grader_environment, program_path
from infimmr_jax.rewards.verdict import Code, Question, Verdict
from infimmr_jax.rewards.verifiers import quick_verdict
from infimmr_jax.rewards.worker import CLOCK_FACTOR, encode

START_SECONDS = 120.0
GRACE_SECONDS = 5.0
CACHE_SIZE = 200_000
# Verdicts that say nothing about the answer: it is asked anew when it comes again.
PASSING: frozenset[Code] = frozenset(("lost", "memory", "cancelled"))
CANCELLED = Verdict(0.0, "cancelled", "cancelled")
WORKER = "infimmr_jax.rewards.worker"
_CLOSED = "the grader pool is closed: use it inside `with GraderPool(...) as pool:`"


class GraderError(StoppedError):
    """A grader process could not be started, or the pool is used outside its `with` block."""


class GraderPool:
    """Verify answers by rule, at once where the text decides, else in `workers` processes.

    An answer that needs sympy gets `deadline_seconds` of processor time (and five times that by the clock); then its
    process is killed and replaced, and the verdict is score 0 with reason "timeout". A process may take `memory_mb`
    above its libraries. Verdicts come in the order of the questions; any number of threads may call `verify`. Processes
    start at the first question that needs one, are new interpreters (never forks of the trainer), and end with the
    `with` block, or by themselves when the trainer dies. `counters` tells how often what happened.
    `preload` are modules that a process imports when it starts, for questions of type "call".
    """

    def __init__(
        self, workers: int = 1, deadline_seconds: float = 4.0, memory_mb: int = 1024, preload: Sequence[str] = ()
    ) -> None:
        if workers < 1:
            raise ValueError(f"a grader pool needs at least one worker, not {workers}")
        self._deadline = deadline_seconds
        self._memory = memory_mb
        self._preload = tuple(preload)
        self._wanted = workers
        self._lock = threading.Lock()
        self._questions: queue.SimpleQueue[tuple[Question, Future[Verdict]] | None] = queue.SimpleQueue()
        self._keepers: list[_Keeper] = []
        self._cache: dict[Question, Future[Verdict]] = {}
        # Asked ahead and not yet by `verify`, whose first finding of it is no repetition.
        self._begun: set[Question] = set()
        self._open = False
        self.counters: Counter[str] = Counter()
        self.functions = FunctionPool(workers)

    def __enter__(self) -> GraderPool:
        self._open = True
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all processes at once; answers still under way are scored 0 with reason "cancelled"."""
        with self._lock:
            self._open = False
            keepers, self._keepers = self._keepers, []
        self.functions.close()
        for keeper in keepers:
            keeper.closing = True
            self._questions.put(None)
        for keeper in keepers:
            keeper.kill()
        for keeper in keepers:
            keeper.thread.join()
        while not self._questions.empty():
            item = self._questions.get()
            if item is not None:
                item[1].set_result(CANCELLED)

    def verify(self, questions: Sequence[Question]) -> list[Verdict]:
        """One verdict a question, in order."""
        if not self._open:
            raise GraderError(_CLOSED)
        answers = [quick_verdict(question) or self._ask(question) for question in questions]
        verdicts = [answer if isinstance(answer, Verdict) else answer.result() for answer in answers]
        self._count(verdicts)
        return verdicts

    def begin(self, questions: Sequence[Question]) -> None:
        """Give questions to the workers without waiting; a later `verify` has their verdicts sooner."""
        if not self._open:
            raise GraderError(_CLOSED)
        for question in questions:
            if question not in self._cache and quick_verdict(question) is None:
                self._ask(question)
                with self._lock:
                    self._begun.add(question)

    def forget(self, question: Question) -> None:
        """Drop a cached verdict: a lost process says nothing about the answer when it is asked again."""
        with self._lock:
            self._cache.pop(question, None)

    def _count(self, verdicts: Iterable[Verdict]) -> None:
        tally = Counter(_COUNTERS.get(verdict.code, "") for verdict in verdicts)
        with self._lock:
            self.counters["graded"] += tally.total()
            for kind, number in tally.items():
                if kind:
                    self.counters[kind] += number

    def _ask(self, question: Question) -> Future[Verdict]:
        with self._lock:
            known = self._cache.get(question)
            if known is not None:
                if question in self._begun:
                    self._begun.remove(question)
                else:
                    self.counters["cached"] += 1
                return known
            if len(self._keepers) < self._wanted and self._open:
                self._keepers += [_Keeper(self) for _ in range(self._wanted - len(self._keepers))]
            answer: Future[Verdict] = Future()
            if len(self._cache) >= CACHE_SIZE:
                self._cache.clear()
                self._begun.clear()
            self._cache[question] = answer
            self._questions.put((question, answer))
        return answer


# The counters of the verdicts that are no ordinary ones.
_COUNTERS: dict[Code, str] = {
    "timeout": "timeouts",
    "crash": "crashes",
    "lost": "crashes",
    "memory": "out_of_memory",
    "bad_answer": "unparsable",
    "bad_gold": "unparsable",
}


class _Keeper:
    """One worker process and the thread that feeds it; only this thread touches the pipes."""

    def __init__(self, pool: GraderPool) -> None:
        self.closing = False
        self._pool = pool
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self.thread = threading.Thread(target=self._serve, name="grader", daemon=True)
        self.thread.start()

    def kill(self) -> None:
        """Kill the process and its child now (from any thread); the keeper's thread cleans up."""
        with self._lock:
            # Not yet waited for, so its process group is still its own, even when the worker itself is gone.
            if self._process is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self._process.pid, signal.SIGKILL)

    def _serve(self) -> None:
        while (item := self._pool._questions.get()) is not None:
            question, answer = item
            try:
                verdict = self._grade(question)
            except Exception as error:  # handed to whoever waits: a keeper that died would leave them waiting
                self._pool.forget(question)
                answer.set_exception(error)
                continue
            if verdict.code in PASSING:
                self._pool.forget(question)
            answer.set_result(verdict)
        self._clean_up()

    def _grade(self, question: Question) -> Verdict:
        if self.closing:
            return CANCELLED
        process = self._process or self._start()
        assert process.stdin is not None
        try:
            process.stdin.write(encode(question))
            process.stdin.flush()
            line = _read_line(process, CLOCK_FACTOR * self._pool._deadline + GRACE_SECONDS)
        except BrokenPipeError:
            line = b""
        if not line:
            self._clean_up()
            return CANCELLED if self.closing else Verdict(0.0, "lost", "crash: grader lost")
        score, code, reason = json.loads(line)
        return Verdict(float(score), code, str(reason))

    def _start(self) -> subprocess.Popen[bytes]:
        # -P: no file of the working directory may stand in for a library.
        command = [sys.executable, "-P", "-m", WORKER, str(self._pool._deadline), str(self._pool._memory)]
        own = {"PYTHONPATH": program_path(), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
        command += self._pool._preload
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            env=grader_environment() | own,
        )
        self._process = process
        if self.closing:
            self.kill()
        if _read_line(process, START_SECONDS) != b"ready\n":
            self.kill()
            assert process.stderr is not None
            said = process.stderr.read().decode(errors="replace").strip().splitlines()
            self._clean_up()
            raise GraderError(f"a grader process did not start: {said[-1] if said else 'it said nothing'}")
        return process

    def _clean_up(self) -> None:
        self.kill()
        with self._lock:
            process, self._process = self._process, None
            if process is None:
                return
            process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()


def _read_line(process: subprocess.Popen[bytes], seconds: float) -> bytes:
    """One line from the process, or b"" when it ended or was late."""
    assert process.stdout is not None
    descriptor = process.stdout.fileno()
    end, line = time.monotonic() + seconds, b""
    while not line.endswith(b"\n"):
        ready, _, _ = select.select([descriptor], [], [], max(0.0, end - time.monotonic()))
        piece = os.read(descriptor, 65_536) if ready else b""
        if not piece:
            return b""
        line += piece
    return line


__all__ = ["GraderError", "GraderPool"]
