"""Every kind of bad row is rejected with its row number and a sentence; good rows of every shape come through."""

import json
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from infimmr_jax.config import DataSection, RewardSection, SourceSection
from infimmr_jax.data.readers import read_source
from infimmr_jax.data.records import DataError
from infimmr_jax.rewards.golds import GoldCheck
from infimmr_jax.rewards.pool import GraderPool

ROW = {
    "id": "a",
    "question": "What is 1 + 1?",
    "answer": "2",
    "answer_type": "math",
    "images": [],
    "source": "made",
    "level": 2,
    "unit": "cm",
}


def write(folder, *rows):
    lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
    (folder / "set").mkdir(exist_ok=True)
    (folder / "set" / "train.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    return SourceSection(reader="jsonl", path="set/train.jsonl"), DataSection(root=folder)


def read(folder, *rows, modality="text", golds=None):
    source, data = write(folder, *rows)
    return read_source(source, modality, data, golds or GoldCheck())


def picture(folder, name="p.png", size=(40, 30), **options):
    path = folder / "set" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(noise).convert(options.pop("mode", "RGB")).save(path, **options)
    return path


def with_image(**changes):
    return {**ROW, "images": ["p.png"], "caption": "A picture.", **changes}


def test_a_good_row_keeps_all_it_says(tmp_path):
    rows = {**ROW, "choices": None, "solution": "1+1=2", "subject": "sums"}
    (problem,), rejected = read(tmp_path, rows)
    assert rejected == []
    assert (problem.id, problem.question, problem.answer, problem.level) == ("a", "What is 1 + 1?", "2", 2.0)
    assert (problem.solution, problem.subject, problem.source) == ("1+1=2", "sums", "made")
    assert problem.extra == {"unit": "cm"}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"question": None}, "`question` is missing"),
        ({"question": "  \n"}, "`question` is empty"),
        ({"question": 5}, "`question` is a int"),
        ({"question": "x" * 10_000_000}, "10,000,000 characters"),
        ({"question": "half \ud83d"}, "surrogate"),
        ({"question": "a\x00b"}, "NUL"),
        ({"question": "<image> what?"}, "<image> mark"),
        ({"answer": None}, "`answer` is missing"),
        ({"answer": 2}, "`answer` is a int"),
        ({"answer": " "}, "`answer` is empty"),
        ({"answer_type": "essay"}, "one of math, choice, string"),
        ({"answer_type": None}, "one of math, choice, string"),
        ({"answer_type": "choice", "answer": "A"}, "needs 2 to 10 `choices`"),
        ({"answer_type": "choice", "answer": "D", "choices": ["x", "y", "z"]}, "one of ABC"),
        ({"answer_type": "choice", "answer": "A", "choices": ["x", ""]}, "`choices` is empty"),
        ({"answer_type": "choice", "answer": "A", "choices": "xyz"}, "not a list"),
        ({"level": "hard"}, "finite number"),
        ({"level": True}, "finite number"),
        ({"level": float("nan")}, "finite number"),
        ({"id": None}, "`id` is missing"),
        ({"images": ["p.png"]}, "modality is 'text'"),
        ({"images": "p.png"}, "not a list"),
    ],
)
def test_a_bad_value_is_rejected_with_its_row_and_reason(tmp_path, change, reason):
    problems, rejected = read(tmp_path, {**ROW, "id": "good"}, {**ROW, **change})
    assert [problem.id for problem in problems] == ["good"]
    assert len(rejected) == 1
    assert rejected[0].row == 2
    assert reason in rejected[0].reason
    assert len(str(rejected[0])) < 400


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"id": "b", "question": "\xff\xfe"}', "not valid UTF-8"),
        (b'{"id": "b", "question": ', "not valid JSON"),
        (b"[1, 2]", "is a list"),
        (b"[" * 200_000, "not valid JSON"),
        (b'{"id": ' + b"9" * 5000 + b"}", "can not be read"),
    ],
)
def test_a_line_that_is_no_row_is_rejected(tmp_path, line, reason):
    problems, rejected = read(tmp_path, ROW, line, b"", {**ROW, "id": "c"})
    assert [problem.id for problem in problems] == ["a", "c"]
    assert [(r.row, reason in r.reason) for r in rejected] == [(2, True)]


def test_the_second_row_with_an_id_is_rejected_even_when_the_first_was_bad(tmp_path):
    problems, rejected = read(tmp_path, {**ROW, "answer": ""}, ROW, {**ROW, "id": "b"})
    assert [problem.id for problem in problems] == ["b"]
    assert "already used in row 1" in rejected[1].reason


def test_images_become_absolute_paths_and_the_caption_comes_along(tmp_path):
    path = picture(tmp_path)
    (problem,), rejected = read(tmp_path, with_image(), modality="caption")
    assert rejected == []
    assert problem.images == (str(path.resolve()),)
    assert problem.caption == "A picture."


