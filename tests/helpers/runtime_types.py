"""The checker that `conftest.py` puts around every function of the package: shapes by jaxtyping, types by beartype."""

from collections.abc import Callable
from typing import Any

from beartype import BeartypeConf, BeartypeHintOverrides, beartype
from flax.linen.linear import PromoteDtypeFn

# A protocol of Flax that can not be asked at run time; it stands in the signature of its Dense, and so of ours.
OVERRIDES = BeartypeHintOverrides({PromoteDtypeFn: Callable[..., Any]})
# An int is a float, as the type checker says.
check = beartype(conf=BeartypeConf(is_pep484_tower=True, hint_overrides=OVERRIDES))
