"""Captions and pass rates made by a policy: resumable, beside the problems, flagged; with and without the pictures."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import yaml
from PIL import Image
from tiny import tiny_tree

from infimmr_jax.commands import annotate
from infimmr_jax.commands.annotate import caption, difficulty
from infimmr_jax.config import ConfigError, apply_overrides, parse_config
from infimmr_jax.data.annotation import read_captions, read_pass_rates
from infimmr_jax.data.captions import CaptionFile
from infimmr_jax.data.curriculum import build_curriculum, iterate
from infimmr_jax.data.records import DataError
from infimmr_jax.rewards.golds import GoldCheck
from infimmr_jax.rewards.pool import GraderPool
from infimmr_jax.rollout.policy import Answers, Sampling, answer, load_policy, plan

SHORT = Sampling(max_tokens=16)


@pytest.fixture
def model(policy_directory):
    return policy_directory


@pytest.fixture
def tree(tmp_path):
    """Five problems with pictures (the first brings its caption), three of text."""
    root = tmp_path / "data"
    (root / "set" / "images").mkdir(parents=True)
    pictures = []
    for n in range(5):
        pixels = np.random.default_rng(n).integers(0, 255, (60 + 20 * n, 90, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "set" / "images" / f"{n}.png")
        row = {"id": f"p{n}", "question": "How many?", "answer": str(n), "answer_type": "math", "subject": "ab"[n % 2]}
        pictures.append(row | {"images": [f"images/{n}.png"]})
    pictures[0]["caption"] = "its own"
    texts = [{"id": f"t{n}", "question": f"{n} + 1?", "answer": str(n + 1), "answer_type": "math"} for n in range(3)]
    for name, rows in (("pictures", pictures), ("texts", texts)):
        (root / "set" / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    overrides = ["sft=null", "evaluation={}", f"data.root={root}", "data.prompt_buckets=[]", "data.image_buckets=[]"]
    tree = apply_overrides(tiny_tree(tmp_path / "run"), overrides)
    tree["phases"][0]["sources"] = [{"reader": "jsonl", "path": "set/texts.jsonl"}]
    tree["phases"][1]["sources"] = [{"reader": "jsonl", "path": "set/pictures.jsonl"}]
    tree["phases"][2]["sources"] = tree["phases"][1]["sources"]
    return tree


def stored(tree, kind, name="pictures"):
    return f"{tree['data']['root']}/set/{name}.{kind}"


def rows_of(tree, kind="captions.jsonl", name="pictures"):
    with open(stored(tree, kind, name), encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def test_a_policy_captions_what_has_no_caption_and_goes_on_after_a_kill(model, tree, tmp_path):
    config, said = parse_config(tree), []
    policy = load_policy(config, model)
    original = (tmp_path / "data" / "set" / "pictures.jsonl").read_bytes()
    caption(config, policy, SHORT, 2, said.append)
    whole = rows_of(tree)
    assert [row["id"] for row in whole] == ["p1", "p2", "p3", "p4"]
    assert all(row["maker"] == str(model) and row["caption"] for row in whole)
    assert len({row["caption"] for row in whole}) > 1
    assert (tmp_path / "data" / "set" / "pictures.jsonl").read_bytes() == original
    report = json.loads((tmp_path / "data" / "set" / "pictures.captions.report.json").read_text())
    assert (report["problems"], report["own"], report["captioned"]) == (5, 1, 4)
    assert report["flags"]["cut at the length limit"] == [
        r["id"] for r in whole if "cut at the length limit" in r["flags"]
    ]
    # A kill after the first batch, in the middle of a line: the rest is made again, to the same captions.
    path = stored(tree, "captions.jsonl")
    with open(path, "rb+") as file:
        file.truncate(len("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in whole[:2]).encode()) + 9)
    said.clear()
    caption(config, policy, SHORT, 2, said.append)
    assert rows_of(tree) == whole
    assert any("2 captions made, 4 in all" in line for line in said)


def test_the_command_captions_on_all_devices_and_phase_two_uses_them(model, tree, tmp_path):
    config = parse_config(tree)
    caption(config, load_policy(config, model), SHORT, 4, lambda line: None)
    alone = rows_of(tree)
    os.remove(stored(tree, "captions.jsonl"))
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(tree))
    command = [sys.executable, "-m", "infimmr_jax.cli", "caption", "--config", str(tmp_path / "run.yaml")]
    command += ["--model", str(model), "--max-tokens", "16", "--batch-size", "3"]
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=2"
    done = subprocess.run(
        command, env={**os.environ, "XLA_FLAGS": flags}, capture_output=True, text=True, check=False, timeout=240
    )
    assert done.returncode == 0, done.stderr
    assert rows_of(tree) == alone
    assert "captions: set/pictures.captions.jsonl" in done.stdout
    tree["phases"][1]["sources"] = [tree["phases"][1]["sources"][0] | {"captions": "set/pictures.captions.jsonl"}]
    built = build_curriculum(parse_config(tree), lambda problem, modality: problem.caption, list, golds=GoldCheck())
    shown = {p.id: p.caption for batch in iterate(built) for p in batch.problems if batch.phase_index == 1}
    assert shown == {row["id"]: row["caption"] for row in alone} | {"p0": "its own"}


def test_captions_of_a_file_are_found_by_id_or_image_and_flagged(tree, tmp_path):
    rows = [
        {"id": "p1", "caption": "There is 1 thing."},
        {"image": "set/images/2.png", "caption": "<image>Two <image>dots"},
        {"image": "3.png", "description": " \n"},
        {"id": "other", "caption": "of nothing here"},
    ]
    (tmp_path / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    said = []
    config = parse_config(tree)
    caption(config, CaptionFile(tmp_path / "captions.jsonl"), SHORT, 2, said.append)
    assert {row["id"]: (row["caption"], row["flags"]) for row in rows_of(tree)} == {
        "p1": ("There is 1 thing.", ["holds the answer"]),
        "p2": ("Two dots", []),
        "p3": ("", ["empty"]),
    }
    assert any("1 of 4 have none" in line for line in said)
    assert any("1 flagged: holds the answer" in line for line in said)
    caption(config, CaptionFile(tmp_path / "captions.jsonl"), SHORT, 2, said.append, replace=True)
    assert len(rows_of(tree)) == 3  # p0 has none in the file


def test_a_pass_rate_is_the_share_of_right_answers_with_and_without_the_picture(model, tree, tmp_path, monkeypatch):
    config, said, asked = parse_config(tree), [], []
    policy = load_policy(config, model)

    def solves(policy, plans, settings, rows, seed):
        """Sample 0 is always right, sample 1 where the picture is shown, and the text problem 2 never."""
        asked.append([plan.name for plan in plans])

        def text(plan, sample):
            right = plan.name != "t2" and (sample == 0 or (sample == 1 and bool(plan.visuals)))
            gold = int(plan.name[1]) + (plan.name[0] == "t")
            return f"<think>x</think>\\boxed{{{gold if right else 77}}}"

        texts = [[text(plan, sample) for sample in range(settings.group_size)] for plan in plans]
        return Answers(texts, np.ones((len(plans), 4), bool), np.full((len(plans), 4), 5))

    monkeypatch.setattr(annotate, "answer", solves)
    with GraderPool() as pool:
        four = Sampling(samples=4, max_tokens=16, temperature=1.0)
        difficulty(config, policy, pool, four, 2, said.append)
        calls = len(asked)
        difficulty(config, policy, pool, four, 2, said.append)
        assert len(asked) == calls
        with pytest.raises(DataError, match=r"holds pass rates of .*k=4"):
            difficulty(config, policy, pool, Sampling(samples=2, temperature=1.0), 2, said.append)
    assert read_pass_rates(parse_config(tree).data.root / "set" / "pictures.pass_rates.jsonl") == {
        f"p{n}": {"pass_rate": 0.5, "pass_rate_text": 0.25} for n in range(5)
    }
    rates = {row["id"]: row["pass_rate"] for row in rows_of(tree, "pass_rates.jsonl", "texts")}
    assert rates == {"t0": 0.25, "t1": 0.25, "t2": 0.0}
    report = json.loads((tmp_path / "data" / "set" / "pictures.pass_rates.report.json").read_text())
    assert (report["mean"], report["mean_gap"], report["bands"]["(0.25, 0.5]"]) == (0.5, 0.25, 5)
    assert report["subjects"]["a"] == {"problems": 3, "mean": 0.5}
    # The rates become levels: the text phase takes its problems from easy to hard.
    tree["phases"][0] |= {"order": "easy_to_hard", "filters": {"min_pass_rate": 0.2}, "prompts_per_step": 2, "steps": 1}
    tree["phases"][0]["sources"] = [
        {"reader": "jsonl", "path": "set/texts.jsonl", "pass_rates": "set/texts.pass_rates.jsonl"}
    ]
    built = build_curriculum(
        parse_config(tree | {"phases": tree["phases"][:1]}), lambda problem, modality: 0, list, golds=GoldCheck()
    )
    assert [[p.id for p in batch.problems] for batch in iterate(built)] == [["t0", "t1"]]


def test_samples_of_a_problem_differ_and_the_same_batch_gives_the_same(model, tree):
    config = parse_config(tree)
    policy = load_policy(config, model)
    problems = annotate._problems(config.phases[2].sources[0], "image", config)[:3]
    plans = [plan(policy, "image", problem) for problem in problems]
    settings = Sampling(samples=3, max_tokens=16, temperature=1.0).settings(config.rollout)
    first, again = (answer(policy, plans, settings, 4, seed=5) for _ in range(2))
    assert first.texts == again.texts
    assert len(first.texts) == 3
    assert all(len(set(group)) == 3 for group in first.texts)
    assert first.texts != answer(policy, plans, settings, 4, seed=6).texts


def test_what_can_not_work_is_a_sentence(tree, tmp_path):
    with pytest.raises(ConfigError, match="--model"):
        load_policy(parse_config(tree), None)
    made = [{"reader": "synthetic", "families": ["bars"], "size": 8}]
    tree["phases"] = [phase | {"sources": made} for phase in tree["phases"]]
    (tmp_path / "c.jsonl").write_text('{"id": "a", "caption": "x"}\n')
    with pytest.raises(ConfigError, match="nothing to annotate"):
        caption(parse_config(tree), CaptionFile(tmp_path / "c.jsonl"), SHORT, 2, print)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"id": "a"}', "row 2: expected `caption`"),
        ('{"caption": "x"}', "row 2: expected"),
        ('{"id": "a", "caption": "y"}', "another caption of 'a'"),
        ("[1]", "row 2: the row is a list"),
        ("{", "row 2: not valid JSON"),
    ],
)
def test_a_caption_file_with_a_fault_names_the_row(tmp_path, line, reason):
    (tmp_path / "c.jsonl").write_text('{"id": "a", "caption": "x"}\n' + line + "\n")
    with pytest.raises(DataError, match=reason):
        CaptionFile(tmp_path / "c.jsonl")


def test_thoughts_and_control_tokens_are_no_part_of_a_caption(model, tree, monkeypatch):
    texts = [["<think>I see 2</think>\nTwo <|im_end|>dots."], ["Three dots. "], ["<think>without an end"], ["x"]]

    def says(policy, plans, settings, rows, seed):
        assert all("How many" not in plan.text for plan in plans)  # the question is not shown
        return Answers(texts, np.ones((4, 1), bool), np.full((4, 1), 5))

    monkeypatch.setattr(annotate, "answer", says)
    config = parse_config(tree)
    caption(config, load_policy(config, model), SHORT, 4, lambda line: None)
    assert [row["caption"] for row in rows_of(tree)] == ["Two dots.", "Three dots.", "", "x"]
    assert rows_of(tree)[2]["flags"] == ["empty"]


def repeats(texts, seen=None):
    """A policy that always says the same."""

    def says(policy, plans, settings, rows, seed):
        if seen is not None:
            seen.append(settings)
        shape = len(plans), settings.group_size
        return Answers([[texts] * shape[1]] * shape[0], np.ones(shape, bool), np.full(shape, 5))

    return says


def test_captions_of_other_weights_or_sampling_are_refused_or_replaced(model, tree, tmp_path, monkeypatch):
    config, made = parse_config(tree), []
    policy = load_policy(config, model)
    monkeypatch.setattr(annotate, "answer", repeats("first"))
    caption(config, policy, SHORT, 4, made.append)
    trained = tmp_path / "trained"
    shutil.copytree(model, trained)
    (trained / "model.safetensors").write_bytes((model / "model.safetensors").read_bytes()[:-1] + b"x")
    changed = dataclasses.replace(policy, name=str(trained))
    monkeypatch.setattr(annotate, "answer", repeats("second"))
    for other, sampling in (
        (changed, SHORT),
        (policy, Sampling(max_tokens=8)),
        (policy, Sampling(max_tokens=16, seed=1)),
    ):
        with pytest.raises(DataError, match=r"holds captions of .*, not of .*: pass --replace, or remove it"):
            caption(config, other, sampling, 4, made.append)
    assert {row["caption"] for row in rows_of(tree)} == {"first"}
    for _ in range(2):  # The second call finds nothing left to do.
        caption(config, changed, SHORT, 4, made.append, replace=True)
    assert [row["caption"] for row in rows_of(tree)] == ["first"] * 4 + ["second"] * 5
    assert read_captions(config.data.root / "set" / "pictures.captions.jsonl") == {f"p{n}": "second" for n in range(5)}
    # What an older version wrote says nothing about the weights.
    rows = [{"id": "p1", "caption": "x", "maker": policy.name, "flags": []}]
    with open(stored(tree, "captions.jsonl"), "w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    with pytest.raises(DataError, match="holds captions of"):
        caption(config, policy, SHORT, 4, made.append)


def test_a_policy_leaves_the_captions_of_a_file_and_a_changed_file_is_read_again(model, tree, tmp_path, monkeypatch):
    config = parse_config(tree)
    monkeypatch.setattr(annotate, "answer", repeats("the model's"))
    for text in ("typed", "corrected"):
        (tmp_path / "c.jsonl").write_text(json.dumps({"id": "p1", "caption": text}) + "\n")
        caption(config, CaptionFile(tmp_path / "c.jsonl"), SHORT, 4, lambda line: None)
        caption(config, load_policy(config, model), SHORT, 4, lambda line: None)
        expected = {"p1": text} | {f"p{n}": "the model's" for n in (2, 3, 4)}
        assert read_captions(config.data.root / "set" / "pictures.captions.jsonl") == expected


def test_a_policy_is_measured_with_the_sampling_of_its_phase(model, tree, monkeypatch):
    tree["rollout"] = {**tree.get("rollout", {}), "stop": ["</answer>"]}
    tree["phases"][2]["rollout"] = {"repetition_penalty": 1.2}
    config, seen = parse_config(tree), []
    policy = load_policy(config, model)
    monkeypatch.setattr(annotate, "answer", repeats("x", seen))
    with GraderPool() as pool:
        difficulty(config, policy, pool, Sampling(samples=2, max_tokens=8, temperature=1.0), 8, lambda line: None)
    assert [(one.stop, one.repetition_penalty) for one in seen] == [(("</answer>",), p) for p in (1.0, 1.2, 1.2)]
    caption(config, policy, SHORT, 8, lambda line: None)
    assert (seen[-1].stop, seen[-1].repetition_penalty, seen[-1].temperature) == (("</answer>",), 1.2, 0.0)
