"""Before the first array: the compilation cache, and the other processes of a multi-host run."""

from __future__ import annotations

import os
from pathlib import Path

import jax

CACHE_VARIABLE = "INFIMMR_CACHE"


def cache_directory() -> Path:
    """Where compiled programs are kept between runs: $INFIMMR_CACHE, else the user's cache folder."""
    chosen = os.environ.get(CACHE_VARIABLE)
    base = Path(chosen) if chosen else Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "infimmr"
    return base / "xla"


def use_compilation_cache() -> None:
    """Keep every compiled program on disk, so that a second run starts at once."""
    directory = cache_directory()
    directory.mkdir(parents=True, exist_ok=True)
    jax.config.update("jax_compilation_cache_dir", str(directory))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)


def join_processes() -> None:
    """Join the other processes of the job when the environment names them.

    Explicit addresses come as INFIMMR_COORDINATOR (host:port), INFIMMR_PROCESSES and INFIMMR_PROCESS; without them,
    INFIMMR_DISTRIBUTED=1 lets JAX find TPU pods, GKE and SLURM by itself.
    """
    address = os.environ.get("INFIMMR_COORDINATOR")
    if address:
        jax.distributed.initialize(
            coordinator_address=address,
            num_processes=int(os.environ["INFIMMR_PROCESSES"]),
            process_id=int(os.environ["INFIMMR_PROCESS"]),
        )
    elif os.environ.get("INFIMMR_DISTRIBUTED") == "1":
        jax.distributed.initialize()
