"""Before the first array: the compilation cache, and the other processes of a multi-host run."""

from __future__ import annotations

import dataclasses
import ipaddress
import os
import socket
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path

import jax

from infimmr_jax.config import ConfigError
from infimmr_jax.names import JsonObject
from infimmr_jax.parallel.quiet import has_tpu_device

CACHE_VARIABLE = "INFIMMR_CACHE"
METADATA = "http://metadata.google.internal/computeMetadata/v1/instance/attributes/"


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


@dataclasses.dataclass(frozen=True)
class Job:
    """How this process belongs to a job: a sentence for people, and what `jax.distributed.initialize` is given.

    `arguments` is None for a process of its own; empty where JAX reads the addresses of the cluster by itself.
    """

    words: str
    arguments: JsonObject | None


def find_job(
    environ: Mapping[str, str] = os.environ,
    tpu_machine: Callable[[], bool] | None = None,
    metadata: Callable[[str], str | None] | None = None,
) -> Job:
    """Recognise explicit addresses, SLURM, GKE and TPU pods, in this order; `INFIMMR_DISTRIBUTED=0` switches it off.

    Explicit addresses are INFIMMR_COORDINATOR (host:port), INFIMMR_PROCESSES and INFIMMR_PROCESS.
    `tpu_machine` says whether TPU chips are here, `metadata` reads an attribute of a Google Cloud machine.
    Raises ConfigError when addresses are incomplete.
    """
    tpu_machine = tpu_machine or has_tpu_device
    metadata = metadata or read_metadata
    if environ.get("INFIMMR_DISTRIBUTED") == "0":
        return Job("one process (INFIMMR_DISTRIBUTED=0)", None)
    names = ("INFIMMR_COORDINATOR", "INFIMMR_PROCESSES", "INFIMMR_PROCESS")
    given = [name for name in names if environ.get(name)]
    if given:
        return _explicit(environ, names, given)
    if "SLURM_PROCID" in environ and int(environ.get("SLURM_NTASKS", "1")) > 1:
        task = f"process {environ['SLURM_PROCID']} of {environ['SLURM_NTASKS']}"
        return Job(f"SLURM job {environ.get('SLURM_JOB_ID', '?')}: {task}", {})
    hosts = environ.get("TPU_PROCESS_ADDRESSES") or environ.get("TPU_WORKER_HOSTNAMES") or ""
    slices = int(environ.get("MEGASCALE_NUM_SLICES") or 1)
    if len(hosts.split(",")) * slices > 1 and tpu_machine():
        count = len(hosts.split(",")) * slices
        return Job(f"TPU slice on GKE: worker {environ.get('TPU_WORKER_ID', '?')}, {count} processes", {})
    if not hosts and tpu_machine():
        workers = metadata("worker-network-endpoints")
        slices = _slices(metadata("tpu-env"))
        count = len((workers or "").split(",")) * slices
        if workers and count > 1:
            return Job(f"TPU pod: worker {metadata('agent-worker-number')}, {count} processes", {})
    return Job("one process (no cluster was recognised)", None)


def join_processes() -> Job:
    """Join the other processes of the job, if there are any; must come before the first use of a device."""
    job = find_job()
    if job.arguments is not None:
        # A host that answers nothing for this long is lost; the others then end, and the launcher starts all again.
        patience = int(os.environ.get("INFIMMR_HEARTBEAT_SECONDS", "100"))
        jax.distributed.initialize(**job.arguments, heartbeat_timeout_seconds=patience)
    return job


def read_metadata(name: str) -> str | None:
    """An attribute of this Google Cloud machine, None when there is none or the machine is elsewhere."""
    request = urllib.request.Request(METADATA + name, headers={"Metadata-Flavor": "Google"})
    try:
        with urllib.request.urlopen(request, timeout=3) as answer:
            return answer.read().decode()
    except (urllib.error.URLError, TimeoutError):
        return None


def _explicit(environ: Mapping[str, str], names: tuple[str, ...], given: list[str]) -> Job:
    missing = [name for name in names if name not in given]
    if missing:
        raise ConfigError(f"{given[0]} is set, but not {' and '.join(missing)}: a process needs all three")
    address, count, index = environ[names[0]], environ[names[1]], environ[names[2]]
    if not count.isdigit() or not index.isdigit() or int(index) >= int(count):
        raise ConfigError(f"INFIMMR_PROCESS={index} must be a number below INFIMMR_PROCESSES={count}")
    arguments = {"coordinator_address": address, "num_processes": int(count), "process_id": int(index)}
    local = environ.get("INFIMMR_LOCAL_DEVICES")
    bind = coordinator_bind(address) if index == "0" else None
    arguments |= {"coordinator_bind_address": bind} if bind else {}
    # Without it SLURM and MPI tasks would each take one GPU only, whatever their number on the node.
    arguments |= {"local_device_ids": [int(i) for i in local.split(",")]} if local else {}
    words = f"explicit addresses: process {index} of {count}, coordinator {address}"
    return Job(words, arguments | {"cluster_detection_method": "deactivate"})


def coordinator_bind(address: str) -> str | None:
    """Return where the coordinator listens: at `address` (host:port) itself where that is an address of this machine.

    None where it is a name that other machines may resolve in another way: JAX then listens on all interfaces.
    """
    host, _, port = address.rpartition(":")
    host = {"localhost": "127.0.0.1"}.get(host, host).strip("[]")
    try:
        version = ipaddress.ip_address(host).version
    except ValueError:
        return None
    try:
        with socket.socket(socket.AF_INET6 if version == 6 else socket.AF_INET) as probe:
            probe.bind((host, 0))
    except OSError:
        return None  # an address that is translated on the way here
    return f"[{host}]:{port}" if version == 6 else f"{host}:{port}"


def _slices(environment: str | None) -> int:
    for line in (environment or "").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "MEGASCALE_NUM_SLICES":
            return int(value.strip().strip("'\"") or 1)
    return 1
