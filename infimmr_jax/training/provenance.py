"""What a run was made with: resolved configuration, versions, revision, devices, and what was read and rejected."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import subprocess
from pathlib import Path

import jax

from infimmr_jax.config import dump_config, dump_phases
from infimmr_jax.names import JsonObject
from infimmr_jax.training.setup import Setup

PACKAGES = ("infimmr-jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "transformers", "numpy")


def record_run(setup: Setup) -> None:
    """Write config.yaml, phases.yaml (each phase's whole sections), environment.json and data.json."""
    run_dir = setup.run_dir
    _write_text(run_dir / "config.yaml", dump_config(setup.config))
    _write_text(run_dir / "phases.yaml", dump_phases(setup.config))
    _write(run_dir / "environment.json", environment())
    data = {
        "sources": [report.to_dict() for report in setup.reports],
        "prompt_buckets": setup.shapes.prompts,
        "image_buckets": setup.shapes.images,
    }
    _write(run_dir / "data.json", data)


def versions() -> dict[str, str]:
    """Versions of the packages that decide what a run does, "not installed" where there is none."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def environment() -> JsonObject:
    """Versions, git revision and devices of this process."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": versions(),
        "git_revision": _revision(),
        "devices": [str(device) for device in jax.devices()],
        "device_kind": jax.devices()[0].device_kind,
        "processes": jax.process_count(),
    }


def _revision() -> str | None:
    """The git revision of this program's own repository; None without git, and where it is installed elsewhere."""
    root = Path(__file__).resolve().parents[2]
    # A wheel may lie inside somebody else's repository, whose revision says nothing about it.
    tracked = _git(root, "ls-files", "--error-unmatch", "infimmr_jax/cli.py")
    return _git(root, "describe", "--always", "--dirty") if tracked else None


def _git(root: Path, *arguments: str) -> str | None:
    try:
        run = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return run.stdout.strip() or None if run.returncode == 0 else None


def _write(path: Path, tree: object) -> None:
    _write_text(path, json.dumps(tree, indent=1, ensure_ascii=False) + "\n")


def _write_text(path: Path, text: str) -> None:
    # Half a surrogate pair, which UTF-8 can not hold, becomes its escape.
    path.write_text(text, encoding="utf-8", errors="backslashreplace")
