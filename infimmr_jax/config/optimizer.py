"""The optimiser, and which parts of the model it moves."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from infimmr_jax.config.base import Section, Share


class OptimizerSection(Section):
    """AdamW or Muon with global-norm clipping.

    `muon` orthogonalises the momentum of every matrix inside the network and leaves embeddings, heads, norms and biases
    to AdamW; its steps are as large as AdamW's, so learning rates carry over (Liu et al., arXiv 2502.16982). `beta1`,
    `beta2` and `epsilon` belong to AdamW, `momentum` to Muon.

    The learning rate rises linearly over `warmup_steps` (the first step already has 1 / warmup_steps of it), then
    follows `schedule` down to `final_share` of itself at the last step. `span` says what the steps are counted over:
    the whole curriculum, or each phase anew.
    """

    kind: Literal["adamw", "muon"] = "adamw"
    learning_rate: Annotated[float, Field(gt=0)] = 1e-6
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    span: Literal["run", "phase"] = "run"
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    final_share: Share = 0.0
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    beta1: Share = 0.9
    beta2: Share = 0.99
    epsilon: Annotated[float, Field(gt=0)] = 1e-8
    momentum: Annotated[float, Field(ge=0, lt=1)] | None = None
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0

    @model_validator(mode="after")
    def _moves(self) -> OptimizerSection:
        if self.kind == "adamw" and self.momentum is not None:
            raise ValueError("`momentum` belongs to kind 'muon'; AdamW's is beta1")
        if self.schedule == "constant" and self.final_share:
            raise ValueError("schedule 'constant' does not fall, so final_share has no meaning; drop it")
        if self.schedule == "constant" and not self.warmup_steps and self.span == "phase":
            raise ValueError(
                "a constant learning rate without warm-up is the same over the run and over a phase; drop span"
            )
        return self