@pytest.mark.parametrize(
    ("mode", "name", "options"),
    [
        ("RGBA", "p.png", {}),
        ("L", "p.png", {}),
        ("P", "p.gif", {}),
        ("CMYK", "p.jpg", {}),
        ("I;16", "p.png", {}),
        ("RGB", "p.webp", {}),
    ],
)
def test_unusual_but_sound_images_are_repaired_by_rule_not_rejected(tmp_path, mode, name, options):
    picture(tmp_path, name, mode=mode, **options)
    problems, rejected = read(tmp_path, with_image(images=[name]), modality="image")
    assert rejected == []
    assert len(problems) == 1


def test_an_animation_and_an_exif_rotation_are_sound(tmp_path):
    frames = [Image.new("RGB", (20, 10), colour) for colour in ("red", "blue")]
    (tmp_path / "set").mkdir()
    frames[0].save(tmp_path / "set" / "p.gif", save_all=True, append_images=frames[1:])
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(tmp_path, "q.jpg", exif=exif)
    rows = [with_image(images=["p.gif"]), with_image(id="b", images=["q.jpg"])]
    problems, rejected = read(tmp_path, *rows, modality="image")
    assert rejected == []
    assert len(problems) == 2


def huge_png():
    """The header of a 30,000 x 30,000 PNG with next to no pixels behind it."""
    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 100)), (b"IEND", b"")]
    body = b"".join(struct.pack(">I", len(b)) + k + b + struct.pack(">I", zlib.crc32(k + b)) for k, b in chunks)
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("modality", ["caption", "image"])
def test_a_broken_or_huge_image_is_rejected_by_name(tmp_path, modality):
    whole = picture(tmp_path, size=(200, 200)).read_bytes()
    (tmp_path / "set" / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "set" / "text.png").write_bytes(b"this is no picture")
    (tmp_path / "set" / "huge.png").write_bytes(huge_png())
    names = ["cut.png", "text.png", "huge.png", "p.png"]
    rows = [with_image(id=name, images=[name]) for name in names]
    problems, rejected = read(tmp_path, *rows, modality=modality)
    assert [problem.id for problem in problems] == ["p.png"]
    assert [name in r.reason for name, r in zip(names, rejected, strict=False)] == [True] * 3
    assert "900000000 pixels" in rejected[2].reason


def test_a_path_may_not_leave_the_folder_of_its_file(tmp_path):
    picture(tmp_path)
    outside = tmp_path / "secret.png"
    Image.new("RGB", (8, 8)).save(outside)
    (tmp_path / "set" / "link.png").symlink_to(outside)
    (tmp_path / "set" / "inner.png").symlink_to("p.png")
    (tmp_path / "set" / "loop.png").symlink_to("loop.png")
    names = ["../secret.png", str(outside), "link.png", "loop.png", "missing.png", "a\x00b", "x" * 5000, "inner.png"]
    rows = [with_image(id=str(number), images=[name]) for number, name in enumerate(names)]
    problems, rejected = read(tmp_path, *rows, modality="image")
    assert [problem.id for problem in problems] == ["7"]
    assert ["outside" in r.reason for r in rejected[:3]] == [True] * 3
    assert "no image file" in rejected[4].reason
    assert len(rejected) == 7


@pytest.mark.parametrize(
    ("change", "modality", "reason"),
    [
        ({"images": []}, "image", "no images"),
        ({"caption": None}, "caption", "`caption` is missing"),
        ({"caption": " "}, "caption", "`caption` is empty"),
        ({"images": ["p.png"] * 2}, "image", "`data.max_images` is 1"),
        ({"question": "<image> or <image>?"}, "image", "2 <image> marks for 1 images"),
    ],
)
def test_images_and_caption_must_fit_the_modality(tmp_path, change, modality, reason):
    picture(tmp_path)
    problems, rejected = read(tmp_path, with_image(**change), modality=modality)
    assert problems == []
    assert reason in rejected[0].reason


def test_a_gold_that_does_not_parse_is_rejected_when_the_data_are_read(tmp_path):
    rows = [{**ROW, "id": str(n), "answer": answer} for n, answer in enumerate(["\\frac{1}{2}", "\\frac{", "x^2"])]
    with GraderPool(1) as pool:
        problems, rejected = read(tmp_path, *rows, golds=GoldCheck(pool))
    assert [problem.id for problem in problems] == ["0", "2"]
    assert "can not be graded" in rejected[0].reason


def boxed(**changes):
    return {**with_image(), "answer": [4, 3, 20, 15], "answer_type": "box", **changes}


