"""The verifiers by answer type: what can be decided at once, and what needs a grader process."""

from __future__ import annotations

import dataclasses
import importlib
import json
from collections.abc import Callable

from infimmr_jax.rewards.math.refusals import refusal
from infimmr_jax.rewards.math.verify_math import decide, verify_gold, verify_math
from infimmr_jax.rewards.verdict import Options, Question, Verdict, refused
from infimmr_jax.rewards.verify_action import verify_action
from infimmr_jax.rewards.verify_choice import verify_choice
from infimmr_jax.rewards.verify_list import verify_list, verify_set
from infimmr_jax.rewards.verify_number import verify_number
from infimmr_jax.rewards.verify_region import verify_box, verify_point, verify_span
from infimmr_jax.rewards.verify_string import verify_string


def call_grader(arguments: str, function: str, options: Options) -> Verdict:
    """Call a grader of another room, `module:function`, with JSON arguments; the reason is the JSON of its reply.

    The reply is a dataclass, and comes back as the list of its fields.
    """
    module, _, name = function.partition(":")
    try:
        reply = getattr(importlib.import_module(module), name)(*json.loads(arguments))
    except MemoryError:
        return Verdict(0.0, "memory", "MemoryError")
    except Exception as error:  # whatever a hostile answer provokes is a verdict: it is counted and reported
        return Verdict(0.0, "crash", f"{type(error).__name__}: {error}")
    return Verdict(1.0, "equal", json.dumps(dataclasses.astuple(reply)))


# Quick verifiers are linear in the (bounded) length of the strings and run in the trainer; None means "ask a worker".
QUICK: dict[str, Callable[[str, str, Options], Verdict | None]] = {
    "math": decide,
    "choice": verify_choice,
    "string": verify_string,
    "number": verify_number,
    "list": verify_list,
    "set": verify_set,
    "box": verify_box,
    "point": verify_point,
    "span": verify_span,
    "action": verify_action,
}
SLOW: dict[str, Callable[[str, str, Options], Verdict]] = {
    "math": verify_math,
    "math gold": verify_gold,
    "call": call_grader,
}
# From which score on an answer counts as right, where one must say so: a box by the customary overlap, the rest whole.
RIGHT_FROM = {"box": 0.5, "point": 0.5, "span": 0.5}


def quick_verdict(question: Question) -> Verdict | None:
    """The verdict where it can be had in the calling process, None where a grader process is needed.

    Whatever a hostile answer provokes in a verifier is a verdict of code "crash": here as in a grader process.
    """
    if question.answer_type not in QUICK and question.answer_type not in SLOW:
        raise ValueError(f"answer type {question.answer_type!r} has no verifier; known: {', '.join(QUICK)}")
    try:
        why = refusal(question.answer)
        if why:
            return refused(why)
        if question.answer_type in QUICK:
            return QUICK[question.answer_type](question.gold, question.answer, question.options)
    except Exception as error:
        return Verdict(0.0, "crash", f"crash: {type(error).__name__}")
    return None


def right_from(answer_type: str) -> float:
    """The least score of an answer that counts as right: for demonstrations, pass rates, held-out counts."""
    return RIGHT_FROM.get(answer_type, 1.0)


def slow_verdict(question: Question) -> Verdict:
    """The verdict, however long it takes: call it in a process that may be killed."""
    return SLOW[question.answer_type](question.gold, question.answer, question.options)
