import sys

import pytest


@pytest.fixture(autouse=True, scope="module")
def _forget_compiled_programs():
    """Compiled programs of one module are of no use to the next; kept, they grow to gigabytes in a worker."""
    yield
    if "jax" in sys.modules:
        sys.modules["jax"].clear_caches()
