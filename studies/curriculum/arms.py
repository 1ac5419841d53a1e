"""The arms of the study: which phases a run walks through, in which order, and how many steps each gets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

# Modalities in order. Shares of the steps come from the full curriculum's, over what is left of it.
ARMS: dict[str, tuple[str, ...]] = {
    "full": ("text", "caption", "image"),
    "direct": ("image",),
    "no text": ("caption", "image"),
    "no caption": ("text", "image"),
    "reversed": ("image", "caption", "text"),
}
DESCRIPTIONS = {
    "full": "text, then captions, then images",
    "direct": "images alone",
    "no text": "captions, then images",
    "no caption": "text, then images",
    "reversed": "images, then captions, then text",
}


# The least tokens a response can have on average here: an answer in the format and the end token.
LEAST_LENGTH = 4


def arm_phases(arm: str, phases: Sequence[dict[str, Any]], budget: int) -> list[dict[str, Any]]:
    """The phases of an arm: those of the configuration in the arm's order, their steps scaled to sum to `budget`."""
    by_modality = {phase["modality"]: phase for phase in phases}
    chosen = [by_modality[modality] for modality in ARMS[arm]]
    whole = sum(phase["steps"] for phase in chosen)
    ends, so_far = [0], 0
    for phase in chosen:
        so_far += phase["steps"]
        ends.append(round(budget * so_far / whole))
    return [
        {**phase, "name": f"{index + 1} {phase['modality']}", "steps": end - start}
        for index, (phase, start, end) in enumerate(zip(chosen, ends, ends[1:], strict=False))
    ]


def token_phases(arm: str, phases: Sequence[dict[str, Any]], tokens: int) -> list[dict[str, Any]]:
    """The phases of an arm: each ends when its share of `tokens` sampled tokens is spent; shares are those of steps."""
    chosen = arm_phases(arm, phases, sum(phase["steps"] for phase in phases))
    whole = sum(phase["steps"] for phase in chosen)
    spent = []
    for phase in chosen:
        share = round(tokens * phase["steps"] / whole)
        most = -(-share // (phase["prompts_per_step"] * phase["group_size"] * LEAST_LENGTH))
        spent.append({**phase, "steps": most, "promotion": {"kind": "tokens", "tokens": share}})
    return spent
