"""What was asked of whom: responses and results of one request are never mixed with those of another."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from infimmr_jax.evaluation.items import Benchmark, Item, Style
from infimmr_jax.evaluation.results import EvaluationError
from infimmr_jax.names import JsonObject


@dataclasses.dataclass(frozen=True)
class Request:
    """What is asked of whom.

    `model_sha256` is `rollout.policy.model_digest` of the model's directory: a path does not say what is in it.
    `settings` is whatever else changes the responses (temperature, length limit, seed), as plain JSON.
    """

    model: str
    n: int = 1
    greedy: bool = True
    style: Style = "plain"
    settings: JsonObject = dataclasses.field(default_factory=dict)
    model_sha256: str = ""

    def described(self, benchmark: Benchmark, items: Sequence[Item]) -> JsonObject:
        """Give the request as the JSON of `request.json`."""
        described = {"benchmark": benchmark.name, **dataclasses.asdict(self), "items": fingerprint(items, self.style)}
        return dict(json.loads(json.dumps(described)))


def stored_request(benchmark: Benchmark, items: Sequence[Item], responses: Path) -> JsonObject:
    """Give the JSON of `request.json` when stored responses were scored and nobody was asked."""
    return {"benchmark": benchmark.name, "responses": str(responses.resolve()), "items": fingerprint(items, "plain")}


def fingerprint(items: Sequence[Item], style: Style) -> str:
    """Hash ids and questions, in order."""
    digest = hashlib.sha256()
    for item in items:
        digest.update(json.dumps([item.id, item.asked(style), item.choices]).encode())
    return digest.hexdigest()[:16]


def check_owner(out: Path, wanted: JsonObject) -> bool:
    """Tell whether `out` already belongs to the request `wanted`; EvaluationError when it belongs to another one."""
    path = out / "request.json"
    instead = "choose another output directory (--out), or remove this one"
    if not path.exists():
        if (out / "result.json").exists():
            raise EvaluationError(f"{out} holds a result.json without a request.json that says of what: {instead}")
        return False
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise EvaluationError(f"{path} can not be read ({error}): {instead}") from error
    if not isinstance(before, dict):
        raise EvaluationError(f"{path} is not the request of an evaluation: {instead}")
    differing = sorted(key for key in wanted.keys() | before.keys() if wanted.get(key) != before.get(key))
    if not differing:
        return True
    if differing == ["model_sha256"]:
        raise EvaluationError(
            f"the weights, configuration or tokenizer in {wanted['model']} are not those that gave the responses in "
            f"{out}: {instead}"
        )
    if ("responses" in before) != ("responses" in wanted):
        scored = before.get("responses")
        held = f"responses of {before.get('model')}" if scored is None else f"the scores of {scored}"
        raise EvaluationError(f"{out} holds {held}: {instead}")
    raise EvaluationError(f"{out} holds responses to another request (other {', '.join(differing)}): {instead}")
