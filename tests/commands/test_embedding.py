"""Pictures as vectors of the vision tower: placed as in a prompt, and planted copies found by `prepare`."""

import io
import json

import jax
import numpy as np
import pytest
from PIL import Image, ImageDraw
from tiny import tiny_tree

from infimmr_jax.commands.embedding import vision_embedder
from infimmr_jax.commands.prepare import prepare
from infimmr_jax.config import ConfigError, DataSection, ImageSection, apply_overrides, parse_config
from infimmr_jax.preprocess.batching import collate
from infimmr_jax.preprocess.prompts import encode_plan, plan_picture, plan_text
from infimmr_jax.rollout.policy import load_policy

QUESTIONS = ("Where does the red line end?", "How many stops are drawn here?", "Which way is shorter on this map?")


def drawn(index: int) -> Image.Image:
    chooser = np.random.default_rng(index)
    image = Image.new("RGB", (180, 180), "white")
    pen = ImageDraw.Draw(image)
    for _ in range(9):
        x, y, w, h = (int(value) for value in (*chooser.integers(5, 120, 2), *chooser.integers(15, 55, 2)))
        pen.rectangle((x, y, x + w, y + h), fill=tuple(int(c) for c in chooser.integers(0, 200, 3)))
    return image


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def config_of(folder, *overrides):
    return parse_config(apply_overrides(tiny_tree(folder), list(overrides)))


def test_a_vector_is_the_mean_of_the_tokens_that_a_prompt_would_show(policy_directory, tmp_path):
    config = config_of(tmp_path, "data.image.max_pixels=50176")
    policy = load_policy(config, policy_directory)
    noise = np.random.default_rng(0).integers(0, 255, (224, 224, 3), dtype=np.uint8)
    noise[0] = noise[-1] = noise[:, 0] = noise[:, -1] = 0  # a frame without a margin, so that nothing is cut off
    noise[0, ::2] = noise[-1, ::2] = noise[::2, 0] = noise[::2, -1] = 255
    picture = encoded(Image.fromarray(noise))
    data = DataSection(image=ImageSection(max_pixels=50176))
    plan = plan_text("<image>", [plan_picture(picture, data.image, policy.layout)], policy.tokenizer, policy.layout)
    prompt = encode_plan(plan, policy.layout, data)
    batch = collate([prompt], 1, plan.length, plan.image_shape, policy.layout)
    slots = batch.patches[:, 0], batch.patch_positions[:, 0], batch.patch_mask[:, 0]
    tokens = policy.model.embed_images(policy.params, *slots)
    shown = np.asarray(tokens[0])[batch.image_index[0][batch.image_index[0] >= 0]].reshape(2, 4, 2, 4, -1)
    expected = shown.mean((1, 3)).ravel()
    vector = vision_embedder(config, policy_directory)([picture])[0]
    np.testing.assert_allclose(vector, expected / np.linalg.norm(expected), atol=1e-5)


def test_prepare_finds_planted_copies_by_the_policys_own_tower(policy_directory, tmp_path):
    root = tmp_path / "data"
    (root / "images").mkdir(parents=True)
    copies = {
        "smaller": lambda image: encoded(image.resize((110, 110))),
        "jpeg": lambda image: encoded(image, "JPEG", quality=60),
        "cropped": lambda image: encoded(image.crop((9, 9, 171, 171))),
    }
    rows, held = [], []
    for n in range(60):
        change = list(copies)[n % 3]
        content = copies[change](drawn(n)) if n < 30 else encoded(drawn(n))
        (root / "images" / f"{n}.png").write_bytes(content)
        name = f"{change} {n}" if n < 30 else f"clean {n}"
        rows.append({"id": name, "question": QUESTIONS[n % 3], "images": [f"images/{n}.png"]})
    for n in range(30):
        (root / "images" / f"held{n}.png").write_bytes(encoded(drawn(n)))
        held.append({"id": f"h{n}", "question": f"Name station {n}.", "images": [f"images/held{n}.png"]})
    for name, items in (("train", rows), ("held", held)):
        lines = (json.dumps(item | {"answer": "1", "answer_type": "math"}) + "\n" for item in items)
        (root / f"{name}.jsonl").write_text("".join(lines))
    tree = tiny_tree(tmp_path) | {"sft": None}
    tree["phases"] = [tree["phases"][2] | {"sources": [{"reader": "jsonl", "path": "train.jsonl"}]}]
    tree["evaluation"]["sources"] = {"image": [{"reader": "jsonl", "path": "held.jsonl"}]}
    # The perceptual hash is put out of action: what is found, the tower found.
    overrides = [f"data.root={root}", "data.curation={image_cosine: 0.9, copied_image: 0, similar_image: 0}"]
    config = parse_config(apply_overrides(tree, overrides))
    embed = vision_embedder(config, policy_directory)
    report = prepare(config, tmp_path / "out", embed=embed)[0]
    found = {dropped["id"]: dropped["other"] for dropped in report.contaminated}
    assert all(other == f"h{name.split()[1]}" for name, other in found.items() if not name.startswith("clean"))
    recall = {change: sum(name.startswith(change) for name in found) / 10 for change in copies}
    assert recall["smaller"] == recall["jpeg"] == 1.0
    assert recall["cropped"] >= 0.6
    assert sum(name.startswith("clean") for name in found) <= 1


def test_without_a_model_it_is_a_sentence(tmp_path):
    assert jax.process_count() == 1
    with pytest.raises(ConfigError, match=r"model\.path"):
        vision_embedder(config_of(tmp_path))
