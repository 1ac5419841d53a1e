"""Planted repetitions and copies of benchmark problems are found, with the recall stated; nothing else is dropped."""

import io
import random

import numpy as np
import pytest
from PIL import Image

from infimmr_jax.config import CurationSection, ImageSection
from infimmr_jax.data.curation import balanced, find_contaminated, find_duplicates
from infimmr_jax.data.records import Problem
from infimmr_jax.data.synthetic import make_problem

SECTION, LIMITS = CurationSection(), ImageSection(max_pixels=112 * 112)
LONG = (
    "A farmer has 24 sheep and sells a third of them at the market on Monday, then buys {} more on the way home "
    "because the price of wool has gone up by half since the spring. How many sheep does the farmer have in the end?"
)


def problem(name, question, answer="1", images=(), **more):
    return Problem(id=name, question=question, answer=answer, answer_type="math", images=images, **more)


def picture(index, change=lambda image: image):
    made = make_problem("transit", "plain", "train", 0, index, "image").images[0]
    buffer = io.BytesIO()
    change(Image.open(io.BytesIO(made)).convert("RGB")).save(buffer, "PNG")
    return buffer.getvalue()


def jpeg(image):
    buffer = io.BytesIO()
    image.resize((180, 180)).save(buffer, "JPEG", quality=60)
    return Image.open(io.BytesIO(buffer.getvalue()))


def test_repetitions_are_dropped_and_other_problems_stay():
    problems = [
        problem("a", LONG.format(7)),
        problem("a again", LONG.format(7).upper().replace("SHEEP,", "SHEEP ,")),
        problem("a reworded", LONG.format(7).replace("in the end?", "at last?")),
        problem("other number", LONG.format(9)),
        problem("short", "Find $x$ if 2x = 4."),
        problem("short, other sign", "Find $x$ if 2x = -4."),
    ]
    dropped = find_duplicates(problems, SECTION, LIMITS)
    assert {d.id: d.other for d in dropped.values()} == {"a again": "a", "a reworded": "a"}
    assert find_duplicates(problems, CurationSection(near_duplicate=None), LIMITS) == {}


def test_the_same_question_over_another_picture_is_another_problem():
    question = "Find x."
    problems = [
        problem("a", question, images=(picture(0),)),
        problem("b", question, images=(picture(1),)),
        problem("a again", question, images=(picture(0, jpeg),)),
        problem("a, other answer", question, answer="2", images=(picture(0),)),
        problem("a, two pictures", question, images=(picture(0), picture(1))),
        problem("text only", question),
    ]
    assert {d.id: d.other for d in find_duplicates(problems, SECTION, LIMITS).values()} == {"a again": "a"}


def edited(text, share, chooser):
    words = []
    for word in text.split():
        if chooser.random() >= share:
            words.append(word)
        else:
            words += chooser.choice([[], [word.upper(), "then"], ["this"]])
    return " ".join(words)


def stories(count, seed):
    chooser = random.Random(seed)
    names = ["Ann", "Bo", "Cy", "Di", "Ed", "Flo", "Gus", "Hal"]
    things = [f"{a}{b}s" for a in ("apple", "book", "coin", "drum", "egg") for b in ("box", "case", "bag", "tray")]
    places = ["at the market", "in the garden", "by the sea", "near the old mill", "on the train", "under the bridge"]
    verbs = ["finds", "sells", "loses", "borrows", "collects", "counts", "gives away", "paints"]
    for n in range(count):
        parts = [
            f"{chooser.choice(names)} {chooser.choice(verbs)} {chooser.randint(2, 99)} {chooser.choice(things)} "
            f"{chooser.choice(places)}"
            for _ in range(5)
        ]
        yield problem(f"story {seed} {n}", ", and ".join(parts) + f". How many {chooser.choice(things)} are left?")


@pytest.mark.parametrize(("share", "recall"), [(0.0, 1.0), (0.1, 0.97), (0.2, 0.88), (0.3, 0.65)])
def test_edited_benchmark_texts_are_found(share, recall):
    chooser = random.Random(1)
    benchmark, clean = list(stories(100, 1)), list(stories(300, 2))
    planted = [problem(f"copy {n}", edited(p.question, share, chooser)) for n, p in enumerate(benchmark)]
    found = find_contaminated([*clean, *planted], benchmark, SECTION, LIMITS)
    hits = [n for n in range(100) if found.get(300 + n) and found[300 + n].other == benchmark[n].id]
    assert len(hits) / 100 >= recall
    assert sum(n < 300 for n in found) <= 3


