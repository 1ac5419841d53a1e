"""Sections of several kinds: which keys each has, what merging makes of them, and what is said of mistakes."""

import inspect

import pytest
import yaml

from infimmr_jax.config import ConfigError, apply_overrides, dump_config, load_config, parse_config
from infimmr_jax.config.reward import LengthSection
from infimmr_jax.config.schema import node_of
from infimmr_jax.rewards.lengths import LENGTH_REWARDS

PHASE = {"name": "a", "modality": "text", "steps": 4, "sources": [{"reader": "jsonl", "path": "x.jsonl"}]}
WEIGHTS = {"accuracy": 1.0, "length": 1.0}


def run(*phases, **sections):
    return parse_config({"phases": [PHASE | {"name": f"p{i}"} | phase for i, phase in enumerate(phases)], **sections})


def refusal(*phases, **sections):
    with pytest.raises(ConfigError) as error:
        run(*phases, **sections)
    return str(error.value)


@pytest.mark.parametrize("kind", node_of(LengthSection).section.members)
def test_the_schema_has_the_arguments_and_defaults_of_the_length_functions(kind):
    section = node_of(LengthSection).section.members[kind](kind=kind)
    parameters = inspect.signature(LENGTH_REWARDS[kind]).parameters
    keywords = {name: p for name, p in parameters.items() if p.kind is p.KEYWORD_ONLY}
    computed = {"gold_lengths", "answered"}
    assert section.arguments() == {name: p.default for name, p in keywords.items() if name not in computed}


def test_keys_of_other_kinds_that_say_nothing_are_left_out():
    # As older versions wrote configurations: every key of every kind, null where it is not set.
    old = {"kind": "dylr", "form": None, "low": -1.0, "bonus": None, "right": None, "cut": None}
    config = run({}, reward={"weights": WEIGHTS, "length": old}, grpo={"group_weight": {"kind": "none", "sigma": 1.8}})
    assert (config.reward.length.form, config.reward.length.low) == ("paper", -1.0)
    assert "sigma" not in yaml.safe_load(dump_config(config))["grpo"]["group_weight"]
    promotion = {"kind": "steps", "min_steps": 0, "window": None, "tokens": None}
    assert run({"promotion": promotion}).phases[0].promotion.kind == "steps"
    overlong = {"mode": "mask", "buffer": None, "penalty": 1.0}
    assert run({"grpo": {"overlong": overlong}}).phases[0].grpo.overlong.mode == "mask"


@pytest.mark.parametrize(
    ("phase", "sentence"),
    [
        (
            {"reward": {"weights": WEIGHTS, "length": {"kind": "dylr", "bonus": 1}}},
            "phases.0.reward.length.bonus: 'bonus' belongs to kind 'shortest_right', the kind is 'dylr'",
        ),
        (
            {"reward": {"weights": WEIGHTS, "length": {"kind": "dylr", "unsolved": 1}}},
            "phases.0.reward.length.unsolved: unknown key; did you mean 'unsolved_length'?",
        ),
        (
            {"reward": {"weights": WEIGHTS, "length": {"kind": "dylrr"}}},
            "phases.0.reward.length.kind: 'dylrr' is unknown; did you mean 'dylr'?",
        ),
        (
            {"reward": {"weights": WEIGHTS, "length": {"form": "code"}}},
            "reward.length.kind: kind is missing; known: dyl",
        ),
        (
            {"reward": {"weights": WEIGHTS, "length": {"kind": 3}}},
            "reward.length.kind: 3 is unknown; known: dylr, dast",
        ),
        (
            {"promotion": {"kind": "plateau", "window": 3}},
            "promotion.least_gain: least_gain is missing, kind 'plateau'",
        ),
        ({"promotion": {"window": 3}}, "phases.0.promotion.window: 'window' belongs to kind 'plateau', the kind is 's"),
        (
            {"promotion": {"kind": "tokens", "tokens": 0}},
            "phases.0.promotion.tokens: Input should be greater than 0 (got",
        ),
        (
            {"promotion": {"min_steps": 3}},
            "'min_steps' belongs to kind 'plateau' or 'accuracy' or 'tokens', the kind is",
        ),
        (
            {"grpo": {"group_weight": {"kind": "apo", "sigma": 2.0}}},
            "'sigma' belongs to kind 'observe_r1', the kind is",
        ),
        (
            {"grpo": {"overlong": {"mode": "soft"}}},
            "phases.0.grpo.overlong.buffer: buffer is missing, kind 'soft' needs",
        ),
        ({"grpo": {"overlong": {"mode": "mask", "buffer": 3}}}, "'buffer' belongs to mode 'soft', the mode is 'mask'"),
        (
            {"grpo": {"overlong": {"mode": "masc"}}},
            "phases.0.grpo.overlong.mode: 'masc' is unknown; did you mean 'mask'",
        ),
        ({"modality": "imag"}, "did you mean 'image'?"),
        ({"name": None}, "phases.0.name: "),
    ],
)
def test_mistakes_name_the_key_as_it_is_written(phase, sentence):
    assert sentence in refusal(phase)


