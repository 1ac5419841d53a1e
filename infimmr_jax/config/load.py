"""A configuration read from YAML, overridden by `a.b=c`; an unknown key names the nearest known one."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from infimmr_jax.config.base import ConfigError, Section
from infimmr_jax.config.inheritance import without_inherited
from infimmr_jax.config.merging import merge_layers
from infimmr_jax.config.run import RunConfig
from infimmr_jax.config.sections import PHASES


def apply_overrides(tree: dict[str, Any], overrides: list[str]) -> dict[str, Any]:
    """Return `tree` with every `a.b.0.c=value` applied; values are read as YAML, list items by index."""
    tree = copy.deepcopy(tree)
    for item in overrides:
        key, equals, text = item.partition("=")
        if not equals or not key:
            raise ConfigError(f"override {item!r} is not of the form key.subkey=value")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"the value of override {item!r} is not valid YAML: {error}") from error
        node: Any = tree
        *path, last = key.split(".")
        for depth, part in enumerate(path):
            where = ".".join(path[: depth + 1])
            if isinstance(node, list):
                node = node[_index(node, part, where)]
            else:
                if node.get(part) is None:
                    node[part] = {}
                node = node[part]
            if not isinstance(node, dict | list):
                raise ConfigError(f"override {item!r}: {where} is a single value, it has no key below it")
        if isinstance(node, list):
            node[_index(node, last, key)] = value
        else:
            node[last] = value
    return tree


def _index(items: list[Any], part: str, where: str) -> int:
    if not part.isdigit() or int(part) >= len(items):
        raise ConfigError(f"{where}: {part!r} is not an index of a list of {len(items)} items (0 is the first)")
    return int(part)


def load_config(paths: Path | Sequence[Path], overrides: list[str] | None = None) -> RunConfig:
    """Read one YAML file, or several in which the later ones' values win (see `layers`), into a RunConfig.

    Errors are ConfigError sentences that name every bad key.
    """
    paths = [paths] if isinstance(paths, Path) else list(paths)
    layers = [(str(path), _read(path)) for path in paths]
    overrides = overrides or []
    # Which scale is meant depends on the model, which a later file or an override may name.
    model = apply_overrides(merge_layers(layers, RunConfig, "small"), overrides).get("model")
    made = not isinstance(model, dict) or (model.get("path") is None and model.get("preset") is None)
    tree = merge_layers(layers, RunConfig, "small" if made else "published")
    return parse_config(apply_overrides(tree, overrides), " + ".join(name for name, _ in layers))


def _read(path: Path) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"there is no configuration file {path}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} must hold a mapping of sections, it holds {type(tree).__name__}")
    return tree


def parse_config(tree: dict[str, Any], origin: str = "the configuration") -> RunConfig:
    """Validate a plain tree; see `load_config`."""
    try:
        return RunConfig.model_validate(tree)
    except ValidationError as error:
        found = error.errors()
        # A bad list item makes its list "too short" as well: only the item's own sentence helps.
        shown = [e for e in found if not any(o is not e and o["loc"][: len(e["loc"])] == e["loc"] for o in found)]
        sentences = [_sentence(item) for item in shown]
        raise ConfigError(f"{origin} can not be used:\n  " + "\n  ".join(sentences)) from None


def dump_config(config: RunConfig) -> str:
    """The resolved configuration as YAML, phases with what differs in them; `load_config` of it gives an equal one."""
    return yaml.safe_dump(without_inherited(config.model_dump(mode="json")), sort_keys=False, allow_unicode=True)


def dump_phases(config: RunConfig) -> str:
    """Every phase with its whole sections as YAML: what is in force while it runs."""
    phases = [phase.model_dump(mode="json") for phase in config.phases]
    return yaml.safe_dump(phases, sort_keys=False, allow_unicode=True)


def _sentence(item: Any) -> str:
    where = ".".join(str(part) for part in _keys(item["loc"])) or "top level"
    if item["type"] == "value_error" and not item["loc"]:
        return str(item["msg"]).removeprefix("Value error, ")
    if item["type"] == "phase_kind":
        return f"{where}.kind: {item['msg']} (got {item['input'].get('kind')!r:.80})"
    if item["type"] != "extra_forbidden":
        return f"{where}: {item['msg']} (got {item['input']!r:.80})"
    known = list(_section_at(item["loc"][:-1]).model_fields)
    near = difflib.get_close_matches(str(item["loc"][-1]), known, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]!r}?" if near else f"known keys here: {', '.join(known)}"
    return f"{where}: unknown key; {hint}"


def _keys(location: tuple[int | str, ...]) -> list[int | str]:
    """The keys of an error's location, without the kinds that unions put between them."""
    inside_phase = len(location) > 2 and location[0] == "phases"
    return [part for place, part in enumerate(location) if not (inside_phase and place == 2)]


def _section_at(location: tuple[int | str, ...]) -> type[Section]:
    """The Section class at a validation error's location."""
    current: Any = RunConfig
    if len(location) > 2 and location[0] == "phases":
        current, location = PHASES[str(location[2])], location[3:]
    for part in location:
        if isinstance(current, type) and issubclass(current, BaseModel) and part in current.model_fields:
            current = current.model_fields[part].annotation
        current = _inner_section(current)
    return current if isinstance(current, type) and issubclass(current, Section) else RunConfig


def _inner_section(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    arguments = getattr(annotation, "__args__", ())
    for argument in arguments:
        found = _inner_section(argument)
        if isinstance(found, type) and issubclass(found, BaseModel):
            return found
    return annotation
