"""What a reward function is given: the responses to one problem, read-only; and how it travels to other processes."""

from __future__ import annotations

import base64
import copy
import dataclasses
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
from jaxtyping import Bool, Float, Int

from infimmr_jax.data.records import Problem
from infimmr_jax.names import JsonObject, JsonValue
from infimmr_jax.rewards.judging import JudgeRequest


@dataclasses.dataclass(frozen=True)
class Group:
    """The G responses to one problem, as a reward function sees them: nothing in it can be changed for others.

    `finished` is False where a response was cut at its length limit; `lengths` are in tokens; `components` holds what
    was computed before ("accuracy" and "format" always, then the weights' order).
    """

    problem: Problem
    responses: tuple[str, ...]
    extracted: tuple[str | None, ...]
    finished: Bool[np.ndarray, "G"]
    lengths: Int[np.ndarray, "G"]
    components: Mapping[str, Float[np.ndarray, "G"]]


def read_only(group: Group) -> Group:
    """A copy of a group whose arrays refuse to be written, and whose problem is nobody else's."""
    components = {name: _frozen(scores) for name, scores in group.components.items()}
    return dataclasses.replace(
        group,
        problem=dataclasses.replace(group.problem, extra=copy.deepcopy(group.problem.extra)),
        finished=_frozen(group.finished),
        lengths=_frozen(group.lengths),
        components=MappingProxyType(components),
    )


def group_to_json(group: Group) -> dict[str, object]:
    """A group in plain values; arrays become lists, bytes base64."""
    return {
        "problem": problem_to_json(group.problem),
        "responses": list(group.responses),
        "extracted": list(group.extracted),
        "finished": np.asarray(group.finished).tolist(),
        "lengths": np.asarray(group.lengths).tolist(),
        "components": {name: np.asarray(scores).tolist() for name, scores in group.components.items()},
    }


def group_from_json(tree: JsonObject) -> Group:
    """The inverse of `group_to_json`, read-only; sequences in `problem.extra` are lists."""
    return read_only(
        Group(
            problem_from_json(tree["problem"]),
            tuple(tree["responses"]),
            tuple(tree["extracted"]),
            np.asarray(tree["finished"], bool),
            np.asarray(tree["lengths"], np.int64),
            {name: np.asarray(scores, np.float32) for name, scores in tree["components"].items()},
        )
    )


def requests_to_json(requests: Sequence[JudgeRequest]) -> list[dict[str, object]]:
    """Requests to a judge in plain values."""
    names = ("question", "gold", "response", "extracted")
    return [
        {name: getattr(request, name) for name in names} | {"problem": problem_to_json(request.problem)}
        for request in requests
    ]


def requests_from_json(tree: list[JsonObject]) -> list[JudgeRequest]:
    """The inverse of `requests_to_json`."""
    return [JudgeRequest(**{**item, "problem": problem_from_json(item["problem"])}) for item in tree]


def problem_to_json(problem: Problem) -> dict[str, object]:
    """A problem in plain values."""
    fields = {field.name: getattr(problem, field.name) for field in dataclasses.fields(problem)}
    return _plain(fields)  # type: ignore[no-any-return]


def problem_from_json(tree: JsonObject) -> Problem:
    """The inverse of `problem_to_json`."""
    fields = _bytes_back(tree)
    return Problem(**{**fields, "choices": tuple(fields["choices"]), "images": tuple(fields["images"])})


def _frozen(array: np.ndarray) -> np.ndarray:
    copied = np.array(array)
    copied.setflags(write=False)
    return copied


def _plain(value: object) -> JsonValue:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if isinstance(value, bytes):
        return {"base64 bytes": base64.b64encode(value).decode()}
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)


def _bytes_back(value: object) -> JsonValue:
    if isinstance(value, dict):
        if list(value) == ["base64 bytes"]:
            return base64.b64decode(value["base64 bytes"])
        return {key: _bytes_back(item) for key, item in value.items()}
    return [_bytes_back(item) for item in value] if isinstance(value, list) else value