def test_coordinates_refer_to_the_upright_file_unless_the_row_says_otherwise(tmp_path):
    picture(tmp_path)
    turned = Image.Exif()
    turned[0x0112] = 6  # stored on its side
    picture(tmp_path, "turned.jpg", exif=turned)
    rows = [
        boxed(id="own"),
        boxed(id="turned", images=["turned.jpg"]),
        boxed(id="per mille", answer="[100, 100, 900, 900]", image_size=[1000, 1000]),
        boxed(id="second", images=["p.png", "turned.jpg"], answer_image=2),
        {**boxed(id="math"), "answer": "4", "answer_type": "math"},
    ]
    source, data = write(tmp_path, *rows)
    problems, rejected = read_source(source, "image", data.model_copy(update={"max_images": 2}), GoldCheck())
    assert rejected == []
    sizes = {problem.id: problem.extra.get("image_size") for problem in problems}
    assert sizes == {"own": [40, 30], "turned": [30, 40], "per mille": [1000, 1000], "second": [30, 40], "math": None}
    assert problems[0].answer == "[4, 3, 20, 15]"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"answer": [4, 3, 20]}, "unparsable gold"),
        ({"answer": [4, 3, 20, 31]}, "outside the image of 40 x 30"),
        ({"answer": 4}, "`answer` is a int"),
        ({"image_size": [40]}, "`image_size` is [40]"),
        ({"image_size": [40, 0]}, "two positive numbers"),
        ({"answer_image": 2}, "`answer_image` is 2"),
        ({"images": ["p.png", "p.png"]}, "`answer_image` is None"),
        ({"verify": {"rule": "exact"}}, "type box has no rule 'exact'"),
    ],
)
def test_a_bad_box_is_rejected_with_its_row_and_reason(tmp_path, change, reason):
    picture(tmp_path)
    source, data = write(tmp_path, boxed(id="good"), boxed(**change))
    problems, rejected = read_source(source, "image", data.model_copy(update={"max_images": 2}), GoldCheck())
    assert [problem.id for problem in problems] == ["good"]
    assert rejected[0].row == 2
    assert reason in rejected[0].reason


def test_golds_are_checked_by_the_rules_of_their_phase(tmp_path):
    picture(tmp_path)
    source, data = write(tmp_path, boxed(answer=[4, 3], answer_type="point"))
    check = GoldCheck()
    assert read_source(source, "image", data, check)[0] == []
    near = check.under(RewardSection(rules={"point": "l1"}))
    assert [problem.answer for problem in read_source(source, "image", data, near)[0]] == ["[4, 3]"]
    assert read_source(source, "image", data, check)[0] == [], "the first check keeps its rules"


def test_each_different_gold_is_parsed_once():
    class Counting(GoldCheck):
        asked = 0

    check = Counting()
    made = read_source(SourceSection(reader="synthetic", families=("bars",), size=20), "text", DataSection(), check)[0]
    assert check(list(made)) == [None] * 20
    assert len(check._known) == len({problem.answer for problem in made})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"level": 10**400}, "`level` is 1000"),
        ({"id": "bad\ud800id"}, "`id` holds half of a surrogate pair"),
        ({"id": "x" * 501}, "`id` has 501 characters"),
        ({"unit": "half \ud800"}, "half of a surrogate pair"),
        ({"answer_type": []}, "`answer_type` is []"),
        ({"answer_type": "number", "answer": 10**400}, "finite number"),
        ({"answer_type": "number", "verify": {"tolerance": 10**400}}, "can not be checked"),
    ],
)
def test_a_value_that_no_reader_foresees_is_a_rejection_with_its_row(tmp_path, change, reason):
    problems, rejected = read(tmp_path, {**ROW, "id": "good"}, {**ROW, **change})
    assert [problem.id for problem in problems] == ["good"]
    assert (rejected[0].row, reason in rejected[0].reason) == (2, True)
    str(rejected[0]).encode()


@pytest.mark.parametrize("size", [5, [1], "ab", [[[]]], [{}], True, [10**400, 1]])
def test_a_seen_size_that_is_none_is_a_rejection(tmp_path, size):
    picture(tmp_path)
    problems, rejected = read(tmp_path, boxed(seen_size=size), modality="image")
    assert problems == []
    assert "`seen_size` is" in rejected[0].reason


def test_size_takes_the_first_good_rows(tmp_path):
    source, data = write(tmp_path, *[{**ROW, "id": str(n), "answer": "" if n == 1 else "2"} for n in range(9)])
    problems, rejected = read_source(source.model_copy(update={"size": 3}), "text", data, GoldCheck())
    assert [problem.id for problem in problems] == ["0", "2", "3"]
    assert len(rejected) == 1


@pytest.mark.parametrize(
    ("path", "root", "reason"),
    [("set/none.jsonl", True, "no file"), ("../out.jsonl", True, "outside `data.root`"), ("x.jsonl", False, "not set")],
)
def test_a_file_that_can_not_be_read_is_an_error(tmp_path, path, root, reason):
    data = DataSection(root=tmp_path if root else None)
    with pytest.raises(DataError, match=reason):
        read_source(SourceSection(reader="jsonl", path=path), "text", data, GoldCheck())
