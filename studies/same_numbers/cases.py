"""What is recorded: the parts, the configurations laid over the recorded revision's own, and small inputs."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image, ImageDraw

RECIPES = ("dapo", "papo", "observe_r1", "vl_cogito")
MODALITIES = ("text", "caption", "image")
SIDE = 112  # pixels: 64 patches, the one image bucket of configs/nano.yaml

# Sizes at which every part takes seconds. The deadline is long: on a busy machine a grader must not be cut off.
SMALL: dict[str, Any] = {
    "phases": {"all": {"steps": 3, "prompts_per_step": 8, "group_size": 8}},
    "evaluation": {"problems": 16, "batch_size": 16},
    "reward": {"deadline_seconds": 120, "workers": 1},
    "logging": {"tensorboard": False, "transcripts_every": 1},
    # Every checkpoint is kept: one inside the cold start and one inside the second phase make the stopped runs.
    "checkpoint": {"every_steps": 5, "keep_last": 100},
}
BARS = {"reader": "synthetic", "families": ["bars"], "size": 400}
WITHOUT_COLD_START = {"sft": None, "model": {"path": "runs/start/model"}}
NANO = {
    "sft": {
        "stages": [
            {"name": "worked solutions", "steps": 3, "worked_share": 1.0},
            {"name": "cold start", "steps": 3, "worked_share": 0.1, "learning_rate": 1.0e-3},
        ],
        "batch_size": 8,
        "warmup_steps": 1,
    }
}
# Enough to answer in the format and be right now and then: without that no group of a recipe has a signal.
START = {
    "sft": {
        "stages": [{"name": "cold start", "steps": 70, "worked_share": 0.2}],
        "batch_size": 16,
        "learning_rate": 8.0e-3,
    },
    "phases": [{"name": "one", "modality": "text", "sources": [BARS], "steps": 1, "max_response": 24}],
}
# Whatever the other parts leave at its default.
OPTIONS = {
    "phases": {"all": {"steps": 4}},
    "optimizer": {"kind": "adamw", "learning_rate": 1.0e-3, "schedule": "cosine", "final_share": 0.1},
    "grpo": {"minibatches": 2, "micro_batches": 2},
    "rollout": {"top_p": 0.95},
    "evaluation": {"every_steps": 2, "problems_inside": 8},
    "checkpoint": {"keep_best": {"metric": "text/accuracy"}},
}
PACKED = {
    "data": {"root": "inputs"},
    "sft": {
        "stages": [{"name": "cold start", "steps": 6, "worked_share": 0.5}],
        "sources": {"image": [BARS]},
        "conversations": [{"path": "conversations.jsonl", "weight": 2}],
        "packed_length": 160,
        "batch_size": 8,
        "warmup_steps": 1,
    },
    "phases": [{"name": "one", "modality": "image", "sources": [BARS], "steps": 2, "max_response": 24}],
}


@dataclasses.dataclass(frozen=True)
class Part:
    """One thing that is recorded: commands of the program, run one after the other in the record's directory.

    `run` is the run directory of a training run below `runs`, None for other commands; `outputs` are files of rows that
    those write. `needs` is the part whose model is read. `stopped` keeps checkpoints; `programs` keeps what the
    compiler made.
    """

    name: str
    commands: tuple[tuple[str, ...], ...]
    run: str | None = None
    outputs: tuple[str, ...] = ()
    needs: str | None = None
    stopped: bool = False
    programs: bool = False


def training(name: str, *layers: str, **options: Any) -> Part:
    """A training run of the layers `configs/LAYER.yaml`, the later ones' values winning."""
    files = [word for layer in layers for word in ("--config", f"configs/{layer}.yaml")]
    return Part(name, (("train", *files, "--set", f"output=runs/{name}"),), run=name, **options)


def recipe(name: str) -> Part:
    """Three phases of a recipe from the model of the part `start`."""
    layers = ("nano", f"{name}_recipe", f"{name}_scale", "without_cold_start", "small")
    return training(name, *layers, needs="start")


EVALUATED = ("result.json", "grades.jsonl")
MATH = ("evaluate", "--benchmark", "math500", "--data", "inputs/math500/test.jsonl")
VISION = ("evaluate", "--benchmark", "mathvision", "--data", "inputs/mathvision")
SAMPLED = ("--style", "plain", "--samples", "2", "--max-new-tokens", "16", "--seed", "3")
PARTS: tuple[Part, ...] = (
    training("nano", "nano", "small", "small_cold_start", stopped=True, programs=True),
    training("start", "nano", "small", "start"),
    training("packed", "nano", "small", "packed", programs=True),
    *(recipe(name) for name in RECIPES),
    training("options", "nano", "without_cold_start", "small", "options", needs="start", programs=True),
    Part(
        "evaluation",
        (
            (*MATH, "--responses", "inputs/math500/stored.jsonl", "--out", "runs/evaluation/math500"),
            (*VISION, "--responses", "inputs/mathvision/stored.jsonl", "--out", "runs/evaluation/mathvision"),
            ("grade", "inputs/graded.jsonl", "--out", "runs/evaluation/graded.jsonl"),
        ),
        outputs=(
            *(f"runs/evaluation/{name}/{file}" for name in ("math500", "mathvision") for file in EVALUATED),
            "runs/evaluation/graded.jsonl",
        ),
    ),
    Part(
        "asking",
        ((*VISION, "--model", "runs/start/model", "--out", "runs/asking", *SAMPLED),),
        outputs=tuple(f"runs/asking/{file}" for file in (*EVALUATED, "responses.jsonl")),
        needs="start",
    ),
)


