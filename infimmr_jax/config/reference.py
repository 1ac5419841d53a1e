"""The page about every key of the configuration, made from the schema: docs/configuration.md is what it prints."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Literal, Union, get_args, get_origin

from pydantic_core import PydanticUndefined

from infimmr_jax.config.base import Because, Section
from infimmr_jax.config.inheritance import INHERITED
from infimmr_jax.config.run import RunConfig
from infimmr_jax.config.schema import Node, SectionUnion, node_of
from infimmr_jax.names import JsonValue

INTRODUCTION = """\
# Configuration

Every key of a run's YAML file, with what may stand there and its default. This page is made from the schema:

    infimmr keys > docs/configuration.md      # and: infimmr keys grpo.kl, for a part of it

A key is written with dots here and in `--set grpo.kl.coefficient=0.01`; `[]` is a place in a list (in `--set` its
number, from 0), `NAME` a name of your own. Keys without a default must be given where their section is. `null` stands
for "not set". Numbers must be finite; `~` is expanded in paths. An unknown key is refused, and so is a key that stands
twice. Phases hold parts of the sections
{inherited}: what differs in them from the run's. Where a section has kinds, its kind says which other keys it has.
"""
_BOUNDS = {"gt": "> {}", "ge": "at least {}", "lt": "< {}", "le": "at most {}"}
_WORDS = {bool: "true or false", int: "integer", float: "number", str: "text", Path: "path"}


@dataclasses.dataclass(frozen=True)
class Part:
    """A section of the page: where it stands in the configuration, and its kinds (one without a name for most).

    `chooser` is the key that says the kind, `default` the kind of a section that does not say one.
    """

    key: str
    kinds: dict[str, type[Section]]
    chooser: str = ""
    default: str | None = None


def parts() -> list[Part]:
    """List the sections of a run in the order of the schema, each where it stands first."""
    met: list[Part] = []
    _collect(Node(RunConfig), "", met)
    return met


def keys() -> list[str]:
    """List every key of a run, those that phases inherit only once."""
    return sorted(
        {_join(part.key, name) for part in parts() for kind in part.kinds.values() for name in kind.model_fields}
    )


def page(prefix: str = "") -> str:
    """Write the page in Markdown; with a prefix only the sections and keys that begin with it.

    Empty when no key does.
    """
    chosen = [text for part in parts() if (text := _section(part, prefix))]
    if prefix:
        return "\n".join(chosen)
    inherited = [f"`{name}`" for name in INHERITED]
    words = f"{', '.join(inherited[:-1])} and {inherited[-1]}"
    return "\n".join([INTRODUCTION.replace("{inherited}", words), *chosen])


def _collect(node: Node, key: str, met: list[Part]) -> None:
    section = node.section
    if section is None:
        origin, arguments = get_origin(node.annotation), get_args(node.annotation)
        if origin is dict:
            # The keys of some mappings are known: a modality.
            _collect(node_of(arguments[1]), _join(key, "NAME"), met)
        elif origin in (tuple, list):
            _collect(node_of(arguments[0]), key + "[]", met)
        return
    if isinstance(section, SectionUnion):
        part = Part(key, section.members, section.key, section.default)
    else:
        part = Part(key, {"": section})
    met.append(part)
    for kind in part.kinds.values():
        for name, field in kind.model_fields.items():
            if not (key == "phases[]" and name in INHERITED):
                _collect(node_of(field.annotation, field.metadata), _join(key, name), met)


def _section(part: Part, prefix: str) -> str:
    tables = []
    for kind, section in part.kinds.items():
        rows = list(_rows(part, section, prefix))
        alone = bool(kind) and not rows and _begins(part.key, prefix)
        if not rows and not alone:
            continue
        usual = " (the default)" if kind and kind == part.default else ""
        title = f"**`{part.chooser}: {kind}`{usual}**\n\n" if kind else ""
        table = ["| key | value | default |", "|---|---|---|", *rows, ""]
        lines = [title + inspect.cleandoc(section.__doc__ or ""), "", *([] if alone else table)]
        tables.append("\n".join(lines))
    if not tables:
        return ""
    title = f"## `{part.key}`" if part.key else "## The run"
    chooser = f"`{part.key}.{part.chooser}` says which of these it is.\n\n" if part.chooser else ""
    return f"{title}\n\n{chooser}" + "\n".join(tables)


def _rows(part: Part, section: type[Section], prefix: str) -> Iterator[str]:
    for name, field in section.model_fields.items():
        full = _join(part.key, name)
        if not _begins(full, prefix):
            continue
        value = _value(field.annotation, field.metadata).replace("|", "\\|")
        default = _default(field.get_default(call_default_factory=True))
        if part.key == "phases[]" and name in INHERITED:
            default = "the run's"
        if name == part.chooser:
            continue
        yield f"| `{full}` | {value} | {default} |"


def _value(annotation: JsonValue, metadata: Sequence[JsonValue] = ()) -> str:
    """Describe what may stand at a key."""
    node = node_of(annotation, metadata)
    optional = " or null" if NoneType in get_args(annotation) else ""
    if node.section is not None:
        return f"a section{optional}"
    origin, arguments = get_origin(node.annotation), get_args(node.annotation)
    if origin is Literal:
        words = "`" + "`, `".join(map(str, arguments)) + "`"
        return words + (optional and ", or null")
    if origin is dict:
        return f"a mapping of {_value(arguments[0])} to {_value(arguments[1])}{optional}"
    if origin in (tuple, list):
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return f"a list, each: {_value(arguments[0])}{optional}"
        return f"a list of {len(arguments)}: {_value(arguments[0])}{optional}"
    if origin in (Union, UnionType):
        return " or ".join(_value(argument) for argument in arguments if argument is not NoneType) + optional
    bounds = [text.format(f"{limit:g}" if limit < 1e6 else f"{limit:,}") for text, limit in _limits(node.metadata)]
    word = _WORDS.get(node.annotation, str(node.annotation))
    reasons = [f" ({note.reason})" for note in node.metadata if isinstance(note, Because)]
    return word + (", " + " and ".join(bounds) if bounds else "") + optional + "".join(reasons)


def _limits(metadata: Sequence[JsonValue]) -> Iterator[tuple[str, float]]:
    for note in metadata:
        for held in (note, *getattr(note, "metadata", ())):
            for name, text in _BOUNDS.items():
                if isinstance(limit := getattr(held, name, None), int | float):
                    yield text, limit


def _default(value: JsonValue) -> str:
    if value is PydanticUndefined:
        return "must be given"
    if isinstance(value, Section):
        return "its defaults"
    return f"`{_text(value)}`"


def _text(value: JsonValue) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_text(item)}" for key, item in value.items()) + "}"
    if isinstance(value, tuple | list):
        return "[" + ", ".join(map(_text, value)) + "]"
    return f"{value:,}".replace(",", "_") if isinstance(value, int) and value >= 10_000 else str(value)


def _begins(key: str, prefix: str) -> bool:
    """Whether a key is one that a person names by `prefix`: with places of lists, their numbers, or neither."""
    key, prefix = (re.sub(r"\[\]|\.\d+(?=\.|$)", "", name) for name in (key, prefix))
    return not prefix or key == prefix or key.startswith(prefix + ".")


def _join(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name


__all__ = ["keys", "page", "parts"]
