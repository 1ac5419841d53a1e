"""Checkpoints: newest, best, never half-written or damaged, and refused when they are of another run."""

import dataclasses
import json
import shutil
import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import tiny_config

from infimmr_jax.config import ConfigError, RunConfig
from infimmr_jax.errors import StoppedError
from infimmr_jax.model.config import TokenIds, config_from_shape
from infimmr_jax.objectives.advantages import EstimatorState
from infimmr_jax.objectives.train_state import TrainState
from infimmr_jax.training.checkpoints import Checkpoints, checkpoint_directory, has_checkpoint
from infimmr_jax.training.directory import translated
from infimmr_jax.training.place import Place

BEST = "checkpoint.keep_best={metric: image/accuracy, mode: max}"


def state(value: float) -> TrainState:
    params = {"kernel": jnp.full((4, 2), value), "scale": jnp.arange(3.0) * value}
    return TrainState(step=jnp.int32(value), params=params, moments=(), estimator=())


def like(state: TrainState) -> TrainState:
    def one(x):
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=jax.sharding.SingleDeviceSharding(jax.devices()[0]))

    return jax.tree.map(one, state)


def abstract() -> TrainState:
    return like(state(0))


def opened(config: RunConfig) -> Checkpoints:
    return Checkpoints(config, config_from_shape(config.model.shape, 400, TokenIds(0, 1, 2, 3, 4, 5)))


def saved(config: RunConfig, steps: dict[int, float | None]) -> None:
    """A run's checkpoints: the number of each, with the accuracy that was measured there (or None)."""
    with opened(config) as checkpoints:
        for step, accuracy in steps.items():
            metrics = None if accuracy is None else {"image/accuracy": accuracy}
            checkpoints.save(step, Place(step=step, rows={"metrics": step}), state(step), metrics)
            checkpoints.wait()


def numbers(config: RunConfig) -> list[int]:
    directory = checkpoint_directory(config.checkpoint, config.output)
    return sorted(int(path.name) for path in directory.iterdir() if path.name.isdigit())


def test_the_newest_is_resumed_with_its_place(tmp_path):
    config = tiny_config(tmp_path, "checkpoint.keep_last=2")
    assert not has_checkpoint(config.checkpoint, config.output)
    saved(config, {1: None, 2: None, 3: None})
    assert numbers(config) == [2, 3]
    assert has_checkpoint(config.checkpoint, config.output)
    with opened(config) as checkpoints:
        place, found = checkpoints.resume(abstract())
    assert place == Place(step=3, rows={"metrics": 3})
    np.testing.assert_array_equal(found.params["kernel"], np.full((4, 2), 3.0))


def remembering(tasks: int) -> TrainState:
    """A state with statistics of so many kinds of problems."""
    values = jnp.arange(1.0, tasks + 1)
    return dataclasses.replace(state(1), estimator=EstimatorState(values, 2 * values, jnp.full(tasks, 7, jnp.int32)))


def test_a_run_of_fewer_kinds_of_problems_goes_on_with_empty_statistics_of_the_new_ones(tmp_path):
    config = tiny_config(tmp_path)
    with opened(config) as checkpoints:
        checkpoints.save(1, Place(step=1), remembering(3))
    with opened(config) as checkpoints:
        _, found = checkpoints.resume(like(remembering(10)))
        np.testing.assert_array_equal(found.estimator.mean, [1, 2, 3] + [0] * 7)
        np.testing.assert_array_equal(found.estimator.square, [2, 4, 6] + [0] * 7)
        np.testing.assert_array_equal(found.estimator.seen, [7] * 3 + [0] * 7)
        np.testing.assert_array_equal(checkpoints.restore(like(remembering(3)), 1).estimator.mean, [1, 2, 3])
        with pytest.raises(ConfigError, match="statistics of 3 answer types, this program knows 2"):
            checkpoints.resume(like(remembering(2)))
    assert numbers(config) == [1], "it is not taken for a damaged one"