def test_all_mistakes_of_one_section_are_named_at_once():
    said = refusal({"promotion": {"kind": "accuracy", "at_least": 2, "evry": 1}})
    assert {"promotion.at_least", "promotion.evry", "promotion.every", "promotion.problems"} <= {
        line.strip().partition(":")[0].removeprefix("phases.0.") for line in said.splitlines()[1:]
    }
    assert "did you mean 'every'?" in said


def test_a_phase_of_another_kind_loses_the_keys_of_the_old_one():
    base = {"weights": WEIGHTS, "length": {"kind": "dylr", "form": "code", "correct_from": 0.7}}
    weight = {"kind": "observe_r1", "sigma": 2.5, "tasks": ["math"]}
    config = run(
        {"reward": {"length": {"kind": "cosine", "cut": -2.0}}, "grpo": {"group_weight": {"kind": "none"}}},
        {"reward": {"length": {"low": -0.25}}, "grpo": {"group_weight": {"sigma": 3.0}}},
        reward=base,
        grpo={"group_weight": weight, "overlong": {"mode": "soft", "buffer": 8}},
    )
    other, same = config.phases
    assert (other.reward.length.kind, other.reward.length.cut, other.reward.length.correct_from) == (
        "cosine",
        -2.0,
        0.7,
    )
    assert (same.reward.length.form, same.reward.length.low) == ("code", -0.25)
    assert (other.grpo.group_weight.kind, other.grpo.group_weight.tasks) == ("none", ("math",))
    assert same.grpo.group_weight.sigma == 3.0
    # What is written has only the differences, and reads as the same.
    written = yaml.safe_load(dump_config(config))
    assert written["phases"][1]["reward"] == {"length": {"low": -0.25}}
    assert parse_config(written) == config


def test_a_key_of_the_old_kind_that_comes_with_the_new_one_is_refused():
    said = refusal(
        {"reward": {"length": {"kind": "cosine", "form": "code"}}},
        reward={"weights": WEIGHTS, "length": {"kind": "dylr", "form": "code"}},
    )
    assert "phases.0.reward.length.form: 'form' belongs to kind 'dylr', the kind is 'cosine'" in said


def test_a_later_file_may_change_the_kind(tmp_path):
    first, second = tmp_path / "a.yaml", tmp_path / "b.yaml"
    plateau = {"kind": "plateau", "window": 3, "least_gain": 0.1, "min_steps": 2}
    first.write_text(yaml.safe_dump({"phases": [PHASE | {"promotion": plateau}]}))
    second.write_text("phases: {all: {promotion: {kind: tokens, tokens: 50}}}\n")
    promotion = load_config([first, second]).phases[0].promotion
    assert (promotion.kind, promotion.tokens, promotion.min_steps) == ("tokens", 50, 2)
    changed = load_config(first, ["phases.0.promotion.kind=steps"]).phases[0].promotion
    assert changed.kind == "steps"
    either = ["phases.0.promotion.tokens=9", "phases.0.promotion.kind=tokens"]
    for overrides in (either, either[::-1]):
        assert load_config(first, overrides).phases[0].promotion.tokens == 9


def test_names_of_free_mappings_may_hold_dots():
    tree = apply_overrides(
        {"phases": [dict(PHASE)]},
        [
            "reward.weights.pkg.mod:f=0.5",
            "phases.0.reward.weights.my.own.module:g=1",
            "evaluation.sources.text=[{reader: jsonl, path: a}]",
            "evaluation.sources.text.0.path=b",
        ],
    )
    assert tree["reward"]["weights"] == {"pkg.mod:f": 0.5}
    assert tree["phases"][0]["reward"]["weights"] == {"my.own.module:g": 1}
    config = parse_config(tree)
    assert config.reward.weights == {"pkg.mod:f": 0.5}
    assert config.evaluation.sources["text"][0].path == "b"
