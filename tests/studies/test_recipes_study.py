"""The recipes study: every recipe gets the same budget, and the tables say what the runs' files say."""

import json

import pytest
import yaml

from infimmr_jax.config import parse_config
from studies.recipes.run import RECIPES, ROOT, recipe_tree
from studies.recipes.summary import BEGIN, CHANGES, END, write_document

BASE = yaml.safe_load((ROOT / "configs" / "nano.yaml").read_text())


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_gets_the_same_budget(recipe):
    config = parse_config(recipe_tree(BASE, recipe, 72, 256))
    assert sum(phase.steps for phase in config.phases) == 72
    assert [phase.modality for phase in config.phases] == ["text", "caption", "image"]
    for phase in config.phases:
        assert 256 - phase.group_size < phase.prompts_per_step * phase.group_size <= 256


def test_every_recipe_has_its_line():
    assert {path.stem for path in RECIPES} == set(CHANGES)
    assert RECIPES[0].stem == "infi_mmr", "the reference row comes first"


def write_run(run, accuracy, seconds):
    (run / "model").mkdir(parents=True)
    (run / "model" / "config.json").write_text("{}")
    evals = [
        {"stage": f"{i}", "stage_index": i, "modality": m, "problems": 100, "correct": accuracy + i, "length": 9.0}
        for i in range(2)
        for m in ("text", "caption", "image")
    ]
    step = {"kind": "grpo", "rollout/tokens": 2000, "grading/graded": 500, "time/step": seconds}
    for file, rows in (("evals", evals), ("metrics", [step, step])):
        (run / f"{file}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_tables_hold_what_the_runs_wrote(tmp_path):
    for name, accuracy in (("cold", 10), ("dapo", 50)):
        write_run(tmp_path / "runs" / "seed0" / name, accuracy, 1.5)
    document = tmp_path / "doc.md"
    document.write_text(f"before\n{BEGIN}\nstale\n{END}\nafter\n")
    write_document(tmp_path / "runs", document)
    text = document.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "stale" not in text
    assert "| cold start only | where all start | 10.0 (6–17) | 10.0 (6–17) | 10.0 (6–17) | 9.0 | – | – | – |" in text
    row = next(line for line in text.splitlines() if line.startswith("| `dapo` | clip-higher"))
    assert row.endswith("| 51.0 (41–61) | 51.0 (41–61) | 51.0 (41–61) | 9.0 | 1.0 k | 4 k | 1.5 |")
    assert "| `dapo` | 1 | 51.0 (41–61) |" in text
    write_run(tmp_path / "runs" / "seed0" / "apo", 30, 1.5)
    for name, accuracy in (("cold", 20), ("dapo", 70), ("apo", 10)):
        write_run(tmp_path / "runs" / "seed1" / name, accuracy, 1.2)
    write_document(tmp_path / "runs", document)
    text = document.read_text()
    assert "Seeds 0, 1; 2 GRPO steps a recipe" in text
    assert "Rank correlation of the 2 recipes between seeds: text 1.00, caption 1.00, image 1.00." in text
    row = next(line for line in text.splitlines() if line.startswith("| `dapo` | clip-higher"))
    assert row.endswith("| 61.0 (51, 71) | 61.0 (51, 71) | 61.0 (51, 71) | 9.0 | 1.0 k | 4 k | 1.2 |")
    document.write_text("no marks")
    with pytest.raises(ValueError, match="lacks the lines"):
        write_document(tmp_path / "runs", document)
