import jax
import pytest


@pytest.fixture
def x64():
    """Everything inside runs in float64, so that formulas are compared, not rounding."""
    with jax.enable_x64(True):
        yield
