"""Damage of one file of the newest checkpoint: the run goes on from it unchanged, or from the one before."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import tiny_config

from infimmr_jax.config import ConfigError, RunConfig
from infimmr_jax.model.config import TokenIds, config_from_shape
from infimmr_jax.objectives.train_state import TrainState
from infimmr_jax.training.checkpoints import Checkpoints
from infimmr_jax.training.place import Memory, Place

# Orbax leaves the readings behind a failed one unawaited.
pytestmark = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning", "ignore:coroutine .* was never awaited:RuntimeWarning"
)
BEST = "checkpoint.keep_best={metric: image/accuracy, mode: max}"


def state(step: int) -> TrainState:
    keys = jax.random.split(jax.random.key(step), 3)
    params = {"kernel": jax.random.normal(keys[0], (96, 64)), "scale": jnp.zeros(40), "half": jnp.ones(9, jnp.bfloat16)}
    moments = (jax.random.normal(keys[1], (96, 64)), jnp.int32(step))
    return TrainState(step=jnp.int32(step), params=params, moments=moments, estimator=())


def place(step: int) -> Place:
    return Place(
        step=step, data={"next_index": step}, rows={"metrics": 3 * step}, memory=Memory(recent=(0.25, step / 3))
    )


def abstract() -> TrainState:
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), state(1))


def opened(config: RunConfig) -> Checkpoints:
    return Checkpoints(config, config_from_shape(config.model.shape, 400, TokenIds(0, 1, 2, 3, 4, 5)))


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("intact")
    with opened(tiny_config(run, BEST)) as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, place(step), state(step), {"image/accuracy": step / 4})
            checkpoints.wait()
    return run / "checkpoints"


def delete(path: Path, _: random.Random) -> None:
    path.unlink()


def cut(path: Path, _: random.Random) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path, _: random.Random) -> None:
    path.write_bytes(b"")


def zero(path: Path, _: random.Random) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def lengthen(path: Path, _: random.Random) -> None:
    path.write_bytes(path.read_bytes() + b"\0\0")


def flip(path: Path, random_: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[random_.randrange(len(data))] ^= 1 << random_.randrange(8)
    path.write_bytes(bytes(data))


DAMAGES: tuple[Callable[[Path, random.Random], None], ...] = (delete, cut, empty, zero, lengthen, *[flip] * 4)


def resume_equals_a_saved_one(run: Path, why: str) -> int:
    """Resume and compare bit for bit with what was saved under the step that it says; returns the step."""
    with opened(tiny_config(run, BEST)) as checkpoints:
        resumed = checkpoints.resume(abstract())
    assert resumed is not None, why
    at, arrays = resumed
    assert at == place(at.step), why
    for mine, saved in zip(jax.tree.leaves(arrays), jax.tree.leaves(state(at.step)), strict=True):
        assert np.asarray(mine).tobytes() == np.asarray(saved).tobytes(), why
    return at.step


def test_any_damage_of_one_file_is_equal_or_falls_back(tmp_path: Path, intact: Path) -> None:
    files = sorted(path.relative_to(intact) for path in (intact / "2").rglob("*") if path.is_file())
    assert {path.parts[1] for path in files} >= {"state", "facts"}
    random_, steps = random.Random(0), []
    for file in files:
        for number, damage in enumerate(DAMAGES):
            run = tmp_path / "run"
            shutil.rmtree(run, ignore_errors=True)
            shutil.copytree(intact, run / "checkpoints")
            damage(run / "checkpoints" / file, random_)
            steps.append(resume_equals_a_saved_one(run, f"{damage.__name__} {number} of {file}"))
    assert set(steps) == {1, 2}, "some damage is harmless, some is not: both ways were gone"


def test_flips_of_the_largest_file_are_not_trained_on(tmp_path: Path, intact: Path) -> None:
    largest = max((path for path in (intact / "2").rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    fallen = 0
    for seed in range(30):
        run = tmp_path / "run"
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(intact, run / "checkpoints")
        flip(run / "checkpoints" / largest.relative_to(intact), random.Random(seed))
        fallen += resume_equals_a_saved_one(run, f"flip {seed}") == 1
    assert fallen >= 20


def test_the_best_is_not_written_from_damaged_arrays(
    tmp_path: Path, intact: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(intact, tmp_path / "checkpoints")
    with opened(tiny_config(tmp_path, BEST)) as checkpoints:
        assert checkpoints.best() == 2
        best = checkpoints.restore_best(abstract())
        assert best is not None
        np.testing.assert_array_equal(best.params["kernel"], state(2).params["kernel"])
        for path in (tmp_path / "checkpoints" / "2" / "state").rglob("*"):
            if path.is_file() and path.stat().st_size > 20_000:
                zero(path, random.Random(0))
        assert checkpoints.restore_best(abstract()) is None
    assert "best model is not written" in caplog.text


def test_damaged_facts_leave_the_other_to_be_the_best(tmp_path: Path, intact: Path) -> None:
    shutil.copytree(intact, tmp_path / "checkpoints")
    flip(tmp_path / "checkpoints" / "2" / "facts" / "metadata", random.Random(1))
    with opened(tiny_config(tmp_path, BEST)) as checkpoints:
        assert checkpoints.best() == 1


def test_when_none_can_be_read_nothing_is_moved(tmp_path: Path, intact: Path) -> None:
    """A file system that is away for a while must not cost the run its checkpoints."""
    shutil.copytree(intact, tmp_path / "checkpoints")
    for path in (tmp_path / "checkpoints").rglob("facts/metadata"):
        path.rename(path.with_suffix(".away"))
    sentence = r"none of the 2 checkpoints in .* can be read \(number 2: "
    with opened(tiny_config(tmp_path, BEST)) as checkpoints, pytest.raises(ConfigError, match=sentence):
        checkpoints.resume(abstract())
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {"1", "2"}
