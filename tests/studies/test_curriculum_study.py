"""The study's arms have equal budgets, and its tables say what the runs' files say."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from infimmr_jax.config import parse_config
from studies.curriculum.arms import ARMS, arm_phases, token_phases
from studies.curriculum.summary import BEGIN, END, deepest_fall, mean_interval, write_document

PHASES = [
    {"name": "1 text", "modality": "text", "steps": 30, "group_size": 8},
    {"name": "2 caption", "modality": "caption", "steps": 15, "group_size": 8},
    {"name": "3 image", "modality": "image", "steps": 75, "group_size": 8},
]


@pytest.mark.parametrize("arm", ARMS)
@pytest.mark.parametrize("budget", [120, 97, 7])
def test_every_arm_takes_the_same_number_of_steps(arm, budget):
    phases = arm_phases(arm, PHASES, budget)
    assert sum(phase["steps"] for phase in phases) == budget
    assert tuple(phase["modality"] for phase in phases) == ARMS[arm]
    assert all(phase["steps"] > 0 and phase["group_size"] == 8 for phase in phases)


def test_the_full_curriculum_is_the_configuration():
    assert [phase["steps"] for phase in arm_phases("full", PHASES, 120)] == [30, 15, 75]
    assert [phase["steps"] for phase in arm_phases("no caption", PHASES, 105)] == [30, 75]


@pytest.mark.parametrize("arm", ARMS)
def test_every_arm_samples_the_same_number_of_tokens(arm):
    phases = token_phases(arm, [{**phase, "prompts_per_step": 32} for phase in PHASES], 900_000)
    ends = [phase["promotion"]["tokens"] for phase in phases]
    assert sum(ends) == pytest.approx(900_000, abs=len(ends))
    assert tuple(phase["modality"] for phase in phases) == ARMS[arm]
    # Even answers of 4 tokens reach the end before the steps are over.
    assert all(phase["steps"] * 32 * 8 * 4 >= end for phase, end in zip(phases, ends, strict=True))


@pytest.mark.parametrize("config", ["configs/nano.yaml", "studies/curriculum/larger.yaml"])
def test_the_configurations_of_the_study_can_be_used(config):
    root = Path(__file__).parents[2]
    tree = yaml.safe_load((root / config).read_text())
    for arm in ARMS:
        found = parse_config({**tree, "phases": token_phases(arm, tree["phases"], 900_000)})
        assert [phase.promotion.kind for phase in found.phases] == ["tokens"] * len(ARMS[arm])


def test_interval_is_students():
    # t(0.975, 2) = 4.302653, standard deviation of 1, 2, 3 is 1.
    mean, low, high = mean_interval([1.0, 2.0, 3.0])
    np.testing.assert_allclose([mean, high - mean, mean - low], [2, 4.302653 / 3**0.5, 4.302653 / 3**0.5], rtol=1e-6)


def test_deepest_fall_is_of_the_moving_mean():
    values = [0.0] * 10 + [1.0] * 10 + [0.5] * 10 + [1.0] * 10
    assert deepest_fall(values) == pytest.approx(0.5)
    assert deepest_fall([0.3, 0.1]) == 0.0


def write_run(folder, cold, accuracy, stages):
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "config.json").write_text("{}")
    evals = [
        {"stage": str(index), "stage_index": index, "modality": modality, "problems": 50, "length": 9.0}
        | {"accuracy": cold if index == 0 else accuracy}
        for index in range(stages + 1)
        for modality in ("text", "caption", "image")
    ]
    steps = [
        {"kind": "grpo", "phase_index": phase, "reward/accuracy": 0.5, "rollout/tokens": 1000, "policy/skipped": 0}
        | {"policy/grad_norm": 1.0, "response/truncated": 0.0}
        for phase in range(stages)
        for _ in range(4)
    ]
    (folder / "evals.jsonl").write_text("\n".join(map(json.dumps, evals)))
    (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, steps)))


def test_document_pairs_the_arms_by_seed_and_leaves_the_discussion_alone(tmp_path):
    for seed in (0, 1):
        write_run(tmp_path / f"seed{seed}" / "cold", 0.1, 0.1, 1)
        write_run(tmp_path / f"seed{seed}" / "full", 0.1, 0.6 + 0.1 * seed, 3)
        write_run(tmp_path / f"seed{seed}" / "direct", 0.1, 0.5 + 0.3 * seed, 1)
    document = tmp_path / "study.md"
    document.write_text(f"# Study\n{BEGIN}yesterday{END}\nMy discussion.\n")
    write_document(tmp_path, document)
    text = document.read_text()
    assert "yesterday" not in text
    assert text.endswith("My discussion.\n")
    assert "| cold start only | **10.0** ± 0.0 (10, 10)" in text
    assert "| full: text, then captions, then images | **65.0**" in text
    # full - direct is +10 on seed 0 and -10 on seed 1.
    assert "| direct | +0.0 [-127.1, +127.1] (+10, -10)" in text
    assert (tmp_path / "study.svg").read_text().startswith("<?xml")


def test_a_document_without_the_marks_is_not_overwritten(tmp_path):
    write_run(tmp_path / "seed0" / "full", 0.1, 0.6, 3)
    document = tmp_path / "study.md"
    document.write_text("mine")
    with pytest.raises(ValueError, match="lacks the lines"):
        write_document(tmp_path, document)
    assert document.read_text() == "mine"
