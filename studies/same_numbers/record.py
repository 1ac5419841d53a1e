"""Records one revision: runs its command line part by part and keeps rows, weights, programs and stopped runs."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

from studies.same_numbers import cases
from studies.same_numbers.cases import Part
from studies.same_numbers.programs import DUMP_FLAGS, read_dump

FILES = ("metrics.jsonl", "evals.jsonl", "transcripts.jsonl")
# What a clock says, and where a run lay.
CLOCK = ("time", "tokens_per_second")
CLOCK_SECTIONS = ("time/", "compile/")
PLACES = ("model_sha256", "model", "path")
VERSIONS = (
    "import importlib.metadata as m, json; print(json.dumps({n: m.version(n) for n in ('jax', 'jaxlib', 'numpy')}))"
)


class RunFailedError(SystemExit):
    """A command of the recorded revision failed; the message has its last lines."""


def record(out: Path, package: Path, configs: Path | None, names: list[str] | None) -> None:
    """Record the revision in the directory `package` to the new directory `out`."""
    out, package = out.resolve(), package.resolve()
    if out.exists() and any(out.iterdir()):
        raise SystemExit(f"{out} is not empty: record to a new directory")
    check_package(package)
    parts = cases.chosen(names)
    cases.write_configs(configs or cases.find_configs(package), out / "configs")
    cases.write_inputs(out / "inputs")
    seconds: dict[str, float] = {}
    for part in parts:
        began = time.monotonic()
        record_part(part, out, package)
        seconds[part.name] = round(time.monotonic() - began, 1)
        print(f"{part.name}: {seconds[part.name]:.0f} s", flush=True)
        # Written after every part, so that a record that is still growing can be looked at.
        _write_json(out / "record.json", {**described(package), "parts": list(seconds), "seconds": seconds})
    print(f"recorded {len(parts)} parts in {sum(seconds.values()):.0f} s: {out}")


def record_part(part: Part, out: Path, package: Path) -> None:
    """Run the commands of a part in `out` and keep what they made below rows, weights, programs and stopped."""
    for command in part.commands:
        if part.programs:
            run_and_dump(command, out, package, part.name)
        else:
            run_command(command, out, package, part.name)
    for output in part.outputs:
        name = Path(output).relative_to("runs").with_suffix(".jsonl")
        write_lines(out / "rows" / name, [without_clock(row) for row in read_rows(out / output)])
    if part.run is not None:
        run_dir = out / "runs" / part.run
        keep_rows(run_dir, out / "rows" / part.name)
        weights = out / "weights" / part.name
        weights.mkdir(parents=True)
        for file in sorted((run_dir / "model").glob("*.safetensors")):
            shutil.copy(file, weights / file.name)
        (weights / "digest").write_text(weights_digest(read_weights(weights)) + "\n", encoding="utf-8")
        if part.stopped:
            keep_stopped(run_dir, out / "stopped")
        shutil.rmtree(run_dir / "checkpoints")


def run_and_dump(command: tuple[str, ...], out: Path, package: Path, name: str) -> None:
    """Run a command that compiles everything itself, and keep what its programs are.

    A program from the cache would not be compiled, so not dumped; what it compiled joins the record's cache.
    """
    with tempfile.TemporaryDirectory(dir=out) as folder:
        dump, cache = Path(folder, "dump"), Path(folder, "cache")
        cache.mkdir()
        run_command(command, out, package, name, dump, cache)
        write_lines(out / "programs" / f"{name}.jsonl", read_dump(dump))
        shutil.copytree(cache, out / "cache", dirs_exist_ok=True)


def run_command(
    command: tuple[str, ...],
    directory: Path,
    package: Path,
    log: str,
    dump: Path | None = None,
    cache: Path | None = None,
) -> None:
    """Run `infimmr COMMAND` of `package` in `directory`; its output goes to `logs/LOG.log` there."""
    environment = child_environment(package, cache or directory / "cache")
    if dump is not None:
        environment["XLA_FLAGS"] = f"{environment.get('XLA_FLAGS', '')} {DUMP_FLAGS} --xla_dump_to={dump}".strip()
    file = directory / "logs" / f"{log}.log"
    file.parent.mkdir(exist_ok=True)
    with file.open("ab") as stream:
        ended = subprocess.run(
            [sys.executable, "-m", "infimmr_jax.cli", *command],
            cwd=directory,
            env=environment,
            stdout=stream,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if ended.returncode != 0:
        tail = "\n".join(file.read_text(encoding="utf-8", errors="replace").splitlines()[-25:])
        raise RunFailedError(
            f"infimmr {' '.join(command)} ended with status {ended.returncode}; {file} ends with\n{tail}"
        )


def child_environment(package: Path, cache: Path) -> dict[str, str]:
    """The environment of the recorded program: `package` first on the path, one CPU process, a cache of the record."""
    own = {
        "PYTHONPATH": str(package),
        "JAX_PLATFORMS": "cpu",
        "INFIMMR_DISTRIBUTED": "0",
        "INFIMMR_CACHE": str(cache),
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "HF_HUB_OFFLINE": "1",
        "COLUMNS": "120",
    }
    return {**os.environ, **own}


def check_package(package: Path) -> None:
    """Refuse a directory that is not the one whose `infimmr_jax` a child would import."""
    code = "import infimmr_jax; print(infimmr_jax.__file__)"
    ended = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tempfile.gettempdir(),
        env=child_environment(package, package),
        capture_output=True,
        text=True,
        check=False,
    )
    imported = ended.stdout.strip()
    if not imported or not Path(imported).resolve().is_relative_to(package):
        reason = f"{imported} is imported instead" if imported else ended.stderr.strip().splitlines()[-1:]
        raise SystemExit(f"{package} is not a checkout whose infimmr_jax can be imported: {reason}")


def described(package: Path) -> dict[str, Any]:
    """The revision and what else decides the bits of a result."""
    git = ["git", "-C", str(package), "describe", "--always", "--dirty", "--abbrev=12"]
    revision = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    versions = subprocess.run([sys.executable, "-c", VERSIONS], capture_output=True, text=True, check=True).stdout
    return {
        "package": str(package),
        "revision": revision or None,
        "python": sys.version.split()[0],
        "versions": json.loads(versions),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "cores": len(os.sched_getaffinity(0)),
    }


def keep_rows(run_dir: Path, target: Path) -> None:
    """Write the rows of a run without what a clock said."""
    for name in FILES:
        write_lines(target / name, [without_clock(row) for row in read_rows(run_dir / name)])


def keep_stopped(run_dir: Path, target: Path) -> None:
    """Copy a run as it stood at its second checkpoint (inside the cold start) and at its fifth (inside a phase)."""
    steps = sorted(int(path.name) for path in (run_dir / "checkpoints").iterdir() if path.name.isdigit())
    if len(steps) < 6:
        raise SystemExit(f"{run_dir / 'checkpoints'} holds {len(steps)} numbered checkpoints, six or more are expected")
    for name, last in (("cold_start", steps[1]), ("phase", steps[4])):
        later = {str(step) for step in steps if step != last}
        shutil.copytree(
            run_dir,
            target / name,
            # Rows after the checkpoint stay, as a killed run leaves them.
            ignore=lambda folder, _, later=later: later if Path(folder).name == "checkpoints" else set(),
        )
        for left in ("model", "report.html"):
            path = target / name / left
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Rows of a JSONL file, or the one object of a JSON file."""
    text = path.read_text(encoding="utf-8")
    return [json.loads(text)] if path.suffix == ".json" else [json.loads(line) for line in text.splitlines()]


def without_clock(value: Any) -> Any:
    """A row without the keys that depend on the clock or on where the run lies, at any depth."""
    if isinstance(value, dict):
        return {
            key: without_clock(item)
            for key, item in value.items()
            if key not in (*CLOCK, *PLACES) and not key.startswith(CLOCK_SECTIONS)
        }
    return [without_clock(item) for item in value] if isinstance(value, list) else value


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write JSONL, creating the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def read_weights(folder: Path) -> dict[str, np.ndarray]:
    """All arrays of the safetensors files of a folder, by name."""
    arrays: dict[str, np.ndarray] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "numpy") as stream:
            arrays |= {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118  (no mapping)
    return arrays


def weights_digest(arrays: dict[str, np.ndarray]) -> str:
    """SHA-256 over names, types, shapes and bytes, whatever file they lay in."""
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _write_json(path: Path, tree: Any) -> None:
    path.write_text(json.dumps(tree, indent=1) + "\n", encoding="utf-8")