def test_copied_pictures_are_found_whatever_the_question():
    benchmark = [problem(f"b{n}", "Read the map.", images=(picture(n),)) for n in range(20)]
    copies = [problem(f"copy {n}", f"Quite another question {n}", images=(picture(n, jpeg),)) for n in range(20)]
    clean = [problem(f"clean {n}", "What now?", images=(picture(n),)) for n in range(20, 60)]
    found = find_contaminated([*copies, *clean], benchmark, SECTION, LIMITS)
    assert [found[n].other for n in range(20)] == [f"b{n}" for n in range(20)]
    assert sum(n >= 20 for n in found) <= 2  # maps resemble each other
    assert "picture distance" in found[0].reason


def test_a_generic_question_over_another_picture_is_no_copy_but_over_a_crop_it_is():
    def crop(image):
        return image.crop((4, 4, 104, 106))

    generic = "How many stops are there in all on the lines of this map?"
    benchmark = [problem("b", generic, images=(picture(0),)), problem("text", LONG.format(7))]
    problems = [
        problem("other picture", generic, images=(picture(1),)),
        problem("crop", generic, images=(picture(0, crop),)),
        problem("the text with some picture", LONG.format(7), images=(picture(5),)),
    ]
    found = find_contaminated(problems, benchmark, SECTION, LIMITS)
    assert {d.id: d.other for d in found.values()} == {"crop": "b", "the text with some picture": "text"}


def test_embeddings_find_what_the_hash_does_not():
    benchmark = [problem("b", "Read the map.", images=(picture(0),))]
    mirrored = problem("mirrored", "Other words.", images=(picture(0, lambda i: i.transpose(0)),))
    clean = problem("clean", "More words.", images=(picture(3),))

    def embed(images):
        # As of real towers: all nearly parallel.
        vectors = {picture(0): (1.0, 0.1, 0.0), mirrored.images[0]: (1.0, 0.1, 0.01), clean.images[0]: (1.0, 0.0, 0.05)}
        return np.array([np.array(vectors[image]) / np.linalg.norm(vectors[image]) for image in images])

    assert find_contaminated([mirrored, clean], benchmark, SECTION, LIMITS) == {}
    section = CurationSection(image_cosine=0.9)
    found = find_contaminated([mirrored, clean], benchmark, section, LIMITS, embed)
    assert [(n, d.other, d.reason) for n, d in found.items()] == [(0, "b", "picture embedding cosine 0.969")]


def test_balance_keeps_order_and_most_of_an_earlier_choice():
    problems = [problem(f"p{n}", "?", subject="ab"[n % 3 == 0], source="s") for n in range(90)]
    kept = balanced(problems, 10, "subject")
    assert kept == sorted(kept)
    assert [sum(problems[n].subject == s for n in kept) for s in "ab"] == [10, 10]
    more = problems + [problem(f"q{n}", "?", subject="a", source="s") for n in range(10)]
    assert len(set(balanced(more, 10, "subject")) & set(kept)) >= 15
    assert balanced(problems, 100, "source") == list(range(90))


def test_the_numbers_of_a_drawing_are_no_text_in_common():
    points = "--".join(f"({x},{y})" for x in range(6) for y in range(6))
    story = "A carpet lies on the floor of the hall, as shown. [asy] {}({}); [/asy] How large is it?"
    drawn = problem("drawn", story.format("draw", points))
    numbers = problem("numbers", "What is the missing number of 4 5, 5 1, 2 3, 3 3, 0 4, 1 5, 4 2, 0 1, 1 1, 2 2, 3 1?")
    assert find_contaminated([numbers], [drawn], SECTION, LIMITS) == {}
    again = problem("again", story.format("fill", points))
    assert find_contaminated([again], [drawn], SECTION, LIMITS)[0].other == "drawn"
    short = [problem(name, f"How large? [asy] draw({spot}); [/asy]") for name, spot in (("a", "(1,1)"), ("b", "(2,2)"))]
    assert find_contaminated(short[:1], short[1:], SECTION, LIMITS) == {}
    assert find_duplicates(short, SECTION, LIMITS) == {}
