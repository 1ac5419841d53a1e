"""Checkpoints: device state and what the host must know to go on, written by Orbax, asynchronous and atomic."""

from __future__ import annotations

import dataclasses
import logging
import math
import re
import secrets
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from pydantic import ValidationError

from infimmr_jax.config import CheckpointSection, ConfigError, RunConfig, stage_lengths
from infimmr_jax.model.config import ModelConfig, config_facts
from infimmr_jax.objectives.advantages import EstimatorState
from infimmr_jax.objectives.train_state import TrainState
from infimmr_jax.parallel.hosts import largest_over_hosts, wait_for_hosts
from infimmr_jax.training.place import Place, read_place, reopened

# What may differ between the run that saved and the one that goes on: none of it changes what is computed.
FREE = (
    "name",
    "output",
    "logging",
    "checkpoint",
    "guards",
    "mesh",
    "data.root",
    "data.threads",
    "data.prefetch",
    "data.workers",
    "model.path",
    "model.remat",
    "model.attention",
    "grpo.micro_batches",
    "grpo.micro_batch_tokens",
    "grpo.logprob_chunk",
    "rollout.compactions",
    "rollout.cache_sizes",
    "reward.workers",
    "reward.deadline_seconds",
    "reward.memory_mb",
)
_log = logging.getLogger(__name__)


class Checkpoints:
    """The checkpoints of one run; use it as a context manager, which waits for the last save."""

    def __init__(self, config: RunConfig, model: ModelConfig):
        section = config.checkpoint
        self._model = _plain(config_facts(model))
        self._config = config.model_dump(mode="json")
        self._lengths = stage_lengths(config)
        self._best = section.keep_best
        self._may_change = (*FREE, *section.may_change)
        self.directory = checkpoint_directory(section, config.output)
        _check_shared(self.directory)
        self._manager = ocp.CheckpointManager(self.directory, options=_options(section))

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *_: object) -> None:
        self._manager.wait_until_finished()
        self._manager.close()

    def latest(self) -> int | None:
        """Number of the newest complete checkpoint, None when there is none."""
        return self._manager.latest_step()

    def best(self) -> int | None:
        """Number of the best checkpoint by `checkpoint.keep_best`; None without that key or before an evaluation."""
        step = self._manager.best_step() if self._best is not None else None
        if step is None or self._best is None:
            return None
        return step if math.isfinite(self._manager.metrics(step)[self._best.metric]) else None

    def save(self, number: int, place: Place, state: TrainState, metrics: dict[str, float] | None = None) -> None:
        """Start saving as checkpoint `number`; the arrays are copied first, so the next step may change them.

        `metrics` are those of the evaluation that was just made, for `keep_best`.
        """
        facts = {"place": dataclasses.asdict(place), "model": self._model, "config": self._config}
        items = ocp.args.Composite(state=ocp.args.StandardSave(state), facts=ocp.args.JsonSave(facts))
        if self._best is not None:
            # Without a number Orbax warns at every save: what was not evaluated is worse than all that was.
            metrics = metrics or {self._best.metric: math.inf if self._best.mode == "min" else -math.inf}
        self._manager.save(number, args=items, metrics=metrics if self._best is not None else None)

    def wait(self) -> None:
        """Return when the save under way is complete on disk."""
        self._manager.wait_until_finished()

    def resume(self, abstract: TrainState) -> tuple[Place, TrainState] | None:
        """The newest checkpoint that can be read, on this mesh, whatever mesh and number of processes saved it.

        `abstract` gives shapes, dtypes and shardings. None when there is no complete checkpoint. One that is damaged
        is moved aside with a warning; with several processes it is an error.
        Raises ConfigError when the checkpoint is of another model or configuration, or when none can be read.
        """
        steps = sorted(self._manager.all_steps(), reverse=True)
        for step in steps:
            try:
                place = self._place(step)
                return place, self.restore(abstract, step)
            except ConfigError:
                raise
            except (ValueError, OSError, KeyError) as error:
                where = self.directory / str(step)
                if jax.process_count() > 1:
                    raise ConfigError(
                        f"checkpoint {where} can not be read ({_first_line(error)}): move it away, and the run goes on "
                        "from the one before"
                    ) from error
                aside = self.directory / f"damaged-{step}-{secrets.token_hex(3)}"
                _log.warning(
                    "checkpoint %s can not be read (%s): it is moved to %s, and the one before is used",
                    where,
                    _first_line(error),
                    aside,
                )
                where.rename(aside)
                self._manager.reload()
        if steps:
            raise ConfigError(f"none of the {len(steps)} checkpoints in {self.directory} can be read")
        return None

    def restore(self, abstract: TrainState, step: int) -> TrainState:
        """The state of a checkpoint, in the shapes, dtypes and shardings of `abstract`.

        One of a program that knew fewer tasks (answer types) comes back with empty statistics of the new ones;
        ConfigError when it knew more.
        """
        saved = abstract
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
            saved = dataclasses.replace(abstract, estimator=fewer)
        items = ocp.args.Composite(state=ocp.args.StandardRestore(saved))
        state = self._manager.restore(step, args=items)["state"]
        return state if saved is abstract else _with_new_tasks(state, abstract)

    def _tasks(self, step: int) -> int:
        """How many tasks the estimator of a checkpoint has statistics of."""
        tree = ocp.StandardCheckpointHandler().metadata(self.directory / str(step) / "state").tree
        return int(tree["estimator"]["seen"].shape[0])

    def _place(self, step: int) -> Place:
        facts = self._manager.restore(step, args=ocp.args.Composite(facts=ocp.args.JsonRestore()))["facts"]
        for name, here, free in (("model", self._model, ()), ("configuration", self._config, self._may_change)):
            saved = facts["model"] if name == "model" else _with_new_keys(facts["config"])
            different = [text for key, text in _differences(saved, here) if not _below(key, free)]
            if different:
                advice = "use the configuration it was made with, or another output directory"
                if name == "configuration":
                    advice += "; to go on with the change, name the key in checkpoint.may_change"
                shown = "; ".join(different[:5]) + (f"; and {len(different) - 5} more" if len(different) > 5 else "")
                raise ConfigError(f"checkpoint {self.directory / str(step)} is of another {name} ({shown}): {advice}")
        lengths = _saved_lengths(facts["config"]) or self._lengths
        return reopened(read_place(facts["place"], lengths), lengths, self._lengths)


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


