"""Every recipe on the same nano curriculum, from the same cold start, with the same budget: one command, resumable.

    python -m studies.recipes.run OUTPUT [--seeds 0] [--budget 72] [--document docs/recipes.md]

Each seed has one supervised cold start (`cold/`). Every recipe is laid over the configuration as several `--config` of
`infimmr train` are, starts GRPO from the cold start's exported model and takes `--budget` steps of `--responses`
responses in the run's three phases: a recipe with larger groups gets fewer prompts. Finished runs are kept, a run that
was stopped goes on where it was. Afterwards `summary` writes the tables.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import yaml

from infimmr_jax.config import RunConfig
from infimmr_jax.config.merging import merge_layers
from studies.curriculum.arms import arm_phases
from studies.curriculum.run import ROOT, from_cold_start, run_arm, run_cold_start

# The reference row first: a study that is not finished can be read as well.
RECIPES = sorted((ROOT / "configs" / "recipes").glob("*.yaml"), key=lambda path: (path.stem != "infi_mmr", path.stem))


def recipe_tree(base: dict[str, Any], recipe: Path, budget: int, responses: int) -> dict[str, Any]:
    """The configuration of a recipe with the study's budget; what depends on scale is the small model's."""
    change = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    tree = merge_layers([("the configuration", base), (recipe.name, change)], RunConfig, "small")
    phases = arm_phases("full", tree["phases"], budget)
    tree["phases"] = [{**phase, "prompts_per_step": max(1, responses // phase["group_size"])} for phase in phases]
    return tree


def main() -> None:
    """Run what is missing, then summarise."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "nano.yaml")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--recipes", nargs="+", choices=[path.stem for path in RECIPES], help="default: all")
    parser.add_argument("--budget", type=int, default=72, help="GRPO steps of every recipe")
    parser.add_argument("--responses", type=int, default=256, help="responses a step")
    parser.add_argument("--document", type=Path, help="where the tables go")
    options = parser.parse_args()

    output = options.output.resolve()
    base = yaml.safe_load(options.config.read_text(encoding="utf-8"))
    environment = {**os.environ, "INFIMMR_CACHE": os.environ.get("INFIMMR_CACHE", str(ROOT / ".cache"))}
    for seed in options.seeds:
        model = run_cold_start(base, seed, output, environment)
        for recipe in RECIPES:
            if options.recipes and recipe.stem not in options.recipes:
                continue
            tree = recipe_tree(base, recipe, options.budget, options.responses)
            run_arm(from_cold_start(tree, model, seed, recipe.stem), output / f"seed{seed}" / recipe.stem, environment)
            if options.document is not None:
                from studies.recipes.summary import write_document

                write_document(output, options.document)


if __name__ == "__main__":
    main()