@pytest.mark.parametrize(("mode", "best"), [("max", 2), ("min", 4)])
def test_the_best_is_kept_beside_the_last(tmp_path, mode, best):
    config = tiny_config(tmp_path, BEST.replace("max", mode), "checkpoint.keep_last=1")
    with opened(config) as checkpoints:
        assert checkpoints.best() is None
    saved(config, {1: None, 2: 0.5, 3: None, 4: 0.25, 5: 0.375, 6: None})
    assert numbers(config) == [best, 6]
    with opened(config) as checkpoints:
        assert checkpoints.latest() == 6
        assert checkpoints.best() == best
        assert checkpoints.restore(abstract(), best).params["kernel"][0, 0] == best


def test_without_keep_best_there_is_none(tmp_path):
    saved(tiny_config(tmp_path), {1: 0.5})
    with opened(tiny_config(tmp_path)) as checkpoints:
        assert checkpoints.best() is None


def test_nothing_complete_is_nothing_to_resume(tmp_path):
    config = tiny_config(tmp_path)
    (tmp_path / "checkpoints" / "7.orbax-checkpoint-tmp").mkdir(parents=True)
    with opened(config) as checkpoints:
        assert checkpoints.resume(abstract()) is None
    assert not has_checkpoint(config.checkpoint, config.output)


def test_a_half_written_checkpoint_is_never_chosen(tmp_path):
    config = tiny_config(tmp_path)
    saved(config, {1: None, 2: None})
    directory = tmp_path / "checkpoints"
    shutil.copytree(directory / "2", directory / "3.orbax-checkpoint-tmp")
    with opened(config) as checkpoints:
        assert checkpoints.resume(abstract())[0].step == 2


@pytest.mark.parametrize("damage", ["facts", "arrays", "all"])
def test_a_damaged_checkpoint_is_moved_aside_and_the_one_before_used(tmp_path, damage, caplog):
    config = tiny_config(tmp_path)
    saved(config, {1: None, 2: None})
    newest = tmp_path / "checkpoints" / "2"
    parts = {"facts": newest / "facts", "arrays": newest / "state", "all": newest}
    files = [path for path in parts[damage].rglob("*") if path.is_file()]
    assert files
    for path in files:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with opened(config) as checkpoints:
        place, found = checkpoints.resume(abstract())
        assert (place.step, float(found.params["kernel"][0, 0])) == (1, 1.0)
        assert "can not be read" in caplog.text
        assert [path.name.startswith("damaged-2-") for path in newest.parent.glob("damaged*")] == [True]
        # The step is made again, and saved under its number.
        checkpoints.save(2, Place(step=2), state(2))
        checkpoints.wait()
    assert numbers(config) == [1, 2]


def test_a_run_whose_every_checkpoint_is_damaged_is_refused(tmp_path):
    config = tiny_config(tmp_path)
    saved(config, {1: None})
    for path in (tmp_path / "checkpoints" / "1").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    with opened(config) as checkpoints, pytest.raises(ConfigError, match=r"none of the 1 checkpoints .* can be read"):
        checkpoints.resume(abstract())


def test_a_checkpoint_of_another_configuration_is_refused_by_the_key(tmp_path):
    saved(tiny_config(tmp_path), {1: None})
    other = tiny_config(tmp_path, "phases.1.steps=5", "optimizer.learning_rate=2e-3")
    sentence = r"another configuration \(.*phases\.1\.steps is 2 there and 5 here.*checkpoint\.may_change"
    with opened(other) as checkpoints, pytest.raises(ConfigError, match=sentence):
        checkpoints.resume(abstract())
    allowed = tiny_config(
        tmp_path,
        "phases.1.steps=5",
        "optimizer.learning_rate=2e-3",
        "checkpoint.may_change=[phases.1.steps, optimizer, phases.0.optimizer, phases.1.optimizer, phases.2.optimizer]",
    )
    with opened(allowed) as checkpoints:
        assert checkpoints.resume(abstract())[0].step == 1


