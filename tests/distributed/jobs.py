"""Jobs of several processes on loopback, small enough for a test."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import yaml
from devices import QUICK

ROOT = Path(__file__).parents[2]
CHANGING = ("time", "tokens_per_second", "compile/", "grading/", "rollout/efficiency")


def tree(output: Path) -> dict:
    def source(**changes):
        return {"reader": "synthetic", "families": ["bars"], "size": 32, **changes}

    phase = {"steps": 2, "prompts_per_step": 8, "group_size": 2, "max_response": 8}
    return {
        "output": str(output),
        "model": {
            "vocab_size": 400,
            "shape": {
                "hidden_size": 32,
                "num_layers": 1,
                "num_heads": 2,
                "num_kv_heads": 2,
                "intermediate_size": 32,
                "mrope_section": [2, 3, 3],
                "vision": {
                    "hidden_size": 32,
                    "depth": 1,
                    "num_heads": 2,
                    "intermediate_size": 32,
                    "fullatt_block_indexes": [0],
                },
            },
        },
        "data": {"max_prompt": 96, "prompt_buckets": [88], "image_buckets": [[1, 64]], "image": {"max_pixels": 12544}},
        "prompt": {"instruction": ""},
        "sft": {"stages": [{"steps": 2}], "sources": {"image": [source()]}, "batch_size": 8, "warmup_steps": 1},
        "phases": [
            {"name": "text", "modality": "text", "sources": [source(seed=1)], **phase},
            {"name": "image", "modality": "image", "sources": [source(seed=3)], **phase},
        ],
        "optimizer": {"learning_rate": 1e-3},
        "reward": {"weights": {"letters:early": 1.0, "caption_check": 0.1}},
        "evaluation": {"problems": 11, "batch_size": 8, "sources": {"image": [source(split="heldout")]}},
        "checkpoint": {"every_steps": 1, "keep_last": 12},
        "logging": {"tensorboard": False, "transcripts_every": 1, "transcript_groups": 3},
    }


def write_config(path: Path, output: Path) -> Path:
    path.write_text(yaml.safe_dump(tree(output)))
    return path


def environment(devices: int | None = None) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("INFIMMR_COORD", "INFIMMR_PROC"))}
    kept |= {"JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "2"}
    kept |= {"INFIMMR_PYTHON": sys.executable, "PYTHONPATH": f"{ROOT}:{Path(__file__).parent}"}
    kept["XLA_FLAGS"] = QUICK
    if devices is not None:
        kept["XLA_FLAGS"] += f" --xla_force_host_platform_device_count={devices}"
    return kept


def train_alone(config: Path, devices: int, *arguments: str) -> subprocess.CompletedProcess:
    """One process with `devices` virtual devices."""
    command = [sys.executable, "-m", "infimmr_jax.cli", "train", "--config", str(config), *arguments]
    return subprocess.run(
        command, env=environment(devices), capture_output=True, text=True, timeout=600, check=False, cwd=ROOT
    )


def start_job(config: Path, processes: int, logs: Path, *options: str, arguments: tuple = ()) -> subprocess.Popen:
    """launch/multiprocess.sh with `processes` processes of two virtual devices each."""
    command = ["bash", str(ROOT / "launch" / "multiprocess.sh"), "--processes", str(processes), "--devices", "2"]
    command += ["--logs", str(logs), *options, "--", "--config", str(config), *arguments]
    return subprocess.Popen(
        command,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
        process_group=0,
    )


def finish(job: subprocess.Popen, seconds: float = 600) -> str:
    """The output of a job that ends by itself."""
    try:
        return job.communicate(timeout=seconds)[0]
    except subprocess.TimeoutExpired:
        os.killpg(job.pid, signal.SIGKILL)
        raise


def process_id(job: subprocess.Popen, index: int) -> int:
    """The operating-system process of a job's process `index`."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            variables = (entry / "environ").read_bytes().split(b"\0")
        except (OSError, IndexError):
            continue
        if parent == job.pid and f"INFIMMR_PROCESS={index}".encode() in variables:
            return int(entry.name)
    raise LookupError(f"process {index} of the job does not run")


def wait_for_rows(run: Path, count: int, job: subprocess.Popen, seconds: float = 300) -> None:
    """Return when metrics.jsonl has `count` rows."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if (run / "metrics.jsonl").exists() and (run / "metrics.jsonl").read_bytes().count(b"\n") >= count:
            return
        assert job.poll() is None, job.communicate()[0]
        time.sleep(0.05)
    raise TimeoutError(f"{run} has fewer than {count} rows after {seconds} s")


def rows(run: Path, name: str = "metrics") -> list[dict]:
    """Rows of a JSONL file without what depends on the clock."""
    found = [json.loads(line) for line in (run / f"{name}.jsonl").read_text().splitlines()]
    return [{key: row[key] for key in row if not key.startswith(CHANGING)} for row in found]
