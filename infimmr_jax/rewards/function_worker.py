"""A process that calls one function of a user: `python -m infimmr_jax.rewards.function_worker`, JSON lines in and out.

The first line says what to load and under which limits; every further one is a question. No JAX is imported here.
"""

from __future__ import annotations

import json
import math
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable

import numpy as np

from infimmr_jax.names import JsonValue
from infimmr_jax.rewards.group import group_from_json, requests_from_json
from infimmr_jax.rewards.loading import LoadError, check_takes_one, load_callable, what_failed

READERS: dict[str, Callable[[JsonValue], object]] = {"group": group_from_json, "requests": requests_from_json}


def numbers(values: object) -> list[float]:
    """What a function returned as a list of numbers, NaN where it says None; TypeError for anything else."""
    if isinstance(values, str | bytes | dict) or not isinstance(values, Iterable):
        raise TypeError(f"it returned {type(values).__name__}, not a number for each response")
    return [_number(value) for value in values]


def _number(value: JsonValue) -> float:
    if value is None:
        return math.nan
    if isinstance(value, str | bytes) or np.iscomplexobj(value) or getattr(value, "shape", ()) != ():
        raise TypeError(f"it returned a {type(value).__name__} among its numbers")
    return float(value)


def _watch(parent: int) -> None:
    """End with the trainer, also while the function is busy."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


def _limit(memory_mb: int) -> None:
    if os.path.exists("/proc/self/statm"):
        with open("/proc/self/statm", encoding="ascii") as file:
            used = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + memory_mb * 2**20,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _answer(function: Callable[..., object], read: Callable[..., object], tree: object) -> dict[str, object]:
    try:
        return {"values": numbers(function(read(tree)))}
    except MemoryError:
        return {"error": "it took more memory than it may"}
    except (Exception, SystemExit, KeyboardInterrupt, GeneratorExit) as error:  # whatever it does is said, not done
        return {"error": what_failed(error)}


def main() -> None:
    """Load the function, say so, and answer until standard input closes."""
    parent, me = os.getppid(), os.getpid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    questions = os.fdopen(os.dup(0), "rb")
    sink = os.dup(1)
    # What the function reads is nothing, what it prints goes where the trainer's messages go.
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    for descriptor in (questions.fileno(), sink):
        os.set_inheritable(descriptor, False)
    setting = json.loads(questions.readline())
    sys.path += [entry for entry in setting["path"] if entry not in sys.path]
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    _limit(setting["memory_mb"])

    def say(tree: dict[str, object]) -> None:
        if os.getpid() != me:  # a fork that the function made and came back from
            os._exit(0)
        data = json.dumps(tree).encode() + b"\n"
        while data:
            data = data[os.write(sink, data) :]

    try:
        function = load_callable(setting["name"], setting["key"])
        check_takes_one(function, setting["name"], setting["key"])
    except LoadError as error:
        say({"error": str(error)})
        return
    say({})
    read = READERS[setting["kind"]]
    for line in questions:
        # The kernel ends it even where no Python runs and nobody is left to kill it.
        signal.setitimer(signal.ITIMER_REAL, setting["seconds"] + 5.0)
        reply = _answer(function, read, json.loads(line))
        signal.setitimer(signal.ITIMER_REAL, 0)
        say(reply)


if __name__ == "__main__":
    main()
