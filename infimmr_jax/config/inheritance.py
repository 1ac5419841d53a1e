"""What a phase changes of the run's sections: partial trees, merged key by key and validated as the merged whole.

A phase may hold parts of the sections `prompt`, `reward`, `grpo`, `rollout`, `optimizer` and `trainable`. Sections
inside them are merged key by key; every other value, lists and free mappings such as `reward.weights` among them, is
replaced as a whole. A phase that changes `grpo.objective` takes that objective's published clip bounds unless it names
its own.
"""

from __future__ import annotations

import copy
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from infimmr_jax.config.base import Section
from infimmr_jax.config.grpo import GrpoSection, RolloutSection
from infimmr_jax.config.model import PromptSection
from infimmr_jax.config.optimizer import OptimizerSection, TrainableSection
from infimmr_jax.config.reward import RewardSection

Tree = dict[str, Any]
INHERITED: dict[str, type[Section]] = {
    "prompt": PromptSection,
    "reward": RewardSection,
    "grpo": GrpoSection,
    "rollout": RolloutSection,
    "optimizer": OptimizerSection,
    "trainable": TrainableSection,
}


def inherit(tree: Any) -> Any:
    """The tree of a run in which every phase holds its whole sections; what is malformed is left to the validation."""
    if not isinstance(tree, dict) or not isinstance(tree.get("phases"), list | tuple):
        return tree
    phases = [dict(phase) if isinstance(phase, dict) else phase for phase in tree["phases"]]
    takers = {name: ("grpo", "sft") if name == "trainable" else ("grpo",) for name in INHERITED}
    for name, section in INHERITED.items():
        base = tree.get(name, {})
        try:
            whole = section.model_validate(base)
        except ValidationError:
            continue  # said once, where the run's section stands
        if isinstance(base, Section):
            base = base.model_dump(exclude_unset=True)
        for phase in phases:
            takes = isinstance(phase, dict) and (name in phase or phase.get("kind", "grpo") in takers[name])
            if takes and isinstance(phase.get(name, {}), dict):
                phase[name] = merge(_without_clip(base, phase[name]), phase[name], section) if name in phase else whole
    return {**tree, "phases": phases}


def merge(tree: Tree, change: Tree, section: type[BaseModel]) -> Tree:
    """`tree` with the values of `change`, sections inside merged key by key."""
    merged = dict(tree)
    for key, value in change.items():
        field = section.model_fields.get(key)
        below = _section_of(field.annotation) if field is not None else None
        if below is not None and isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = merge(merged[key], value, below)
        else:
            merged[key] = copy.deepcopy(value)
    return merged


def differences(whole: Any, base: Any, section: type[BaseModel]) -> Tree:
    """The partial tree that `merge` makes `whole` of `base` with."""
    found: Tree = {}
    for key, value in whole.items():
        if value == base.get(key):
            continue
        below = _section_of(section.model_fields[key].annotation)
        both = isinstance(value, dict) and isinstance(base.get(key), dict)
        found[key] = differences(value, base[key], below) if below is not None and both else value
    return found


def without_inherited(tree: Tree) -> Tree:
    """A dumped run in which each phase holds only what differs from the run's sections."""
    for phase in tree["phases"]:
        for name, section in INHERITED.items():
            if name not in phase:
                continue
            phase[name] = differences(phase[name], tree[name], section)
            if not phase[name]:
                del phase[name]
    return tree


def _without_clip(base: Any, change: Any) -> Any:
    """The run's section without the clip bounds of its objective, when the phase chooses another one."""
    if not isinstance(base, dict) or change.get("objective", base.get("objective", "ppo_clip")) == base.get(
        "objective", "ppo_clip"
    ):
        return base
    return {key: value for key, value in base.items() if key not in ("clip_low", "clip_high")}


def _section_of(annotation: Any) -> type[BaseModel] | None:
    """The Section that a field is, or may be; None for free mappings, lists and single values."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if getattr(annotation, "__origin__", None) in (dict, tuple, list):
        return None
    found = [_section_of(argument) for argument in get_args(annotation)]
    return next((section for section in found if section is not None), None)


__all__ = ["INHERITED", "differences", "inherit", "merge", "without_inherited"]
