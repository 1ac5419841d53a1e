"""The ablation of Infi-MMR's curriculum at nano scale: every arm, every seed, one command; finished runs are kept.

    python -m studies.curriculum.run OUTPUT [--seeds 0 1 2] [--tokens 900000] [--document docs/study.md]

Each seed has one supervised cold start (`cold/`); every arm starts GRPO from its exported model and samples the same
number of tokens, with the hyper-parameters of configs/nano.yaml. A run that was stopped goes on
where it was. Afterwards `summary` writes the tables and the figure.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from studies.curriculum.arms import ARMS, token_phases

ROOT = Path(__file__).resolve().parents[2]


def run_arm(tree: dict[str, Any], directory: Path, environment: dict[str, str]) -> None:
    """Train one configuration in `directory` unless it is finished; one that was stopped is resumed."""
    if (directory / "model" / "config.json").exists():
        return
    directory.parent.mkdir(parents=True, exist_ok=True)
    config = directory.with_suffix(".yaml")
    config.write_text(yaml.safe_dump({**tree, "output": str(directory)}, sort_keys=False), encoding="utf-8")
    command = [sys.executable, "-m", "infimmr_jax.cli", "train", "--config", str(config)]
    if (directory / "checkpoints").exists():
        command.append("--resume")
    print(f"{directory}: {' '.join(command)}", flush=True)
    with directory.with_suffix(".log").open("a", encoding="utf-8") as log:
        subprocess.run(command, check=True, stdout=log, stderr=log, cwd=ROOT, env=environment)


def run_cold_start(tree: dict[str, Any], seed: int, output: Path, environment: dict[str, str]) -> Path:
    """Make the supervised start that all runs of a seed share; returns the directory of its model."""
    cold = output / f"seed{seed}" / "cold"
    # A phase is obligatory; at this rate one step moves no weight that float32 could tell.
    idle = [{**tree["phases"][0], "steps": 1, "optimizer": {"learning_rate": 1e-12}}]
    run_arm({**tree, "seed": seed, "name": f"cold start, seed {seed}", "phases": idle}, cold, environment)
    return cold / "model"


def from_cold_start(tree: dict[str, Any], model: Path, seed: int, name: str) -> dict[str, Any]:
    """The configuration of a run that starts from an exported model, without a supervised stage of its own."""
    started = {key: section for key, section in tree.items() if key != "sft"}
    return {**started, "seed": seed, "name": f"{name}, seed {seed}", "model": {**tree["model"], "path": str(model)}}


def main() -> None:
    """Run what is missing, then summarise."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "nano.yaml")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", choices=sorted(ARMS), default=list(ARMS))
    parser.add_argument("--tokens", type=int, default=900_000, help="sampled tokens of every arm")
    parser.add_argument("--document", type=Path, help="where the tables go; its figure lies beside it")
    options = parser.parse_args()

    output = options.output.resolve()
    tree = yaml.safe_load(options.config.read_text(encoding="utf-8"))
    environment = {**os.environ, "INFIMMR_CACHE": os.environ.get("INFIMMR_CACHE", str(ROOT / ".cache"))}
    for seed in options.seeds:
        model = run_cold_start(tree, seed, output, environment)
        for arm in options.arms:
            started = {**tree, "phases": token_phases(arm, tree["phases"], options.tokens)}
            run_arm(from_cold_start(started, model, seed, arm), output / f"seed{seed}" / arm, environment)
    if options.document is not None:
        from studies.curriculum.summary import write_document

        write_document(output, options.document)


if __name__ == "__main__":
    main()
