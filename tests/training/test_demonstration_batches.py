"""The cold start's data: packed or not a run learns the same; what can not be learnt from is refused before."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image
from tiny import tiny_config

from infimmr_jax.config import ConfigError
from infimmr_jax.data.records import DataError
from infimmr_jax.parallel.hosts import RowShare
from infimmr_jax.preprocess.packing import PackedBatch
from infimmr_jax.rewards.pool import GraderPool
from infimmr_jax.training.demonstration_batches import Drawn, plan_shape, supervised_rate
from infimmr_jax.training.programs import Programs
from infimmr_jax.training.setup import prepare

TALK = [
    {"messages": [{"role": "user", "content": "red 4?"}, {"role": "assistant", "content": "\\boxed{4}"}]},
    {"messages": [{"role": "user", "content": "blue 17?"}, {"role": "assistant", "content": "it says 17"}]},
]
AGAIN = {"messages": [*TALK[0]["messages"], *TALK[1]["messages"]]}


@pytest.fixture
def setup_of(tmp_path):
    def make(*overrides, rows=TALK):
        (tmp_path / "talk.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        talk = ["sft.conversations=[{path: talk.jsonl}]", f"data.root={tmp_path}"]
        config = tiny_config(tmp_path / "run", "evaluation={}", *talk, *overrides)
        with GraderPool() as pool:
            return prepare(config, tmp_path / "run", pool)

    return make


def curve(setup) -> list[float]:
    programs = Programs(setup)
    state, losses = programs.start(), []
    for step in range(3):
        batch = setup.demonstrations[0](step)
        state, metrics = programs.supervise(state, batch, supervised_rate(step, setup.config.sft))
        losses.append(float(metrics["loss"]))
    return losses


def test_a_packed_run_has_the_curve_of_the_padded_one(setup_of):
    padded, packed = setup_of(), setup_of("sft.packed_length=192")
    batch = packed.demonstrations[0](0)
    assert isinstance(batch, PackedBatch)
    assert batch.tokens.shape[0] < packed.config.sft.batch_size
    assert batch.mask.sum() == padded.demonstrations[0](0).mask.sum()
    assert batch.segments.max() >= 2
    np.testing.assert_allclose(curve(packed), curve(padded), atol=1e-5)


def test_coordinates_are_demonstrated_in_pixels_of_the_picture_as_it_is_shown(tmp_path):
    Image.new("RGB", (200, 100)).save(tmp_path / "wide.png")
    row = {"question": "Where?", "images": ["wide.png"], "answer_type": "box", "solution": "It is there."}
    rows = [
        row | {"id": "box", "answer": [50, 20, 150, 80]},
        row | {"id": "point", "answer": [50, 20, 150, 80], "answer_type": "point"},
        row | {"id": "list", "answer": ["a", "b"], "answer_type": "list"},
        row | {"id": "speck", "answer": [50, 20, 50.5, 20.5]},
    ]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = "{reader: jsonl, path: train.jsonl}"
    overrides = [f"sft.sources={{image: [{source}]}}", f"data.root={tmp_path}", "evaluation={}", "sft.max_response=64"]
    with GraderPool() as pool:
        setup = prepare(tiny_config(tmp_path / "run", *overrides), tmp_path / "run", pool)
    batcher = setup.demonstrations[0]
    (drawn_from,) = batcher.pools
    assert [problem.id for problem in drawn_from.problems] == ["box", "point", "list"]
    said = {}
    for problem in drawn_from.problems:
        planned = batcher.plan(Drawn(problem, "image", True))
        said[problem.id] = setup.tokenizer.decode(planned.plan.tokens[planned.learnt], skip_special_tokens=True)
    # Shown at 140 x 56: x times 0.7, y times 0.56, in whole pixels; the middle of the region for a point.
    assert said == {
        "box": "<think> It is there.</think>\\boxed{[35, 11, 105, 45]}",
        "point": "<think> It is there.</think>\\boxed{[70, 28]}",
        "list": "<think> It is there.</think>\\boxed{[a, b]}",
    }
    report = next(report for report in setup.reports if report.phase == "cold start")
    assert [(loss.id, loss.row) for loss in report.rejected] == [("speck", 4)]
    assert "no longer right" in report.rejected[0].reason


def test_processes_hold_the_rows_of_one_packing(setup_of):
    whole = setup_of("sft.packed_length=192").demonstrations[0]
    whole = dataclasses.replace(whole, shape=plan_shape(whole, 192, 2))
    parts = [dataclasses.replace(whole, share=RowShare(index, 2))(1) for index in range(2)]
    for name in (
        "tokens",
        "segments",
        "positions",
        "image_index",
        "patches",
        "patch_mask",
        "places",
        "targets",
        "mask",
    ):
        joined = np.concatenate([getattr(part, name) for part in parts])
        np.testing.assert_array_equal(joined, getattr(whole(1), name))


def test_several_turns_need_packed_rows(setup_of):
    kept = setup_of("sft.packed_length=192", rows=[AGAIN]).demonstrations[0].pools[-1].problems
    assert len(kept) == 1
    with pytest.raises(DataError, match=r"several turns of the assistant; set sft\.packed_length"):
        setup_of(rows=[AGAIN])


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["sft.packed_length=20"], "over sft.packed_length = 20"),
        (["sft.packed_length=192", "sft.max_response=3", "sft.sources={}"], "over sft.max_response = 3"),
    ],
)
def test_what_does_not_fit_is_refused_not_cut(setup_of, overrides, sentence):
    with pytest.raises(DataError, match=sentence):
        setup_of(*overrides)


def test_a_stage_needs_demonstrations(tmp_path):
    with pytest.raises(ConfigError, match="there is nothing to learn from: give `sources` "):
        tiny_config(tmp_path, "sft.sources={}")
