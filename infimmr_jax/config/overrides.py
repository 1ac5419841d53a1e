"""Single values laid over a configuration: `a.b.0.c=value`."""

from __future__ import annotations

import copy

from infimmr_jax.config.base import ConfigError
from infimmr_jax.config.run import RunConfig
from infimmr_jax.config.schema import Node, SectionUnion, Tree
from infimmr_jax.config.yaml_file import read_yaml
from infimmr_jax.names import JsonValue


def apply_overrides(tree: Tree, overrides: list[str]) -> Tree:
    """Return `tree` with every `a.b.0.c=value` applied; values are read as YAML, list items by index.

    Below a free mapping such as `reward.weights` the rest is one name, dots included. Where a value is the kind of a
    section, keys that only the old kind has fall away, as they do in a later file. Raises ConfigError for what is not
    of this form.
    """
    tree = copy.deepcopy(tree)
    for item in overrides:
        key, equals, text = item.partition("=")
        if not equals or not key:
            raise ConfigError(f"override {item!r} is not of the form key.subkey=value")
        _set(tree, key, read_yaml(text, f"the value of override {item!r}"), item)
    return tree


def _set(tree: Tree, key: str, value: object, item: str) -> None:
    holder: JsonValue = tree
    schema: Node | None = Node(RunConfig)
    *path, last = _parts(key)
    for depth, part in enumerate(path):
        where = ".".join(path[: depth + 1])
        if isinstance(holder, list):
            holder = holder[_index(holder, part, where)]
        else:
            if holder.get(part) is None:
                holder[part] = {}
            holder = holder[part]
        if not isinstance(holder, dict | list):
            raise ConfigError(f"override {item!r}: {where} is a single value, it has no key below it")
        schema = _below(schema, part)
    if isinstance(holder, list):
        holder[_index(holder, last, key)] = value
        return
    section = schema.section if schema is not None else None
    if isinstance(section, SectionUnion) and last == section.key and value in section.members:
        own = section.members[value].model_fields
        for other in [name for name in holder if name not in own]:
            del holder[other]
    holder[last] = value


def _parts(key: str) -> list[str]:
    """Split a key at its dots, but not inside the names of a free mapping."""
    schema: Node | None = Node(RunConfig)
    words = key.split(".")
    for depth, word in enumerate(words):
        schema = _below(schema, word)
        if schema is not None and schema.free_keys and depth + 2 < len(words):
            return [*words[: depth + 1], ".".join(words[depth + 1 :])]
    return words


def _below(schema: Node | None, part: str) -> Node | None:
    """Step to a key; in a section of several kinds the kind does not matter here."""
    section = schema.section if schema is not None else None
    if isinstance(section, SectionUnion):
        kinds = section.owners(part)
        return Node(section.members[kinds[0]]).below(part) if kinds else None
    return None if schema is None else schema.below(part)


def _index(items: list[JsonValue], part: str, where: str) -> int:
    if not part.isdigit() or int(part) >= len(items):
        raise ConfigError(f"{where}: {part!r} is not an index of a list of {len(items)} items (0 is the first)")
    return int(part)


__all__ = ["apply_overrides"]
