"""What every section of the configuration shares."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from infimmr_jax.errors import UserError

PositiveInt = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]


class ConfigError(UserError, ValueError):
    """The configuration can not be used: the message names the key and says what to do."""


class Section(BaseModel):
    """Base of every section: immutable, closed against unknown keys, and without numbers that are none (NaN, inf)."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


@dataclasses.dataclass(frozen=True)
class Because:
    """Annotation that says why a field has its bounds; the sentence about a value outside of them ends with it."""

    reason: str


def _with_home(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise ValueError(f"{str(path)!r} names a home directory that is not known here; write the path out") from error


# Paths of this machine: the shell does not expand ~ in a file, nor behind `--set key=`.
UserPath = Annotated[Path, AfterValidator(_with_home)]
# The same for keys that may also hold something else, such as the address of a bucket.
UserPathText = Annotated[str, AfterValidator(lambda text: str(_with_home(Path(text))) if text[:1] == "~" else text)]
