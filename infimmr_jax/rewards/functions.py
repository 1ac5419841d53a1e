"""Functions of users: each in processes of its own, which can be killed and see nothing of the trainer."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import queue
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from infimmr_jax.names import JsonObject
from infimmr_jax.rewards.loading import LoadError

if TYPE_CHECKING:
    from infimmr_jax.config import FunctionsSection

WORKER = "infimmr_jax.rewards.function_worker"
START_SECONDS = 120.0
# What a process of ours is told of the environment; keys, tokens and passwords of the trainer are not for graders.
KEPT = (
    "PATH",
    "HOME",
    "USER",
    "LANG",
    "LANGUAGE",
    "TZ",
    "TMPDIR",
    "TEMP",
    "TMP",
    "LD_LIBRARY_PATH",
    "VIRTUAL_ENV",
    "CONDA_PREFIX",
    "PYTHONPATH",
    "PYTHONHOME",
    "PYTHONHASHSEED",
    "PYTHONUTF8",
    "PYTHONWARNINGS",
    "CUDA_VISIBLE_DEVICES",
    "OMP_NUM_THREADS",
)


def grader_environment(more: Sequence[str] = (), given: Mapping[str, str] | None = None) -> dict[str, str]:
    """The part of the environment that graders and functions get: what programs need to run, and `more` by name."""
    environment = os.environ if given is None else given
    return {
        name: value for name, value in environment.items() if name in KEPT or name in more or name.startswith("LC_")
    }


def program_path() -> str:
    """Where processes of ours find this program, and what PYTHONPATH names."""
    return os.pathsep.join(filter(None, [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")]))


@dataclasses.dataclass(frozen=True)
class Failure:
    """A call that gave no numbers, and why."""

    why: str


class FunctionPool:
    """Calls functions of users in processes, at most `workers` for each function.

    A call that takes longer than it may, or whose process ends, is a Failure, and the next one gets a new process. A
    function sees copies in its own process: nothing that it does there reaches the trainer or other functions.
    """

    def __init__(self, workers: int = 1) -> None:
        self._workers = workers
        self._lock = threading.Lock()
        self._idle: dict[tuple[str, str, FunctionsSection], queue.SimpleQueue[_Process]] = {}
        self._all: list[_Process] = []

    def call(
        self, name: str, key: str, kind: str, questions: Sequence[object], section: FunctionsSection
    ) -> list[list[float] | Failure]:
        """One answer a question, in order; `kind` says how the process reads them. LoadError when it can not load."""
        idle = self._processes(name, key, kind, section)

        def one(question: object) -> list[float] | Failure:
            process = idle.get()
            try:
                return process.ask(question)
            finally:
                idle.put(process)

        with ThreadPoolExecutor(self._workers, thread_name_prefix="function") as executor:
            return list(executor.map(one, questions))

    def load(self, name: str, key: str, kind: str, section: FunctionsSection) -> None:
        """Load a function in one of its processes; LoadError, in a sentence, when that can not be."""
        idle = self._processes(name, key, kind, section)
        process = idle.get()
        try:
            process.start()
        finally:
            idle.put(process)

    def close(self) -> None:
        """End all processes."""
        with self._lock:
            processes, self._all, self._idle = self._all, [], {}
        for process in processes:
            process.end()

    def _processes(self, name: str, key: str, kind: str, section: FunctionsSection) -> queue.SimpleQueue[_Process]:
        with self._lock:
            which = (name, kind, section)
            if which not in self._idle:
                self._idle[which] = queue.SimpleQueue()
                for _ in range(self._workers):
                    process = _Process(name, key, kind, section)
                    self._all.append(process)
                    self._idle[which].put(process)
            return self._idle[which]


class _Process:
    """One process for one function, started at its first question; one question at a time."""

    def __init__(self, name: str, key: str, kind: str, section: FunctionsSection) -> None:
        self._setting = {
            "name": name,
            "key": key,
            "kind": kind,
            "memory_mb": section.memory_mb,
            "seconds": section.deadline_seconds,
            "path": [entry for entry in sys.path if entry],
        }
        self._more = section.environment
        self._seconds = section.deadline_seconds
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, question: object) -> list[float] | Failure:
        process = self.start()
        reply = self._exchange(process, question, self._seconds)
        if reply is None:
            ended = process.poll()
            late = ended is None or ended == -signal.SIGALRM
            self.end()
            return Failure(f"it took longer than {self._seconds:g} seconds" if late else f"its process ended ({ended})")
        if "error" in reply:
            return Failure(reply["error"])
        return [float(value) for value in reply["values"]]

    def end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        # It leads a session of its own: what the function started goes with it.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()

    def start(self) -> subprocess.Popen[bytes]:
        """The process, started where it does not run; LoadError when the function can not be loaded."""
        if self._process is not None:
            return self._process
        own = {"PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1", "JAX_PLATFORMS": "cpu"}
        kept = grader_environment(self._more)
        # -P: no file of the working directory may stand in for a library.
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", WORKER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            env=kept | {"PYTHONPATH": program_path()} | own | {n: os.environ[n] for n in self._more if n in os.environ},
        )
        self._process = process
        reply = self._exchange(process, self._setting, START_SECONDS)
        name, key = self._setting["name"], self._setting["key"]
        if reply is None:
            ended = process.poll()
            self.end()
            how = f"took longer than {START_SECONDS:g} seconds" if ended is None else f"ended its process ({ended})"
            raise LoadError(f"{key} names {name!r}, but loading it {how}")
        if "error" in reply:
            self.end()
            raise LoadError(reply["error"])
        return process

    def _exchange(self, process: subprocess.Popen[bytes], question: object, seconds: float) -> JsonObject | None:
        """Send one line and read one; None when the process ended or is late."""
        assert process.stdin is not None
        assert process.stdout is not None
        end, line = time.monotonic() + seconds, b""
        try:
            process.stdin.write(json.dumps(question).encode() + b"\n")
            process.stdin.flush()
        except OSError:
            process.wait(5)
            return None
        while not line.endswith(b"\n"):
            ready, _, _ = select.select([process.stdout], [], [], max(0.0, end - time.monotonic()))
            piece = os.read(process.stdout.fileno(), 65_536) if ready else b""
            if not piece:
                if ready:
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(5)
                return None
            line += piece
        try:
            reply = json.loads(line)
        except ValueError:
            return None
        return reply if isinstance(reply, dict) else None


__all__ = ["Failure", "FunctionPool", "grader_environment", "program_path"]
