"""The optimiser, and which parts of the model it moves."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from infimmr_jax.config.base import Section, Share

Factor = Annotated[float, Field(ge=0)]


class OptimizerSection(Section):
    """AdamW or Muon with global-norm clipping.

    `muon` orthogonalises the momentum of every matrix inside the network and leaves embeddings, heads, norms and biases
    to AdamW; its steps are as large as AdamW's, so learning rates carry over (Liu et al., arXiv 2502.16982). `beta1`,
    `beta2` and `epsilon` belong to AdamW, `momentum` to Muon.

    The learning rate rises linearly over `warmup_steps` (the first step already has 1 / warmup_steps of it), then
    follows `schedule` down to `final_share` of itself at the last step. `span` says what the steps are counted over:
    the whole curriculum, or each phase anew. With `fresh` the moments start from zero in every phase; they do so anyway
    in a phase that trains a part which the phase before it did not.
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
    fresh: bool = False

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


class TrainableSection(Section):
    """Which parts of the model move: a factor on the learning rate for each, where `true` is 1 and `false` freezes.

    A frozen part gets neither update nor weight decay, and no gradient is computed for it. `vision` is the tower,
    `merger` what turns its patches into tokens, `decoder` the layers and the last norm, `embeddings` the table and the
    head. `layers` limits the decoder to ranges of layers, first and last, counted from 0 (negative: from the end); the
    last norm then moves with the last layer.
    """

    vision: Factor = 1.0
    merger: Factor = 1.0
    decoder: Factor = 1.0
    embeddings: Factor = 1.0
    layers: tuple[tuple[int, int], ...] | None = None

    @model_validator(mode="after")
    def _trains(self) -> TrainableSection:
        if self.layers is not None and not (self.layers and self.decoder):
            raise ValueError("`layers` names what moves of the decoder: give ranges and decoder > 0, or drop it")
        if not (self.vision or self.merger or self.decoder or self.embeddings):
            raise ValueError("every part is frozen: there is nothing to train")
        return self
