"""Sinks: strict JSON rows, exact continuation after a kill, TensorBoard and Weights & Biases."""

import io
import json
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.record_writer import masked_crc32c
from tiny import tiny_config

from infimmr_jax.config import LoggingSection
from infimmr_jax.training.directory import check_directory
from infimmr_jax.training.sinks import SinkError, open_sinks, open_trackers

QUIET = LoggingSection(tensorboard=False)


def grpo_row(step):
    return {"time": 0.0, "kind": "grpo", "phase": "1 text", "phase_index": 0, "step": step, "step_in_phase": step} | {
        "reward/total": step / 10,
        "policy/grad_norm": 1.0,
    }


def eval_row(stage_index):
    return {"stage": f"stage {stage_index}", "stage_index": stage_index, "modality": "image", "problems": 4} | {
        "correct": 1,
        "accuracy": 0.25,
    }


def contents(run_dir):
    return {path.name: path.read_bytes() for path in sorted(run_dir.glob("*.jsonl"))}


def test_a_killed_and_resumed_run_leaves_the_files_of_an_unbroken_one(tmp_path):
    def steps(sinks, first, last):
        for step in range(first, last):
            sinks.metrics(grpo_row(step))
            sinks.transcript({"step": step, "responses": [{"text": "x" * 100}]})
            if step % 3 == 0:
                sinks.evaluation(eval_row(step // 3))

    with open_sinks(tmp_path / "unbroken", QUIET) as sinks:
        steps(sinks, 0, 10)

    sinks = open_sinks(tmp_path / "killed", QUIET)
    steps(sinks, 0, 4)
    position = sinks.position()
    steps(sinks, 4, 8)
    # No close: the kill came in the middle of a row.
    for name in ("metrics", "transcripts"):
        with (tmp_path / "killed" / f"{name}.jsonl").open("ab") as file:
            file.write(b'{"kind": "grpo", "st')
    with open_sinks(tmp_path / "killed", QUIET, resume_from=position) as sinks:
        assert sinks.position() == position
        steps(sinks, 4, 10)
    assert contents(tmp_path / "killed") == contents(tmp_path / "unbroken")
    assert position == {"metrics": 4, "evals": 2, "transcripts": 4}


def test_rows_are_on_disk_before_close(tmp_path):
    sinks = open_sinks(tmp_path, QUIET)
    sinks.metrics(grpo_row(0))
    assert json.loads((tmp_path / "metrics.jsonl").read_text())["reward/total"] == 0.0
    sinks.close()


def test_a_new_run_does_not_write_over_an_old_one(tmp_path):
    with open_sinks(tmp_path, QUIET) as sinks:
        sinks.metrics(grpo_row(0))
    with pytest.raises(SinkError, match=r"metrics\.jsonl already holds .* resume it, or choose another output"):
        open_sinks(tmp_path, QUIET)
    with open_sinks(tmp_path, QUIET, resume_from={}) as sinks:
        assert sinks.position()["metrics"] == 0
    assert (tmp_path / "metrics.jsonl").read_bytes() == b""


def test_time_is_filled_in_and_rows_are_strict_json(tmp_path):
    with open_sinks(tmp_path, QUIET) as sinks:
        sinks.metrics({"kind": "sft", "step": np.int32(3), "loss": jnp.float32(0.5), "bad": float("nan")})
    row = json.loads((tmp_path / "metrics.jsonl").read_text(), parse_constant=lambda name: pytest.fail(name))
    assert row["step"] == 3
    assert row["loss"] == 0.5
    assert row["bad"] is None
    assert row["time"] > 1e9


def test_transcript_images_are_small_png_and_stored_once(tmp_path):
    encoded = io.BytesIO()
    Image.new("RGB", (2000, 1000), "red").save(encoded, "JPEG")
    (tmp_path / "big.jpg").write_bytes(encoded.getvalue())
    with open_sinks(tmp_path / "run", QUIET) as sinks:
        first = sinks.transcript_image(encoded.getvalue())
        second = sinks.transcript_image(tmp_path / "big.jpg")
    assert first == second
    with Image.open(tmp_path / "run" / first) as picture:
        assert (picture.format, picture.size) == ("PNG", (512, 256))
    assert [path.suffix for path in (tmp_path / "run" / "transcripts").iterdir()] == [".png"]


def test_only_process_0_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    with open_sinks(tmp_path / "run", QUIET) as sinks:
        sinks.metrics(grpo_row(0))
        sinks.transcript_image(b"not even read as a picture")
        # All processes agree on the position, whoever's copy the checkpoint stores.
        assert sinks.position()["metrics"] == 1
    assert not (tmp_path / "run").exists()


def read_events(directory):
    """Event records straight from the file format: length, its checksum, data, its checksum."""
    for path in sorted(directory.glob("events*")):
        data = path.read_bytes()
        while data:
            length = int.from_bytes(data[:8], "little")
            record = data[12 : 12 + length]
            assert int.from_bytes(data[12 + length : 16 + length], "little") == masked_crc32c(record)
            yield Event.FromString(record)
            data = data[16 + length :]


def test_tensorboard_gets_the_scalars_and_a_resume_purges_later_ones(tmp_path):
    sinks = open_sinks(tmp_path, LoggingSection())
    sinks.metrics({"kind": "sft", "step": 200, "loss": 1.5})
    for step in range(3):
        sinks.metrics(grpo_row(step))
    position = sinks.position()
    sinks.metrics(grpo_row(3))
    sinks.evaluation(eval_row(0))
    sinks.close()
    with open_sinks(tmp_path, LoggingSection(), resume_from=position) as sinks:
        sinks.metrics(grpo_row(3))
        sinks.metrics({"kind": "sft", "step": 201, "loss": 1.0})

    grpo = list(read_events(tmp_path / "tensorboard" / "grpo"))
    values = {(event.step, value.tag): value.simple_value for event in grpo for value in event.summary.value}
    assert values[2, "reward/total"] == pytest.approx(0.2)
    assert {tag for _, tag in values} == {"reward/total", "policy/grad_norm"}
    assert [event.step for event in grpo if event.HasField("session_log")] == [0, 3]
    sft = list(read_events(tmp_path / "tensorboard" / "sft"))
    assert [event.step for event in sft if event.HasField("session_log")] == [0, 201]
    evals = list(read_events(tmp_path / "tensorboard" / "evals"))
    assert [value.tag for event in evals for value in event.summary.value] == ["accuracy/image"]


def test_wandb_missing_is_said_in_words(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(SinkError, match=r"wandb is not installed: pip install .*or remove the key"):
        open_sinks(tmp_path, LoggingSection(tensorboard=False, wandb_project="p"))


def test_wandb_that_can_not_be_used_is_a_sentence_and_leaves_a_directory_to_begin_in(tmp_path, monkeypatch):
    def init(**_):
        raise RuntimeError("api_key not configured (no-tty). call wandb.login()\nmore")

    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=init))
    settings = LoggingSection(tensorboard=False, wandb_project="p")
    with pytest.raises(SinkError, match=r"project 'p' \(api_key not configured.*\): log in .* or remove the key"):
        open_trackers(tmp_path, settings, {})
    assert not list(tmp_path.glob("*.jsonl"))
    assert check_directory(tiny_config(tmp_path), False) is False


def test_the_configuration_is_sent_and_trackers_are_opened_once(tmp_path, monkeypatch):
    started = []
    run = types.SimpleNamespace(define_metric=lambda *_, **__: None, log=lambda _: None, finish=lambda: None)
    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=lambda **o: started.append(o) or run))
    settings = LoggingSection(tensorboard=False, wandb_project="p")
    directory = tmp_path / "half a pair \udcff"
    trackers = open_trackers(directory, settings, {"seed": 3})
    open_sinks(directory, settings, trackers=trackers).close()
    assert [(options["config"], options["name"]) for options in started] == [({"seed": 3}, r"half a pair \udcff")]
    assert open_trackers(tmp_path, LoggingSection(tensorboard=False)) == []


def test_wandb_run_is_continued(tmp_path, monkeypatch):
    logged, started = [], []
    run = types.SimpleNamespace(define_metric=lambda *_, **__: None, log=logged.append, finish=lambda: None)
    fake = types.SimpleNamespace(init=lambda **options: started.append(options) or run)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    settings = LoggingSection(tensorboard=False, wandb_project="p")
    with open_sinks(tmp_path, settings) as sinks:
        sinks.metrics(grpo_row(7))
        position = sinks.position()
    open_sinks(tmp_path, settings, resume_from=position).close()
    assert logged == [{"grpo/step": 7, "grpo/reward/total": 0.7, "grpo/policy/grad_norm": 1.0}]
    assert started[0]["id"] == started[1]["id"]
    assert started[0]["project"] == "p"
