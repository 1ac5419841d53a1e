"""The examples of docs/extending.md run as they stand, each in a namespace of its own, and leave no table changed."""

import re
from pathlib import Path

import pytest

from infimmr_jax.model.family import FAMILIES
from infimmr_jax.objectives.advantages import ESTIMATORS
from infimmr_jax.rewards.format import FORMATS
from infimmr_jax.training.stages import STAGES

PAGE = Path(__file__).parents[1] / "docs" / "extending.md"
EXAMPLES = re.findall(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
CODE = {title: block for title, text in EXAMPLES for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL)}


@pytest.mark.parametrize("title", CODE)
def test_an_example_runs(title, monkeypatch):
    for table in (FAMILIES, ESTIMATORS, FORMATS, STAGES):
        for name in ("my_vl", "median", "plan_answer", "rest"):
            monkeypatch.delitem(table, name, raising=False)
    before = [dict(table) for table in (FAMILIES, ESTIMATORS, FORMATS, STAGES)]
    try:
        exec(compile(CODE[title], f"{PAGE.name}: {title}", "exec"), {"__name__": "example"})
    finally:
        for table, kept in zip((FAMILIES, ESTIMATORS, FORMATS, STAGES), before, strict=True):
            table.clear()
            table.update(kept)


def test_every_kind_of_part_has_an_example_and_the_files_it_names_exist():
    assert len(CODE) == len(EXAMPLES) == 6
    named = re.findall(r"`((?:\w+/)+\w*\.?\w*|\w+\.py)`", PAGE.read_text(encoding="utf-8"))
    package, root = PAGE.parents[1] / "infimmr_jax", PAGE.parents[1]
    missing = [name for name in named if not (package / name).exists() and not (root / name).exists()]
    assert missing == []
