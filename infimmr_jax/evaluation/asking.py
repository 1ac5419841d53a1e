"""What `infimmr evaluate` does: a benchmark's questions put to a model, or stored responses scored."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import jax

from infimmr_jax.config import (
    ConfigError,
    DataSection,
    MeshSection,
    ModelSection,
    PolicyConfig,
    PromptSection,
    RolloutSection,
)
from infimmr_jax.data.records import Problem
from infimmr_jax.evaluation.benchmarks import benchmark_named
from infimmr_jax.evaluation.grading import Graders, load_judge
from infimmr_jax.evaluation.items import Response, Style
from infimmr_jax.evaluation.markdown import results_markdown
from infimmr_jax.evaluation.requests import Request, check_owner, stored_request
from infimmr_jax.evaluation.results import dry_run, score_responses
from infimmr_jax.evaluation.runner import read_responses, run_benchmark, write_request, write_results
from infimmr_jax.names import JsonObject
from infimmr_jax.preprocess.processor_config import directory_image
from infimmr_jax.preprocess.prompts import PromptPlan
from infimmr_jax.rollout.policy import Policy, Sampling, answer, batch_seed, load_policy, model_digest, plan


@dataclasses.dataclass(frozen=True)
class Asking:
    """How a model is asked: `samples` responses a problem (1 is greedy), their length, temperature and seed.

    `repetition_penalty` and `stop` texts are those that the model was trained with (`rollout` of its configuration).
    `batch_size` problems are asked at once, over all devices; `fsdp` and `tensor` are mesh axes that share the model.
    `dtype` None is bfloat16 on an accelerator and float32 on a CPU; a pixel budget of None is the model directory's.
    """

    samples: int = 1
    max_new_tokens: int = 2048
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0
    style: Style = "published"
    format: str = "think_boxed"
    min_pixels: int | None = None
    max_pixels: int | None = None
    max_prompt: int = 8192
    batch_size: int = 8
    dtype: Literal["float32", "bfloat16"] | None = None
    fsdp: int = 1
    tensor: int = 1
    repetition_penalty: float = 1.0
    stop: tuple[str, ...] = ()

    @property
    def rollout(self) -> RolloutSection:
        """Give what a training configuration would say."""
        return RolloutSection(repetition_penalty=self.repetition_penalty, stop=self.stop)

    def described(self) -> JsonObject:
        """Give the settings for `request.json`; what came later and is not used is left out, as in older files."""
        later = {"repetition_penalty": 1.0, "stop": ()}
        settings = {name: value for name, value in dataclasses.asdict(self).items() if later.get(name) != value}
        return {name: value for name, value in settings.items() if name not in ("samples", "style")}


def evaluate_benchmark(
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
) -> JsonObject:
    """Evaluate a model, score a file of responses, or only look at the benchmark; returns the result as plain JSON.

    Results go to `out` (`result.json`, `result.md`, `grades.jsonl`). Raises ConfigError when not exactly one of model,
    responses and `only_look` is asked for; DataError for files that can not be read.
    """
    if sum([model is not None, responses is not None, only_look]) != 1:
        raise ConfigError("give exactly one of --model DIR, --responses FILE and --dry-run")
    asking = asking or Asking()
    # Resolved here, so that the request and the result say it.
    dtype = asking.dtype or ("float32" if jax.default_backend() == "cpu" else "bfloat16")
    asking = dataclasses.replace(asking, dtype=dtype)
    if model is not None:
        image = directory_image(model, asking.min_pixels, asking.max_pixels)
        asking = dataclasses.replace(asking, min_pixels=image.min_pixels, max_pixels=image.max_pixels)
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
            described = stored_request(benchmark, items, responses)
            check_owner(out, described)
            result, grades = score_responses(benchmark, items, known, graders, chosen)
            result = {"request": {"model": responses.name}, **result}
            if jax.process_index() == 0:
                write_request(out, described)
                write_results(out, items, result, grades)
        else:
            assert model is not None
            policy = _policy(model, asking)
            rows = policy.rows(asking.batch_size)
            for item in items:  # A problem that can not be shown is said now, not after hours.
                _plan(policy, item.problem(asking.style))
            ask = functools.partial(_ask, policy, asking, rows)
            digest = model_digest(model) if jax.process_index() == 0 else ""
            request = Request(str(model), asking.samples, asking.samples == 1, asking.style, asking.described(), digest)
            progress = functools.partial(_progress, say)
            result = run_benchmark(
                benchmark, items, ask, request, out, graders, chosen, batch_size=rows, on_batch=progress
            )
    if not result:
        return result
    say(results_markdown([result]))
    say(f"Result: {out / 'result.json'}, every grade: {out / 'grades.jsonl'}")
    return result


def _progress(say: Any, done: int, total: int) -> None:
    say(f"{done}/{total} problems")


def _policy(model: Path, asking: Asking) -> Policy:
    # The published prompts bring their own instruction; otherwise that of the format is added.
    instruction = None if asking.style == "plain" else ""
    image = directory_image(model, asking.min_pixels, asking.max_pixels)
    config = PolicyConfig(
        model=ModelSection.model_validate({"path": model, "compute_dtype": asking.dtype, "param_dtype": asking.dtype}),
        data=DataSection(max_prompt=asking.max_prompt, max_images=16, image=image),
        prompt=PromptSection.model_validate({"format": asking.format, "instruction": instruction}),
        mesh=MeshSection(fsdp=asking.fsdp, tensor=asking.tensor),
    )
    return load_policy(config)


def _ask(
    policy: Policy, asking: Asking, rows: int, problems: Sequence[Problem], n: int, greedy: bool
) -> list[list[Response]]:
    """Give n responses to every problem; a resumed call repeats them, for their seed is made of the batch."""
    plans = [_plan(policy, problem) for problem in problems]
    sampling = Sampling(n, asking.max_new_tokens, 0.0 if greedy else asking.temperature, asking.top_p, asking.seed)
    seed = batch_seed([problem.id for problem in problems], asking.seed)
    answers = answer(policy, plans, sampling.settings(asking.rollout), rows, seed)
    return [
        [
            Response(text, truncated=not bool(ended), tokens=int(length))
            for text, ended, length in zip(*group, strict=True)
        ]
        for group in zip(answers.texts, answers.finished, answers.lengths, strict=True)
    ]


def _plan(policy: Policy, problem: Problem) -> PromptPlan:
    return plan(policy, "image" if problem.images else "text", problem)


__all__ = ["Asking", "evaluate_benchmark"]
