"""What a phase changes of the run's sections: partial trees, merged key by key and validated as the merged whole.

A phase may hold parts of the sections `prompt`, `reward`, `grpo`, `rollout`, `optimizer` and `trainable`. Sections
inside them are merged key by key; every other value, lists and free mappings such as `reward.weights` among them, is
replaced as a whole. Where a change names another kind of a section (`reward.length`, `grpo.group_weight`, ..), the keys
that only the old kind has fall away. A phase that changes `grpo.objective` takes that objective's published clip bounds
unless it names its own.
"""

from __future__ import annotations

import copy

from pydantic import ValidationError

from infimmr_jax.config.base import Section
from infimmr_jax.config.grpo import GrpoSection, RolloutSection
from infimmr_jax.config.model import PromptSection
from infimmr_jax.config.optimizer import OptimizerSection, TrainableSection
from infimmr_jax.config.reward import RewardSection
from infimmr_jax.config.schema import SectionUnion, Tree, section_of_field
from infimmr_jax.names import JsonValue

INHERITED: dict[str, type[Section]] = {
    "prompt": PromptSection,
    "reward": RewardSection,
    "grpo": GrpoSection,
    "rollout": RolloutSection,
    "optimizer": OptimizerSection,
    "trainable": TrainableSection,
}


def inherit(tree: JsonValue) -> JsonValue:
    """Complete the tree of a run: every phase gets its whole sections. What is malformed is left to the validation."""
    if not isinstance(tree, dict) or not isinstance(tree.get("phases"), list | tuple):
        return tree
    phases = [dict(phase) if isinstance(phase, dict) else phase for phase in tree["phases"]]
    takers = {name: ("grpo", "sft") if name == "trainable" else ("grpo",) for name in INHERITED}
    for name, section in INHERITED.items():
        base = tree.get(name, {})
        try:
            inherited = section.model_validate(base)
        except ValidationError:
            continue  # said once, where the run's section stands
        if isinstance(base, Section):
            base = base.model_dump(exclude_unset=True)
        for phase in phases:
            takes = isinstance(phase, dict) and (name in phase or phase.get("kind", "grpo") in takers[name])
            if takes and isinstance(phase.get(name, {}), dict):
                phase[name] = (
                    merge(_without_clip(base, phase[name]), phase[name], section) if name in phase else inherited
                )
    return {**tree, "phases": phases}


def merge(tree: Tree, change: Tree, section: type[Section] | SectionUnion) -> Tree:
    """Return `tree` with the values of `change`, sections inside merged key by key."""
    if isinstance(section, SectionUnion):
        return _merge_kinds(tree, change, section)
    merged = dict(tree)
    for key, value in change.items():
        below = section_of_field(section, key)
        if below is not None and isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = merge(merged[key], value, below)
        else:
            merged[key] = copy.deepcopy(value)
    return merged


def _merge_kinds(tree: Tree, change: Tree, union: SectionUnion) -> Tree:
    """Merge two trees of a section of several kinds: keys that the new kind does not have fall away."""
    section = union.member_of({**tree, **change})
    if section is None:  # left to the validation
        return {**tree, **copy.deepcopy(change)}
    if union.member_of(tree) is not section:
        tree = {key: value for key, value in tree.items() if key in section.model_fields}
    return merge(tree, change, section)


def differences(changed: Tree, base: Tree, section: type[Section] | SectionUnion) -> Tree:
    """Return the partial tree that `merge` makes `changed` of `base` with; both have all keys of their kind."""
    if isinstance(section, SectionUnion):
        section = section.members[changed[section.key]]
    partial: Tree = {}
    for key, value in changed.items():
        if key in base and value == base[key]:
            continue
        below = section_of_field(section, key)
        both = isinstance(value, dict) and isinstance(base.get(key), dict)
        partial[key] = differences(value, base[key], below) if below is not None and both else value
    return partial


def without_inherited(tree: Tree) -> Tree:
    """Reduce the phases of a dumped run to what differs from the run's sections."""
    for phase in tree["phases"]:
        for name, section in INHERITED.items():
            if name not in phase:
                continue
            phase[name] = differences(phase[name], tree[name], section)
            if not phase[name]:
                del phase[name]
    return tree


def _without_clip(base: JsonValue, change: JsonValue) -> JsonValue:
    """Drop the clip bounds of the run's objective when the phase chooses another one."""
    if not isinstance(base, dict) or change.get("objective", base.get("objective", "ppo_clip")) == base.get(
        "objective", "ppo_clip"
    ):
        return base
    return {key: value for key, value in base.items() if key not in ("clip_low", "clip_high")}


__all__ = ["INHERITED", "differences", "inherit", "merge", "without_inherited"]
