"""The names that rooms share: modalities, answer types and their rules, reward components. Imports nothing of ours."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias, get_args

# An object of JSON or YAML: a row of a file, a tree of keys.
JsonObject = dict[str, Any]
# Any value of JSON or YAML, before it is checked.
JsonValue: TypeAlias = Any
# A tokenizer of transformers, or whatever has the methods that are called.
Tokenizer: TypeAlias = Any

Modality = Literal["text", "caption", "image"]
# The order in which sets of different modalities are read: that of keys in a file must not change a run's numbers.
MODALITIES: tuple[Modality, ...] = get_args(Modality)

AnswerType = Literal["math", "choice", "string", "number", "list", "set", "box", "point", "span", "action"]
# Checkpoints number the tasks of a run by this order: a new type goes to the end.
ANSWER_TYPES: tuple[str, ...] = get_args(AnswerType)
# Types whose answers may hold coordinates of a picture.
LOCATED: tuple[str, ...] = ("box", "point", "action")
CHOICE_LETTERS = "ABCDEFGHIJ"

# Verification rules of every answer type; the first is the default.
RULES: dict[str, tuple[str, ...]] = {
    "math": ("equal",),
    "choice": ("letter",),
    "string": ("exact", "levenshtein", "anls"),
    "number": ("exact", "rounded", "relative", "cosine", "mean_relative"),
    "list": ("exact", "share"),
    "set": ("exact", "f1", "jaccard"),
    "box": ("iou", "full_iou", "union_iou", "greedy_iou", "l1"),
    "point": ("in_box", "l1", "distance"),
    "span": ("iou", "full_iou"),
    "action": ("exact", "parts"),
}

# Built-in reward components; any other is a function of the user, `module:function`.
REWARD_COMPONENTS: tuple[str, ...] = (
    "accuracy",
    "format",
    "accuracy_and_format",
    "judge",
    "caption_check",
    "option_consistency",
    "length",
    "repetition",
)
