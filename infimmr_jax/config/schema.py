"""The schema as the merging, the overrides and the errors read it.

A section of several kinds is a union of sections annotated with `Kinds`: one key says the kind, and every kind has its
own keys.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel, GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from infimmr_jax.config.base import Section
from infimmr_jax.names import JsonObject

Tree = JsonObject


@dataclasses.dataclass(frozen=True)
class Kinds:
    """Annotation that makes a union of sections one section whose `key` chooses the member.

    `default` is the kind of a section that does not name one; None when it must. A key of another kind is refused,
    unless it says nothing (null, or that kind's default) and the section is not `strict`: what older versions wrote has
    the keys of all kinds.
    """

    key: str = "kind"
    default: str | None = None
    strict: bool = False

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        members = self.members(source)
        choices = {kind: handler.generate_schema(member) for kind, member in members.items()}
        union = core_schema.tagged_union_schema(choices, discriminator=self.key)
        return core_schema.no_info_before_validator_function(lambda value: self._completed(value, members), union)

    def members(self, union: Any) -> dict[str, type[Section]]:
        """List the sections of a union by their kind."""
        sections: tuple[type[Section], ...] = get_args(union)
        return {get_args(section.model_fields[self.key].annotation)[0]: section for section in sections}

    def _completed(self, value: Any, members: dict[str, type[Section]]) -> Any:
        if not isinstance(value, dict):
            return value
        tree = value if self.default is None else {self.key: self.default} | value
        section = members.get(tree[self.key]) if isinstance(tree.get(self.key), str) else None
        if section is None or self.strict:
            return tree
        return {key: given for key, given in tree.items() if not _is_silent(key, given, section, members)}


@dataclasses.dataclass(frozen=True)
class SectionUnion:
    """A section of several kinds, as the merging and the errors see it."""

    key: str
    default: str | None
    members: dict[str, type[Section]]

    def member_of(self, tree: Tree) -> type[Section] | None:
        """Return the section of the kind that a tree names, None for one that does not exist."""
        kind = tree.get(self.key, self.default)
        return self.members.get(kind) if isinstance(kind, str) else None

    def owners(self, key: str) -> list[str]:
        """List the kinds that have a key."""
        return [kind for kind, section in self.members.items() if key in section.model_fields]


@dataclasses.dataclass(frozen=True)
class Node:
    """What may stand at a place of the configuration: an annotation, and what is said about it."""

    annotation: Any
    metadata: tuple[Any, ...] = ()

    @property
    def section(self) -> type[Section] | SectionUnion | None:
        """The section that stands here, or may; None for free mappings, lists and single values."""
        kinds = next((item for item in self.metadata if isinstance(item, Kinds)), None)
        if kinds is not None:
            return SectionUnion(kinds.key, kinds.default, kinds.members(self.annotation))
        if isinstance(self.annotation, type) and issubclass(self.annotation, Section):
            return self.annotation
        return None

    def below(self, part: str | int) -> Node | None:
        """Return what may stand at a key, kind or index below; None where the schema has none."""
        section = self.section
        if isinstance(section, SectionUnion):
            member = section.members.get(str(part))
            return None if member is None else Node(member)
        if section is not None:
            field = section.model_fields.get(str(part))
            return None if field is None else node_of(field.annotation, field.metadata)
        origin, arguments = get_origin(self.annotation), get_args(self.annotation)
        if origin is dict:
            return node_of(arguments[1])
        if origin in (tuple, list) and str(part).isdigit():
            same = len(arguments) == 1 or arguments[1] is Ellipsis
            place = 0 if same else int(part)
            return node_of(arguments[place]) if place < len(arguments) else None
        return None

    @property
    def free_keys(self) -> bool:
        """Whether this is a mapping of any names to single values: a name may hold dots (`module.of.mine:function`)."""
        if get_origin(self.annotation) is not dict:
            return False
        value = self.below("")
        return value is not None and value.section is None and get_origin(value.annotation) is None


def node_of(annotation: Any, metadata: Sequence[Any] = ()) -> Node:
    """Return the node of an annotation without the null that may stand there instead."""
    if get_origin(annotation) is Annotated:
        inner, *more = get_args(annotation)
        return node_of(inner, (*metadata, *more))
    if not any(isinstance(item, Kinds) for item in metadata):
        parts = [part for part in get_args(annotation) if part is not type(None)]
        if type(None) in get_args(annotation) and len(parts) == 1:
            return node_of(parts[0], metadata)
    return Node(annotation, tuple(metadata))


def section_of_field(section: type[BaseModel], key: str) -> type[Section] | SectionUnion | None:
    """Return the section below a key of a section; None where there is none."""
    field = section.model_fields.get(key)
    return None if field is None else node_of(field.annotation, field.metadata).section


def _is_silent(key: str, given: Any, section: type[Section], members: dict[str, type[Section]]) -> bool:
    own = section.model_fields.get(key)
    if own is not None:
        return given is None and type(None) not in get_args(own.annotation)
    others = [member.model_fields[key] for member in members.values() if key in member.model_fields]
    return bool(others) and (given is None or any(given == field.default for field in others))
