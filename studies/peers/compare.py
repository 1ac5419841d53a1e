"""This program and a peer side by side: A B, on the same core, model and prompts; every round is appended to a file.

    python studies/peers/compare.py WORK CASE [REPEATS]       one round (repeat it: A B A B)
    python studies/peers/compare.py WORK table                medians over all repeats, and their quotients

WORK is the folder of make_work.py. TRL_PY and TUNIX_PY name pythons of environments that hold trl (with torch,
transformers, datasets, torchvision) and google-tunix; transformers alone runs in this project's own. PEER_THREADS=2
uses two cores.
"""

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
THREADS = int(os.environ.get("PEER_THREADS", "1"))
SIZES = {"short": (64, 112), "long": (512, 448), "text64": (64, 0), "text512": (512, 0)}
# Case: (part of `infimmr bench`, its prompts, group, runner of the peer, the peer's micro-batch).
CASES = {
    "rollout_short": ("rollout", "short", 8, "bench_transformers.py", ()),
    "rollout_long": ("rollout", "long", 16, "bench_transformers.py", ()),
    "step_short": ("step", "short", 8, "bench_trl.py", ()),
    "step_long": ("step", "long", 16, "bench_trl.py", ("16",)),
    "text_short": ("step", "text64", 8, "bench_tunix.py", ()),
    "text_long": ("step", "text512", 8, "bench_tunix.py", ("2",)),
    # Ours against our own update with a prompt per response.
    "update": ("update", "long", 16, None, ()),
}
NEW = 128


def run(command: list[str]) -> dict:
    """The JSON object that a program prints last."""
    cores = sorted(os.sched_getaffinity(0))[:THREADS]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": str(THREADS)}
    done = subprocess.run(
        ["taskset", "-c", ",".join(map(str, cores)), *command],
        capture_output=True,
        text=True,
        env=environment,
        cwd=HERE,
        check=False,
    )
    found = [line for line in done.stdout.splitlines() if line.startswith(("{", "JSON "))]
    found = [line for line in found if '"parts"' in line]
    if not found:
        raise SystemExit(f"{' '.join(command)} gave no result:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return json.loads(found[-1].removeprefix("JSON "))


def ours(work: Path, part: str, prompts: str, group: int, repeats: int, *more: str) -> dict:
    tokens, side = SIZES[prompts]
    command = [sys.executable, "-m", "infimmr_jax.cli", "bench", part, "--model", str(work / "vl")]
    command += ["--prompt-tokens", str(tokens), "--image-size", str(side), "--group", str(group)]
    command += ["--new-tokens", str(NEW), "--repeats", str(repeats), *more]
    if part != "update":
        command += ["--cache-sizes", "4"]
    found = run(command)
    found["parts"] = {
        name: {"cpu": one["cpu_seconds"]["each"], "wall": one["wall_seconds"]["each"], **one}
        for name, one in found["parts"].items()
    }
    return found


def one_round(work: Path, case: str, repeats: int) -> dict:
    part, prompts, group, runner, micro = CASES[case]
    mine = ours(work, part, prompts, group, repeats)
    if runner is None:
        # In one piece its activations took more memory than the machine had left.
        other = ours(work, part, prompts, group, repeats, "--repeated", "--micro-batches", "8")
    else:
        variable = {"bench_trl.py": "TRL_PY", "bench_tunix.py": "TUNIX_PY"}.get(runner)
        python = os.environ[variable] if variable else sys.executable
        other = run([python, str(HERE / runner), str(work), prompts, str(group), str(NEW), str(repeats), *micro])
    return {"case": case, "threads": THREADS, "ours": mine, "peer": other}


def table(path: Path) -> None:
    """One line a case and part: median processor seconds of both over all repeats of all rounds, and their quotient."""
    rounds: dict[str, list[dict]] = {}
    for number, line in enumerate(path.read_text().splitlines(), 1):
        found = json.loads(line)
        if any("cpu" not in part for part in found["ours"]["parts"].values()):
            raise SystemExit(
                f"{path}, line {number}: of an older revision, without its single repeats; measure it again"
            )
        rounds.setdefault(f"{found['case']} threads={found['threads']}", []).append(found)
    for case, found in rounds.items():
        for part in found[0]["ours"]["parts"]:
            if part not in found[0]["peer"]["parts"]:
                continue
            mine, other = (
                [seconds for one in found for seconds in one[who]["parts"][part]["cpu"]] for who in ("ours", "peer")
            )
            ratio = statistics.median(other) / statistics.median(mine)
            each = ", ".join(f"{quotient(one, part):.2f}" for one in found)
            times = f"ours {statistics.median(mine):8.3f}  peer {statistics.median(other):8.3f}  ratio {ratio:5.2f}"
            shares = [one["ours"]["parts"][part].get("share_of_matmul_rate") for one in found]
            share = f"  share {statistics.median(shares):.2f}" if None not in shares else ""
            print(f"{case:26} {part:8} {times}  repeats {len(mine)}, {len(other)}  its rounds {each}{share}")


def quotient(one: dict, part: str) -> float:
    """The peer's median over ours, in one round."""
    mine, other = (statistics.median(one[who]["parts"][part]["cpu"]) for who in ("ours", "peer"))
    return other / mine


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    results = folder / "results.jsonl"
    if sys.argv[2] == "table":
        table(results)
    else:
        line = one_round(folder, sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 5)
        with results.open("a") as file:
            file.write(json.dumps(line) + "\n")
