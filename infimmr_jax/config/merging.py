"""Several configuration files as one: the later file's values win; what that means for sections, lists and phases.

Sections (and sections inside them) are merged key by key; every other value, lists and free mappings such as
`reward.weights` among them, is replaced as a whole. Two keys of a file are instructions to the merging:

`phases` as a mapping changes the phases of the files before it. Its keys are `all` (those that learn by GRPO), a
modality, a phase's number (from 0) or its name, its values are keys of a phase; the more specific one wins, in this
order. As a list it replaces them.

`scales` holds further values, merged right after those of its own file: `small` for a model made from scratch,
`published` for a checkpoint or a published size (`model.path`, `model.preset`). Recipes keep there what depends on the
size of the model: learning rates, batch sizes and everything counted in tokens.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import get_args

from infimmr_jax.config.base import ConfigError, Section
from infimmr_jax.config.inheritance import merge
from infimmr_jax.config.schema import Tree, node_of
from infimmr_jax.config.sections import Phase
from infimmr_jax.names import JsonValue, Modality

SCALES = ("small", "published")


def merge_layers(layers: Sequence[tuple[str, Tree]], root: type[Section], scale: str) -> Tree:
    """One tree of several (name of the file, its tree); see the module for the rules.

    Raises ConfigError, naming the file, for unknown scales and for phases that do not exist.
    """
    merged: Tree = {}
    for name, tree in layers:
        plain = {key: value for key, value in tree.items() if key != "scales"}
        scales = tree.get("scales") or {}
        unknown = [key for key in scales if key not in SCALES] if isinstance(scales, dict) else [scales]
        if unknown:
            raise ConfigError(f"{name}: scales: {unknown[0]!r} is unknown; known: {', '.join(SCALES)}")
        for part in (plain, scales.get(scale) or {}):
            merged = _with_phases(merged, part, root, name)
    return merged


def _with_phases(tree: Tree, change: Tree, root: type[Section], name: str) -> Tree:
    rest = {key: value for key, value in change.items() if key != "phases"}
    merged = merge(tree, rest, root)
    phases = change.get("phases")
    if isinstance(phases, dict):
        merged["phases"] = _change_phases(tree.get("phases"), phases, name)
    elif phases is not None:
        merged["phases"] = copy.deepcopy(phases)
    return merged


def _change_phases(phases: JsonValue, changes: Mapping[object, JsonValue], name: str) -> list[JsonValue]:
    if not isinstance(phases, list):
        raise ConfigError(
            f"{name}: `phases` as a mapping changes the phases of a --config file before it, and none has a list of "
            "phases: give the run's file first"
        )
    # From the general to the specific: all, modality, number, name.
    steps: list[tuple[int, list[int], JsonValue]] = []
    for key, value in changes.items():
        rank, places = _places(phases, str(key))
        if not places:
            known = ", ".join(
                f"{i} {_of(phase, 'name')!r} ({_of(phase, 'modality')})" for i, phase in enumerate(phases)
            )
            raise ConfigError(
                f"{name}: phases: {key!r} is neither `all` nor the modality, number or name of a phase; the phases "
                f"so far are {known}"
            )
        if not isinstance(value, dict):
            raise ConfigError(f"{name}: phases.{key} must hold keys of a phase, it holds {value!r:.60}")
        steps.append((rank, places, value))
    phases = list(phases)
    phase_kinds = node_of(Phase).section
    assert phase_kinds is not None
    for _, places, value in sorted(steps, key=lambda step: step[0]):
        for place in places:
            if isinstance(phases[place], dict):  # what is malformed is left to the validation
                phases[place] = merge(phases[place], value, phase_kinds)
    return phases


def _places(phases: list[JsonValue], key: str) -> tuple[int, list[int]]:
    numbers = range(len(phases))
    if key == "all":
        return 0, [i for i in numbers if _of(phases[i], "kind") in (None, "grpo")]
    if key in get_args(Modality):
        return 1, [i for i in numbers if _of(phases[i], "modality") == key]
    if key.isdigit():
        return 2, [i for i in numbers if i == int(key)]
    return 3, [i for i in numbers if _of(phases[i], "name") == key]


def _of(phase: object, key: str) -> JsonValue:
    return phase.get(key) if isinstance(phase, dict) else None
