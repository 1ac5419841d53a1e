"""Outside of training too coordinates are those of the picture as it is shown: rejection sampling, pass rates."""

import json

import numpy as np
import pytest
from PIL import Image
from tiny import tiny_tree

from infimmr_jax.commands import annotate, rejection
from infimmr_jax.commands.annotate import difficulty
from infimmr_jax.config import apply_overrides, parse_config
from infimmr_jax.data.annotation import read_pass_rates
from infimmr_jax.rewards.pool import GraderPool
from infimmr_jax.rollout.policy import Answers, Sampling, load_policy

SAMPLING = Sampling(samples=3, max_tokens=8, temperature=1.0)
# A file of 200 x 100 is shown at 140 x 56: the first box is the gold, the others its left 60 and 40 %.
SAID = {
    "box": ["[35, 11.2, 105, 44.8]", "[35, 11.2, 77, 44.8]", "[35, 11.2, 63, 44.8]"],
    "list": ["[red, green]", "[red, blue]", "[green, red]"],
}


@pytest.fixture
def asked(policy_directory, tmp_path, monkeypatch):
    """The run and a policy whose answers are made up; one problem has a box, one a list whose places count apart."""
    root = tmp_path / "data"
    root.mkdir()
    Image.new("RGB", (200, 100), "red").save(root / "wide.png")
    row = {"question": "Where?", "images": ["wide.png"]}
    rows = [
        row | {"id": "box", "answer": [50, 20, 150, 80], "answer_type": "box"},
        row | {"id": "list", "answer": ["red", "green"], "answer_type": "list", "verify": {"rule": "share"}},
    ]
    (root / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    overrides = ["sft=null", "evaluation={}", f"data.root={root}", "data.prompt_buckets=[]", "data.image_buckets=[]"]
    tree = apply_overrides(tiny_tree(tmp_path / "run"), overrides)
    tree["phases"] = [tree["phases"][2] | {"sources": [{"reader": "jsonl", "path": "train.jsonl"}]}]

    def answer(policy, plans, settings, rows, seed):
        texts = [[f"<think>so</think>\\boxed{{{text}}}" for text in SAID[plan.name]] for plan in plans]
        return Answers(texts, np.ones((len(plans), 3), bool), np.tile([7, 6, 5], (len(plans), 1)))

    monkeypatch.setattr(rejection, "answer", answer)
    monkeypatch.setattr(annotate, "answer", answer)
    config = parse_config(tree)
    with GraderPool() as pool:
        yield config, load_policy(config, policy_directory), pool, root


def test_boxes_of_enough_overlap_and_whole_lists_become_demonstrations(asked, tmp_path):
    config, policy, pool, _ = asked
    out = tmp_path / "out"
    rejection.rejection_sample(config, policy, pool, SAMPLING, out, "all", 2, lambda line: None)
    kept = [json.loads(line) for line in (out / "demonstrations.jsonl").read_text().splitlines()]
    answers = [(row["id"].rsplit(":")[-1], row["messages"][-1]["content"].partition("boxed")[2]) for row in kept]
    assert answers == [
        ("box#0", "{[35, 11.2, 105, 44.8]}"),
        ("box#1", "{[35, 11.2, 77, 44.8]}"),
        ("list#0", "{[red, green]}"),
    ]


def test_pass_rates_with_and_without_the_picture_are_graded_alike(asked):
    config, policy, pool, root = asked
    difficulty(config, policy, pool, SAMPLING, 2, lambda line: None)
    rates = read_pass_rates(root / "train.pass_rates.jsonl")
    assert rates["box"] == pytest.approx({"pass_rate": 2 / 3, "pass_rate_text": 2 / 3})
    assert rates["list"] == pytest.approx({"pass_rate": 1 / 3, "pass_rate_text": 1 / 3})
