"""Where a run stands on the host, as checkpoints keep it; also read from checkpoints of earlier versions."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from infimmr_jax.names import JsonObject, JsonValue


@dataclasses.dataclass(frozen=True)
class Memory:
    """What the next steps need of those before them.

    `recent` is what the promotion of the running stage looks at (training accuracies, or tokens), `broken` the number
    of skipped updates just before, `due` the row of a step whose held-out evaluation was left for a signal, `reopened`
    how often a finished stage was given more steps.
    """

    recent: tuple[float, ...] = ()
    broken: int = 0
    due: JsonObject | None = None
    reopened: int = 0


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a run stands: in which stage of its list, and how many steps of that stage are made.

    A stage is left when its end is evaluated. `data` is the state of the running data iterator, `rows` the lines of
    each JSONL file.
    """

    stage: int = 0
    step: int = 0
    data: JsonObject | None = None
    rows: dict[str, int] = dataclasses.field(default_factory=dict)
    memory: Memory = Memory()

    def steps_made(self, lengths: Sequence[int]) -> int:
        """Optimiser steps of the whole run; `lengths` are the planned steps of every stage."""
        return sum(lengths[: self.stage]) + self.step

    def number(self, lengths: Sequence[int]) -> int:
        """The checkpoint's number: steps made and stages evaluated, so that it always grows."""
        return self.steps_made(lengths) + self.stage + self.memory.reopened


def read_place(tree: Mapping[str, JsonValue], lengths: Sequence[int]) -> Place:
    """The place that a checkpoint holds; `lengths` are the planned steps of the stages of the run that saved it.

    Earlier versions counted the steps of the cold start and of all GRPO phases apart.
    """
    if "stage" in tree:
        kept = dict(tree.get("memory", {}))
        kept["recent"] = tuple(kept.get("recent", ()))
        return Place(**{**tree, "memory": Memory(**kept)})
    stage = int(tree.get("evaluated", 0))
    made = int(tree.get("sft_step", 0)) + int(tree.get("grpo_step", 0))
    memory = Memory(recent=tuple(tree.get("recent", ())), broken=int(tree.get("broken", 0)))
    return Place(stage, made - sum(lengths[:stage]), tree.get("data"), dict(tree.get("rows", {})), memory)


def reopened(place: Place, before: Sequence[int], now: Sequence[int]) -> Place:
    """The place inside the stage that was just finished, where its planned steps have become more since.

    `before` and `now` are the planned steps of every stage, when the checkpoint was made and in this run. The stage's
    data go on where they ended, and its new end is evaluated.
    """
    last = place.stage - 1
    if place.stage == 0 or place.step or last >= len(before) or not 0 < before[last] < now[last]:
        return place
    memory = dataclasses.replace(place.memory, reopened=place.memory.reopened + 1)
    return dataclasses.replace(place, stage=last, step=before[last], data=None, memory=memory)


__all__ = ["Memory", "Place", "read_place", "reopened"]
