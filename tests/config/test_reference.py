"""The reference names every key, and the page in docs/ is the one that the schema gives."""

from pathlib import Path

import pytest

from infimmr_jax.config import RunConfig, parse_config
from infimmr_jax.config.reference import keys, page, parts

ROOT = Path(__file__).parents[2]


def test_the_page_in_docs_is_the_one_that_the_schema_gives():
    written = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert written == page(), "write it again: python -m infimmr_jax.cli keys > docs/configuration.md"


def test_no_key_was_lost_when_kinds_became_unions():
    # Made from the fields of every section of revision ed32b15, without what phases inherit.
    before = (Path(__file__).parent / "keys_before_unions.txt").read_text().split()
    named = {key.replace("NAME", "*") for key in keys()}
    assert len(before) > 300
    assert [key for key in before if key not in named] == []


def test_every_key_stands_on_the_page():
    text = page()
    assert [key for key in keys() if f"`{key}`" not in text] == []
    assert {part.key for part in parts()} > {"", "reward.length", "phases[].promotion", "grpo.kl"}


def test_the_defaults_on_the_page_are_those_in_force():
    phase = {"name": "a", "modality": "text", "steps": 1, "sources": [{"reader": "jsonl", "path": "x"}]}
    config = parse_config({"phases": [phase]})
    assert (
        f"| `phases[].group_size` | integer, at least 2 (an answer is judged by comparison with the others of its "
        f"group) | `{config.phases[0].group_size}` |" in page()
    )
    assert f"| `optimizer.learning_rate` | number, > 0 | `{config.optimizer.learning_rate}` |" in page()
    assert RunConfig.model_fields["phases"].is_required()
    assert "| `phases` | a list, each: a section | must be given |" in page()


@pytest.mark.parametrize("prefix", ["phases.0.promotion", "phases[].promotion", "phases.promotion"])
def test_a_part_is_named_as_in_yaml_or_as_in_an_override(prefix):
    text = page(prefix)
    assert "`phases[].promotion.window`" in text
    assert "`phases[].group_size`" not in text
    assert page("rollot") == ""
