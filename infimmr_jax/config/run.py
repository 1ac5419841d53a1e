"""The whole run configuration: its sections, completed and checked against each other."""

from __future__ import annotations

from pydantic import model_validator

from infimmr_jax.config.checks import phase_mistakes, sequence_mistake
from infimmr_jax.config.inheritance import inherit
from infimmr_jax.config.sections import RunSections
from infimmr_jax.names import JsonValue


class RunConfig(RunSections):
    """Everything a run is made of."""

    @model_validator(mode="before")
    @classmethod
    def _phases_inherit(cls, tree: JsonValue) -> JsonValue:
        return inherit(tree)

    @model_validator(mode="after")
    def _consistent(self) -> RunConfig:
        names = [phase.name for phase in self.phases]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"phase names must differ; {twice} appear twice")
        best = self.checkpoint.keep_best
        if best is not None and best.metric.partition("/")[0] not in self.evaluation.sources:
            raise ValueError(
                f"checkpoint.keep_best.metric is {best.metric!r}, but evaluation.sources has no "
                f"{best.metric.partition('/')[0]!r}: nothing would be measured"
            )
        mistake = phase_mistakes(self) or sequence_mistake(self)
        if mistake is not None:
            raise ValueError(mistake)
        return self
