"""Kill a run at random moments, resume it each time, and compare it with an unbroken one bit by bit.

    python studies/soak.py --config configs/nano.yaml --kills 30 --out runs/soak

Every kill is SIGKILL to the whole process group of the run, after a random time from its start or from one of its next
steps: while it reads data, compiles, steps, evaluates, saves or writes the model. Before each resumption the complete
checkpoints are listed; the run must go on from the newest of them. A run that ends before all kills are done is
compared and another one is begun. The result is printed as JSON; the exit status says whether everything held.
`--set` goes to the runs.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import os
import random
import re
import secrets
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import psutil

# What depends on the clock, or on how much is in the compilation cache.
CHANGING = ("time", "tokens_per_second", "compile/")
FILES = ("metrics", "evals", "transcripts")


@dataclasses.dataclass
class Broken:
    """What happened to a run that is killed again and again."""

    kills: int = 0
    finished: int = 0
    moments: Counter = dataclasses.field(default_factory=Counter)
    redone: list[int] = dataclasses.field(default_factory=list)
    faults: list[str] = dataclasses.field(default_factory=list)


def soak(arguments: Sequence[str], unbroken: Path, out: Path, kills: int, seed: int, env: dict[str, str]) -> Broken:
    """Make runs below `out` until `kills` kills are done and a run is finished; compare each with `unbroken`.

    `arguments` are those of `infimmr train`; its output directory is chosen here.
    """
    chooser, found = random.Random(seed), Broken()
    while found.kills < kills or not found.finished:
        run = out / f"broken-{found.finished}"
        while _attempt(arguments, run, found, found.kills < kills, chooser, env):
            pass
        found.finished += 1
        found.faults += [f"{run.name}: {fault}" for fault in differences(run, unbroken)]
        if found.faults:
            break
    return found


def differences(run: Path, other: Path) -> list[str]:
    """Sentences about every file in which two finished runs differ; none when they are equal bit by bit."""
    faults = []
    for name in FILES:
        one, two = rows(run, name), rows(other, name)
        if len(one) != len(two):
            faults.append(f"{name}.jsonl has {len(one)} rows, not {len(two)}")
        faults += [f"{name}.jsonl differs in row {i}" for i, (a, b) in enumerate(zip(one, two, strict=False)) if a != b]
    for path in sorted((other / "model").rglob("*")):
        mine = run / path.relative_to(other)
        if path.is_file() and (not mine.exists() or digest(mine) != digest(path)):
            faults.append(f"{path.relative_to(other)} differs")
    return faults


def rows(run: Path, name: str) -> list[dict]:
    """Rows of a JSONL file without what depends on the clock; every line must be whole."""
    lines = (run / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [{k: v for k, v in json.loads(line).items() if not k.startswith(CHANGING)} for line in lines]


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def complete_checkpoints(run: Path) -> list[int]:
    """Numbers of the checkpoints that were renamed to their final name."""
    folder = run / "checkpoints"
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit()) if folder.exists() else []


def _attempt(
    arguments: Sequence[str], run: Path, found: Broken, may_kill: bool, chooser: random.Random, env: dict[str, str]
) -> bool:
    """Start or resume the run, and kill it if it may; returns whether it was killed."""
    before, made = complete_checkpoints(run), _count(run)
    log = run.with_suffix(".log")
    token = secrets.token_hex(8)
    command = [sys.executable, "-m", "infimmr_jax.cli", "train", "--auto-resume", *arguments]
    with log.open("w", encoding="utf-8") as output:
        process = subprocess.Popen(
            [*command, "--set", f"output={run}"],
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **env, "INFIMMR_SOAK": token},
            process_group=0,
        )
        killed = may_kill and not _wait(process, run, chooser)
        if killed:
            os.killpg(process.pid, signal.SIGKILL)
        status = process.wait()
    text = log.read_text(encoding="utf-8")
    if killed:
        found.kills += 1
        found.moments[_moment(text)] += 1
        found.redone.append(made - int(_made_at(text))) if _made_at(text) is not None else None
    elif status:
        found.faults.append(f"{run.name} ended with status {status}: {text.splitlines()[-1:]}")
    _check(run, before, text, found)
    left = _left(token)
    if left:
        found.faults.append(f"{run.name}: processes {left} outlived their run")
    return killed and not found.faults


def _wait(process: subprocess.Popen, run: Path, chooser: random.Random) -> bool:
    """Wait for the moment of the kill; returns whether the run ended before."""
    start, rows_before = time.monotonic(), _count(run)
    # A quarter anywhere in the start-up, the others in or after one of the next steps, where most of a run's time is.
    wanted = rows_before + chooser.choice([1, 1, 1, 2, 3])
    early = start + chooser.uniform(0.0, 20.0) if chooser.random() < 0.25 else None
    later = chooser.uniform(0.0, 1.0)
    reached = None
    while process.poll() is None:
        now = time.monotonic()
        if early is not None and now >= early:
            return False
        if reached is None and _count(run) >= wanted:
            reached = now
        if reached is not None and now >= reached + later:
            return False
        time.sleep(0.01)
    return True


def _check(run: Path, before: list[int], text: str, found: Broken) -> None:
    """Whether the newest complete checkpoint was chosen, if the run came to choosing, and none was lost."""
    chosen = re.search(r"resumed from (?:checkpoint (\d+)|the start)", text)
    newest = before[-1] if before else None
    if chosen is not None:
        number = int(chosen[1]) if chosen[1] else None
        if number != newest:
            found.faults.append(f"{run.name} went on from {number}, its newest complete checkpoint was {newest}")
    after = complete_checkpoints(run)
    if newest is not None and (not after or after[-1] < newest):
        found.faults.append(f"{run.name}: checkpoint {newest} is gone, the newest is now {after[-1:]}")
    if "can not be read" in text or list((run / "checkpoints").glob("damaged*")):
        found.faults.append(f"{run.name}: a checkpoint was damaged")


def _made_at(text: str) -> int | None:
    found = re.search(r"resumed from checkpoint \d+ of .*: (\d+) steps are made", text)
    return int(found[1]) if found else None


def _moment(text: str) -> str:
    """What a run was doing, by the last line it printed."""
    lines = [line for line in text.splitlines() if line.strip()]
    last = lines[-1] if lines else ""
    for sign, words in (
        ("evaluating", "evaluation"),
        ("resumed", "restoring or the first step"),
        ("rows,", "restoring or initialising"),
        ("compiling", "compiling"),
        ("/", "steps"),
        ("steps", "the first step of a phase"),
    ):
        if sign in last:
            return words
    return "start-up" if not lines else "other"


def _count(run: Path) -> int:
    path = run / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def _left(token: str, seconds: float = 90.0) -> list[int]:
    """Processes of a killed run that are still there after some seconds."""
    end = time.monotonic() + seconds
    while True:
        left = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("INFIMMR_SOAK") == token and process.status() != psutil.STATUS_ZOMBIE:
                    left.append(process.pid)
            except (psutil.Error, OSError):
                continue
        if not left or time.monotonic() > end:
            return left
        time.sleep(0.2)


def main() -> int:
    """Entry point; see the top of the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    options.out.mkdir(parents=True)
    arguments = ["--config", str(options.config)]
    for override in options.overrides:
        arguments += ["--set", override]
    unbroken = options.out / "unbroken"
    began = time.monotonic()
    subprocess.run(
        [sys.executable, "-m", "infimmr_jax.cli", "train", *arguments, "--set", f"output={unbroken}"],
        stdout=subprocess.DEVNULL,
        check=True,
    )
    whole = time.monotonic() - began
    found = soak(arguments, unbroken, options.out, options.kills, options.seed, {})
    result = {
        "kills": found.kills,
        "finished_runs_equal_to_the_unbroken_one": found.finished if not found.faults else 0,
        "killed_during": dict(found.moments.most_common()),
        "rows_made_again": {"mean": sum(found.redone) / max(1, len(found.redone)), "max": max(found.redone, default=0)},
        "rows_of_a_run": _count(unbroken),
        "seconds": {"unbroken": round(whole, 1), "broken": round(time.monotonic() - began - whole, 1)},
        "faults": found.faults,
    }
    print(json.dumps(result, indent=1))
    return 1 if found.faults else 0


if __name__ == "__main__":
    sys.exit(main())
