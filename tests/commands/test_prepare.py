"""`prepare` converts what a configuration names, reports every dropped row, and gives the same run back."""

import hashlib
import io
import json

import pytest
from PIL import Image

from infimmr_jax.commands.prepare import prepare
from infimmr_jax.config import load_config, parse_config
from infimmr_jax.data.curriculum import build_curriculum, heldout
from infimmr_jax.data.readers import read_source
from infimmr_jax.data.records import DataError
from infimmr_jax.data.synthetic import make_problem
from infimmr_jax.rewards.golds import GoldCheck

THINGS = ["hats", "boats", "lamps", "coins", "doors", "maps", "pears", "rugs", "tents", "vases", "wheels", "keys"]


def story(n):
    """Question n: no two share more than a few words in a row."""
    a, b, c = (THINGS[(n + k) % 12] for k in (0, 5, 7))
    verbs = ("sells", "finds", "paints", "lends")[n % 4], ("loses", "hides", "mends")[n % 3]
    return (
        f"Person{n} {verbs[0]} {n + 2} {a} near {b}, then {verbs[1]} {n + 5} {c} of town{n}: count what {c} cost {a}?"
    )


def row(name, question, answer="1", **more):
    return {"id": name, "question": question, "answer": answer, "answer_type": "math", **more}


def write(folder, name, rows):
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(item) + "\n" for item in rows))
    return {"reader": "jsonl", "path": f"{name}.jsonl"}


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "data"
    (folder / "images").mkdir(parents=True)
    for n in range(12):
        image = make_problem("transit", "plain", "train", 0, n, "image").images[0]
        Image.open(io.BytesIO(image)).convert("RGB").save(folder / "images" / f"{n}.png")
    return folder


def configuration(root, **curation):
    texts = [row(f"t{n}", story(n)) for n in range(10)]
    texts += [row("again", story(4).upper()), row("bad", " "), row("t1", "double id")]
    texts += [row("copy", story(11) + " Think about it.")]
    pictures = [
        row(f"p{n}", "How many stations has the map?", str(n), images=[f"images/{n}.png"], caption=f"map of {n}")
        for n in range(10)
    ]
    del pictures[3]["caption"]
    held = [row("h1", story(11))]
    seen = [row("h2", "Where is the crossing?", "2", images=["images/10.png"])]
    text, picture = write(root, "text", texts), write(root, "pictures", pictures)
    made = {"reader": "synthetic", "families": ["bars"], "size": 10}
    phases = [
        {"name": "one", "modality": "text", "sources": [text, made], "steps": 2, "prompts_per_step": 4},
        {
            "name": "two",
            "modality": "caption",
            "sources": [picture | {"weight": 2.0}],
            "steps": 2,
            "prompts_per_step": 4,
        },
        {"name": "three", "modality": "image", "sources": [picture, made], "steps": 2, "prompts_per_step": 4},
    ]
    evaluation = {
        "text": [write(root, "held", held) | {"split": "heldout"}],
        "image": [write(root, "seen", seen) | {"split": "heldout"}],
    }
    data = {"root": str(root), "curation": curation, "image": {"max_pixels": 112 * 112}}
    return parse_config({"data": data, "phases": phases, "evaluation": {"sources": evaluation}})


