import os
import sys
import time
from pathlib import Path

import pytest
from devices import QUICK
from jaxtyping import install_import_hook

# Before JAX is imported. Workers, processes that tests start and the next run read the same compiled programs.
os.environ.setdefault("XLA_FLAGS", QUICK)
CACHE = Path(os.environ.get("INFIMMR_TEST_CACHE") or Path.home() / ".cache" / "infimmr-tests")
os.environ["INFIMMR_CACHE"] = str(CACHE)
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(CACHE / "xla")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "0"

import runtime_types  # noqa: E402, F401  # it imports JAX

# Shapes and types of every annotation in the package are checked while the tests run; the front door is typer's.
PACKAGE = Path(__file__).parents[1] / "infimmr_jax"
ROOMS = [path.stem for path in PACKAGE.iterdir() if path.stem not in ("__init__", "__pycache__", "cli", "cli_machine")]
install_import_hook([f"infimmr_jax.{room}" for room in ROOMS], "runtime_types.check")

CACHE_DAYS, CACHE_BYTES = 14, 2**31
# One process works through a file: those that take longest come first, so that no process is left alone with one.
LONGEST = (
    "test_plan_topology",
    "test_jobs",
    "test_greedy_parity",
    "test_loop",
    "test_recipes",
    "test_step",
    "test_update_options",
    "test_trunk_branch",
    "test_sequence_axis",
    "test_gradient_parity",
    "test_real_layout",
    "test_sampler",
    "test_gpu_parity_study",
)


def pytest_configure(config):
    """Drop programs that no test has read for long, and the oldest beyond 2 GB."""
    if hasattr(config, "workerinput") or not CACHE.exists():
        return
    files = [(max(s.st_atime, s.st_mtime), s.st_size, path) for path in CACHE.glob("xla/*") for s in [path.stat()]]
    total = 0
    for used, size, path in sorted(files, reverse=True):
        total += size
        if total > CACHE_BYTES or used < time.time() - CACHE_DAYS * 86_400:
            path.unlink(missing_ok=True)


def pytest_collection_modifyitems(items):
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))


@pytest.fixture(autouse=True, scope="module")
def _forget_compiled_programs():
    """Compiled programs of one module are of no use to the next; kept, they grow to gigabytes in a worker."""
    yield
    if "jax" in sys.modules:
        sys.modules["jax"].clear_caches()


@pytest.fixture(scope="session")
def policy_directory(tmp_path_factory) -> Path:
    """A tiny policy with its tokenizer, as `train` leaves it in RUN/model."""
    import jax
    from tiny import tiny_tree

    from infimmr_jax.config import parse_config
    from infimmr_jax.model.hf import save_params
    from infimmr_jax.rewards.pool import GraderPool
    from infimmr_jax.training.programs import Programs
    from infimmr_jax.training.setup import prepare

    run = tmp_path_factory.mktemp("policy")
    with GraderPool() as pool:
        setup = prepare(parse_config(tiny_tree(run)), run, pool)
    params = Programs(setup).start().params
    # Larger weights: a fresh decoder says one token for ever, whatever it is shown.
    params["decoder"] = jax.tree.map(lambda x: 8 * x if x.ndim > 1 else x, params["decoder"])
    save_params(params, setup.model, run / "model", setup.tokenizer, dtype="float32")
    return run / "model"
