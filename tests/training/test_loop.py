"""A whole run: it resumes after a kill to the same numbers, compiles a fixed set of programs, and refuses bad input."""

import json
import signal
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file
from tiny import tiny_config

from infimmr_jax.config import ConfigError
from infimmr_jax.data.records import DataError
from infimmr_jax.rewards.components import RewardError
from infimmr_jax.training import loop
from infimmr_jax.training.lock import lock
from infimmr_jax.training.loop import Preempted, train

TIMES = ("time", "tokens_per_second", "compile/")


def rows(run: Path, name: str = "metrics") -> list[dict]:
    found = [json.loads(line) for line in (run / f"{name}.jsonl").read_text().splitlines()]
    return [{key: row[key] for key in row if not key.startswith(TIMES)} for row in found]


def weights(run: Path) -> dict[str, np.ndarray]:
    return load_file(run / "model" / "model.safetensors")


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    run = tmp_path_factory.mktemp("unbroken") / "run"
    train(tiny_config(run))
    return run


def test_every_step_and_stage_is_recorded(unbroken):
    kinds = [(row["kind"], row["step"]) for row in rows(unbroken)]
    assert kinds == [("sft", i) for i in range(3)] + [("grpo", i) for i in range(6)]
    stages = [(row["stage"], row["modality"]) for row in rows(unbroken, "evals")]
    assert stages == [(s, m) for s in ("cold start", "text", "caption", "image") for m in ("text", "image")]
    shown = rows(unbroken, "transcripts")
    pictures = [unbroken / image for row in shown for image in row["images"]]
    assert pictures
    assert all(picture.exists() for picture in pictures)
    assert {row["modality"] for row in shown} == {"text", "caption", "image"}


def test_held_out_accuracy_is_measured_inside_phases(unbroken):
    grpo = [row for row in rows(unbroken) if row["kind"] == "grpo"]
    assert [row["step"] for row in grpo if "heldout/text" in row] == [1, 3, 5]
    # The last step of a phase and the stage after it are of the same policy.
    after = {(row["stage"], row["modality"]): row["accuracy"] for row in rows(unbroken, "evals")}
    for row in grpo[1::2]:
        for modality in ("text", "image"):
            assert row[f"heldout/{modality}"] == after[row["phase"], modality]


def test_distributions_count_every_response(unbroken):
    for row in (row for row in rows(unbroken) if row["kind"] == "grpo"):
        assert sum(row["histogram/length"]["counts"]) == sum(row["histogram/reward"]["counts"]) == 16


def test_sampler_and_trainer_agree_on_every_log_probability(unbroken):
    mismatch = [row["policy/mismatch_max"] for row in rows(unbroken) if row["kind"] == "grpo"]
    assert max(mismatch) < 2e-5


def test_three_phases_share_one_sampler_and_one_update(unbroken):
    counts = [json.loads(line)["compile/count"] for line in (unbroken / "metrics.jsonl").read_text().splitlines()]
    first_phase, last_phase = counts[4], counts[-1]
    assert last_phase == first_phase, "a later phase compiled something again"


@pytest.mark.parametrize("steps", [2, 4, 8])
def test_a_stopped_run_resumes_to_the_same_numbers(unbroken, tmp_path, monkeypatch, steps):
    run = tmp_path / "run"
    after_step = loop.Run.after_step

    def stop(self, *evaluated):
        if self.steps_made == steps:
            self.signals.got.append(signal.SIGTERM)
        after_step(self, *evaluated)

    monkeypatch.setattr(loop.Run, "after_step", stop)
    with pytest.raises(Preempted):
        train(tiny_config(run))
    monkeypatch.undo()
    train(tiny_config(run), resume=True)
    for name in ("metrics", "evals", "transcripts"):
        assert rows(run, name) == rows(unbroken, name)
    assert all(np.array_equal(value, weights(run)[name]) for name, value in weights(unbroken).items())


@pytest.mark.parametrize("batch", [1, 4])
def test_a_signal_in_an_evaluation_ends_it_and_a_resumed_run_makes_it_again(unbroken, tmp_path, monkeypatch, batch):
    run, leave, asked = tmp_path / "run", loop.Run.leave_evaluation, []

    def stop(self, written):
        asked.append(self.place)
        if len(asked) == batch:  # each stage asks two; before the second the row of the first is written
            self.signals.got.append(signal.SIGTERM)
        leave(self, written)

    monkeypatch.setattr(loop.Run, "leave_evaluation", stop)
    with pytest.raises(Preempted):
        train(tiny_config(run))
    assert len(asked) == batch
    for _ in range(2):  # asked again in the same place, where the state is saved already
        monkeypatch.setattr(loop.Run, "leave_evaluation", lambda self, _: self.signals.got.append(15) or leave(self, _))
        with pytest.raises(Preempted):
            train(tiny_config(run), resume=True)
    monkeypatch.undo()
    train(tiny_config(run), resume=True)
    for name in ("metrics", "evals", "transcripts"):
        assert rows(run, name) == rows(unbroken, name)
    assert all(np.array_equal(value, weights(run)[name]) for name, value in weights(unbroken).items())