def chosen(names: list[str] | None) -> list[Part]:
    """The parts of the given names (all of them for None) and those whose models they need, in the order of PARTS."""
    known = {part.name: part for part in PARTS}
    unknown = [name for name in names or () if name not in known]
    if unknown:
        raise SystemExit(f"there is no part {unknown[0]!r}; the parts are {', '.join(known)}")
    wanted = set(known if names is None else names)
    wanted |= {need for name in wanted if (need := known[name].needs) is not None}
    return [part for part in PARTS if part.name in wanted]


def find_configs(package: Path) -> Path:
    """The folder of nano.yaml and the recipes in a checkout."""
    for folder in (package / "configs", package / "infimmr_jax" / "configs"):
        if (folder / "nano.yaml").is_file():
            return folder
    raise SystemExit(f"{package} holds no configs/nano.yaml: give the folder of the configurations with --configs")


def write_configs(source: Path, target: Path) -> None:
    """Put nano.yaml, the recipes and the layers over them into `target`; a record's own folder is copied as it is.

    A recipe's values for a small model are a layer of their own here, for the models of the recipes' parts are read
    from a directory, which a recipe takes for a published size.
    """
    target.mkdir(parents=True)
    if (source / "small.yaml").is_file():
        for file in sorted(source.glob("*.yaml")):
            shutil.copy(file, target / file.name)
        return
    shutil.copy(source / "nano.yaml", target / "nano.yaml")
    layers: dict[str, dict[str, Any]] = {
        "small": SMALL,
        "small_cold_start": NANO,
        "without_cold_start": WITHOUT_COLD_START,
        "start": START,
        "options": OPTIONS,
        "packed": PACKED,
    }
    for name in RECIPES:
        tree = yaml.safe_load((source / "recipes" / f"{name}.yaml").read_text(encoding="utf-8"))
        layers[f"{name}_scale"] = (tree.pop("scales", None) or {}).get("small") or {}
        layers[f"{name}_recipe"] = tree
    for name, tree in layers.items():
        (target / f"{name}.yaml").write_text(yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")


def write_inputs(target: Path) -> None:
    """Write the conversations, the benchmarks, stored responses, and rows to grade, the same every time."""
    random = np.random.default_rng(7)
    heights = random.integers(1, 10, (12, 3))
    pictures = target / "pictures"
    pictures.mkdir(parents=True)
    for index, row in enumerate(heights):
        draw_bars(row.tolist()).save(pictures / f"{index}.png")
    write_rows(target / "conversations.jsonl", [conversation(i, row.tolist()) for i, row in enumerate(heights)])
    golds = ("3", "\\frac{1}{2}", "2\\sqrt{3}", "(1, 2)", "x^2+1", "90^\\circ")
    answers = ("3", "\\dfrac12", "\\sqrt{12}", "(2, 1)", "1+x^2", "45")
    problems = [
        {"problem": f"Problem {i}: find the number.", "answer": gold, "unique_id": str(i), "level": 1 + i % 2}
        for i, gold in enumerate(golds)
    ]
    write_rows(target / "math500" / "test.jsonl", problems)
    stored = [{"id": str(i), "response": f"So it is \\boxed{{{answer}}}."} for i, answer in enumerate(answers)]
    write_rows(target / "math500" / "stored.jsonl", stored)
    (target / "mathvision" / "images").mkdir(parents=True)
    questions, said = [], []
    for index, row in enumerate(heights[:6].tolist()):
        shutil.copy(pictures / f"{index}.png", target / "mathvision" / "images" / f"{index}.png")
        letter = "ABC"[int(np.argmax(row))]
        options = [str(height) for height in row] if index % 2 else []
        questions.append(
            {
                "id": str(index),
                "question": "How high is the highest bar? <image1>",
                "options": options,
                "answer": letter if options else str(max(row)),
                "image": f"images/{index}.png",
                "level": 1 + index % 3,
                "subject": "counting",
            }
        )
        said.append({"id": str(index), "response": f"The answer is {max(row) if index < 4 else 10}."})
    write_rows(target / "mathvision" / "test.jsonl", questions)
    write_rows(target / "mathvision" / "stored.jsonl", said)
    graded = [
        {
            "question": f"Problem {i}",
            "answer": gold,
            "answer_type": "math",
            "response": f"<think>{'so ' * i}</think>\\boxed{{{answer}}}",
        }
        for i, (gold, answer) in enumerate(zip(golds, answers, strict=True))
    ]
    write_rows(target / "graded.jsonl", graded)


def draw_bars(heights: list[int]) -> Image.Image:
    """Three bars of the given heights, 1 to 9, on white."""
    picture = Image.new("RGB", (SIDE, SIDE), "white")
    draw = ImageDraw.Draw(picture)
    for column, (height, colour) in enumerate(zip(heights, ("red", "green", "blue"), strict=True)):
        left = 12 + 34 * column
        draw.rectangle((left, SIDE - 10 * height, left + 20, SIDE - 1), fill=colour)
    return picture


def conversation(index: int, heights: list[int]) -> dict[str, Any]:
    """A conversation about picture `index`; every third has two turns, every fourth no picture."""
    red, green, blue = heights
    mark = "" if index % 4 == 3 else "<image>"
    turns = [(f"{mark}red {red}. red + green?", f"<think>{red}+{green}</think>\\boxed{{{red + green}}}")]
    turns += [("blue?", f"\\boxed{{{blue}}}")] if index % 3 == 0 else []
    roles = [
        {"role": role, "content": text}
        for pair in turns
        for role, text in zip(("user", "assistant"), pair, strict=True)
    ]
    return {"id": str(index), "messages": roles, "images": [f"pictures/{index}.png"] if mark else []}


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write JSONL."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
