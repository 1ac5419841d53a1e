"""Checkpoints: device state and what the host must know to go on, written by Orbax, asynchronous and atomic."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from infimmr_jax.config import CheckpointSection, ConfigError
from infimmr_jax.grpo.state import TrainState
from infimmr_jax.model.config import ModelConfig


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a run stands on the host.

    `sft_step` and `grpo_step` are steps made; `evaluated` stages are evaluated; `phase` is the phase's name for people.
    `data` is the state of the running Grain iterator, `key` the run's random key, `rows` the lines of each JSONL file.
    """

    sft_step: int = 0
    grpo_step: int = 0
    evaluated: int = 0
    phase: str = "cold start"
    data: dict[str, Any] | None = None
    key: tuple[int, ...] = ()
    rows: dict[str, int] = dataclasses.field(default_factory=dict)

    @property
    def step(self) -> int:
        """The checkpoint's number: optimiser steps of both kinds, and stages evaluated, so that it always grows."""
        return self.sft_step + self.grpo_step + self.evaluated


class Checkpoints:
    """The checkpoints of one run; use it as a context manager, which waits for the last save."""

    def __init__(self, run_dir: Path, section: CheckpointSection, model: ModelConfig):
        self._model = _plain(dataclasses.asdict(model))
        self.directory = (run_dir / "checkpoints").resolve()
        options = ocp.CheckpointManagerOptions(max_to_keep=section.keep_last, cleanup_tmp_directories=True)
        self._manager = ocp.CheckpointManager(self.directory, options=options)

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *_: object) -> None:
        self._manager.wait_until_finished()
        self._manager.close()

    def latest(self) -> int | None:
        """Number of the newest complete checkpoint, None when there is none."""
        return self._manager.latest_step()

    def save(self, place: Place, state: TrainState) -> None:
        """Start saving; the arrays are copied before this returns, so the next step may overwrite them."""
        facts = {"place": dataclasses.asdict(place), "model": self._model}
        items = ocp.args.Composite(state=ocp.args.StandardSave(state), facts=ocp.args.JsonSave(facts))
        self._manager.save(place.step, args=items)

    def wait(self) -> None:
        """Return when the save under way is complete on disk."""
        self._manager.wait_until_finished()

    def place(self) -> Place:
        """Where the newest checkpoint stands.

        Raises ConfigError when there is none, or when it is of a model of another shape.
        """
        step = self.latest()
        if step is None:
            raise ConfigError(f"{self.directory} holds no complete checkpoint: start the run without --resume")
        facts = self._manager.restore(step, args=ocp.args.Composite(facts=ocp.args.JsonRestore()))["facts"]
        different = _differences(facts["model"], self._model)
        if different:
            raise ConfigError(
                f"checkpoint {self.directory / str(step)} is of another model ({'; '.join(different)}): "
                "use the configuration it was made with, or another output directory"
            )
        return Place(**{**facts["place"], "key": tuple(facts["place"]["key"])})

    def restore(self, abstract: TrainState) -> TrainState:
        """The newest state, in the shapes, dtypes and shardings of `abstract`: on this mesh, whatever mesh saved it."""
        items = ocp.args.Composite(state=ocp.args.StandardRestore(abstract))
        return self._manager.restore(self.latest(), args=items)["state"]


def abstract_like(state: Any, shardings: Any) -> Any:
    """ShapeDtypeStructs of a tree with their shardings."""
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), state, shardings)


def _plain(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _plain(value) for key, value in tree.items()}
    return [_plain(value) for value in tree] if isinstance(tree, list | tuple) else tree


def _differences(saved: dict, here: dict, prefix: str = "") -> list[str]:
    found = []
    for key in sorted(saved.keys() | here.keys()):
        one, other = saved.get(key), here.get(key)
        if isinstance(one, dict) and isinstance(other, dict):
            found += _differences(one, other, f"{prefix}{key}.")
        elif one != other:
            found.append(f"{prefix}{key} is {one} there and {other} here")
    return found
