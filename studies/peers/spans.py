"""Shared by the peers' runners: one pinned core, spans of wall and processor seconds, one JSON line at the end."""

import json
import os
import resource
import statistics
import time
from pathlib import Path

THREADS = int(os.environ.get("PEER_THREADS", "1"))


def pin() -> None:
    """Use the first THREADS cores this process may use; call before a framework is imported."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(THREADS)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:THREADS])


def hash_reward(ids) -> float:
    """The reward of `infimmr bench step`: a fixed hash of the response's tokens."""
    return sum(int(token) * (place % 7 + 1) for place, token in enumerate(ids)) % 97 / 97.0


class Spans:
    """Named lists of (wall, processor) seconds."""

    def __init__(self):
        self.seen = {}

    def around(self, name, function):
        """`function`, timed under `name` at every call."""

        def timed(*args, **named):
            began = time.perf_counter(), time.process_time()
            out = function(*args, **named)
            took = time.perf_counter() - began[0], time.process_time() - began[1]
            self.seen.setdefault(name, []).append(took)
            return out

        return timed

    def report(self, skip: int, **more) -> None:
        """Print every span without its first `skip` entries."""
        parts = {}
        for name, took in self.seen.items():
            wall, cpu = zip(*took[skip:], strict=True)
            parts[name] = {"wall": list(wall), "cpu": list(cpu), "cpu_median": statistics.median(cpu)}
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print("JSON " + json.dumps({**more, "parts": parts, "peak_mb": memory, "load": os.getloadavg()[0]}), flush=True)


def read_prompts(work: Path, name: str):
    """Texts, token ids [N, S] and (or None) pictures [N, side, side, 3] that make_work.py wrote."""
    import numpy as np

    texts = json.loads((work / f"{name}.json").read_text())
    with np.load(work / f"{name}.npz") as arrays:
        return texts, arrays["ids"], dict(arrays).get("images")
