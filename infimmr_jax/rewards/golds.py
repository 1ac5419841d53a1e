"""Whether a gold answer can be graded at all, asked when data are read, before training starts."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Sequence

from infimmr_jax.config import RewardSection
from infimmr_jax.data.records import DataError, Problem
from infimmr_jax.names import LOCATED, RULES
from infimmr_jax.rewards.ideal import ideal_answer
from infimmr_jax.rewards.math.numbers import parse_number
from infimmr_jax.rewards.pool import GraderPool
from infimmr_jax.rewards.questions import options_of
from infimmr_jax.rewards.regions import parse_boxes, parse_points
from infimmr_jax.rewards.verdict import Options, Question
from infimmr_jax.rewards.verifiers import QUICK, quick_verdict
from infimmr_jax.rewards.verify_action import COORDINATE_KEYS, parse_action
from infimmr_jax.rewards.verify_choice import letter_of
from infimmr_jax.rewards.verify_region import DISTANCE_SIGMA, L1_LIMIT
from infimmr_jax.rewards.verify_string import clean_text

FULL = 1 - 1e-6  # an IoU with itself may miss 1 by a rounding
MARGIN = 0.01  # of a side: annotators draw boxes a little over the edge
# What rules of distance forgive without a threshold, in units of the gold's image.
LIMITS = {("box", "l1"): L1_LIMIT, ("point", "l1"): L1_LIMIT, ("point", "distance"): DISTANCE_SIGMA}


def check_gold(problem: Problem, pool: GraderPool | None = None, reward: RewardSection | None = None) -> str | None:
    """A sentence saying why a problem's gold answer can not be graded, or None.

    LaTeX golds are parsed by `pool`; without one only what the text shows is checked. `reward` has the rules that
    answers will be graded by: under them, some answer must earn the full score.
    """
    return check_golds([problem], pool, reward)[0]


def check_golds(
    problems: Sequence[Problem], pool: GraderPool | None = None, reward: RewardSection | None = None
) -> list[str | None]:
    """`check_gold` of many problems: plain numbers, letters and texts at once, LaTeX through the pool's processes."""
    reward = reward or RewardSection()
    said = [_check_row(problem, reward) for problem in problems]
    if pool is None:
        return said
    asked = [
        i
        for i, problem in enumerate(problems)
        if said[i] is None and problem.answer_type == "math" and parse_number(problem.answer) is None
    ]
    # A gold is gradable when the whole way through the worker says something else than "unparsable gold".
    questions = [Question("math gold", problems[i].answer, problems[i].answer, Options()) for i in asked]
    for i, verdict in zip(asked, pool.verify(questions), strict=True):
        if verdict.score != 1.0:
            said[i] = f"the math answer {_short(problems[i].answer)} can not be graded: {verdict.reason}"
    return said


def _check_row(problem: Problem, reward: RewardSection) -> str | None:
    """What `_check_text` says, or that a row's values made it fail: one row must not end the reading of all."""
    try:
        return _check_text(problem, reward)
    except Exception as error:
        return f"the gold answer can not be checked ({type(error).__name__}: {str(error)[:200]})"


