"""Every recipe of configs/recipes: it fits any run, holds what its paper states, and trains."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from tiny import tiny_tree

from infimmr_jax.config import load_config
from infimmr_jax.training.loop import train

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "configs" / "recipes").glob("*.yaml"))
NANO = ROOT / "configs" / "nano.yaml"
BIG = "model.path=/models/Qwen2.5-VL-3B-Instruct"
# What the papers state, at their own scale: (key, value). A key under `phases` is looked up in the numbered phase.
STATED = {
    "infi_mmr": {"reward.weights": {"accuracy": 0.9, "format": 0.1}},
    "lmm_r1": {
        "grpo.estimator": "reinforce_baseline",
        "grpo.kl.coefficient": 0.001,
        "grpo.minibatches": 16,
        "optimizer.final_share": 0.1,
        "group_size": 16,
    },
    "x_reasoner": {
        "grpo.clip_high": 0.28,
        "grpo.kl.coefficient": 0,
        "reward.weights": {"accuracy": 1},
        "group_size": 8,
    },
    "vision_r1": {"reward.combine": "hard_and", "0.max_response": 4096, "1.group_size": 8, "2.max_response": 16384},
    "observe_r1": {
        "grpo.group_weight.sigma": 1.8,
        "grpo.kl.place": "reward",
        "reward.length.over": 100,
        "grpo.minibatches": 16,
        "optimizer.schedule": "cosine",
    },
    "vl_cogito": {
        "0.grpo.group_weight.difficulty": "easy",
        "2.reward.length.unsolved_length": 750,
        "group_size": 16,
        "optimizer.weight_decay": 0.01,
    },
    "onethinker": {
        "grpo.estimator": "ema_std",
        "grpo.kl.coefficient": 0,
        "optimizer.learning_rate": 2e-6,
        "optimizer.weight_decay": 0.01,
        "grpo.clip_high": 0.3,
        "grpo.dual_clip": 3,
    },
    "apo": {
        "grpo.kl.sample_weight": "apo",
        "grpo.group_weight.kind": "apo",
        "order": "file",
        "grpo.minibatches": 16,
        "optimizer.final_share": 0.1,
    },
    "papo": {
        "grpo.perception.coefficient": 0.02,
        "grpo.kl.coefficient": 0.01,
        "group_size": 5,
        "rollout.top_p": 0.99,
        "grpo.clip_high": 0.3,
        "grpo.dual_clip": 3,
        "optimizer.weight_decay": 0.01,
    },
    "lite_ppo": {"grpo.estimator": "batch_std", "grpo.aggregation": "token_mean", "grpo.kl.coefficient": 0},
    "dapo": {
        "grpo.clip_high": 0.28,
        "grpo.minibatches": 16,
        "rollout.draws.drop": "accuracy",
        "rollout.draws.at_least": 3,
        "grpo.overlong.buffer": 4096,
        "grpo.overlong.penalty": 0.5,
    },
    "dr_grpo": {"grpo.estimator": "no_std", "grpo.aggregation": "constant", "grpo.minibatches": 8},
    "gspo": {"grpo.objective": "gspo", "grpo.aggregation": "sequence_mean", "optimizer.warmup_steps": 25},
    "rl_with_cold_start": {
        "group_size": 10,
        "rollout.temperature": 0.7,
        "reward.weights": {"accuracy": 1},
        "grpo.dual_clip": 3,
        "optimizer.weight_decay": 0.01,
    },
    "skywork_r1v3": {"2.trainable.merger": 1, "2.trainable.decoder": 0, "2.trainable.vision": 0},
    "openvlthinker": {
        "0.trainable.vision": 0,
        "2.trainable.vision": 1,
        "grpo.kl.coefficient": 0.01,
        "group_size": 5,
        "rollout.top_p": 0.99,
        "optimizer.weight_decay": 0.01,
    },
}


def test_the_promised_recipes_are_there():
    assert {path.stem for path in RECIPES} == set(STATED)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_holds_what_its_paper_states_at_either_scale(path):
    small, big = load_config([NANO, path]), load_config([NANO, path], [BIG])
    assert max(phase.max_response for phase in small.phases) <= 48, "a nano run can not pay for published lengths"
    assert min(phase.max_response for phase in big.phases) >= 2048
    for phase, before in zip(small.phases, load_config(NANO).phases, strict=True):
        assert phase.optimizer.learning_rate == before.optimizer.learning_rate, "rates of 3B models do not fit nano"
    for key, value in STATED[path.stem].items():
        first, _, rest = key.partition(".")
        found = big.phases[int(first)] if first.isdigit() else big.phases[-1]
        for part in (rest if first.isdigit() else key).split("."):
            found = getattr(found, part)
        assert found == value, key


def test_dapos_penalty_weighs_against_accuracy_as_in_its_source():
    """There accuracy is 1 or -1 and the penalty up to 1: the advantages are the same."""
    rng = np.random.default_rng(0)
    right, over = rng.integers(0, 2, (6, 16)), rng.random((6, 16))
    for extra in ([], [BIG]):
        section = load_config([NANO, ROOT / "configs" / "recipes" / "dapo.yaml"], extra).phases[0].grpo.overlong
        both = right - section.penalty * over, 2 * right - 1 - over
        ours, theirs = ((r - r.mean(1, keepdims=True)) / r.std(1, keepdims=True) for r in both)
        np.testing.assert_allclose(ours, theirs, rtol=1e-9)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_trains(path, tmp_path):
    tree = tiny_tree(tmp_path / "run") | {"sft": None, "evaluation": {}}
    tree["model"]["shape"] |= {"hidden_size": 32, "num_layers": 1, "intermediate_size": 32, "mrope_section": [1, 1, 2]}
    tree["model"]["shape"]["vision"] |= {"depth": 1, "fullatt_block_indexes": [0]}
    base = tmp_path / "base.yaml"
    base.write_text(yaml.safe_dump(tree))
    # One step a phase, and groups of one size: what is compiled for one recipe serves most others.
    fixed = [f"phases.{i}.{key}" for i in range(3) for key in ("group_size=4", "prompts_per_step=2", "steps=1")]
    fixed += [f"phases.{i}.max_response=12" for i in range(3)]
    train(load_config([base, path], fixed))
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["phase_index"] for row in rows] == [0, 1, 2]
    assert np.isfinite([row["loss"] for row in rows]).all()
    assert (tmp_path / "run" / "model" / "model.safetensors").exists()
