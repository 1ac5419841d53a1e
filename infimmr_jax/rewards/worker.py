"""A grader process: `python -m infimmr_jax.rewards.worker DEADLINE MEMORY_MB [MODULE ..]`, JSON lines in and out.

The process itself never grades: it imports sympy once and forks a child that does (a few milliseconds), so that
killing a hanging child costs no new start-up. It ends its child and itself when its standard input closes or its
parent is gone. No JAX is imported here; the parent is never forked.
"""

from __future__ import annotations

import ctypes
import dataclasses
import gc
import importlib
import json
import os
import resource
import select
import signal
import sys
from collections.abc import Sequence

from infimmr_jax.names import JsonObject
from infimmr_jax.rewards.verdict import Code, Options, Question, Verdict

GRADES_PER_CHILD = 2_000
# By the clock a question may take this many deadlines: a safety net for whatever takes no processor time.
CLOCK_FACTOR = 5
# After these the child is replaced: it is gone, or in no state to go on.
FAILURES: frozenset[Code] = frozenset(("timeout", "memory", "crash", "lost"))
TIMEOUT = Verdict(0.0, "timeout", "timeout")
WARM_UP = (
    r"\frac{3\sqrt{2}}{2}",
    r"-\frac{\pi}{4} + 2\sin^2 x",
    r"\left(-\infty, \frac{1}{2}\right] \cup [1, \infty)",
    r"x^2 - 3xy + y^{10}",
    r"y = -3x + 30",
    r"\begin{pmatrix} 1 & -2 \\ \frac{1}{3} & 4 \end{pmatrix}",
    r"(a+2)(b^2-1)",
    r"\log_2 5 - e^{3} i",
    r"\sqrt[3]{7}",
    r"x \le 5.5",
)


class _Child:
    """The forked process that grades, with a pipe in each direction."""

    def __init__(self, deadline: float, memory_mb: int, foreign: tuple[int, ...]) -> None:
        question_read, self.write = os.pipe()
        self.read, verdict_write = os.pipe()
        self.grades = 0
        self.pid = os.fork()
        if self.pid == 0:
            # The pipes to the trainer must close with the worker, not with whatever its child is busy with.
            for descriptor in (self.write, self.read, *foreign):
                os.close(descriptor)
            _die_with_parent()
            _grade_forever(question_read, verdict_write, deadline, memory_mb)
        os.close(question_read)
        os.close(verdict_write)

    def end(self) -> int:
        """Kill the process where it still runs, and return the signal that ended it (0: it left by itself)."""
        os.kill(self.pid, signal.SIGKILL)
        _, status = os.waitpid(self.pid, 0)
        os.close(self.read)
        os.close(self.write)
        return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def _die_with_parent() -> None:
    """On Linux, have the kernel kill this process when the worker that forked it ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def encode(question: Question) -> bytes:
    """A question as one line of JSON."""
    return json.dumps(dataclasses.asdict(question)).encode() + b"\n"


def decode(line: bytes) -> Question:
    """The inverse of `encode`."""
    fields: JsonObject = json.loads(line)
    options = fields.pop("options")
    options = {key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}
    return Question(**fields, options=Options(**options))


def _encoded(verdict: Verdict) -> bytes:
    """A verdict as one line of JSON: score, code, reason."""
    return json.dumps([verdict.score, verdict.code, verdict.reason]).encode() + b"\n"


def _grade_forever(source: int, sink: int, deadline: float, memory_mb: int) -> None:
    """Child: grade until the pipe closes; leaves without cleaning up, as a forked child should.

    The kernel ends it with SIGPROF when a question takes `deadline` seconds of processor time: that works inside C
    code too, and a busy machine changes no verdict.
    """
    _limit(memory_mb)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    from infimmr_jax.rewards.verifiers import slow_verdict

    with os.fdopen(source, "rb") as questions:
        for line in questions:
            signal.setitimer(signal.ITIMER_PROF, deadline)
            try:
                verdict = slow_verdict(decode(line))
            except MemoryError:
                os.write(sink, _encoded(Verdict(0.0, "memory", "memory")))
                os._exit(1)
            except Exception as error:  # whatever a hostile answer provokes is a verdict: it is counted and reported
                verdict = Verdict(0.0, "crash", f"crash: {type(error).__name__}")
            signal.setitimer(signal.ITIMER_PROF, 0)
            os.write(sink, _encoded(verdict))
    os._exit(0)


def _limit(memory_mb: int) -> None:
    """Forbid writing files and core dumps; on Linux cap the address space above what the libraries took."""
    if os.path.exists("/proc/self/statm"):
        with open("/proc/self/statm", encoding="ascii") as file:
            used = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + memory_mb * 2**20,) * 2)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.setrecursionlimit(3_000)


def _read_line(descriptor: int, buffer: bytearray) -> bytes | None:
    """The next line from a pipe (blocking), or None at its end."""
    while b"\n" not in buffer:
        piece = os.read(descriptor, 65_536)
        if not piece:
            return None
        buffer += piece
    line, _, rest = bytes(buffer).partition(b"\n")
    buffer[:] = rest
    return line


def _wait(descriptor: int, parent: int, seconds: float | None) -> str:
    """Wait for a descriptor: "ready", "late", or "alone" when standard input closed or the parent is gone."""
    left = seconds
    while left is None or left > 0:
        step = 1.0 if left is None else min(1.0, left)
        ready, _, _ = select.select({descriptor, 0}, [], [], step)
        if descriptor in ready:
            return "ready"
        if 0 in ready or os.getppid() != parent:
            return "alone"
        if left is not None:
            left -= step
    return "late"


def main(deadline: float, memory_mb: int, preload: Sequence[str] = ()) -> None:
    """Serve questions from standard input until it closes."""
    parent = os.getppid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sink = os.dup(1)
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)

    from infimmr_jax.rewards import verifiers  # noqa: F401 - imported once, shared by every child
    from infimmr_jax.rewards.math import symbolic

    for module in preload:
        importlib.import_module(module)
    # The parser learns its tables from what it sees: learnt here once, not by every child again.
    for text in WARM_UP:
        symbolic.compare(text, text + " + 1", Options())
    os.dup2(silence, 2)
    gc.freeze()
    os.write(sink, b"ready\n")
    foreign = (0, sink)
    child = _Child(deadline, memory_mb, foreign)
    asked, answered = bytearray(), bytearray()
    while _wait(0, parent, None) == "ready" and (line := _read_line(0, asked)) is not None:
        os.write(child.write, line + b"\n")
        state = _wait(child.read, parent, CLOCK_FACTOR * deadline)
        if state == "alone":
            break
        line_back = _read_line(child.read, answered) if state == "ready" else None
        verdict = TIMEOUT if line_back is None else Verdict(*json.loads(line_back))
        child.grades += 1
        if verdict.code in FAILURES or child.grades >= GRADES_PER_CHILD:
            ended_by = child.end()
            if state == "ready" and line_back is None and ended_by != signal.SIGPROF:
                verdict = Verdict(0.0, "lost", "crash: process died")
            answered.clear()
            child = _Child(deadline, memory_mb, foreign)
        os.write(sink, _encoded(verdict))
    child.end()


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
