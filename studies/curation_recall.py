"""How many planted copies of benchmark problems `prepare` finds, and how many other problems it takes for copies.

    python studies/curation_recall.py DATA [--model DIR] [--cosine 0.9] [--others 300]

DATA holds folders with train.jsonl, val.jsonl and images (README, "Your own data"). The val files play the benchmark.
Copies of their texts are edited by words, or rewritten: other words for common ones, sentences in another order, words
of courtesy before and after. Copies of their pictures are made smaller, larger, re-encoded, grey, framed and cropped,
once under another question and once under their own question with a tenth of the words edited. With --model the
embeddings of that model's vision tower are measured, without the perceptual hash.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import io
import json
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from PIL import Image, ImageOps

from infimmr_jax.config import CurationSection, ImageSection, parse_config
from infimmr_jax.data.curation import Embed, find_contaminated
from infimmr_jax.data.records import Problem

TEXTS, PICTURES = ("gsm8k", "deepscaler_math"), ("geometry3k", "nlvr", "puzzlevqa")
LIMITS = ImageSection()
OTHER_WORDS = {
    **{"find": "determine", "compute": "calculate", "what is": "determine", "how many": "what number of"},
    **{"total": "overall", "each": "every", "buys": "purchases", "has": "owns", "gets": "receives", "the value of": ""},
    **{"let": "suppose that", "if": "assuming", "such that": "so that", "all": "all the", "bought": "purchased"},
    **{"makes": "produces", "left": "remaining", "more": "additional", "is equal to": "equals", "dollars": "USD"},
}


def words_edited(text: str, *, share: float, chooser: random.Random) -> str:
    """A share of the words dropped, doubled with another, or replaced."""
    words: list[str] = []
    for word in text.split():
        changed = chooser.random() < share
        words += chooser.choice(([], ["then", word], ["this"])) if changed else [word]
    return " ".join(words)


def rewritten(text: str, chooser: random.Random) -> str:
    """Other common words, the last two sentences before the question swapped, courtesy around it."""
    for old, new in OTHER_WORDS.items():
        text = re.sub(rf"\b{old}\b", new, text, flags=re.IGNORECASE)
    sentences = re.split(r"(?<=[.!?])\s+", text)
    if len(sentences) > 2:
        sentences[-3:-1] = sentences[-3:-1][::-1]
    return f"{chooser.choice(('Please solve this:', 'Here is a question.'))} {' '.join(sentences)} Give the answer."


def cropped(image: Image.Image, share: float, chooser: random.Random) -> Image.Image:
    """A random part of the picture."""
    width, height = image.size
    w, h = int(width * share), int(height * share)
    x, y = chooser.randint(0, width - w), chooser.randint(0, height - h)
    return image.crop((x, y, x + w, y + h))


def encoded(image: Image.Image, quality: int | None = None) -> bytes:
    """PNG, or JPEG of a quality."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG" if quality is None else "JPEG", **({} if quality is None else {"quality": quality}))
    return buffer.getvalue()


