"""Grading in processes that may be killed, or by a judge of one's own."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import multiprocessing
import os
import resource
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any

from pebble import ProcessExpired, ProcessPool

from infimmr_jax.config import ConfigError
from infimmr_jax.evaluation.answers import final_text
from infimmr_jax.evaluation.items import Grade, Item

# Reasons that stand for a failure of the grader, not of the response.
FAILURES = ("the grader timed out", "the grader died", "the grader failed")


@dataclasses.dataclass(frozen=True)
class Judge:
    """A judge in place of the rules, for example a language model: `decide(item, text after the thinking)`."""

    name: str
    decide: Callable[[Item, str], Grade]


class Graders:
    """A pool of grader processes; SymPy can hang or eat memory on hostile LaTeX, so each answer has a deadline.

    `deadline` is in seconds per answer, `memory_mb` bounds each process. An answer whose grader times out or dies is
    wrong, and its reason says so. Use it as a context manager.
    """

    def __init__(self, workers: int = 1, deadline: float = 10.0, memory_mb: int = 4096):
        self._deadline = deadline
        self._pool = ProcessPool(
            max_workers=workers,
            # A fork would copy locks that JAX's threads hold.
            context=multiprocessing.get_context("spawn"),
            initializer=_start,
            initargs=[memory_mb],
        )

    def __enter__(self) -> Graders:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all processes."""
        self._pool.stop()
        self._pool.join()

    def grade(self, benchmark: str, golds: Sequence[dict[str, Any]], texts: Sequence[str]) -> list[Grade]:
        """One grade a response, in order; `texts` are whole responses, thinking included."""
        return self.apply(_grade, [(benchmark, gold, text) for gold, text in zip(golds, texts, strict=True)])

    def apply(self, function: Callable[..., Grade], calls: Sequence[tuple[Any, ...]]) -> list[Grade]:
        """`function(*call)` of every call in the pool; a failure becomes a wrong Grade that names it."""
        futures = [self._pool.schedule(function, args=list(call), timeout=self._deadline) for call in calls]
        return [self._result(future) for future in futures]

    def _result(self, future: Any) -> Grade:
        try:
            return future.result()
        except FutureTimeout:
            return Grade(False, None, f"{FAILURES[0]} after {self._deadline:g} s")
        except ProcessExpired:
            return Grade(False, None, FAILURES[1])
        except Exception as error:
            # Whatever a grader raised in its process: the response is counted wrong and the result names the reason.
            return Grade(False, None, f"{FAILURES[2]}: {type(error).__name__}: {error}")


def judge_items(judge: Judge, items: Sequence[Item], texts: Sequence[str]) -> list[Grade]:
    """The judge's grade of every response, in order; its errors are not caught."""
    return [judge.decide(item, final_text(text)) for item, text in zip(items, texts, strict=True)]


def load_judge(name: str) -> Judge:
    """The Judge that `module:attribute` names (an instance, or a function without arguments that makes one).

    The module is looked for on the Python path and, last, in the working directory. Raises ConfigError.
    """
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute:
        raise ConfigError(f"--judge {name!r} is not of the form module:attribute")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        found = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"--judge {name!r} can not be loaded: {error}; give it as module:attribute") from error
    judge = found() if _takes_nothing(found) else found
    if not isinstance(judge, Judge):
        raise ConfigError(
            f"--judge {name!r} gives a {type(judge).__name__}: it must name an infimmr_jax.evaluation.grading.Judge, "
            "or a function without arguments that returns one"
        )
    return judge


def _takes_nothing(found: Any) -> bool:
    try:
        inspect.signature(found).bind()
    except (TypeError, ValueError):  # no function, one with arguments, or one of C without a signature
        return False
    return True


def _start(memory_mb: int) -> None:
    # Imported before the first deadline runs.
    importlib.import_module("infimmr_jax.evaluation.benchmarks")
    limit = memory_mb * 1024 * 1024
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _grade(benchmark: str, gold: dict[str, Any], text: str) -> Grade:
    from infimmr_jax.evaluation.benchmarks import BENCHMARKS

    final = final_text(text)
    return BENCHMARKS[benchmark].grade(gold, final) if final else Grade(False, None, "no text after the thinking")
