"""Files survive a kill at any instant, torn last lines and any text."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from infimmr_jax.files import (
    append_rows,
    complete_lines,
    content_name,
    cut_rows,
    json_line,
    replace_file,
    replacing,
    store_once,
)

TEXTS = ["", "ä½ 数 😀", "half \udc80 a \ud83d pair", "\u2028\u2029\x00\x1b\x7f\r\n\t", "\\udc80", '"', "a" * 70_000]
KILLED = """
import os, signal, sys
from pathlib import Path
from infimmr_jax import files
at, path = sys.argv[1], Path(sys.argv[2])
def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)
if at in ("replace", "fsync"):
    setattr(os, at, die)
files.replace_file(path, b"new" * 100_000)
die()
"""


@pytest.mark.parametrize("before", [None, b"old"])
@pytest.mark.parametrize("at", ["fsync", "replace", "end"])
def test_a_kill_leaves_the_old_content_or_the_new(tmp_path, at, before):
    path = tmp_path / "result.json"
    if before is not None:
        path.write_bytes(before)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", KILLED, at, str(path)], env=environment, check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    content = path.read_bytes() if path.exists() else None
    assert content == (b"new" * 100_000 if at == "end" else before)
    replace_file(path, "again")
    assert [file.name for file in tmp_path.iterdir()] == ["result.json"]
    assert path.read_text() == "again"


def test_what_can_not_be_written_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "a.jsonl"
    replace_file(path, "1\n2")
    with pytest.raises(TypeError):
        append_rows(path, [{"a": 1}, {"bad": object()}])
    with pytest.raises(TypeError), replacing(path) as file:
        file.writelines([b"half", 3])
    assert path.read_text() == "1\n2"


@pytest.mark.parametrize("text", TEXTS)
def test_any_text_comes_back(tmp_path, text):
    path = tmp_path / "sub" / "rows.jsonl"
    append_rows(path, [{"id": text, text: [text]}])
    (line,) = complete_lines(path)
    assert json.loads(line) == {"id": text, text: [text]}
    replace_file(path, text)
    assert path.read_bytes() == text.encode("utf-8", "backslashreplace")


@pytest.mark.parametrize("cut", range(1, 14))
def test_a_torn_last_line_is_no_row_and_goes_with_the_next_append(tmp_path, cut):
    path = tmp_path / "rows.jsonl"
    append_rows(path, [{"id": 1}, {"id": 2}])
    data = path.read_bytes()
    path.write_bytes(data[:-cut])
    rows = [{"id": 1}] * (cut < 10)
    assert [json.loads(line) for line in complete_lines(path)] == rows
    append_rows(path, [{"id": "new"}])
    assert [json.loads(line) for line in path.read_bytes().splitlines()] == [*rows, {"id": "new"}]


def test_a_torn_line_may_be_longer_than_a_block(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"id":1}\n' + b"x" * 200_000)
    append_rows(path, [{"id": 2}])
    assert path.read_bytes() == b'{"id":1}\n{"id":2}\n'


def test_a_row_may_hold_arrays_paths_and_numbers_that_json_has_not():
    row = {"a": np.float32(0.5), "b": jnp.arange(2), "c": [np.nan, float("inf"), np.int64(3)], "d": Path("x/y"), 5: ()}
    assert json.loads(json_line(row)) == {"a": 0.5, "b": [0, 1], "c": [None, None, 3], "d": "x/y", "5": []}
    assert b"\n" not in json_line({"a": "\n"})[:-1]


def test_rows_are_cut_where_a_checkpoint_says(tmp_path, caplog):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b"1\n2\n3\n4")
    assert (cut_rows(path, 2), path.read_bytes()) == (2, b"1\n2\n")
    assert cut_rows(path, 5) == 2
    assert "has 2 rows, 5 were there" in caplog.text
    assert cut_rows(tmp_path / "missing.jsonl", 0) == 0


def test_pictures_of_equal_content_are_stored_once(tmp_path):
    name = content_name(b"png", ".png")
    assert name == content_name(b"png", ".png") != content_name(b"other", ".png")
    store_once(tmp_path / "images" / name, b"png")
    store_once(tmp_path / "images" / name, b"something else")
    assert (tmp_path / "images" / name).read_bytes() == b"png"