def test_how_it_is_computed_may_differ(tmp_path):
    saved(tiny_config(tmp_path), {1: None})
    changes = ["grpo.micro_batches=2", "grpo.logprob_chunk=8", "rollout.compactions=1", "rollout.cache_sizes=2"]
    with opened(tiny_config(tmp_path, *changes)) as checkpoints:
        assert checkpoints.resume(abstract())[0].step == 1
    other = tiny_config(tmp_path, "rollout.temperature=0.5")
    with opened(other) as checkpoints, pytest.raises(ConfigError, match=r"rollout\.temperature is 1\.0 there and 0\.5"):
        checkpoints.resume(abstract())


def test_a_checkpoint_of_an_older_program_lacks_the_newer_keys(tmp_path):
    saved(tiny_config(tmp_path), {1: None})
    (file,) = (path for path in (tmp_path / "checkpoints" / "1" / "facts").rglob("*") if path.name == "metadata")
    facts = json.loads(file.read_text())
    del facts["config"]["rollout"], facts["config"]["data"]["max_images"], facts["digest"]
    file.write_text(json.dumps(facts))
    with opened(tiny_config(tmp_path)) as checkpoints:
        assert checkpoints.resume(abstract())[0].step == 1
    changed = tiny_config(tmp_path, "data.max_images=2")
    with opened(changed) as checkpoints, pytest.raises(ConfigError, match=r"data\.max_images is 1 there and 2 here"):
        checkpoints.resume(abstract())


def test_what_does_not_change_the_numbers_may_differ(tmp_path):
    saved(tiny_config(tmp_path), {1: None})
    other = tiny_config(tmp_path, "checkpoint.every_steps=9", "data.prefetch=2", "guards.max_nonfinite=5", "name=x")
    with opened(other) as checkpoints:
        assert checkpoints.resume(abstract())[0].step == 1


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    saved(tiny_config(tmp_path), {1: None})
    other = tiny_config(tmp_path, "model.shape.num_layers=1")
    with opened(other) as checkpoints, pytest.raises(ConfigError, match=r"another model .*num_layers is 2 there and 1"):
        checkpoints.resume(abstract())


def test_the_directory_may_be_elsewhere(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    config = tiny_config(tmp_path / "run", f"checkpoint.directory=file://{elsewhere}")
    saved(config, {1: None})
    assert numbers(config) == [1]
    assert (elsewhere / "1").is_dir()
    bucket = tiny_config(tmp_path, "checkpoint.directory=gs://bucket/run")
    assert str(checkpoint_directory(bucket.checkpoint, bucket.output)) == "gs://bucket/run"


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("checkpoint.directory=memory://x", "not to memory://"),
        ("checkpoint.keep_best={metric: accuracy}", "not of the form modality/number"),
        ("checkpoint.keep_best={metric: image/reward}", "numbers: accuracy"),
        ("checkpoint.keep_best={metric: caption/accuracy}", "evaluation.sources has no 'caption'"),
    ],
)
def test_what_can_not_be_is_refused(tmp_path, override, sentence):
    with pytest.raises(ConfigError, match=sentence):
        tiny_config(tmp_path, override)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of two megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"mounting is not permitted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_stops_the_run_with_a_sentence_and_keeps_what_is_complete(small_disk):
    config = tiny_config(small_disk)
    saved(config, {1: None})
    params = {"kernel": jax.random.normal(jax.random.key(0), (1024, 1024))}
    large = TrainState(step=jnp.int32(2), params=params, moments=(), estimator=())

    def fill():
        checkpoints = opened(config)
        checkpoints.save(2, Place(step=2), large)
        checkpoints.wait()

    with pytest.raises(StoppedError, match="the disk is full while writing"), translated(small_disk):
        fill()
    with opened(config) as checkpoints:
        assert checkpoints.resume(abstract())[0].step == 1


