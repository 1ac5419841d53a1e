"""`infimmr doctor`: every trouble is a line in words, and one trouble does not hide the others."""

import io
import json

import jax
import pytest
from rich.console import Console
from tiny import tiny_tree

from infimmr_jax.commands.doctor import examine
from infimmr_jax.config import parse_config


def said(config=None) -> tuple[bool, dict[str, str]]:
    """Whether all is well, and the line of every check by its name."""
    console = Console(file=io.StringIO(), width=60)
    healthy = examine(console, config)
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
