"""How a process finds its job: explicit addresses, SLURM, GKE, TPU pods, or none, and what it says about it."""

import jax
import pytest

from infimmr_jax.config import ConfigError
from infimmr_jax.parallel import startup
from infimmr_jax.parallel.startup import find_job, join_processes

EXPLICIT = {"INFIMMR_COORDINATOR": "10.0.0.1:1234", "INFIMMR_PROCESSES": "4", "INFIMMR_PROCESS": "3"}
SLURM = {"SLURM_JOB_ID": "77", "SLURM_PROCID": "1", "SLURM_NTASKS": "2"}
GKE = {"TPU_WORKER_HOSTNAMES": "a,b,c,d", "TPU_WORKER_ID": "2"}
POD = {"worker-network-endpoints": "x:0:10.0.0.1,x:1:10.0.0.2", "agent-worker-number": "1", "tpu-env": "A: 'b'"}


def found(environ, tpu=False, metadata=None):
    return find_job(environ, lambda: tpu, (metadata or {}).get)


def test_nothing_is_one_process():
    job = found({})
    assert job.arguments is None
    assert job.words == "one process (no cluster was recognised)"


def test_explicit_addresses_come_first_and_need_no_detection():
    job = found(EXPLICIT | SLURM | GKE, tpu=True)
    assert job.words == "explicit addresses: process 3 of 4, coordinator 10.0.0.1:1234"
    assert job.arguments == {
        "coordinator_address": "10.0.0.1:1234",
        "num_processes": 4,
        "process_id": 3,
        "cluster_detection_method": "deactivate",
    }
    assert found(EXPLICIT | {"INFIMMR_LOCAL_DEVICES": "0,2"}).arguments["local_device_ids"] == [0, 2]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"INFIMMR_PROCESS": ""}, "INFIMMR_COORDINATOR is set, but not INFIMMR_PROCESS"),
        ({"INFIMMR_PROCESS": "4"}, "INFIMMR_PROCESS=4 must be a number below INFIMMR_PROCESSES=4"),
        ({"INFIMMR_PROCESSES": "two"}, "below INFIMMR_PROCESSES=two"),
    ],
)
def test_addresses_that_do_not_fit_are_refused(change, sentence):
    with pytest.raises(ConfigError, match=sentence):
        found(EXPLICIT | change)


def test_slurm_tasks_are_left_to_jax():
    job = found(SLURM)
    assert (job.words, job.arguments) == ("SLURM job 77: process 1 of 2", {})
    assert found(SLURM | {"SLURM_NTASKS": "1"}).arguments is None


def test_a_slice_on_gke_needs_its_chips():
    job = found(GKE, tpu=True)
    assert (job.words, job.arguments) == ("TPU slice on GKE: worker 2, 4 processes", {})
    assert "8 processes" in found(GKE | {"MEGASCALE_NUM_SLICES": "2"}, tpu=True).words
    assert found(GKE).arguments is None
    assert found({"TPU_WORKER_HOSTNAMES": "localhost"}, tpu=True).arguments is None


def test_a_pod_is_found_in_the_metadata_of_its_machines():
    job = found({}, tpu=True, metadata=POD)
    assert (job.words, job.arguments) == ("TPU pod: worker 1, 2 processes", {})
    assert "4 processes" in found({}, tpu=True, metadata=POD | {"tpu-env": "MEGASCALE_NUM_SLICES: '2'\nX: 'y'"}).words
    assert found({}, tpu=True, metadata=POD | {"worker-network-endpoints": "x:0:10.0.0.1"}).arguments is None
    assert found({}, tpu=True).arguments is None


def test_it_can_be_switched_off():
    assert found(EXPLICIT | SLURM | GKE | {"INFIMMR_DISTRIBUTED": "0"}, tpu=True).arguments is None


def test_joining_passes_the_addresses_and_the_patience_on(monkeypatch):
    seen = {}
    monkeypatch.setattr(jax.distributed, "initialize", lambda **given: seen.update(given))
    monkeypatch.setattr(startup, "find_job", lambda: found(EXPLICIT))
    monkeypatch.setenv("INFIMMR_HEARTBEAT_SECONDS", "20")
    assert join_processes().words.startswith("explicit addresses")
    assert (seen["process_id"], seen["heartbeat_timeout_seconds"]) == (3, 20)
    seen.clear()
    monkeypatch.setattr(startup, "find_job", lambda: found({}))
    join_processes()
    assert seen == {}


@pytest.mark.parametrize(
    ("address", "bind"),
    [
        ("127.0.0.1:4567", "127.0.0.1:4567"),
        ("localhost:4567", "127.0.0.1:4567"),
        ("n1:20007", None),
        # Of no machine (RFC 5737): it may be translated on the way to this one.
        ("192.0.2.1:80", None),
    ],
)
def test_the_coordinator_listens_where_it_is_reached_and_nowhere_else(address, bind):
    assert startup.coordinator_bind(address) == bind
    first = EXPLICIT | {"INFIMMR_COORDINATOR": address, "INFIMMR_PROCESS": "0"}
    assert found(first).arguments.get("coordinator_bind_address") == bind
    # The others do not listen.
    assert "coordinator_bind_address" not in found(first | {"INFIMMR_PROCESS": "1"}).arguments
