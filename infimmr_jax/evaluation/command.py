"""What `infimmr evaluate` does: a benchmark's questions put to a model, or stored responses scored."""

from __future__ import annotations

import dataclasses
import functools
import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from infimmr_jax.config import ConfigError, DataSection, ImageSection, Modality, PromptSection
from infimmr_jax.data.records import Problem
from infimmr_jax.evaluation.benchmarks import benchmark_named
from infimmr_jax.evaluation.grading import Graders, load_judge
from infimmr_jax.evaluation.items import Response, Style
from infimmr_jax.evaluation.markdown import results_markdown
from infimmr_jax.evaluation.results import dry_run, score_responses
from infimmr_jax.evaluation.runner import Request, read_responses, run_benchmark, write_results
from infimmr_jax.model.config import vision_layout
from infimmr_jax.preprocess.batching import collate
from infimmr_jax.preprocess.prompts import encode_prompt
from infimmr_jax.rollout.generate import SMALLEST_TRUNK, Generator, load_generator, round_up
from infimmr_jax.rollout.sampler import Rollouts, SampleSettings, sample
from infimmr_jax.rollout.vocabulary import allowed_tokens


@dataclasses.dataclass(frozen=True)
class Asking:
    """How a model is asked: `samples` responses a problem (1 is greedy), their length, temperature and seed."""

    samples: int = 1
    max_new_tokens: int = 2048
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0
    style: Style = "published"
    format: str = "think_boxed"
    max_pixels: int = 1280 * 28 * 28
    max_prompt: int = 8192


def evaluate(
    name: str,
    data: Path,
    out: Path,
    *,
    model: Path | None = None,
    responses: Path | None = None,
    only_look: bool = False,
    asking: Asking | None = None,
    limit: int | None = None,
    judge: str | None = None,
    say: Any = print,
) -> dict[str, Any]:
    """Evaluate a model, score a file of responses, or only look at the benchmark; returns the result as plain JSON.

    Results go to `out` (`result.json`, `result.md`, `grades.jsonl`). Raises ConfigError when not exactly one of model,
    responses and `only_look` is asked for; DataError for files that can not be read.
    """
    if sum([model is not None, responses is not None, only_look]) != 1:
        raise ConfigError("give exactly one of --model DIR, --responses FILE and --dry-run")
    asking = asking or Asking()
    benchmark = benchmark_named(name)
    items = benchmark.read(data)[:limit]
    with Graders() as graders:
        if only_look:
            found = dry_run(benchmark, items, graders)
            say(json.dumps(found, indent=1, ensure_ascii=False))
            return found
        chosen = load_judge(judge) if judge else None
        if responses is not None:
            known = read_responses(responses, items)
            result, grades = score_responses(benchmark, items, known, graders, chosen)
            result = {"request": {"model": responses.name}, **result}
            write_results(out, items, result, grades)
        else:
            assert model is not None
            ask = functools.partial(_ask, _generator(model, asking), asking)
            settings = {k: v for k, v in dataclasses.asdict(asking).items() if k not in ("samples", "style")}
            request = Request(str(model), asking.samples, asking.samples == 1, asking.style, settings)
            progress = functools.partial(_progress, say)
            result = run_benchmark(
                benchmark, items, ask, request, out, graders, chosen, batch_size=8, on_batch=progress
            )
    say(results_markdown([result]))
    say(f"Result: {out / 'result.json'}, every grade: {out / 'grades.jsonl'}")
    return result


def _progress(say: Any, done: int, total: int) -> None:
    say(f"{done}/{total} problems")


def _generator(model: Path, asking: Asking) -> Generator:
    image = ImageSection(max_pixels=asking.max_pixels)
    return load_generator(model, data=DataSection(max_prompt=asking.max_prompt, max_images=16, image=image))


def _ask(
    generator: Generator, asking: Asking, problems: Sequence[Problem], n: int, greedy: bool
) -> list[list[Response]]:
    """n responses to every problem; each problem's random numbers come from its id, so a resumed run repeats them."""
    return [_responses(generator, asking, problem, n, greedy) for problem in problems]


def _responses(generator: Generator, asking: Asking, problem: Problem, n: int, greedy: bool) -> list[Response]:
    layout = vision_layout(generator.config)
    instruction = "" if asking.style == "published" else None
    section = PromptSection.model_validate({"format": asking.format, "instruction": instruction})
    modality: Modality = "image" if problem.images else "text"
    encoded = encode_prompt(problem, modality, generator.tokenizer, layout, generator.data, section)
    slots, patches = encoded.image_shape
    window = layout.window_patches
    images = (round_up(slots, 1), round_up(patches // window, 1) * window) if slots else (0, 0)
    batch = collate([encoded], 1, round_up(encoded.length, SMALLEST_TRUNK), images)
    settings = SampleSettings(n, asking.max_new_tokens, 0.0 if greedy else asking.temperature, 0, asking.top_p)
    key = jax.random.fold_in(jax.random.key(asking.seed), zlib.crc32(problem.id.encode()))
    allowed = allowed_tokens(generator.tokenizer, generator.config)
    rollouts = jax.device_get(_sampler(generator, settings)(generator.params, batch=batch, allowed=allowed, key=key))
    return [_response(generator, rollouts, row) for row in range(n)]


def _response(generator: Generator, rollouts: Rollouts, row: int) -> Response:
    kept = np.asarray(rollouts.mask)[0, row]
    ids = np.asarray(rollouts.tokens)[0, row][kept].tolist()
    text = generator.tokenizer.decode(ids, skip_special_tokens=True)
    return Response(text, truncated=not bool(np.asarray(rollouts.finished)[0, row]), tokens=len(ids))


@functools.lru_cache(maxsize=8)
def _compiled(config: Any, options: Any, settings: SampleSettings) -> Any:
    return jax.jit(functools.partial(sample, config=config, options=options, settings=settings))


def _sampler(generator: Generator, settings: SampleSettings) -> Any:
    return _compiled(generator.config, generator.options, settings)


__all__ = ["Asking", "evaluate"]