def _check_text(problem: Problem, reward: RewardSection) -> str | None:
    answer = problem.answer
    if not answer.strip():
        return "the answer is empty"
    if problem.answer_type == "choice":
        letter, why = letter_of(answer, problem.choices)
        if letter is None:
            return f"the choice answer {_short(answer)} does not name one of {len(problem.choices)} options: {why}"
    if problem.answer_type == "string" and not clean_text(answer):
        return f"the string answer {_short(answer)} holds nothing to compare"
    if problem.answer_type not in QUICK:
        return f"the answer type {problem.answer_type!r} has no verifier; known: {', '.join(QUICK)}"
    try:
        # Gold and answer in one frame: the size that the picture is shown at is not known yet.
        options = dataclasses.replace(options_of(problem, reward), scale=(1.0, 1.0))
    except DataError as error:
        return str(error)
    best = ideal_answer(problem.answer_type, answer, options)
    verdict = quick_verdict(Question(problem.answer_type, answer, best or answer, options))
    unreadable = best is None or (verdict is not None and verdict.code == "bad_gold")
    said = "" if verdict is None else verdict.reason
    rules = RULES[problem.answer_type]
    by_rule = f" by rule {options.rule or rules[0]!r}" if len(rules) > 1 else ""
    if unreadable:
        return f"the {problem.answer_type} answer {_short(answer)} can not be graded{by_rule}: unparsable gold"
    # Of mathematics the text alone does not say; the pool is asked later.
    if problem.answer_type != "math" and verdict is not None and verdict.score < FULL:
        return (
            f"the {problem.answer_type} answer {_short(answer)} can not be graded: no answer earns the full score"
            f"{by_rule} ({said}); choose another one in `verify` or reward.rules"
        )
    return _misplaced(problem, options) if problem.answer_type in LOCATED else None


def _misplaced(problem: Problem, options: Options) -> str | None:
    """Why the gold coordinates can not be meant in the picture that they refer to."""
    texts = [problem.answer]
    if problem.answer_type == "action":
        action = parse_action(problem.answer) or {}
        exact = next((key for key in COORDINATE_KEYS if key in action), None)
        if exact is not None and problem.images:
            return f"`{exact}` in an action on a picture is a pixel that no answer hits; give `bbox`, what must be hit"
        texts = [json.dumps(action[key]) for key in ("bbox", "box") if key in action]
    size = problem.extra.get("image_size")
    if size is None:
        return None
    limit = LIMITS.get((problem.answer_type, options.rule))
    if limit is not None and (options.threshold or limit) >= max(size):
        return (
            f"the rule {options.rule!r} forgives {options.threshold or limit:g} in an image of {size[0]:g} x "
            f"{size[1]:g}, so that every answer is right; give `verify` a `threshold` in the units of `image_size`"
        )
    for text in texts:
        groups: Sequence[tuple[float, ...]] = parse_boxes(text) or parse_points(text) or ()
        for number, side in ((x, size[place % 2]) for group in groups for place, x in enumerate(group)):
            if not -MARGIN * side <= number <= (1 + MARGIN) * side:
                return (
                    f"the {problem.answer_type} answer {_short(problem.answer)} lies outside the image of {size[0]:g} "
                    f"x {size[1]:g}; where its coordinates refer to another size (1000 x 1000, say), give it as "
                    "`image_size`"
                )
    return None


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")


class GoldCheck:
    """Asks the rewards' verifiers whether gold answers can be graded; each different answer is asked once.

    LaTeX is parsed in the worker processes of `pool`; without one only what the text itself shows is checked. `reward`
    has the rules of the grading (default: each type's first).
    """

    def __init__(self, pool: GraderPool | None = None, reward: RewardSection | None = None) -> None:
        self.pool = pool
        self.reward = reward or RewardSection()
        self._known: dict[tuple[object, ...], str | None] = {}

    def under(self, reward: RewardSection) -> GoldCheck:
        """The same check by other rules; what is known stays known."""
        other = copy.copy(self)
        other.reward = reward
        return other

    def __call__(self, problems: Sequence[Problem]) -> list[str | None]:
        """For every problem a sentence saying why its gold answer can not be graded, or None."""
        new = {self._key(problem): problem for problem in problems if self._key(problem) not in self._known}
        self._known.update(zip(new, check_golds(list(new.values()), self.pool, self.reward), strict=True))
        return [self._known[self._key(problem)] for problem in problems]

    def _key(self, problem: Problem) -> tuple[object, ...]:
        verify, rule = problem.extra.get("verify"), self.reward.rules.get(problem.answer_type)
        asked = problem.answer, problem.answer_type, problem.choices, repr(verify) if verify else "", rule
        located = problem.answer_type in LOCATED
        return (*asked, repr(problem.extra.get("image_size")), bool(problem.images)) if located else asked


__all__ = ["GoldCheck", "check_gold", "check_golds"]
