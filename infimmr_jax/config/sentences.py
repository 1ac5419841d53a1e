"""What pydantic found wrong, as sentences that name the key and what could be meant."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Sequence
from typing import get_args

from pydantic import BaseModel, ValidationError

from infimmr_jax.config.base import Because, Section
from infimmr_jax.config.schema import Node, SectionUnion
from infimmr_jax.names import JsonValue

Location = tuple[int | str, ...]


def sentences_of(error: ValidationError, root: type[BaseModel]) -> list[str]:
    """Return a sentence for every mistake that pydantic lists."""
    errors = error.errors()
    # A bad list item makes its list "too short" as well: only the item's own sentence helps.
    own = [e for e in errors if not any(o is not e and o["loc"][: len(e["loc"])] == e["loc"] for o in errors)]
    return [_sentence(item, root) for item in own]


@dataclasses.dataclass(frozen=True)
class _Place:
    """A place of the configuration: its key as a person writes it, its schema, and the union it is a kind of."""

    key: str
    schema: Node | None
    union: SectionUnion | None = None
    kind: str = ""


def _place(location: Location, root: type[BaseModel]) -> _Place:
    """Follow a location of pydantic, which names the kind of a section as if it were a key."""
    words: list[str] = []
    schema: Node | None = Node(root)
    union, kind = None, ""
    for part in location:
        section = schema.section if schema is not None else None
        union, kind = (section, str(part)) if isinstance(section, SectionUnion) else (None, "")
        if union is None:
            words.append(str(part))
        schema = schema.below(part) if schema is not None else None
    return _Place(".".join(words) or "top level", schema, union, kind)


def _sentence(item: JsonValue, root: type[BaseModel]) -> str:
    location: Location = item["loc"]
    place, holder = _place(location, root), _place(location[:-1], root)
    message, kind = str(item["msg"]), item["type"]
    match kind:
        case "value_error":
            message = message.removeprefix("Value error, ")
            return message if not location else f"{place.key}: {message}"
        case "extra_forbidden":
            return f"{place.key}: {_unknown(str(location[-1]), holder)}"
        case "missing":
            needed = f", kind {holder.kind!r} needs it" if holder.union is not None else ""
            return f"{place.key}: {location[-1]} is missing{needed}"
        case "union_tag_invalid" | "union_tag_not_found":
            return _bad_kind(item, place)
        case "literal_error":
            return f"{place.key}: {message} (got {item['input']!r:.80}){_nearest(item['input'], place.schema)}"
    reasons = [note.reason for note in (place.schema.metadata if place.schema else ()) if isinstance(note, Because)]
    return f"{place.key}: {message} (got {item['input']!r:.80}){''.join(f': {reason}' for reason in reasons)}"


def _unknown(key: str, holder: _Place) -> str:
    if holder.union is not None:
        owners = holder.union.owners(key)
        if owners:
            named = " or ".join(repr(owner) for owner in owners)
            return f"{key!r} belongs to {holder.union.key} {named}, the {holder.union.key} is {holder.kind!r}"
    section = holder.schema.section if holder.schema is not None else None
    known = list(section.model_fields) if isinstance(section, type) and issubclass(section, Section) else []
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.4)
    return f"unknown key; did you mean {near[0]!r}?" if near else f"unknown key; known keys here: {', '.join(known)}"


def _bad_kind(item: JsonValue, place: _Place) -> str:
    section = place.schema.section if place.schema is not None else None
    assert isinstance(section, SectionUnion)
    key = f"{place.key}.{section.key}"
    given = item["input"].get(section.key) if isinstance(item["input"], dict) else None
    if given is None:
        return f"{key}: {section.key} is missing; {_known(list(section.members))}"
    near = _closest(given, list(section.members))
    return f"{key}: {given!r:.80} is unknown; " + (f"did you mean {near!r}?" if near else _known(list(section.members)))


def _nearest(given: JsonValue, schema: Node | None) -> str:
    near = _closest(given, get_args(schema.annotation) if schema is not None else ())
    return f"; did you mean {near!r}?" if near else ""


def _closest(given: JsonValue, known: Sequence[JsonValue]) -> str | None:
    words = [word for word in known if isinstance(word, str)]
    return next(iter(difflib.get_close_matches(given, words, n=1)), None) if isinstance(given, str) else None


def _known(names: Sequence[str]) -> str:
    return f"known: {', '.join(names)}"


__all__ = ["sentences_of"]