def test_the_best_checkpoint_may_lie_inside_a_phase(tmp_path, monkeypatch):
    saved, save = [], loop.Checkpoints.save

    def note(self, number, place, state, metrics=None):
        saved.append((number - place.stage, place.stage, metrics))
        save(self, number, place, state, metrics)

    monkeypatch.setattr(loop.Checkpoints, "save", note)
    best = "checkpoint.keep_best={metric: text/length, mode: max}"
    run = tmp_path / "run"
    train(
        tiny_config(run, best, "sft=null", "phases.1.steps=3", "evaluation.every_steps=1", "checkpoint.every_steps=9")
    )
    inside = [(step, metrics) for step, evaluated, metrics in saved if step not in (0, 2, 5, 7)]
    assert [step for step, _ in inside] == [1, 3, 4, 6], "every state that was evaluated, and only those"
    heldout = {row["step"] + 1: row["heldout/text"] for row in rows(run)}
    assert all(metrics["text/accuracy"] == heldout[step] for step, metrics in inside)


def test_a_run_is_not_overwritten(unbroken):
    with pytest.raises(ConfigError, match="already holds a run"):
        train(tiny_config(unbroken))


def test_two_runs_do_not_write_to_one_directory(tmp_path):
    with lock(tmp_path), pytest.raises(ConfigError, match="in use by another run"):
        train(tiny_config(tmp_path))


def column(group):
    return group.problem.extra["a column that is not there"]


def test_a_reward_function_is_tried_before_anything_is_compiled(tmp_path):
    weights = "reward.weights={'test_loop:column': 1.0}"
    with pytest.raises(RewardError, match=r"test_loop:column failed on a made-up group of 2 .*KeyError: 'a column"):
        train(tiny_config(tmp_path, weights))
    assert not (tmp_path / "metrics.jsonl").exists()


def test_resume_needs_a_run(tmp_path):
    with pytest.raises(ConfigError, match="no run to resume"):
        train(tiny_config(tmp_path / "nothing"), resume=True)


def test_a_checkpoint_of_another_model_is_refused(unbroken):
    with pytest.raises(ConfigError, match=r"another model.*hidden_size is 64 there and 48 here|num_layers"):
        train(tiny_config(unbroken, "model.shape.num_layers=1"), resume=True)


def test_prompts_beyond_the_limit_are_refused_before_training(tmp_path):
    with pytest.raises(DataError, match=r"data\.max_prompt = 20"):
        train(tiny_config(tmp_path / "run", "data.max_prompt=20"))
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_a_batch_that_the_mesh_can_not_divide_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="prompts_per_step: 7"):
        train(tiny_config(tmp_path / "run", "phases.0.prompts_per_step=7", "grpo.micro_batches=2"))


def test_an_unwritable_output_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="can not be written"):
        train(tiny_config(tmp_path / "file" / "run"))


def test_options_of_the_mesh_are_checked(tmp_path):
    with pytest.raises(ConfigError, match=f"{jax.device_count()} devices"):
        train(tiny_config(tmp_path / "run", "mesh.fsdp=3"))


@pytest.mark.parity
def test_transformers_loads_the_trained_model_and_tokenizer(unbroken):
    torch = pytest.importorskip("torch")
    from transformers import AutoTokenizer, Qwen2_5_VLForConditionalGeneration

    torch.set_num_threads(1)
    directory = unbroken / "model"
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(directory, dtype=torch.float32)
    assert all(
        np.array_equal(model.state_dict()[name].numpy(), value)
        for name, value in weights(unbroken).items()
        if name in model.state_dict()
    )
    tokenizer = AutoTokenizer.from_pretrained(directory)
    turns = [{"role": "user", "content": [{"type": "text", "text": "Find 2 * red + blue."}]}]
    ids = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    answer = model.generate(**ids, max_new_tokens=4, do_sample=False)
    assert answer.shape[1] > ids["input_ids"].shape[1]