Change = Callable[[Image.Image, random.Random], bytes]
CHANGES: dict[str, Change] = {
    "half the size": lambda image, _: encoded(image.resize((max(8, image.width // 2), max(8, image.height // 2)))),
    "1.7 times the size": lambda image, _: encoded(image.resize((int(image.width * 1.7), int(image.height * 1.7)))),
    "JPEG of quality 40": lambda image, _: encoded(image, 40),
    "grey": lambda image, _: encoded(image.convert("L").convert("RGB")),
    "white frame": lambda image, _: encoded(ImageOps.expand(image, image.width // 8, "white")),
    "95 % cropped, JPEG 70": lambda image, chooser: encoded(cropped(image, 0.95, chooser), 70),
    "85 % cropped, JPEG 70": lambda image, chooser: encoded(cropped(image, 0.85, chooser), 70),
    "75 % cropped, JPEG 70": lambda image, chooser: encoded(cropped(image, 0.75, chooser), 70),
}


def problems(file: Path, most: int) -> list[Problem]:
    """The first problems of a file, their pictures as absolute paths."""
    with file.open(encoding="utf-8") as lines:
        rows = [json.loads(line) for _, line in zip(range(most), lines, strict=False)]
    return [
        Problem(
            id=row["id"],
            question=row["question"],
            answer=row["answer"],
            answer_type=row["answer_type"],
            choices=tuple(row.get("choices") or ()),
            images=tuple(str(file.parent / name) for name in row.get("images") or ()),
        )
        for row in rows
    ]


def score(planted: list[Problem], benchmark: list[Problem], section: CurationSection, embed: Embed | None) -> float:
    """The share of planted copies, one of each benchmark problem, that is found."""
    return len(find_contaminated(planted, benchmark, section, LIMITS, embed)) / len(planted)


def text_rows(data: Path) -> Iterator[str]:
    """A table row a kind of edit."""
    section = CurationSection()
    sets = {
        name: (problems(data / name / "val.jsonl", 300), problems(data / name / "train.jsonl", 4000)) for name in TEXTS
    }
    edits: dict[str, Callable[..., str]] = {"rewritten": rewritten}
    for share in (0.1, 0.2, 0.3):
        edits[f"{share:.0%} of the words"] = functools.partial(words_edited, share=share)
    for name, edit in edits.items():
        found = []
        for benchmark, _ in sets.values():
            chooser = random.Random(0)
            planted = [dataclasses.replace(p, question=edit(p.question, chooser=chooser)) for p in benchmark]
            found.append(f"{score(planted, benchmark, section, None):.1%}")
        yield f"| {name} | {' | '.join(found)} |"
    flagged = [f"{score(clean, benchmark, section, None):.1%}" for benchmark, clean in sets.values()]
    yield f"| none: the training problems | {' | '.join(flagged)} |"


def picture_rows(data: Path, section: CurationSection, embed: Embed | None, others: int) -> Iterator[str]:
    """A table row a kind of change: found under another question / (by the hash) under an edited one, for each set."""
    sets = {
        name: (problems(data / name / "val.jsonl", 40), problems(data / name / "train.jsonl", others))
        for name in PICTURES
    }
    for change, make in CHANGES.items():
        cells = []
        for benchmark, clean in sets.values():
            found = []
            for own_text in (False, True) if embed is None else (False,):
                chooser = random.Random(0)
                planted = []
                for n, problem in enumerate(benchmark):
                    picture = make(Image.open(problem.images[0]).convert("RGB"), chooser)
                    text = (
                        words_edited(problem.question, share=0.1, chooser=chooser)
                        if own_text
                        else f"Describe picture number {n}."
                    )
                    planted.append(dataclasses.replace(problem, question=text, choices=(), images=(picture,)))
                # Embeddings are centred on the mean of all pictures: the clean ones belong to it.
                hits = find_contaminated([*planted, *clean], benchmark, section, LIMITS, embed)
                found.append(f"{sum(n < len(planted) for n in hits) / len(planted):.0%}")
            cells.append(" / ".join(found))
        yield f"| {change} | {' | '.join(cells)} |"
    flagged = [
        f"{len(find_contaminated(clean, benchmark, section, LIMITS, embed)) / len(clean):.1%}"
        for benchmark, clean in sets.values()
    ]
    yield f"| none: the training problems | {' | '.join(flagged)} |"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--cosine", type=float, default=0.9)
    parser.add_argument("--others", type=int, default=300, help="training pictures of each set")
    options = parser.parse_args()
    if options.model is None:
        print(f"| edit of the text | {' | '.join(TEXTS)} |\n|---|---|---|")
        for row in text_rows(options.data):
            print(row, flush=True)
        section, embed = CurationSection(), None
    else:
        from infimmr_jax.commands.embedding import vision_embedder

        phase = {"name": "-", "modality": "text", "steps": 1, "sources": [{"reader": "jsonl", "path": "-"}]}
        embed = vision_embedder(parse_config({"phases": [phase]}), options.model)
        section = CurationSection(image_cosine=options.cosine, copied_image=0, similar_image=0, text_overlap=1)
    print(f"\n| change of the picture | {' | '.join(PICTURES)} |\n|---|---|---|---|")
    for row in picture_rows(options.data, section, embed, options.others):
        print(row, flush=True)


if __name__ == "__main__":
    main()
