"""A run on boxes, lists and mathematics at once: rewards by hand from the picture as the model saw it, bad golds said.

What the random policy says is replaced by chosen responses on its way to the graders; everything else is the run's own.
"""

import json
from pathlib import Path

import numpy as np
import orbax.checkpoint as ocp
import pytest
from PIL import Image
from tiny import tiny_tree

from infimmr_jax.config import RunConfig, apply_overrides, parse_config
from infimmr_jax.names import ANSWER_TYPES
from infimmr_jax.report.html import write_report
from infimmr_jax.rewards.router import score_groups
from infimmr_jax.training import evaluate, groups
from infimmr_jax.training.loop import train

# A file of 200 x 100 pixels in a budget of 112 x 112 is shown as 140 x 56: 28 px steps, aspect kept as far as they let.
FILE, SEEN = (200, 100), (140, 56)
BOX = {"question": "Where is it?", "answer": [50, 20, 150, 80], "answer_type": "box"}
LIST = {"question": "Which colours?", "answer": ["red", "green", "blue"], "answer_type": "list"}
LIST |= {"verify": {"rule": "share"}}
POINT = {"question": "Where is its middle?", "answer": [100, 50], "answer_type": "point"}
MATH = {"question": "What is 3 + 4?", "answer": "7", "answer_type": "math"}

# In seen pixels x is 0.7 and y 0.56 of the file's. The gold's left half has half of its area: IoU 0.5. (Taken for
# pixels of the file, the first answer would cover 55 x 24.8 of the gold's 100 x 60: IoU 0.195.)
SAID = {
    "box": ["[35, 11.2, 105, 44.8]", '[{"bbox_2d": [35, 11.2, 70, 44.8], "label": "it"}]'],
    "list": ["[red, green, blue]", "red, blue, green"],
    "math": ["7", "8"],
    "point": ["(72, 28)"],  # in the file (102.9, 50): 1.4 from the gold on average, and the rule forgives 2
}
SCORES = {"box": [1.0, 0.5], "list": [1.0, 1 / 3], "math": [1.0, 0.0]}


def problem_rows(folder: Path, name: str, *kinds: dict) -> list[dict]:
    image = folder / f"{name}.png"
    noise = np.random.default_rng(len(name)).integers(0, 255, (FILE[1], FILE[0], 3), dtype=np.uint8)
    Image.fromarray(noise).save(image)
    common = {"images": [image.name], "source": "made"}
    return [{"id": f"{name}-{kind['answer_type']}", **kind, **common} for kind in kinds]


