"""One, two and four operating-system processes see the same curriculum, also when stopped and started in between."""

import json
import random
import subprocess
import sys

import pytest

from infimmr_jax.config import parse_config
from infimmr_jax.data.curriculum import build_curriculum
from infimmr_jax.rewards.golds import GoldCheck

HOST = """
import json, sys
from infimmr_jax.config import parse_config
from infimmr_jax.data.curriculum import build_curriculum, iterate
from infimmr_jax.rewards.golds import GoldCheck

config, index, count, stop = parse_config(json.loads(sys.argv[1])), *map(int, sys.argv[2:5])
def encode(problem, modality):
    return problem.id + " " + modality
curriculum = build_curriculum(config, encode, list, index, count, golds=GoldCheck())
iterator = iterate(curriculum, threads=2, prefetch=3)
if len(sys.argv) > 5:
    iterator.set_state(json.loads(sys.argv[5]))
seen = []
for batch in iterator:
    seen.append(batch.batch)
    if batch.step + 1 == stop:
        break
print(json.dumps({"seen": seen, "state": iterator.get_state()}))
"""


def encode(problem, modality):
    return problem.id + " " + modality


def run_hosts(config, count, stop, states=None):
    started = [
        subprocess.Popen(
            [sys.executable, "-c", HOST, json.dumps(config), str(index), str(count), str(stop)]
            + ([json.dumps(states[index])] if states else []),
            stdout=subprocess.PIPE,
            text=True,
        )
        for index in range(count)
    ]
    outputs = [process.communicate(timeout=300)[0] for process in started]
    assert all(process.returncode == 0 for process in started)
    return [json.loads(output.splitlines()[-1]) for output in outputs]


def woven(hosts):
    """The global order of each step, put together from every host's share."""
    steps = []
    for shares in zip(*(host["seen"] for host in hosts), strict=True):
        steps.append([problem for share in shares for problem in share])
    return steps


@pytest.mark.distributed
@pytest.mark.slow
def test_processes_share_one_sequence_and_resume_it_exactly(tmp_path):
    for name, count in (("a", 23), ("b", 11)):
        items = ({"id": f"{name}{n}", "question": f"{n}?", "answer": "1", "answer_type": "math"} for n in range(count))
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    files = [{"reader": "jsonl", "path": "a.jsonl", "weight": 2.0}, {"reader": "jsonl", "path": "b.jsonl"}]
    made = [{"reader": "synthetic", "families": ["bars", "clock"], "size": 40}]
    common = {"prompts_per_step": 8}
    config = {
        "data": {"root": str(tmp_path)},
        "phases": [
            {"name": "one", "modality": "text", "steps": 6, "sources": files, **common},
            {"name": "two", "modality": "caption", "steps": 5, "sources": made, "caption_dropout": [0, 1], **common},
        ],
    }
    whole = [batch.batch for batch in build_curriculum(parse_config(config), encode, list, golds=GoldCheck()).dataset]
    assert len(whole) == 11
    # Stopped at random steps; each time as many other processes go on from the state that the first of them left.
    stops = [*sorted(random.Random(0).sample(range(1, 11), 3)), 11]
    seen, state = [], None
    for count, stop in zip((1, 4, 2, 1), stops, strict=True):
        hosts = run_hosts(config, count, stop, state and [state] * count)
        assert len({json.dumps(host["state"]) for host in hosts}) == 1
        seen, state = seen + woven(hosts), hosts[0]["state"]
    assert seen == whole
