"""What phases change of a run: merged key by key, validated whole, written back as differences."""

import pytest
import yaml

from infimmr_jax.config import (
    ConfigError,
    GrpoSection,
    RewardSection,
    RolloutSection,
    dump_config,
    dump_phases,
    parse_config,
)

PHASE = {"name": "a", "modality": "text", "steps": 4, "sources": [{"reader": "jsonl", "path": "x.jsonl"}]}


def run(*phases, **sections):
    return parse_config({"phases": [PHASE | {"name": f"p{i}"} | phase for i, phase in enumerate(phases)], **sections})


def test_a_phase_changes_what_it_names_and_keeps_the_rest():
    change = {
        "grpo": {"kl": {"coefficient": 0.2}},
        "reward": {"weights": {"accuracy": 1.0}},
        "rollout": {"temperature": 0.7},
        "trainable": {"vision": False},
    }
    config = run(
        {},
        change,
        grpo={"kl": {"estimator": "k2", "coefficient": 0.1}, "estimator": "rloo"},
        rollout={"top_p": 0.9},
        trainable={"merger": 0.5},
    )
    plain, changed = config.phases
    assert (plain.grpo, plain.reward, plain.rollout, plain.trainable) == (
        config.grpo,
        config.reward,
        config.rollout,
        config.trainable,
    )
    assert (changed.grpo.estimator, changed.grpo.kl.estimator, changed.grpo.kl.coefficient) == ("rloo", "k2", 0.2)
    assert changed.reward.weights == {"accuracy": 1.0}
    assert (changed.rollout.temperature, changed.rollout.top_p) == (0.7, 0.9)
    assert (changed.trainable.vision, changed.trainable.merger) == (0.0, 0.5)


def test_another_objective_brings_its_own_clip():
    config = run({"grpo": {"objective": "gspo"}}, {"grpo": {"clip_low": 0.1}}, grpo={"clip_low": 0.2, "clip_high": 0.3})
    assert (config.phases[0].grpo.clip_low, config.phases[0].grpo.clip_high) == (3e-4, 4e-4)
    assert (config.phases[1].grpo.clip_low, config.phases[1].grpo.clip_high) == (0.1, 0.3)


def test_the_written_run_holds_differences_and_the_phases_whole_sections():
    config = run({}, {"grpo": {"objective": "gspo"}, "optimizer": {"learning_rate": 1e-5}})
    tree = yaml.safe_load(dump_config(config))
    assert "grpo" not in tree["phases"][0]
    assert tree["phases"][1]["grpo"] == {"objective": "gspo", "clip_low": 3e-4, "clip_high": 4e-4}
    assert parse_config(tree) == config
    whole = yaml.safe_load(dump_phases(config))
    assert whole[1]["grpo"]["estimator"] == "grpo"
    assert [phase["optimizer"]["learning_rate"] for phase in whole] == [1e-6, 1e-5]


