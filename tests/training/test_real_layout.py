"""The three phases on files as people bring them: pictures of unequal sizes, three answer types, some bad rows."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny import tiny_tree

from infimmr_jax.config import RunConfig, apply_overrides, parse_config
from infimmr_jax.data.records import DataError
from infimmr_jax.training.loop import train

SIZES = [(140, 90), (60, 200), (224, 224), (57, 300), (400, 120), (90, 91)]


def picture(folder: Path, name: str, size: tuple[int, int]) -> str:
    rng = np.random.default_rng(len(name) + size[0])
    path = folder / "images" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng.integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)).save(path)
    return f"images/{name}"


def picture_rows(folder: Path) -> list[dict]:
    rows: list[dict] = []
    for number, size in enumerate(SIZES):
        row = {"id": f"p{number}", "images": [picture(folder, f"{number}.png", size)], "caption": f"Noise {number}."}
        kinds = [
            {"question": "<image>How many?", "answer": "\\frac{3}{2}", "answer_type": "math"},
            {"question": "Which one?", "answer": "B", "answer_type": "choice", "choices": ["a cat", "a dog"]},
            {"question": "True or false?", "answer": "true", "answer_type": "string"},
        ]
        rows.append(row | kinds[number % 3])
    cut = folder / "images" / "cut.png"
    cut.write_bytes((folder / "images" / "2.png").read_bytes()[:300])
    good = {"question": "How many?", "answer": "1", "answer_type": "math", "caption": "c"}
    rows += [
        good | {"id": "missing", "images": ["images/none.png"]},
        good | {"id": "truncated", "images": ["images/cut.png"]},
        good | {"id": "outside", "images": ["../../secret.png"]},
        good | {"id": "gold", "images": ["images/0.png"], "answer": "\\frac{1}{"},
        good | {"id": "long", "images": ["images/0.png"], "question": "word " * 400},
    ]
    return rows


def write(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def tree(tmp_path):
    root = tmp_path / "data"
    text = [
        {"id": f"t{i}", "question": f"What is {i} + 1?", "answer": str(i + 1), "answer_type": "math", "images": []}
        for i in range(12)
    ]
    write(root / "words" / "train.jsonl", text)
    write(root / "pictures" / "train.jsonl", picture_rows(root / "pictures"))
    tree = tiny_tree(tmp_path / "run")
    tree["data"] = {"root": str(root), "max_prompt": 200, "image": {"min_pixels": 3136, "max_pixels": 50176}}
    tree["sft"] = None
    tree["evaluation"] = {"problems": 4, "batch_size": 4, "sources": {}}
    for phase, path in zip(tree["phases"], ["words", "pictures", "pictures"], strict=True):
        phase["sources"] = [{"reader": "jsonl", "path": f"{path}/train.jsonl"}]
        phase["steps"] = 3
    return tree


def read(tree: dict, *overrides: str) -> RunConfig:
    return parse_config(apply_overrides(tree, list(overrides)))


def test_a_run_on_real_files_is_healthy(tree):
    train(read(tree))
    run = Path(tree["output"])
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert len(metrics) == 9
    assert all(math.isfinite(row["loss"]) and math.isfinite(row["policy/grad_norm"]) for row in metrics)
    assert max(row["policy/mismatch_max"] for row in metrics) < 5e-5
    sources = {row["source"]: row for row in json.loads((run / "data.json").read_text())["sources"]}
    pictures = next(row for name, row in sources.items() if "pictures" in name)
    assert pictures["kept"] == len(SIZES)
    reasons = {row["id"]: row["reason"] for row in pictures["rejected"]}
    assert set(reasons) == {"missing", "truncated", "outside", "gold", "long"}
    assert "none.png" in reasons["missing"]
    assert "cut.png" in reasons["truncated"]
    assert "data.max_prompt" in reasons["long"]


def test_compilations_are_bounded_by_the_buckets(tree):
    train(read(tree))
    run = Path(tree["output"])
    data = json.loads((run / "data.json").read_text())
    shapes = len(data["prompt_buckets"]) * len(data["image_buckets"])
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    # After the first step everything that is not a sampler or an update for one more shape is compiled.
    grown = metrics[-1]["compile/count"] - metrics[0]["compile/count"]
    assert grown <= 2 * (shapes - 1)
    assert shapes <= 10


def test_a_phase_without_problems_is_refused_before_training(tree):
    write(Path(tree["data"]["root"]) / "empty.jsonl", [])
    with pytest.raises(DataError, match=r"empty\.jsonl"):
        train(read(tree, "phases.1.sources.0.path=empty.jsonl"))
    assert not (Path(tree["output"]) / "metrics.jsonl").exists()


def test_text_problems_in_an_image_phase_are_refused(tree):
    with pytest.raises(DataError, match="no problem is left"):
        train(read(tree, "phases.2.sources.0.path=words/train.jsonl"))
