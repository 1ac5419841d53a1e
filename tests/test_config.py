"""The configuration: read, overridden, written back; every mistake is named with the key to mend it."""

from pathlib import Path

import pytest

from infimmr_jax.config import ConfigError, apply_overrides, dump_config, load_config, parse_config

# Recipes are layers over a run (tests/test_recipes.py).
CONFIGS = sorted(Path(__file__).parents[1].glob("configs/*.yaml"))
PHASE = {"name": "a", "modality": "text", "steps": 1, "sources": [{"reader": "jsonl", "path": "x.jsonl"}]}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_configurations_are_valid_and_survive_a_round_trip(path, tmp_path):
    config = load_config(path)
    again = tmp_path / "again.yaml"
    again.write_text(dump_config(config))
    assert load_config(again) == config


@pytest.mark.parametrize(
    ("tree", "sentence"),
    [
        ({"phases": [PHASE], "rollot": {}}, "rollot: unknown key; did you mean 'rollout'?"),
        ({"phases": [PHASE | {"group_sise": 4}]}, "phases.0.group_sise: unknown key; did you mean 'group_size'?"),
        ({"phases": [PHASE], "data": {"image": {"max_pixel": 1}}}, "did you mean 'max_pixels'?"),
        ({"phases": [PHASE], "seed": "many"}, "seed: Input should be a valid integer"),
        ({"phases": [PHASE, PHASE]}, "phase names must differ"),
        ({"phases": []}, "phases: "),
        ({"phases": [PHASE | {"sources": [{"reader": "jsonl"}]}]}, "needs `path`"),
        ({"phases": [PHASE | {"sources": [{"reader": "synthetic", "size": 3}]}]}, "needs `families`"),
    ],
)
def test_mistakes_are_named(tree, sentence):
    with pytest.raises(ConfigError) as error:
        parse_config(tree)
    assert sentence in str(error.value)


def test_all_mistakes_are_named_at_once():
    with pytest.raises(ConfigError) as error:
        parse_config({"phases": [PHASE | {"stepz": 1}], "sed": 1})
    assert "stepz" in str(error.value)
    assert "sed" in str(error.value)


def test_overrides_reach_sections_and_list_items():
    tree = apply_overrides({"phases": [PHASE]}, ["phases.0.steps=7", "optimizer.learning_rate=1.0e-3", "output=/tmp/o"])
    config = parse_config(tree)
    assert config.phases[0].steps == 7
    assert config.optimizer.learning_rate == 1e-3
    assert config.output == Path("/tmp/o")
    assert PHASE["steps"] == 1, "the given tree must stay as it is"


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("steps", "not of the form"),
        ("phases.3.steps=1", "'3' is not an index of a list of 1 items"),
        ("seed.deep=1", "is a single value"),
        ("name=[", "not valid YAML"),
    ],
)
def test_bad_overrides_are_refused(override, sentence):
    with pytest.raises(ConfigError, match="(?s)" + sentence.replace("[", r"\[")):
        apply_overrides({"seed": 1, "phases": [PHASE]}, [override])


def test_a_missing_or_broken_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match="there is no configuration file"):
        load_config(tmp_path / "none.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [1")
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_config(broken)
    broken.write_text("- 1")
    with pytest.raises(ConfigError, match="must hold a mapping"):
        load_config(broken)
