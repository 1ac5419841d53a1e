"""Lazy views of sequences of problems."""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

from infimmr_jax.data.records import Problem


class Selected(Sequence[Problem]):
    """Some problems of a sequence, in a given order; lazy when the sequence is."""

    def __init__(self, problems: Sequence[Problem], indices: Sequence[int]) -> None:
        self.problems, self.indices = problems, tuple(indices)

    def __len__(self) -> int:
        return len(self.indices)

    @overload
    def __getitem__(self, index: int) -> Problem: ...
    @overload
    def __getitem__(self, index: slice) -> list[Problem]: ...
    def __getitem__(self, index: int | slice) -> Problem | list[Problem]:
        if isinstance(index, slice):
            return [self.problems[i] for i in self.indices[index]]
        return self.problems[self.indices[index]]