def write(path: Path, rows: list[dict]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> RunConfig:
    base = tmp_path_factory.mktemp("types")
    root = base / "data"
    root.mkdir()
    rows = problem_rows(root, "train", BOX, LIST, MATH)
    bad = [
        {"id": "turned", "answer": [150, 80, 50, 20]},
        {"id": "per mille", "answer": [500, 200, 1000, 800]},
        {"id": "three", "answer": [1, 2, 3]},
        {"id": "rule", "answer": [1, 2, 3, 4], "verify": {"rule": "share"}},
        {"id": "two", "answer": [[1, 2, 3, 4], [5, 6, 7, 8]]},
        {"id": "told", "answer": [1, 2, 3, 4], "seen_size": [200, 100]},
        {"id": "and", "answer": ["salt and pepper", "x"], "answer_type": "list"},
    ]
    write(root / "train.jsonl", [*rows, *({**rows[0], **change} for change in bad)])
    near = POINT | {"verify": {"threshold": 2}}
    write(root / "heldout.jsonl", problem_rows(root, "heldout", BOX, LIST, MATH, near))
    tree = apply_overrides(tiny_tree(base / "run"), ["sft=null", f"data.root={root}", "data.max_prompt=320"])
    tree["data"] |= {"prompt_buckets": [], "image_buckets": []}
    tree["prompt"] = {"instruction": "Answer in a box. {answer_form}"}
    tree["reward"] = {"weights": {"accuracy": 1.0}, "rules": {"point": "l1"}}
    tree["grpo"] = {"estimator": "ema_std"}
    tree["phases"] = [tree["phases"][2] | {"sources": [{"reader": "jsonl", "path": "train.jsonl"}]}]
    # Every three draws are one pass over the three problems.
    tree["phases"][0] |= {"steps": 1, "prompts_per_step": 6}
    heldout = {"image": [{"reader": "jsonl", "path": "heldout.jsonl"}]}
    tree["evaluation"] = {"problems": 4, "batch_size": 4, "sources": heldout}
    tree["checkpoint"] = {"every_steps": 1}
    tree["logging"] |= {"transcripts_every": 1, "transcript_groups": 6}
    return parse_config(tree)


@pytest.fixture(scope="module")
def run(config) -> Path:
    """The directory of the whole run."""

    def said(problems, texts, *rest, **more):
        chosen = [
            [f"<think>so</think>\\boxed{{{text}}}" for text in SAID[problem.answer_type][: len(group)]]
            for problem, group in zip(problems, texts, strict=True)
        ]
        return score_groups(problems, chosen, *rest, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(groups, "score_groups", said)
        patch.setattr(evaluate, "score_groups", said)
        train(config)
    return config.output


def rows_of(run: Path, name: str) -> list[dict]:
    return [json.loads(line) for line in (run / f"{name}.jsonl").read_text().splitlines()]


def test_every_kind_is_rewarded_by_its_own_rule_in_seen_pixels(run):
    shown = [row for row in rows_of(run, "transcripts") if row["kind"] == "train"]
    assert sorted(row["answer_type"] for row in shown) == ["box", "box", "list", "list", "math", "math"]
    for row in shown:
        got = [response["components"]["accuracy"] for response in row["responses"]]
        assert got == pytest.approx(SCORES[row["answer_type"]], abs=1e-6), row["answer_type"]
        sizes = [row.get("image_size"), row.get("seen_size")]
        assert sizes == ([list(FILE), list(SEEN)] if row["answer_type"] == "box" else [None, None])
    (step,) = [row for row in rows_of(run, "metrics") if row["kind"] == "grpo"]
    assert step["reward/accuracy"] == pytest.approx((1.5 + 4 / 3 + 1.0) / 6, abs=1e-6)


def test_the_prompt_says_the_form_of_the_answer(run):
    prompts = {row["answer_type"]: row["prompt"] for row in rows_of(run, "transcripts")}
    assert "Answer in a box. The final answer is a box [x1, y1, x2, y2]" in prompts["box"]
    assert "Answer in a box. The final answer is a list in the right order" in prompts["list"]
    assert "Answer in a box.<|im_end|>" in prompts["math"]


def test_the_estimator_keeps_its_statistics_by_kind(run):
    newest = max((int(path.name), path) for path in (run / "checkpoints").iterdir() if path.name.isdigit())[1]
    with ocp.StandardCheckpointer() as reader:
        estimator = reader.restore((newest / "state").resolve())["estimator"]
    wanted = {kind: np.mean(scores) for kind, scores in SCORES.items()}
    np.testing.assert_allclose(estimator["mean"], [wanted.get(kind, 0.0) for kind in ANSWER_TYPES], atol=1e-6)
    np.testing.assert_array_equal(estimator["seen"], [int(kind in SCORES) for kind in ANSWER_TYPES])


def test_the_held_out_problems_are_graded_alike(run):
    last = rows_of(run, "evals")[-1]
    assert (last["problems"], last["correct"], last["accuracy"]) == (4, 4, 1.0)


def test_the_report_says_what_the_coordinates_refer_to(run):
    page = write_report([run], run / "report.html").read_text()
    assert "[50, 20, 150, 80] (in an image of 200 x 100, shown at 140 x 56)" in page


def test_bad_golds_are_refused_before_training_with_row_and_reason(run):
    sources = json.loads((run / "data.json").read_text())["sources"]
    rejected = {loss["id"]: loss for source in sources for loss in source["rejected"]}
    reasons = {
        "turned": "unparsable gold",
        "per mille": "lies outside the image of 200 x 100",
        "three": "unparsable gold",
        "rule": "type box has no rule 'share'",
        "two": "no answer earns the full score by rule 'iou'",
        "told": f"this run shows the image at {list(SEEN)}",
        "and": "'salt and pepper'",
    }
    assert {name: reason for name, reason in reasons.items() if reason in rejected[name]["reason"]} == reasons
    assert [loss["row"] for loss in rejected.values()] == list(range(4, 11))
