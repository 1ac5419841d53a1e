"""What a run was made with: resolved configuration, versions, revision, devices, and what was read and rejected."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import subprocess
from pathlib import Path
from typing import Any

import jax

from infimmr_jax.config import dump_config, dump_phases
from infimmr_jax.training.setup import Setup

PACKAGES = ("infimmr-jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "transformers", "numpy")


def record_run(setup: Setup) -> None:
    """Write config.yaml, phases.yaml (each phase's whole sections), environment.json and data.json."""
    run_dir = setup.run_dir
    (run_dir / "config.yaml").write_text(dump_config(setup.config), encoding="utf-8")
    (run_dir / "phases.yaml").write_text(dump_phases(setup.config), encoding="utf-8")
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


def environment() -> dict[str, Any]:
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
    root = Path(__file__).resolve().parents[2]
    found = subprocess.run(
        ["git", "-C", str(root), "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    return found.stdout.strip() or None


def _write(path: Path, tree: Any) -> None:
    path.write_text(json.dumps(tree, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