@pytest.mark.parametrize(
    ("phase", "sentence"),
    [
        ({"grpo": {"objectiv": "gspo"}}, "phases.0.grpo.objectiv: unknown key; did you mean 'objective'?"),
        ({"grpo": {"clip_low": 3}}, "phases.0.grpo: "),
        ({"reward": {"workers": 3}}, "phases.0.reward.workers: the graders are started once"),
        ({"optimizer": {"warmup_steps": 2}}, "set span: phase"),
        ({"optimizer": {"warmup_steps": 4, "span": "phase"}}, "leaves nothing of the 4 steps"),
        ({"optimizer": {"kind": "muon"}}, "set optimizer.kind for the run"),
        ({"grpo": {"overlong": {"mode": "soft", "buffer": 99}}}, "99 tokens do not fit into responses of 48"),
        ({"grpo": {"kl": {"coefficient": 1, "schedule": "linear", "span": "phase", "start_step": 4}}}, "start_step: 4"),
        ({"grpo": {"kl": {"reference": "ema"}}}, "has no meaning without a KL term"),
        ({"grpo": {"group_weight": {"kind": "apo", "component": "acuracy"}}}, "no component of this phase's reward"),
        (
            {"grpo": {"group_weight": {"kind": "apo", "tasks": ["boxes"]}}},
            "'boxes' is no answer type; did you mean 'box'",
        ),
        ({"grpo": {"group_weight": {"kind": "apo", "tasks": ["x"]}}}, "tasks: 'x' is no answer type; tasks are answer"),
        ({"grpo": {"importance": {"mode": "mask", "high": 3}}}, "change nothing at level 'none'; set level"),
        ({"reward": {"limit": 0}}, "phases.0.reward.limit"),
        (
            {"grpo": {"estimator": "component_mean"}, "rollout": {"draws": {"drop": "equal", "at_most": 2}}},
            "rollout.draws.drop: 'equal' looks at the total reward",
        ),
        (
            {"grpo": {"estimator": "gdpo"}, "rollout": {"draws": {"drop": "equal", "at_most": 2, "keep": "spread"}}},
            "rollout.draws.keep: 'spread' looks at the total reward",
        ),
        ({"grpo": {"estimator": "gdpo"}, "reward": {"combine": "hard_and"}}, "'hard_and' would be lost"),
        ({"reward": {"weights": {"accuracy": 1, "length": 1}}}, "set reward.length"),
        ({"reward": {"length": {"kind": "dylr"}}}, "weights.length"),
        ({"reward": {"weights": {"length": 1}, "length": {"kind": "dylr", "bonus": 1}}}, "belongs to kind 'shortest"),
        ({"reward": {"weights": {"accuracy": 2}, "combine": "multiply"}}, "needs one in [0, 1]"),
        ({"trainable": {"vision": 0, "merger": 0, "decoder": 0, "embeddings": 0}}, "nothing to train"),
        ({"trainable": {"decoder": False, "layers": [[0, 1]]}}, "give ranges and decoder > 0"),
        ({"promotion": {"kind": "plateau", "window": 3}}, "least_gain is missing"),
        ({"promotion": {"kind": "accuracy", "at_least": 0.5, "every": 2, "problems": 4}}, "evaluation.sources.text"),
        ({"rollout": {"draws": {"drop": "equal"}}}, "set at_most above 1"),
        ({"rollout": {"draws": {"at_most": 3}}}, "set drop"),
        ({"rollout": {"draws": {"at_least": 2, "at_most": 2}}}, "would never be kept"),
    ],
)
def test_mistakes_in_a_phase_are_named(phase, sentence):
    with pytest.raises(ConfigError) as error:
        run(phase)
    assert sentence in str(error.value)


def test_a_mistake_in_the_run_is_said_once():
    with pytest.raises(ConfigError) as error:
        run({}, {"grpo": {"clip_low": 0.1}}, grpo={"objectiv": "gspo"})
    assert str(error.value).count("objectiv:") == 1


def test_the_initial_policy_can_not_come_back_as_reference():
    first = {"grpo": {"kl": {"coefficient": 0.1, "reference": "phase_start"}}}
    with pytest.raises(ConfigError, match=r"phases\.1\.grpo\.kl\.reference: 'initial' is no longer there"):
        run(first, {"grpo": {"kl": {"coefficient": 0.1}}})
    run(first, {})


def test_draws_by_accuracy_go_with_estimators_of_components():
    draws = {"rollout": {"draws": {"drop": "accuracy", "at_most": 2}}}
    (phase,) = run({"grpo": {"estimator": "gdpo"}} | draws).phases
    assert phase.rollout.draws.drop == "accuracy"


def test_rewards_are_bounded_by_their_weights_unless_a_limit_is_given():
    assert RewardSection().largest() == 1000
    assert RewardSection(weights={"accuracy": 2.0, "format": -0.5}).largest() == 2500
    assert RewardSection(limit=7.0).largest() == 7


@pytest.mark.parametrize(("vocabulary", "tokens"), [(400, 1024), (39_000, 1024), (151_936, 256), (2_000_000, 64)])
def test_a_chunk_of_logits_is_bounded_unless_it_is_given(vocabulary, tokens):
    assert GrpoSection().chunk_for(vocabulary) == tokens
    assert tokens * vocabulary <= 40_000_000 or tokens == 64
    assert GrpoSection(logprob_chunk=7).chunk_for(vocabulary) == 7


def test_long_answers_are_compacted_unless_it_is_given():
    assert [RolloutSection().compactions_for(length) for length in (64, 65, 256, 257, 2048)] == [0, 2, 2, 6, 6]
    assert RolloutSection(compactions=6).compactions_for(8) == 6
