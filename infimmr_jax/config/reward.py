"""Rewards and the processes that grade."""

from __future__ import annotations

import difflib
import re
import urllib.parse
from typing import Annotated, Literal

from pydantic import Field, model_validator

from infimmr_jax.config.base import PositiveInt, Section
from infimmr_jax.config.schema import Kinds
from infimmr_jax.names import REWARD_COMPONENTS, RULES, JsonObject

# Components that are added after the others are combined: penalties that no product and no gate takes away.
TERMS = frozenset({"length", "repetition"})


def _parts(url: str) -> urllib.parse.SplitResult | None:
    try:
        parts = urllib.parse.urlsplit(url)
        _ = parts.port  # raises where it is none
    except ValueError:
        return None
    return parts


class JudgeSection(Section):
    """A judge of responses: your function `module:function`, or an OpenAI-compatible endpoint on a host of your own.

    `prompt` may hold {question}, {gold} and {response}; the reply must end with a line of 1 or 0. `key_env` names the
    environment variable with the endpoint's key, which is sent as a bearer token and is written nowhere. A request ends
    after `timeout_seconds`; one that got no verdict in `attempts` takes its group out of the step. An endpoint that is
    away is waited for, `patience_seconds` in all, before the run ends with status 75.
    """

    function: str | None = None
    endpoint: str | None = None
    model: str | None = None
    prompt: str | None = None
    key_env: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] | None = None
    timeout_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 60.0
    patience_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 300.0
    attempts: PositiveInt = 2
    parallel: PositiveInt = 8

    @model_validator(mode="after")
    def _usable(self) -> JudgeSection:
        if (self.function is None) == (self.endpoint is None):
            raise ValueError("give either `function` (module:function) or `endpoint` (http://host:port/v1), not both")
        if self.endpoint is not None and (self.model is None or not self.endpoint.startswith(("http://", "https://"))):
            raise ValueError("`endpoint` must start with http:// or https:// and needs `model`, the name served there")
        if self.endpoint is not None:
            parts = _parts(self.endpoint)
            if parts is None or not parts.hostname:
                raise ValueError("`endpoint` is no address: it must be http://host:port/v1")
            if parts.username or parts.password or parts.query or parts.fragment:
                raise ValueError(
                    "`endpoint` must not hold a name, a password, a query or a fragment: they would stand in every "
                    "copy of the configuration; give the key in an environment variable and its name as `key_env`"
                )
        elif self.key_env is not None:
            raise ValueError("`key_env` belongs to `endpoint`; a function reads its own environment")
        if self.prompt is not None:
            try:
                self.prompt.format(question="", gold="", response="")
            except (KeyError, IndexError, ValueError):
                raise ValueError("`prompt` may hold {question}, {gold}, {response}; write other braces twice") from None
        return self


class ConsistencyTable(Section):
    """Rewards of `option_consistency`: both answers right, only the first, only the one to shuffled options."""

    both: float = 1.0
    first: float = 0.5
    second: float = 0.25


class SecondPassSection(Section):
    """Rewards that ask the policy again: the length limit of that pass, and the consistency table."""

    max_response: PositiveInt = 32
    consistency: ConsistencyTable = ConsistencyTable()


class _LengthTerm(Section):
    """What every kind of `reward.length` has: a response counts as right from `correct_from` of `component` on."""

    component: str = "accuracy"
    correct_from: Annotated[float, Field(gt=0)] = 0.5

    def arguments(self) -> JsonObject:
        """Return what the function of this kind is called with (`rewards.lengths`)."""
        return {name: getattr(self, name) for name in type(self).model_fields if name not in ("kind", "component")}


class DylrLength(_LengthTerm):
    """VL-Cogito: highest at a target length, the mean of the right responses; `unsolved_length` where none is right."""

    kind: Literal["dylr"]
    form: Literal["paper", "code"] = "paper"
    low: float = -0.5
    high: float = 0.0
    unsolved_length: PositiveInt = 750


class DastLength(_LengthTerm):
    """UI-R1-E: a length budget between the right responses' mean and the limit, by the group's difficulty."""

    kind: Literal["dast"]
    gain: Annotated[float, Field(gt=0)] = 0.5
    floor: Annotated[float, Field(ge=0)] = 0.1
    wrong_gain: Annotated[float, Field(gt=0)] = 0.9


class AnswerLength(_LengthTerm):
    """General-Reasoner: a right answer loses `per_token` for each token, up to `most`, that the gold's length is off.

    A response in which no answer was found loses `unanswered`.
    """

    kind: Literal["answer_closeness"]
    per_token: Annotated[float, Field(gt=0)] = 0.05
    most: PositiveInt = 10
    unanswered: Annotated[float, Field(ge=0)] = 0.5


class CosineLength(_LengthTerm):
    """Yeo et al.: `right` and `wrong` are the values at length 0 and at the limit; `cut` replaces them at the limit."""

    kind: Literal["cosine"]
    right: tuple[float, float] = (1.0, 0.5)
    wrong: tuple[float, float] = (-1.0, -0.5)
    cut: float | None = None


class ShortestLength(_LengthTerm):
    """Observe-R1: the shortest right response of a group gets `bonus` if it has more than `over` tokens."""

    kind: Literal["shortest_right"]
    bonus: Annotated[float, Field(gt=0)] = 0.2
    over: Annotated[int, Field(ge=0)] = 100