def digest(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


def test_sources_are_checked_curated_converted_and_reported(root, tmp_path):
    config, before = configuration(root), digest(root)
    summaries = {s.source: s for s in prepare(config, tmp_path / "out")}
    text, pictures = summaries["text.jsonl"], summaries["pictures.jsonl"]
    assert (text.rows, text.kept) == (14, 10)
    assert [(r["row"], r["id"]) for r in text.rejected] == [(12, "bad"), (13, "t1")]
    assert [(d["id"], d["other"]) for d in text.duplicates] == [("again", "t4")]
    assert [(d["id"], d["other"]) for d in text.contaminated] == [("copy", "h1")]
    assert (pictures.rows, pictures.kept, pictures.captioned) == (10, 10, 9)
    assert [(r["modality"], r["id"]) for r in pictures.rejected] == [("caption", "p3")]
    assert pictures.leaking_captions == [f"p{n}" for n in range(10) if n != 3]
    assert digest(root) == before
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [s["source"] for s in report["sources"]] == list(summaries)
    page = (tmp_path / "out" / "report.md").read_text()
    assert "row 12 (bad), as text: `question` is empty" in page
    assert "| text.jsonl | text | 14 | 2 | 1 | 1 | 0 | 10 | 0 |" in page


def test_the_written_configuration_is_the_same_run_on_the_converted_sources(root, tmp_path):
    before = configuration(root)
    prepare(before, tmp_path / "out")
    after = load_config(tmp_path / "out" / "config.yaml")
    assert [source.reader for phase in after.phases for source in phase.sources] == [
        *("tfds", "synthetic"),
        "tfds",
        *("tfds", "synthetic"),
    ]
    assert after.phases[1].sources[0].weight == 2.0
    curriculum = build_curriculum(after, lambda problem, modality: problem.id, tuple, golds=GoldCheck())
    assert [report.kept for report in curriculum.report] == [10, 10, 9, 10, 10]
    (batch,) = [curriculum.dataset[i] for i in (2,)]
    original = {n: (root / "images" / f"{n}.png").read_bytes() for n in range(12)}
    assert all(problem.images == (original[int(problem.id[1:])],) for problem in batch.problems)
    problems, _ = heldout(after.evaluation.sources["image"], "image", 5, after.data, golds=GoldCheck())
    assert [problem.id for problem in problems] == ["h2"]


def test_pictures_of_the_evaluation_are_not_trained_on(root, tmp_path):
    Image.open(root / "images" / "10.png").resize((150, 150)).save(root / "images" / "5.png")
    pictures = {s.source: s for s in prepare(configuration(root), tmp_path / "out")}["pictures.jsonl"]
    assert [(d["id"], d["other"]) for d in pictures.contaminated] == [("p5", "h2")]
    assert pictures.kept == 9


def test_balance_and_benchmarks_come_from_the_configuration(root, tmp_path):
    (root / "bench.json").write_text(json.dumps([{"problem": story(2), "answer": "5"}]))
    benchmark = {"reader": "math", "path": "bench.json"}
    config = configuration(root, benchmarks=[benchmark], balance_by="source", balance_at_most=6, near_duplicate=None)
    text = {s.source: s for s in prepare(config, tmp_path / "out")}["text.jsonl"]
    assert "t2" in {d["id"] for d in text.contaminated}
    assert text.duplicates == []
    assert text.kept + text.surplus + len(text.contaminated) + len(text.rejected) == 14
    assert load_config(tmp_path / "out" / "config.yaml").data.curation.benchmarks == ()


def test_golds_are_checked_by_the_rules_of_the_phase_and_boxes_keep_their_sizes(root, tmp_path):
    config = configuration(root)
    located = {"question": "Where is the crossing?", "images": ["images/11.png"], "verify": {"threshold": 5}}
    rows = [
        located | {"id": "point", "answer": [3, 4], "answer_type": "point"},
        located | {"id": "box", "answer": [3, 4, 20, 30], "answer_type": "box"},
        located | {"id": "two", "answer": [3, 4, 5], "answer_type": "point"},
    ]
    source = write(root, "located", rows)
    phase = config.phases[2].model_dump() | {"sources": [source], "reward": {"rules": {"point": "l1"}}}
    tree = {"data": config.data.model_dump(), "phases": [phase]}
    (summary,) = prepare(parse_config(tree), tmp_path / "out")
    assert summary.answer_types == {"point": 1, "box": 1}
    assert [loss["id"] for loss in summary.rejected] == ["two"]
    converted = load_config(tmp_path / "out" / "config.yaml")
    golds = GoldCheck(None, converted.phases[0].reward)
    problems, rejected = read_source(converted.phases[0].sources[0], "image", converted.data, golds)
    assert rejected == []
    with Image.open(root / "images" / "11.png") as image:
        assert [problem.extra["image_size"] for problem in problems] == [list(image.size)] * 2


def test_errors_come_before_anything_is_written(root, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("x")
    with pytest.raises(DataError, match="not empty"):
        prepare(configuration(root), tmp_path / "full")
    with pytest.raises(DataError, match="no model was given"):
        prepare(configuration(root, image_cosine=0.9), tmp_path / "out")
    config = configuration(root)
    (root / "held.jsonl").write_text("not json\n")
    with pytest.raises(DataError, match=r"no problem of held\.jsonl is left; the first rejected: .*row 1"):
        prepare(config, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_training_on_an_evaluation_source_is_an_error(root, tmp_path):
    config = configuration(root)
    twice = config.model_copy(
        update={"evaluation": config.evaluation.model_copy(update={"sources": {"text": config.phases[0].sources}})}
    )
    with pytest.raises(DataError, match="training and of evaluation at once"):
        prepare(twice, tmp_path / "out")


def test_three_rows_of_a_source_are_shown_as_they_were_read(root, tmp_path):
    image = {"image": "images/1.png", "level": [1]}
    rows = [
        image | {"id": f"q{n}", "question": f"<image>\n{story(n)}", "choices": ["cat", "dog"], "answer": n % 2}
        for n in range(5)
    ]
    (root / "foreign.json").write_text(json.dumps(rows))
    config = configuration(root, near_duplicate=None)
    phase = config.phases[2].model_dump() | {"sources": [{"reader": "fields", "path": "foreign.json"}]}
    lines = []
    tree = {"data": config.data.model_dump(), "phases": [phase]}
    (summary,) = prepare(parse_config(tree), tmp_path / "out", progress=lines.append)
    assert [sample["id"] for sample in summary.samples] == ["q0", "q2", "q4"]
    width, height = Image.open(root / "images" / "1.png").size
    (middle,) = [line for line in lines if "(q2)" in line]
    assert middle.startswith('  row 3 (q2): "<image> Person2 ')
    assert middle.endswith(f'gold "A" (choice, of "cat, dog"), pictures {width} x {height}')
    page = (tmp_path / "out" / "report.md").read_text()
    assert f"- {middle.strip()}" in page
    assert "- 5 rows: the answer is the place of an option, counted from 0" in page
    assert "- 5 rows: `level` is not that of the common layout and is left aside" in page
