"""What was asked of whom: responses and results of one request are never mixed with those of another."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from infimmr_jax.evaluation.items import Benchmark, Item, Style
from infimmr_jax.evaluation.results import EvaluationError

# Besides the weights, what a policy is loaded from; named one by one, for results may lie in the model's directory.
_MODEL_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "chat_template.json",
    "chat_template.jinja",
)


@dataclasses.dataclass(frozen=True)
class Request:
    """What is asked of whom.

    `model_sha256` is `model_digest` of the model's directory: a path alone does not say which weights are in it.
    `settings` is whatever else changes the responses (temperature, length limit, seed), as plain JSON.
    """

    model: str
    n: int = 1
    greedy: bool = True
    style: Style = "plain"
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    model_sha256: str = ""

    def described(self, benchmark: Benchmark, items: Sequence[Item]) -> dict[str, Any]:
        """The request as the JSON of `request.json`."""
        described = {"benchmark": benchmark.name, **dataclasses.asdict(self), "items": fingerprint(items, self.style)}
        return dict(json.loads(json.dumps(described)))


def stored_request(benchmark: Benchmark, items: Sequence[Item], responses: Path) -> dict[str, Any]:
    """What `request.json` says when stored responses were scored and nobody was asked."""
    return {"benchmark": benchmark.name, "responses": str(responses.resolve()), "items": fingerprint(items, "plain")}


def fingerprint(items: Sequence[Item], style: Style) -> str:
    """A hash of ids and questions, in order."""
    digest = hashlib.sha256()
    for item in items:
        digest.update(json.dumps([item.id, item.asked(style), item.choices]).encode())
    return digest.hexdigest()[:16]


def check_owner(out: Path, wanted: dict[str, Any]) -> bool:
    """Whether `out` already belongs to the request `wanted`; EvaluationError when it belongs to another one."""
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


def model_digest(directory: Path) -> str:
    """SHA-256 over the names and the SHA-256 of a model's weights, configuration and tokenizer files."""
    files = sorted([*directory.glob("*.safetensors"), *(directory / name for name in _MODEL_FILES)])
    files = [file for file in files if file.is_file()]
    with ThreadPoolExecutor(max_workers=4) as pool:
        digests = list(pool.map(_digest_of, files))
    lines = [f"{digest}  {file.name}\n" for digest, file in zip(digests, files, strict=True)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _digest_of(file: Path) -> str:
    status = file.stat()
    return _file_digest(file.resolve(), status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=1024)
def _file_digest(file: Path, size: int, changed: int) -> str:
    """Size and time of the last change are there for the cache: several benchmarks in one process read weights once."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
