"""Problems survive the way into ArrayRecord files and back, bit for bit, without TensorFlow."""

import dataclasses
import subprocess
import sys

import grain
import pytest

from infimmr_jax.config import DataSection, RewardSection, SourceSection
from infimmr_jax.data.readers import read_source
from infimmr_jax.data.records import DataError, Problem
from infimmr_jax.data.synthetic import SyntheticSource
from infimmr_jax.data.tfds_builder import TfdsSource, write_tfds
from infimmr_jax.rewards.golds import GoldCheck

BARE = Problem(id="bare", question="1 + 1?", answer="2", answer_type="math", extra={"unit": None, "é": [1, {"a": "b"}]})
# NumPy's bytes type drops zero bytes at the end: an image must keep them.
FULL = Problem(
    id="full",
    question="Ω <image> <image> ?",
    answer="B",
    answer_type="choice",
    choices=("x", "", "z"),
    images=(b"\x89PNG\x00\x00", b"\x00"),
    caption="Two\nlines",
    solution="s",
    source="made",
    subject="sub",
    level=2.5,
)


def made(count, modality="image"):
    return SyntheticSource(["bars"], "plain", "train", 0, count, modality)


def test_problems_come_back_as_they_were_in_order(tmp_path):
    directory = write_tfds({"train": lambda: [BARE, FULL, *made(50)], "heldout": lambda: [FULL]}, tmp_path, "mixed")
    stored = TfdsSource(directory, "train")
    assert stored[:] == [BARE, FULL, *made(50)]
    assert stored[-1] == made(50)[49]
    assert TfdsSource(directory, "heldout")[:] == [FULL]
    assert sum(1 for _ in directory.glob("*.array_record-*")) == 2


def test_image_files_are_stored_inside(tmp_path):
    (tmp_path / "p.png").write_bytes(b"bytes of a picture")
    problem = dataclasses.replace(FULL, images=(str(tmp_path / "p.png"),))
    (stored,) = TfdsSource(write_tfds({"train": lambda: [problem]}, tmp_path, "one"), "train")[:]
    assert stored == dataclasses.replace(problem, images=(b"bytes of a picture",))


def test_grain_reads_the_stored_source_by_random_access(tmp_path):
    stored = TfdsSource(write_tfds({"train": lambda: made(20)}, tmp_path, "bars"), "train")
    shuffled = grain.MapDataset.source(stored).shuffle(seed=3)
    assert sorted(p.id for p in shuffled) == sorted(p.id for p in made(20))


def test_the_reader_takes_what_fits_the_modality(tmp_path):
    (tmp_path / "c.jsonl").write_text('{"id": "bars-plain-train-0-1", "caption": "from a file"}\n')
    write_tfds({"train": lambda: [BARE, *made(3)]}, tmp_path, "mixed")
    path = "infimmr_problems/mixed/1.0.0"
    source = SourceSection(reader="tfds", path=path, captions="c.jsonl")
    problems, rejected = read_source(source, "caption", DataSection(root=tmp_path), GoldCheck())
    assert [p.caption for p in problems] == [made(3)[0].caption, "from a file", made(3)[2].caption]
    assert [(r.row, r.id) for r in rejected] == [(1, "bare")]
    (only,), rejected = read_source(
        SourceSection(reader="tfds", path=path), "text", DataSection(root=tmp_path), GoldCheck()
    )
    assert only == BARE
    assert len(rejected) == 3


def test_a_converted_box_keeps_its_sizes_and_is_checked_by_the_rules_of_the_run(tmp_path):
    extra = {"image_size": [40, 30], "verify": {"threshold": 0.6}}
    box = dataclasses.replace(BARE, id="box", answer="[1, 2, 3, 4]", answer_type="box", images=(b"p",), extra=extra)
    point = dataclasses.replace(box, id="point", answer="(5, 6)", answer_type="point")
    directory = write_tfds({"train": lambda: [box, point]}, tmp_path, "located")
    source = SourceSection(reader="tfds", path=directory.relative_to(tmp_path).as_posix())
    kept, rejected = read_source(source, "image", DataSection(root=tmp_path), GoldCheck())
    assert list(kept) == [box]
    assert [(loss.row, loss.id) for loss in rejected] == [(2, "point")]
    by_distance = GoldCheck(None, RewardSection(rules={"point": "l1"}))
    assert list(read_source(source, "image", DataSection(root=tmp_path), by_distance)[0]) == [box, point]


def test_an_existing_directory_is_not_overwritten(tmp_path):
    write_tfds({"train": lambda: [BARE]}, tmp_path, "one")
    with pytest.raises(DataError, match="exists already"):
        write_tfds({"train": lambda: [FULL]}, tmp_path, "one")


def test_a_writing_that_fails_leaves_no_directory(tmp_path):
    def broken():
        yield BARE
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        write_tfds({"train": broken}, tmp_path, "one")
    assert not (tmp_path / "infimmr_problems" / "one" / "1.0.0").exists()


@pytest.mark.parametrize(
    ("path", "split", "reason"), [("none", "train", "dataset_info"), (None, "heldout", "no split")]
)
def test_a_directory_that_is_none_is_an_error(tmp_path, path, split, reason):
    directory = write_tfds({"train": lambda: [BARE]}, tmp_path, "one")
    with pytest.raises(DataError, match=reason):
        TfdsSource(directory if path is None else tmp_path / path, split)


def test_no_tensorflow_is_imported(tmp_path):
    code = f"""
import sys
from pathlib import Path
from infimmr_jax.data.tfds_builder import TfdsSource, write_tfds
from infimmr_jax.data.synthetic import SyntheticSource
made = SyntheticSource(["bars"], "plain", "train", 0, 4, "image")
assert TfdsSource(write_tfds({{"train": lambda: made}}, Path({str(tmp_path)!r}), "bars"), "train")[2] == made[2]
assert "tensorflow" not in sys.modules
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_damaged_directory_is_one_sentence(tmp_path):
    directory = write_tfds({"train": lambda: [BARE]}, tmp_path, "one")
    info = (directory / "dataset_info.json").read_text()
    for content in (info[: len(info) // 2], "[]", "\x00"):
        (directory / "dataset_info.json").write_text(content)
        with pytest.raises(DataError, match="can not be read as a TFDS directory"):
            TfdsSource(directory, "train")
    (directory / "dataset_info.json").unlink()
    (tmp_path / "elsewhere.json").write_text(info)
    (directory / "dataset_info.json").symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(DataError, match="leads outside"):
        TfdsSource(directory, "train")
