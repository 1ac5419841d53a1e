"""YAML of configurations: no key twice, no alias that explodes, and every fault one sentence with its line."""

import time

import pytest

from infimmr_jax.config import ConfigError, load_config
from infimmr_jax.config.yaml_file import read_yaml

RUN = "phases:\n- {name: a, modality: text, steps: 1, sources: [{reader: jsonl, path: x}]}\n"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a: 1\nb: 2\na: 3", "'a' stands twice, in line 1 and in line 3"),
        ("grpo:\n  kl: {coefficient: 0.05}\n  kl: {coefficient: 0}", "'kl' stands twice, in line 2 and in line 3"),
        ("phases:\n- steps: 1\n  steps: 2", "'steps' stands twice, in line 2 and in line 3"),
        ('phases: {0: {}, "0": {}}', "'0' stands twice"),
        ("a: &a [*a]", "line 1: an alias refers to the value that it stands in"),
        ("a: [1", "not valid YAML"),
        ("[" * 3000 + "]" * 3000, "nested too deeply"),
        ("a: 2024-13-45", "can not be read"),
        ("a: " + "9" * 6000, "can not be read"),
    ],
)
def test_faults_name_the_file_and_the_line(text, sentence):
    with pytest.raises(ConfigError) as error:
        read_yaml(text, "file.yaml")
    assert "file.yaml" in str(error.value)
    assert sentence in str(error.value)


def test_aliases_and_merge_keys_work_as_long_as_they_stay_small():
    assert read_yaml("a: &x {b: 1}\nc: *x\nd: {<<: *x, b: 2, e: 3}", "f") == {
        "a": {"b": 1},
        "c": {"b": 1},
        "d": {"b": 2, "e": 3},
    }


@pytest.mark.parametrize("form", ["[{}]", "{{<<: [{}], k: 1}}"])
def test_an_alias_bomb_is_refused_at_once(form, tmp_path):
    lines = ["a0: &a0 {k: 1}"]
    for depth in range(1, 30):
        lines.append(f"a{depth}: &a{depth} " + form.format(", ".join([f"*a{depth - 1}"] * 9)))
    path = tmp_path / "bomb.yaml"
    path.write_text("\n".join(lines))
    began = time.monotonic()
    with pytest.raises(ConfigError, match=r"its aliases make [0-9,]+ values"):
        load_config(path)
    assert time.monotonic() - began < 2


def test_a_section_twice_is_refused_in_runs_and_in_recipes(tmp_path):
    run, recipe = tmp_path / "run.yaml", tmp_path / "recipe.yaml"
    run.write_text(RUN)
    recipe.write_text("grpo: {kl: {coefficient: 0.05}}\nrollout: {top_p: 1.0}\ngrpo: {estimator: rloo}\n")
    with pytest.raises(ConfigError, match=r"recipe\.yaml: the key 'grpo' stands twice, in line 1 and in line 3"):
        load_config([run, recipe])


def test_the_value_of_an_override_is_read_by_the_same_rules(tmp_path):
    run = tmp_path / "run.yaml"
    run.write_text(RUN)
    with pytest.raises(ConfigError, match=r"override 'grpo=\{kl: 1, kl: 2\}': the key 'kl' stands twice"):
        load_config(run, ["grpo={kl: 1, kl: 2}"])