def test_sections_of_phases_follow_the_rule_of_their_parent(tmp_path):
    saved(tiny_config(tmp_path), {1: None})
    with opened(tiny_config(tmp_path, "reward.workers=2", "reward.memory_mb=64")) as checkpoints:
        assert checkpoints.resume(abstract())[0].step == 1
    rate = "optimizer.learning_rate=2e-3"
    with opened(tiny_config(tmp_path, rate, "checkpoint.may_change=[optimizer.learning_rate]")) as checkpoints:
        assert checkpoints.resume(abstract())[0].step == 1
    with (
        opened(tiny_config(tmp_path, rate, "checkpoint.may_change=[reward]")) as checkpoints,
        pytest.raises(ConfigError, match=r"optimizer\.learning_rate is 0\.001 there"),
    ):
        checkpoints.resume(abstract())


def test_another_number_to_look_at_counts_as_unmeasured(tmp_path):
    saved(tiny_config(tmp_path, BEST), {1: 0.5, 2: 0.25})
    other = tiny_config(tmp_path, "checkpoint.keep_best={metric: text/accuracy}")
    with opened(other) as checkpoints:
        assert checkpoints.best() is None
        assert checkpoints.resume(abstract())[0].step == 2
        checkpoints.save(3, Place(step=3), state(3), {"text/accuracy": 0.1, "image/accuracy": 0.0})
        checkpoints.wait()
        assert checkpoints.best() == 3


def test_numbers_of_an_older_program_are_read(tmp_path):
    saved(tiny_config(tmp_path, BEST), {1: 0.5})
    facts = tmp_path / "checkpoints" / "1" / "facts" / "metadata"
    tree = json.loads(facts.read_text())
    del tree["metrics"], tree["digest"], tree["arrays"]
    facts.write_text(json.dumps(tree))
    (tmp_path / "checkpoints" / "1" / "metrics").mkdir()
    (tmp_path / "checkpoints" / "1" / "metrics" / "metrics").write_text('{"image/accuracy": 0.5}')
    with opened(tiny_config(tmp_path, BEST)) as checkpoints:
        assert checkpoints.best() == 1
        assert checkpoints.resume(abstract())[0].step == 1


def test_other_problems_are_refused_by_their_source(tmp_path):
    model = config_from_shape(tiny_config(tmp_path).model.shape, 400, TokenIds(0, 1, 2, 3, 4, 5))
    with Checkpoints(tiny_config(tmp_path), model, {"text: a.jsonl": "12 abc", "text: b.jsonl": "3 def"}) as one:
        one.save(1, Place(step=1), state(1))
    other = {"text: a.jsonl": "11 abd", "text: b.jsonl": "3 def"}
    sentence = r"another list of problems \(text: a\.jsonl is 12 abc there and 11 abd here\): bring back the files"
    with Checkpoints(tiny_config(tmp_path), model, other) as two, pytest.raises(ConfigError, match=sentence):
        two.resume(abstract())
    with Checkpoints(tiny_config(tmp_path, "checkpoint.may_change=[problems]"), model, other) as three:
        assert three.resume(abstract())[0].step == 1


def test_what_was_stored_in_another_dtype_is_checked_and_converted(tmp_path):
    with opened(tiny_config(tmp_path)) as checkpoints:
        checkpoints.save(1, Place(step=1), state(1.5))
    half = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(
            x.shape, jnp.bfloat16 if x.dtype == jnp.float32 else x.dtype, sharding=x.sharding
        ),
        like(state(1.5)),
    )
    with opened(tiny_config(tmp_path)) as checkpoints:
        _, found = checkpoints.resume(half)
    assert found.params["kernel"].dtype == jnp.bfloat16
    np.testing.assert_array_equal(found.params["kernel"], np.full((4, 2), 1.5))
