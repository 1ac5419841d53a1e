"""Checkpoints: device state and what the host must know to go on, written by Orbax, asynchronous and atomic."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import math
import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from infimmr_jax.config import CheckpointSection, ConfigError, RunConfig, stage_lengths
from infimmr_jax.model.config import ModelConfig, config_facts
from infimmr_jax.names import JsonObject
from infimmr_jax.objectives.advantages import EstimatorState
from infimmr_jax.objectives.train_state import TrainState
from infimmr_jax.parallel.hosts import largest_over_hosts, wait_for_hosts
from infimmr_jax.training.differences import FREE, differences, is_below, saved_lengths, with_new_keys
from infimmr_jax.training.digests import (
    DamagedError,
    Json,
    array_digests,
    as_written,
    check_arrays,
    in_dtypes,
    seal,
    unseal,
)
from infimmr_jax.training.place import Place, read_place, reopened

_log = logging.getLogger(__name__)


class Checkpoints:
    """The checkpoints of one run; use it as a context manager, which waits for the last save.

    `problems` are digests of the problems that the run draws from, by source: a run goes on with the same ones.
    """

    def __init__(self, config: RunConfig, model: ModelConfig, problems: Mapping[str, str] | None = None):
        section = config.checkpoint
        self._here: dict[str, Json] = {
            "model": cast(Json, config_facts(model)),
            "configuration": config.model_dump(mode="json"),
            "list of problems": dict(problems or {}),
        }
        self._lengths = stage_lengths(config)
        self._best = section.keep_best
        self._may_change = (*FREE, *section.may_change)
        self.directory = checkpoint_directory(section, config.output)
        _check_shared(self.directory)
        self._numbers: dict[int, float] = {}
        self._manager = ocp.CheckpointManager(self.directory, options=self._options(section))
        for step in self._manager.all_steps():
            # One whose facts are damaged was never measured; `resume` says what is wrong with it.
            with contextlib.suppress(Exception):
                self._measure(step, self._metrics(step))

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *_: object) -> None:
        self._manager.wait_until_finished()
        self._manager.close()

    def latest(self) -> int | None:
        """Number of the newest complete checkpoint, None when there is none."""
        return self._manager.latest_step()

    def best(self) -> int | None:
        """Number of the best checkpoint by `checkpoint.keep_best`; None without that key or before an evaluation.

        Of equally good ones it is the newest. What was saved when another number was looked at counts as unmeasured.
        """
        if self._best is None:
            return None
        steps = set(self._manager.all_steps())
        sign = -1.0 if self._best.mode == "min" else 1.0
        ranked = [(sign * number, step) for step, number in self._numbers.items() if step in steps]
        return max(ranked)[1] if ranked else None

    def save(self, number: int, place: Place, state: TrainState, metrics: dict[str, float] | None = None) -> None:
        """Start saving as checkpoint `number`; the arrays are copied first, so the next step may change them.

        `metrics` are those of the evaluation that was just made, for `keep_best`. Digests of the arrays go along, made
        on their devices.
        """
        facts: dict[str, Json] = {
            "place": dataclasses.asdict(place),
            "model": self._here["model"],
            "config": self._here["configuration"],
            "problems": self._here["list of problems"],
            "metrics": dict(metrics or {}),
            "arrays": dict(array_digests(state)),
        }
        items = ocp.args.Composite(state=ocp.args.StandardSave(state), facts=ocp.args.JsonSave(seal(facts)))
        self._numbers.pop(number, None)
        self._measure(number, metrics or {})
        self._manager.save(number, args=items)

    def wait(self) -> None:
        """Return when the save under way is complete on disk."""
        self._manager.wait_until_finished()

    def resume(self, abstract: TrainState) -> tuple[Place, TrainState] | None:
        """The newest checkpoint that can be read, on this mesh, whatever mesh and number of processes saved it.

        `abstract` gives shapes, dtypes and shardings. None when there is no complete checkpoint. Whatever is wrong with
        one, the one before is used; once that is read, the damaged ones are moved aside with a warning.
        Raises ConfigError when the newest readable one is of another model, configuration or list of problems, or when
        none can be read.
        """
        damaged: dict[int, str] = {}
        for step in sorted(self._manager.all_steps(), reverse=True):
            resumed, why = self._attempt(abstract, step)
            if resumed is None:
                damaged[step] = why
                continue
            for number, reason in damaged.items():
                self._move_aside(number, reason)
            if damaged:
                wait_for_hosts("damaged checkpoints moved")
                self._manager.reload()
            return resumed
        if damaged:
            step, why = next(iter(damaged.items()))
            raise ConfigError(
                f"none of the {len(damaged)} checkpoints in {self.directory} can be read (number {step}: {why}): "
                "bring back what is missing there, or begin again in another output directory"
            )
        return None

    def _attempt(self, abstract: TrainState, step: int) -> tuple[tuple[Place, TrainState] | None, str]:
        """One checkpoint, or what is wrong with it. All processes come to the same end, whoever of them fails."""
        resumed, why = None, ""
        try:
            place = self._place(step)
            state, wanted = self._read(abstract, step)
        except (ConfigError, MemoryError):
            raise
        except Exception as error:  # a store may raise anything for what is damaged
            if "RESOURCE_EXHAUSTED" in str(error):
                raise
            why = _first_line(error)
        if largest_over_hosts(np.asarray([int(bool(why))]))[0]:
            return None, why or "another process can not read it; its message says why"
        try:
            resumed = place, self._checked(state, wanted, abstract, step)
        except DamagedError as error:  # digests are of whole arrays: the same in every process
            why = _first_line(error)
        return resumed, why

    def _move_aside(self, step: int, why: str) -> None:
        where, aside = self.directory / str(step), self.directory / f"damaged-{step}-{secrets.token_hex(3)}"
        self._numbers.pop(step, None)
        if jax.process_index() == 0:
            _log.warning(
                "checkpoint %s can not be read (%s): it is moved to %s, and the one before is used", where, why, aside
            )
            where.rename(aside)

    def restore(self, abstract: TrainState, step: int) -> TrainState:
        """The state of a checkpoint, in the shapes, dtypes and shardings of `abstract`, checked against its digests.

        One of a program that knew fewer tasks (answer types) comes back with empty statistics of the new ones;
        ConfigError when it knew more, DamagedError when it can not be read or is not as saved.
        """
        try:
            state, wanted = self._read(abstract, step)
        except (ConfigError, MemoryError):
            raise
        except Exception as error:  # a store may raise anything for what is damaged
            if "RESOURCE_EXHAUSTED" in str(error):
                raise
            raise DamagedError(
                f"checkpoint {self.directory / str(step)} can not be read ({_first_line(error)})"
            ) from error
        return self._checked(state, wanted, abstract, step)

    def restore_best(self, abstract: TrainState) -> TrainState | None:
        """The state of the best checkpoint; None, with a warning, when it is damaged, and without one."""
        step = self.best()
        if step is None:
            return None
        try:
            return self.restore(abstract, step)
        except DamagedError as error:
            _log.warning("the best model is not written: %s", error)
            return None

    def _read(self, abstract: TrainState, step: int) -> tuple[TrainState, dict[str, str] | None]:
        """The arrays as stored, and their digests (None: an older program wrote none). No process waits for another."""
        wanted = self._facts(step).get("arrays")
        saved = abstract if wanted is None else as_written(abstract, wanted)
        if isinstance(abstract.estimator, EstimatorState):
            tasks = self._tasks(step)
            if tasks > abstract.estimator.seen.shape[0]:
                raise ConfigError(
                    f"checkpoint {self.directory / str(step)} has statistics of {tasks} answer types, this program "
                    f"knows {abstract.estimator.seen.shape[0]}: it was made by a newer version; update this one"
                )
            fewer = jax.tree.map(
                lambda x: jax.ShapeDtypeStruct((tasks,), x.dtype, sharding=x.sharding), abstract.estimator
            )
            saved = dataclasses.replace(saved, estimator=fewer)
        handler = ocp.StandardCheckpointHandler()
        try:
            state = handler.restore(self.directory / str(step) / "state", args=ocp.args.StandardRestore(saved))
        finally:
            handler.close()
        return state, wanted

    def _checked(self, state: TrainState, wanted: dict[str, str] | None, abstract: TrainState, step: int) -> TrainState:
        if wanted is None:
            _log.warning(
                "checkpoint %s is of an older version, without digests: damage of its arrays is not looked for",
                self.directory / str(step),
            )
        else:
            check_arrays(state, wanted)
            state = in_dtypes(state, abstract)
        return _with_new_tasks(state, abstract) if isinstance(abstract.estimator, EstimatorState) else state

    def _facts(self, step: int) -> JsonObject:
        return unseal((self.directory / str(step) / "facts" / "metadata").read_bytes())

    def _metrics(self, step: int) -> dict[str, float]:
        """The numbers of the evaluation at a checkpoint; an older program kept them in a file of their own."""
        metrics = self._facts(step).get("metrics")
        older = self.directory / str(step) / "metrics" / "metrics"
        if metrics is None:
            metrics = json.loads(older.read_text()) if older.exists() else {}
        return metrics

    def _measure(self, step: int, metrics: Mapping[str, float]) -> None:
        number = metrics.get(self._best.metric) if self._best is not None else None
        if number is not None and math.isfinite(number):
            self._numbers[step] = float(number)

    def _tasks(self, step: int) -> int:
        """How many tasks the estimator of a checkpoint has statistics of."""
        tree = ocp.StandardCheckpointHandler().metadata(self.directory / str(step) / "state").tree
        return int(tree["estimator"]["seen"].shape[0])

    def _place(self, step: int) -> Place:
        facts = self._facts(step)
        saved = {
            "model": facts["model"],
            "configuration": with_new_keys(facts["config"]),
            "list of problems": facts.get("problems") or self._here["list of problems"],
        }
        advice = {
            "model": "use the model it was made with, or another output directory",
            "configuration": "use the configuration it was made with, or another output directory; to go on with the "
            "change, name the key in checkpoint.may_change",
            "list of problems": "bring back the files it was made with, or use another output directory; with "
            "`problems` in checkpoint.may_change the run goes on, and some problems are met again or never",
        }
        here = json.loads(json.dumps(self._here))
        for name, free in (("model", ()), ("configuration", self._may_change)):
            _refuse(differences(saved[name], here[name], free), name, self.directory / str(step), advice[name])
        if not is_below("problems", self._may_change):
            changed = differences(saved["list of problems"], here["list of problems"])
            _refuse(changed, "list of problems", self.directory / str(step), advice["list of problems"])
        lengths = saved_lengths(facts["config"]) or self._lengths
        return reopened(read_place(facts["place"], lengths), lengths, self._lengths)

    def _options(self, section: CheckpointSection) -> ocp.CheckpointManagerOptions:
        latest = ocp.checkpoint_managers.LatestN(n=section.keep_last)
        policies = [latest] if section.keep_best is None else [latest, _Best(self.best)]
        return ocp.CheckpointManagerOptions(
            preservation_policy=ocp.checkpoint_managers.AnyPreservationPolicy(policies), cleanup_tmp_directories=True
        )


@dataclasses.dataclass(frozen=True)
class _Best:
    """Keeps the best checkpoint, by numbers that stand in our own sealed facts."""

    best: Callable[[], int | None]

    def should_preserve(self, checkpoints: Sequence[Any], *, context: object) -> list[bool]:
        best = self.best()
        return [checkpoint.step == best for checkpoint in checkpoints]


def _refuse(different: list[str], what: str, where: epath.Path, advice: str) -> None:
    if different:
        more = f"; and {len(different) - 5} more" if len(different) > 5 else ""
        raise ConfigError(f"checkpoint {where} is of another {what} ({'; '.join(different[:5])}{more}): {advice}")


def _with_new_tasks(state: TrainState, abstract: TrainState) -> TrainState:
    """The state with empty statistics of the tasks that it has none of."""
    new = abstract.estimator.seen.shape[0] - state.estimator.seen.shape[0]
    if not new:
        return state
    shardings = jax.tree.map(lambda x: x.sharding, abstract.estimator)
    grow = jax.jit(lambda tree: jax.tree.map(lambda x: jnp.pad(x, (0, new)), tree), out_shardings=shardings)
    return dataclasses.replace(state, estimator=grow(state.estimator))


def checkpoint_directory(section: CheckpointSection, output: Path) -> epath.Path:
    """Where a run's checkpoints are: `checkpoint.directory`, else `checkpoints` in its output directory."""
    if section.directory is None:
        return epath.Path((output / "checkpoints").resolve())
    text = section.directory.removeprefix("file://")
    return epath.Path(text) if "://" in text else epath.Path(Path(text).resolve())


def has_checkpoint(section: CheckpointSection, output: Path) -> bool:
    """Whether a run left a complete checkpoint."""
    directory = checkpoint_directory(section, output)
    return directory.exists() and bool(ocp.utils.checkpoint_steps(directory))


def _check_shared(directory: epath.Path) -> None:
    """Refuse a directory that is another one on another machine: every process would keep its part for itself."""
    if jax.process_count() == 1:
        return
    token = int(largest_over_hosts(np.asarray([secrets.randbelow(2**31) if jax.process_index() == 0 else 0]))[0])
    probe = directory / f".shared-{token}"
    if jax.process_index() == 0:
        directory.mkdir(parents=True, exist_ok=True)
        probe.touch()
    wait_for_hosts("probe written")
    missing = int(largest_over_hosts(np.asarray([not probe.exists()], np.int32))[0])
    if jax.process_index() == 0:
        probe.unlink()
    if missing:
        raise ConfigError(
            f"the checkpoint directory {directory} is not the same on all machines: set checkpoint.directory to a "
            "shared file system or a bucket (gs://...)"
        )


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
