import sys
from pathlib import Path

import pytest
import runtime_types  # noqa: F401
from jaxtyping import install_import_hook

# Shapes and types of annotations are checked while the tests run, in the rooms that work on the host.
ROOMS = ("commands", "config", "data", "evaluation", "files", "preprocess", "report", "rewards")
install_import_hook([f"infimmr_jax.{room}" for room in ROOMS], "runtime_types.check")


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


@pytest.fixture(scope="session", autouse=True)
def _compile_each_program_once(tmp_path_factory):
    """These tests make the same tiny run again and again: its programs are compiled once, then read from the disk."""
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    directory = tmp_path_factory.getbasetemp() / "compiled"
    jax.config.update("jax_compilation_cache_dir", str(directory))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
    compilation_cache.reset_cache()
    yield
    jax.config.update("jax_compilation_cache_dir", None)
    compilation_cache.reset_cache()
