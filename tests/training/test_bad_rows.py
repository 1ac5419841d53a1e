"""Every kind of bad row in one file, on both ways into a run: each is repaired by rule or listed, and no step fails."""

import io
import json
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from tiny import tiny_tree

from infimmr_jax.commands.prepare import prepare as convert
from infimmr_jax.config import ImageSection, apply_overrides, load_config, parse_config
from infimmr_jax.data.curriculum import iterate
from infimmr_jax.data.pictures import open_image
from infimmr_jax.data.readers import read_source
from infimmr_jax.rewards.golds import GoldCheck
from infimmr_jax.rewards.pool import GraderPool
from infimmr_jax.training.setup import prepare

REJECTED = {
    "truncated": "can not be decoded",
    "huge": "900000000 pixels",
    "missing": "there is no image file",
    "outside": "leads outside",
    "linked out": "leads outside",
    "question empty": "`question` is empty",
    "question of 10 MB": "10,000,000 characters",
    "gold": "can not be graded",
    "gold outside": "outside the image of 60 x 40",
    "gold of two boxes": "no answer earns the full score by rule 'iou'",
    "good": "already used in row 1",
    None: "not valid UTF-8",
}
REPAIRED = ("animated", "cmyk", "sixteen bit", "alpha", "rotated")


def huge_png() -> bytes:
    """The header of a 30,000 x 30,000 PNG with next to no pixels behind it."""
    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 100)), (b"IEND", b"")]
    body = b"".join(struct.pack(">I", len(b)) + k + b + struct.pack(">I", zlib.crc32(k + b)) for k, b in chunks)
    return b"\x89PNG\r\n\x1a\n" + body


def half(left, right, size=(60, 40)) -> Image.Image:
    """A picture of two colours, to see which way up it is."""
    image = Image.new("RGB", size, right)
    image.paste(Image.new("RGB", (size[0] // 2, size[1]), left), (0, 0))
    return image


def pictures(folder) -> None:
    folder.mkdir(parents=True)
    red, blue = half("red", "red"), half("blue", "blue")
    half("red", "blue").save(folder / "good.png")
    red.save(folder / "animated.gif", save_all=True, append_images=[blue])
    red.convert("CMYK").save(folder / "cmyk.jpg", quality=95)
    Image.fromarray(np.full((40, 60), 200 * 256 + 7, np.uint16)).save(folder / "sixteen bit.png")
    Image.new("RGBA", (60, 40), (255, 0, 0, 0)).save(folder / "alpha.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # stored on its side: turned by a quarter clockwise it stands upright
    half("red", "blue").save(folder / "rotated.jpg", quality=95, exif=exif)
    noise = np.random.default_rng(0).integers(0, 255, (90, 90, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "whole.png")
    (folder / "truncated.png").write_bytes((folder / "whole.png").read_bytes()[:9000])
    (folder / "huge.png").write_bytes(huge_png())
    blue.save(folder.parent.parent.parent / "secret.png")
    (folder / "linked out.png").symlink_to(folder.parent.parent.parent / "secret.png")


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    base = tmp_path_factory.mktemp("bad")
    root = base / "data"
    pictures(root / "set" / "images")
    files = {path.stem: f"images/{path.name}" for path in (root / "set" / "images").iterdir()}
    files |= {"missing": "images/none.png", "outside": "../../secret.png"}

    def row(name, **changes):
        made = {"id": name, "question": f"What is it in {name}?", "answer": "7", "answer_type": "math"}
        return made | {"images": [files.get(name, files["good"])], "caption": f"Nothing of {name}."} | changes

    rows = [row("good"), *(row(name) for name in REPAIRED)]
    rows += [row(name) for name in ("truncated", "huge", "missing", "outside", "linked out")]
    rows += [
        row("question empty", question=" \n"),
        row("question of 10 MB", question="x" * 10_000_000),
        row("gold", answer="\\frac{1}{"),
        row("gold outside", answer=[0, 0, 70, 40], answer_type="box"),
        row("gold of two boxes", answer=[[0, 0, 7, 4], [8, 8, 9, 9]], answer_type="box"),
        row("good", question="Again?"),
        row("leaking", caption="There are 7 of them."),
    ]
    lines = [json.dumps(made).encode() for made in rows] + [b'{"id": "broken", "question": "\xff\xfe"}']
    (root / "set" / "train.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    tree = apply_overrides(tiny_tree(base / "run"), ["sft=null", "evaluation={}", f"data.root={root}"])
    source = {"reader": "jsonl", "path": "set/train.jsonl"}
    tree["phases"] = [phase | {"sources": [source], "prompts_per_step": 4} for phase in tree["phases"][1:]]
    tree["data"] |= {"prompt_buckets": [], "image_buckets": [], "curation": {"near_duplicate": None}}
    return parse_config(tree)


@pytest.fixture(scope="module")
def pool():
    with GraderPool() as started:
        yield started


def check(rejected, leaking):
    assert {name: reason for name, reason in rejected.items() if REJECTED[name] in reason} == rejected
    assert set(rejected) == set(REJECTED)
    assert leaking == ["leaking"]


def test_training_starts_with_every_bad_row_listed_and_runs_through(config, pool):
    setup = prepare(config, config.output, pool)
    caption, image = setup.curriculum.report
    check({loss.id: loss.reason for loss in caption.rejected}, *caption.flagged.values())
    assert {loss.id for loss in image.rejected} == set(REJECTED)
    assert (caption.read, caption.kept) == (19, 7)
    assert all(loss.row for loss in caption.rejected)
    shown = {p.id for step in iterate(setup.curriculum) for p in step.problems}
    assert shown == {"good", "leaking", *REPAIRED}


def test_prepare_lists_every_bad_row_and_keeps_the_files_of_the_repaired(config, pool, tmp_path):
    (summary,) = convert(config, tmp_path / "out", pool)
    check({row["id"]: row["reason"] for row in summary.rejected}, summary.leaking_captions)
    assert {row["modality"] for row in summary.rejected} == {"caption", "image"}
    report = (tmp_path / "out" / "report.md").read_text()
    assert all(str(name) in report for name in REJECTED if name is not None)
    assert "| set/train.jsonl | caption, image | 19 | 12 | 0 | 0 | 0 | 7 | 1 |" in report
    converted = load_config([tmp_path / "out" / "config.yaml"])
    problems, rejected = read_source(converted.phases[0].sources[0], "image", converted.data, GoldCheck())
    assert rejected == []
    decoded = {p.id: np.asarray(open_image(io.BytesIO(p.images[0]).getvalue(), ImageSection())) for p in problems}
    assert (decoded["animated"][..., 2] < 20).all()  # the first frame, red
    assert (decoded["cmyk"][..., 0] > 200).all()
    assert (decoded["sixteen bit"] == 200).all()
    assert (decoded["alpha"] == 255).all()  # on white
    assert decoded["rotated"].shape == (60, 40, 3)
    assert decoded["rotated"][0, 20, 0] > 200 > decoded["rotated"][-1, 20, 0]  # red above, blue below
