"""Draw one sheet with examples of every family: `python -m infimmr_jax.data.synthetic.gallery docs/synthetic.png`."""

from __future__ import annotations

import io
import sys
import textwrap
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from infimmr_jax.data.records import CHOICE_LETTERS, Problem
from infimmr_jax.data.synthetic import FAMILIES, make_problem

ZOOM = 2
COLUMNS = 6
CELL = (112 * ZOOM + 24, 112 * ZOOM + 128)


def gallery(path: Path, index: int = 3) -> None:
    """Write a PNG sheet: each family's problem `index` in both styles with question, caption and worked solution."""
    shown = [
        make_problem(family, style, "train", 0, index + (style == "shifted"), "caption")
        for family in FAMILIES
        for style in ("plain", "shifted")
    ]
    rows = -(-len(shown) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * CELL[0], rows * CELL[1]), "white")
    pen = ImageDraw.Draw(sheet)
    small, bold = ImageFont.load_default(size=11), ImageFont.load_default(size=13)
    for number, problem in enumerate(shown):
        left, top = (number % COLUMNS) * CELL[0] + 12, (number // COLUMNS) * CELL[1] + 10
        style = problem.id.removeprefix(f"{problem.subject}-").split("-")[0]
        pen.text((left, top), f"{problem.subject} ({style})", fill="black", font=bold)
        picture = Image.open(io.BytesIO(_only_image(problem)))
        sheet.paste(picture.resize((112 * ZOOM, 112 * ZOOM), Image.Resampling.NEAREST), (left, top + 18))
        pen.text((left, top + 112 * ZOOM + 22), _words(problem), fill=(40, 40, 40), font=small, spacing=2)
    sheet.quantize(192).save(path, optimize=True)


def _only_image(problem: Problem) -> bytes:
    image = problem.images[0]
    if not isinstance(image, bytes):
        raise TypeError(f"problem {problem.id} is not a procedural one: its image is a file")
    return image


def _words(problem: Problem) -> str:
    options = " ".join(f"({a}) {b}" for a, b in zip(CHOICE_LETTERS, problem.choices, strict=False))
    parts = (
        f"Q: {problem.question} {options}",
        f"caption: {problem.caption}",
        f"{problem.solution} -> {problem.answer}",
    )
    return "\n".join(line for part in parts for line in textwrap.wrap(part, 42))


if __name__ == "__main__":
    gallery(Path(sys.argv[1]))
