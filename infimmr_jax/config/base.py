"""What every section of the configuration shares."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from infimmr_jax.errors import UserError

PositiveInt = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]


class ConfigError(UserError, ValueError):
    """The configuration can not be used: the message names the key and says what to do."""


class Section(BaseModel):
    """Base of every section: immutable, and closed against unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)
