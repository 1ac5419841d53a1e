"""Draw one sheet with examples of every family: `python -m infimmr_jax.data.synthetic.gallery docs/synthetic.png`."""

from __future__ import annotations

import io
import sys
import textwrap
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from infimmr_jax.data.records import Problem
from infimmr_jax.data.synthetic import FAMILIES, make_problem
from infimmr_jax.names import CHOICE_LETTERS

ZOOM = 2
COLUMNS = 6
SIDE = 112 * ZOOM
LINE = 14  # pixels


def gallery(path: Path, index: int = 3) -> None:
    """Write a PNG sheet: each family in both styles with question, caption and solution, and a text twin of each."""
    shown = [
        make_problem(family, style, "train", 0, index + (style == "shifted"), "caption")
        for family in FAMILIES
        for style in ("plain", "shifted")
    ]
    twins = {family: make_problem(family, "plain", "train", 0, index, "text") for family in FAMILIES}
    words = [_words(problem, twins) for problem in shown]
    cell = (SIDE + 24, SIDE + 34 + LINE * max(len(lines) for lines in words))
    rows = -(-len(shown) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * cell[0], rows * cell[1]), "white")
    pen = ImageDraw.Draw(sheet)
    small, bold = ImageFont.load_default(size=11), ImageFont.load_default(size=13)
    for number, problem in enumerate(shown):
        left, top = (number % COLUMNS) * cell[0] + 12, (number // COLUMNS) * cell[1] + 10
        style = problem.id.removeprefix(f"{problem.subject}-").split("-")[0]
        pen.text((left, top), f"{problem.subject} ({style})", fill="black", font=bold)
        picture = Image.open(io.BytesIO(_only_image(problem)))
        sheet.paste(picture.resize((SIDE, SIDE), Image.Resampling.NEAREST), (left, top + 18))
        for line, text in enumerate(words[number]):
            pen.text((left, top + SIDE + 22 + LINE * line), text, fill=(40, 40, 40), font=small)
    # Median cut would paint a rare yellow orange.
    sheet.quantize(255, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(path, optimize=True)


def _only_image(problem: Problem) -> bytes:
    image = problem.images[0]
    if not isinstance(image, bytes):
        raise TypeError(f"problem {problem.id} is not a procedural one: its image is a file")
    return image


def _words(problem: Problem, twins: dict[str, Problem]) -> list[str]:
    options = " ".join(f"({a}) {b}" for a, b in zip(CHOICE_LETTERS, problem.choices, strict=False))
    parts = [
        f"Q: {problem.question} {options}",
        f"caption: {problem.caption}",
        f"{problem.solution} -> {problem.answer}",
    ]
    twin = twins[str(problem.subject)]
    if twin.answer == problem.answer and twin.question.endswith(problem.question):
        parts.append(f"text twin: {twin.question}")
    return [line for part in parts for line in textwrap.wrap(part, 42)]


if __name__ == "__main__":
    gallery(Path(sys.argv[1]))