def _options(section: CheckpointSection) -> ocp.CheckpointManagerOptions:
    policies = ocp.checkpoint_managers
    latest = policies.LatestN(n=section.keep_last)
    if section.keep_best is None:
        return ocp.CheckpointManagerOptions(preservation_policy=latest, cleanup_tmp_directories=True)
    metric, mode = section.keep_best.metric, section.keep_best.mode

    def value(metrics: Any) -> float:
        return float(metrics[metric])

    best = policies.BestN(get_metric_fn=value, reverse=mode == "min", n=1, keep_checkpoints_without_metrics=False)
    return ocp.CheckpointManagerOptions(
        preservation_policy=policies.AnyPreservationPolicy([latest, best]),
        best_fn=value,
        best_mode=mode,
        cleanup_tmp_directories=True,
    )


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


def _below(key: str, prefixes: tuple[str, ...]) -> bool:
    # A phase may have its own `grpo` and `rollout` sections.
    keys = (key, re.sub(r"^phases\.\d+\.(?=grpo\.|rollout\.)", "", key))
    return any(name == prefix or name.startswith(prefix + ".") for name in keys for prefix in prefixes)


def _with_new_keys(saved: dict[str, Any]) -> dict[str, Any]:
    """A saved configuration with the defaults of keys that the program did not have when it was saved."""
    try:
        return RunConfig.model_validate(saved).model_dump(mode="json")
    except ValidationError:
        return saved


def _saved_lengths(config: dict[str, Any]) -> tuple[int, ...] | None:
    """The planned steps of every stage of a saved configuration; None when it is not valid any more."""
    try:
        return stage_lengths(RunConfig.model_validate(config))
    except ValidationError:
        return None


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _plain(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _plain(value) for key, value in tree.items()}
    return [_plain(value) for value in tree] if isinstance(tree, list | tuple) else tree


def _differences(saved: Any, here: Any, key: str = "") -> list[tuple[str, str]]:
    """(key, sentence) for every leaf that differs; items of lists have their index as key."""
    if isinstance(saved, list) and isinstance(here, list) and any(isinstance(x, dict | list) for x in [*saved, *here]):
        saved, here = ({str(i): item for i, item in enumerate(items)} for items in (saved, here))
    if isinstance(saved, dict) and isinstance(here, dict):
        names = [*saved, *(name for name in here if name not in saved)]
        prefix = f"{key}." if key else ""
        return [
            found
            for name in names
            for found in _differences(saved.get(name), here.get(name), f"{prefix}{name}")
            if saved.get(name) != here.get(name)
        ]
    return [] if saved == here else [(key, f"{key} is {saved!s:.60} there and {here!s:.60} here")]
