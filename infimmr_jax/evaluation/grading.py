"""Grading in processes that may be killed, or by a judge of one's own."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from infimmr_jax.config import ConfigError
from infimmr_jax.evaluation.answers import final_text
from infimmr_jax.evaluation.items import Grade, Item
from infimmr_jax.names import JsonObject
from infimmr_jax.rewards.pool import GraderPool
from infimmr_jax.rewards.verdict import Question, Verdict

# Reasons that stand for a failure of the grader, not of the response.
FAILURES = ("the grader timed out", "the grader died", "the grader failed")


@dataclasses.dataclass(frozen=True)
class Judge:
    """A judge in place of the rules, for example a language model: `decide(item, text after the thinking)`."""

    name: str
    decide: Callable[[Item, str], Grade]


class Graders:
    """Benchmark graders in killable processes: SymPy can hang or eat memory on hostile LaTeX.

    `deadline` is in seconds of processor time per answer, `memory_mb` is what a process may take above its libraries.
    An answer whose grader times out or dies is wrong, and its reason says so. Use it as a context manager.
    """

    def __init__(self, workers: int = 1, deadline: float = 10.0, memory_mb: int = 4096):
        self._deadline = deadline
        self._pool = GraderPool(workers, deadline, memory_mb, preload=("infimmr_jax.evaluation.benchmarks",))

    def __enter__(self) -> Graders:
        self._pool.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all processes."""
        self._pool.close()

    def grade(self, benchmark: str, golds: Sequence[JsonObject], texts: Sequence[str]) -> list[Grade]:
        """Grade responses in order; `texts` are whole responses, thinking included."""
        return self.apply(_grade, [(benchmark, gold, text) for gold, text in zip(golds, texts, strict=True)])

    def apply(self, function: Callable[..., Grade], calls: Sequence[tuple[Any, ...]]) -> list[Grade]:
        """Call a function of a module in the pool, with arguments of plain JSON; a failure is a wrong Grade that names
        it."""
        name = f"{function.__module__}:{function.__qualname__}"
        verdicts = self._pool.verify([Question("call", json.dumps(call), name) for call in calls])
        return [self._grade_of(verdict) for verdict in verdicts]

    def _grade_of(self, verdict: Verdict) -> Grade:
        if verdict.code == "equal":
            return Grade(*json.loads(verdict.reason))
        if verdict.code == "timeout":
            return Grade(False, None, f"{FAILURES[0]} after {self._deadline:g} s")
        if verdict.code in ("lost", "cancelled"):
            return Grade(False, None, FAILURES[1])
        return Grade(False, None, f"{FAILURES[2]}: {verdict.reason}")


def judge_items(judge: Judge, items: Sequence[Item], texts: Sequence[str]) -> list[Grade]:
    """Have the judge grade every response, in order; its errors are not caught."""
    return [judge.decide(item, final_text(text)) for item, text in zip(items, texts, strict=True)]


def load_judge(name: str) -> Judge:
    """Load the Judge that `module:attribute` names (an instance, or a function without arguments that makes one).

    The module is looked for on the Python path and, last, in the working directory. Raises ConfigError.
    """
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute:
        raise ConfigError(f"--judge {name!r} is not of the form module:attribute")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        named = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"--judge {name!r} can not be loaded: {error}; give it as module:attribute") from error
    judge = named() if _takes_nothing(named) else named
    if not isinstance(judge, Judge):
        raise ConfigError(
            f"--judge {name!r} gives a {type(judge).__name__}: it must name an infimmr_jax.evaluation.grading.Judge, "
            "or a function without arguments that returns one"
        )
    return judge


def _takes_nothing(named: Any) -> bool:
    try:
        inspect.signature(named).bind()
    except (TypeError, ValueError):  # no function, one with arguments, or one of C without a signature
        return False
    return True


def _grade(benchmark: str, gold: JsonObject, text: str) -> Grade:
    from infimmr_jax.evaluation.benchmarks import BENCHMARKS

    final = final_text(text)
    return BENCHMARKS[benchmark].grade(gold, final) if final else Grade(False, None, "no text after the thinking")
