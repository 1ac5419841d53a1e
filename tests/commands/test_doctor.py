"""`infimmr doctor`: every trouble is a line in words, and one trouble does not hide the others."""

import io
import json
import shutil

import jax
import pytest
from rich.console import Console
from safetensors.numpy import load_file, save_file
from tiny import tiny_tree

from infimmr_jax.commands import doctor
from infimmr_jax.commands.doctor import examine
from infimmr_jax.config import parse_config


def said(config=None, model=None) -> tuple[bool, dict[str, str]]:
    """Whether all is well, and the line of every check by its name."""
    console = Console(file=io.StringIO(), width=60)
    healthy = examine(console, config, model)
    lines = console.file.getvalue().splitlines()
    return healthy, {line[8:].partition(": ")[0]: line for line in lines}


def test_a_device_that_does_not_start_is_said_and_the_other_checks_are_made(monkeypatch):
    def broken():
        raise RuntimeError("Unable to initialize backend 'cuda'")

    monkeypatch.setattr(jax, "devices", broken)
    healthy, lines = said()
    assert not healthy
    assert lines["devices"].startswith("trouble devices: JAX can not start its devices")
    assert "RuntimeError: Unable to initialize backend 'cuda'" in lines["devices"]
    assert "arithmetic" not in lines
    assert lines["versions"].startswith("ok")
    assert lines["graders"].startswith("ok")


def rows(count: int, **change) -> str:
    row = {"question": "2 + 2?", "answer": "4", "answer_type": "math", "images": [], **change}
    return "\n".join(json.dumps({"id": str(index), **row}) for index in range(count))


@pytest.fixture
def tree(tmp_path):
    tree = tiny_tree(tmp_path / "run")
    tree["data"] |= {"root": str(tmp_path)}
    tree["phases"][0] |= {"sources": [{"reader": "jsonl", "path": "problems.jsonl"}]}
    return tree


def test_what_a_configuration_names_is_looked_at(tree, tmp_path):
    (tmp_path / "problems.jsonl").write_text(rows(9))
    healthy, lines = said(parse_config(tree))
    assert healthy
    assert lines["phases.0.sources.0 (text)"].endswith("problems.jsonl: the first 4 rows can be used")
    assert "synthetic:bars:plain:train: the first" in lines["phases.2.sources.0 (image)"]
    assert lines["model"].endswith("made from scratch")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, "there is no file"),
        (
            rows(9, answer=""),
            "no row of problems.jsonl can be used for text problems; the first: problems.jsonl, row 1",
        ),
        ("", "problems.jsonl"),
    ],
)
def test_a_source_that_can_not_be_read_is_named_by_its_key(tree, tmp_path, text, sentence):
    if text is not None:
        (tmp_path / "problems.jsonl").write_text(text)
    healthy, lines = said(parse_config(tree))
    assert not healthy
    assert lines["phases.0.sources.0 (text)"].startswith("trouble")
    assert sentence in lines["phases.0.sources.0 (text)"]


def test_a_model_and_directories_that_can_not_be_used_are_named(tree, tmp_path):
    (tmp_path / "problems.jsonl").write_text(rows(9))
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    tree |= {"output": str(tmp_path / "file" / "run"), "model": {"path": str(tmp_path / "empty")}, "sft": None}
    healthy, lines = said(parse_config(tree))
    assert not healthy
    assert lines["model"].startswith("trouble model: ")
    assert str(tmp_path / "empty") in lines["model"]
    assert lines["output"].startswith("trouble output: ")
    assert "set output to another place" in lines["output"]


def edit(directory, name, **change):
    path = directory / name
    tree = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(tree | change))


def two_sets(directory):
    (directory / "model-1.safetensors").write_bytes((directory / "model.safetensors").read_bytes())
    edit(directory, "model.safetensors.index.json", weight_map={"a": "model-1.safetensors"})


def renamed(prefix):
    def change(directory):
        tensors = load_file(directory / "model.safetensors")
        save_file({prefix + name: value for name, value in tensors.items()}, directory / "model.safetensors")

    return change


def longer_tokenizer(directory):
    tree = json.loads((directory / "tokenizer.json").read_text())
    last = max(token["id"] for token in tree["added_tokens"])
    extra = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
    tree["added_tokens"] += [{"id": last + n, "content": f"<action_{n}>", **extra} for n in range(1, 120)]
    (directory / "tokenizer.json").write_text(json.dumps(tree))


FAULTS = {
    "M1": (lambda d: edit(d, "config.json", vision_config={"out_hidden_size": 7}), "model", "the merger's width"),
    "M2": (
        lambda d: edit(d, "config.json", rope_scaling={"type": "dynamic", "factor": 2, "mrope_section": [2, 2, 2]}),
        "model",
        "rotary scaling of kind dynamic is not computed",
    ),
    "M3": (
        lambda d: edit(d, "tokenizer_config.json", tokenizer_class="TokenizersBackend", extra_special_tokens=["<a>"]),
        "tokenizer",
        "in the form of transformers 5 alone",
    ),
    "M4": (
        lambda d: (edit(d, "config.json", eos_token_id=5), edit(d, "generation_config.json", eos_token_id=5)),
        "tokenizer",
        "<|im_end|> not in config.json or generation_config.json",
    ),
    "M5": (longer_tokenizer, "tokenizer", "entries, its embedding table"),
    "M6": (lambda d: edit(d, "preprocessor_config.json", max_pixels=12544), "pictures", "to 12,544 pixels each"),
    "M6 mean": (lambda d: edit(d, "preprocessor_config.json", image_mean=[0.5] * 3), "pictures", "image_mean is [0.5"),
    "M7": (two_sets, "weights", "holds two sets of weights"),
    "M8": (lambda d: edit(d, "config.json", quantization_config={"quant_method": "awq"}), "model", "quantised by awq"),
    "M9": (renamed("base_model.model."), "weights", "merge it into its base model first"),
    "M10": (lambda d: edit(d, "generation_config.json", eos_token_id=None), "tokenizer", "ends with <|im_end|>"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_model_directory_is_looked_at(policy_directory, tmp_path, fault, monkeypatch):
    """Every kind of fault of a directory has its words, before a run would meet it."""
    monkeypatch.setattr(doctor, "machine_checks", dict)
    directory = tmp_path / "model"
    shutil.copytree(policy_directory, directory)
    healthy, lines = said(model=directory)
    assert healthy
    assert set(lines) == {"model", "weights", "tokenizer", "pictures"}
    change, check, words = FAULTS[fault]
    change(directory)
    healthy, lines = said(model=directory)
    assert words in lines[check]
    assert len(lines[check]) < 1500 + len(str(directory))
    assert healthy == (fault in ("M3", "M4", "M6", "M10"))
    if check == "model":
        assert set(lines) == {"model"}
