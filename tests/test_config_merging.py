"""Several configuration files: what wins, what is replaced whole, how phases are changed, and what is refused."""

from pathlib import Path

import pytest
import yaml

from infimmr_jax.config import ConfigError, load_config

SOURCE = {"reader": "synthetic", "families": ["bars"], "size": 8}
PHASES = [
    {"name": "words", "modality": "text", "steps": 3, "sources": [SOURCE], "group_size": 4},
    {"name": "half", "modality": "caption", "steps": 3, "sources": [SOURCE]},
    {"name": "sight", "modality": "image", "steps": 3, "sources": [SOURCE]},
]
BASE = {"phases": PHASES, "reward": {"weights": {"accuracy": 0.9, "format": 0.1}}, "grpo": {"kl": {"coefficient": 0.5}}}


@pytest.fixture
def files(tmp_path):
    def write(*trees: dict) -> list[Path]:
        paths = [tmp_path / f"{number}.yaml" for number in range(len(trees))]
        for path, tree in zip(paths, trees, strict=True):
            path.write_text(yaml.safe_dump(tree))
        return paths

    return write


def test_the_later_file_wins_and_overrides_win_over_all(files):
    paths = files(BASE | {"seed": 1}, {"seed": 2, "rollout": {"top_p": 0.9}}, {"rollout": {"temperature": 0.7}})
    config = load_config(paths, ["rollout.top_p=0.8"])
    assert (config.seed, config.rollout.temperature, config.rollout.top_p) == (2, 0.7, 0.8)


def test_sections_merge_and_free_mappings_and_lists_are_replaced(files):
    change = {
        "grpo": {"kl": {"estimator": "k2"}},
        "reward": {"weights": {"accuracy": 1.0}},
        "evaluation": {"sources": {"text": [SOURCE]}},
    }
    config = load_config(files(BASE | {"evaluation": {"sources": {"image": [SOURCE]}, "problems": 3}}, change))
    assert (config.grpo.kl.estimator, config.grpo.kl.coefficient) == ("k2", 0.5)
    assert config.reward.weights == {"accuracy": 1.0}
    assert set(config.evaluation.sources) == {"text"}
    assert config.evaluation.problems == 3


def test_a_section_can_be_taken_away(files):
    sft = {"stages": [{"steps": 30}], "sources": {"text": [SOURCE]}}
    assert load_config(files(BASE | {"sft": sft}, {"sft": {"batch_size": 2}})).sft.batch_size == 2
    assert load_config(files(BASE | {"sft": sft}, {"sft": None})).sft is None


def test_phases_are_changed_by_all_modality_number_and_name(files):
    change = {"phases": {"half": {"steps": 7}, 1: {"steps": 6, "group_size": 3}, "image": {"steps": 5}}}
    change["phases"]["all"] = {"steps": 4, "group_size": 2, "max_response": 9}
    phases = load_config(files(BASE, change)).phases
    assert [phase.steps for phase in phases] == [4, 7, 5]
    assert [phase.group_size for phase in phases] == [2, 3, 2]
    assert [phase.max_response for phase in phases] == [9, 9, 9]
    assert [phase.name for phase in phases] == ["words", "half", "sight"]


def test_a_list_of_phases_replaces_them(files):
    assert [phase.name for phase in load_config(files(BASE, {"phases": PHASES[:1]})).phases] == ["words"]


def test_scales_follow_the_model(files):
    recipe = {"seed": 3, "scales": {"small": {"seed": 4}, "published": {"seed": 5, "phases": {"all": {"steps": 9}}}}}
    paths = files(BASE, recipe)
    assert load_config(paths).seed == 4
    big = load_config(paths, ["model.path=/models/x"])
    assert (big.seed, big.phases[2].steps) == (5, 9)
    assert load_config([*paths, *files(BASE, recipe, {"seed": 6})[2:]]).seed == 6, "a later file wins over scales too"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"phases": {"sigth": {}}}, r"'sigth' is neither `all` nor the modality.*2 'sight' \(image\)"),
        ({"phases": {3: {"steps": 1}}}, "3 is neither"),
        ({"phases": {"all": 3}}, "must hold keys of a phase"),
        ({"phases": {"all": {"group_sise": 2}}}, r"phases\.0\.group_sise: unknown key; did you mean 'group_size'"),
        ({"scales": {"large": {}}}, "'large' is unknown; known: small, published"),
        ({"grpo": {"estimatr": "grpo"}}, "did you mean 'estimator'"),
    ],
)
def test_mistakes_name_the_file_and_the_key(files, change, sentence):
    with pytest.raises(ConfigError, match=f"(?s)1.yaml.*{sentence}"):
        load_config(files(BASE, change))


def test_a_recipe_alone_says_what_is_missing(files):
    with pytest.raises(ConfigError, match=r"0\.yaml.*give the run's file first"):
        load_config(files({"phases": {"all": {"steps": 1}}}))