# The component `length`: a term from the lengths of a whole group; formulas in docs/methods.md, "Lengths".
LengthSection = Annotated[DylrLength | DastLength | AnswerLength | CosineLength | ShortestLength, Kinds()]


class RepetitionSection(Section):
    """The component `repetition`: minus the share of repeated n-grams of words; its weight is the penalty.

    `wrong_only` spares responses with at least `correct_from` of `component`.
    """

    ngram: PositiveInt = 20
    wrong_only: bool = False
    component: str = "accuracy"
    correct_from: Annotated[float, Field(gt=0)] = 0.5


class FunctionsSection(Section):
    """Where functions of users run: reward functions and a judge that is a function.

    In the `pool` each has processes of its own, which end after `deadline_seconds` by the clock and get `memory_mb`
    above their libraries; they see none of the trainer's environment but what programs need and the variables that
    `environment` names. In the `trainer` nothing holds them back: they may hang it, end it, or read its memory.
    """

    where: Literal["pool", "trainer"] = "pool"
    deadline_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 60.0
    memory_mb: PositiveInt = 4096
    environment: tuple[str, ...] = ()


class RewardSection(Section):
    """Weights of the reward components, how answers are verified, and the pool of grader processes.

    `weights` names built-in components (accuracy, format, accuracy_and_format, judge, caption_check,
    option_consistency, length, repetition) or your functions as `module:function` or `file.py:function`. `combine` says
    how they become one number (docs/methods.md, "Rewards"). `rules` chooses a rule by answer type, such as
    {string: anls}. `relative_tolerance` is the largest relative error at which numbers in math answers are equal.
    `limit` is the largest size of a total reward, and of a component times its weight: a group beyond it is taken out
    of training and reported (null: 1,000 times the sum of the weights' sizes).
    `deadline_seconds` is processor time for one answer (five times that by the clock), `memory_mb` what a grader
    process may take above its libraries.
    """

    weights: dict[str, float] = Field(default_factory=lambda: {"accuracy": 0.9, "format": 0.1})
    combine: Literal["sum", "multiply", "hard_and"] = "sum"
    length: LengthSection | None = None
    repetition: RepetitionSection | None = None
    rules: dict[str, str] = Field(default_factory=dict)
    relative_tolerance: Annotated[float, Field(ge=0, lt=1)] = 0.0
    limit: Annotated[float, Field(gt=0, le=1e9)] | None = None
    judge: JudgeSection | None = None
    second_pass: SecondPassSection = SecondPassSection()
    functions: FunctionsSection = FunctionsSection()
    workers: PositiveInt = 1
    deadline_seconds: Annotated[float, Field(gt=0)] = 4.0
    memory_mb: PositiveInt = 1024

    def largest(self) -> float:
        """The size beyond which a reward is taken for a mistake."""
        return self.limit or 1000.0 * (sum(map(abs, self.weights.values())) or 1.0)

    @model_validator(mode="after")
    def _rewards_something(self) -> RewardSection:
        if not any(self.weights.values()):
            given = "is empty" if not self.weights else "holds zeros only"
            raise ValueError(
                f"`weights` {given}, so every answer gets 0 and nothing is learned; give a component a weight"
            )
        return self

    @model_validator(mode="after")
    def _fits_together(self) -> RewardSection:
        for name, part in (("length", self.length), ("repetition", self.repetition)):
            if (part is None) == (name in self.weights):
                missing = f"set reward.{name}" if part is None else f"give it a weight, weights.{name}"
                raise ValueError(f"the component {name!r} needs both its section and its weight: {missing}")
            if part is not None and part.component not in {"accuracy", "format", *self.weights} - TERMS:
                raise ValueError(f"{name}.component: {part.component!r} is none of the components in `weights`")
        bad = [name for name, weight in self.weights.items() if name not in TERMS and not 0 <= weight <= 1]
        if self.combine == "multiply" and bad:
            raise ValueError(
                f"weights: with combine 'multiply' a weight is the share that a factor of 0 takes away, so "
                f"{bad[0]!r} needs one in [0, 1], not {self.weights[bad[0]]}"
            )
        return self

    @model_validator(mode="after")
    def _known(self) -> RewardSection:
        if not self.rules and set(self.weights) <= {"accuracy", "format"}:
            return self
        for name in self.weights:
            if name not in REWARD_COMPONENTS and not re.fullmatch(r"(?:[\w.]+|[^:]+\.py):\w+", name):
                near = difflib.get_close_matches(name, REWARD_COMPONENTS, n=1, cutoff=0.4)
                known = f"known: {', '.join(REWARD_COMPONENTS)}, or module:function"
                hint = f"did you mean {near[0]!r}?" if near else known
                raise ValueError(f"weights: {name!r} is no reward component; {hint}")
        if "judge" in self.weights and self.judge is None:
            raise ValueError("weights names 'judge', so `judge` must be set (function or endpoint)")
        for answer_type, rule in self.rules.items():
            if answer_type not in RULES:
                raise ValueError(f"rules: {answer_type!r} is no answer type; known: {', '.join(RULES)}")
            if rule not in RULES[answer_type]:
                raise ValueError(f"rules: {answer_type} has no rule {rule!r}; it has {', '.join(RULES[answer_type])}")
        return self
