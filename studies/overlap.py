"""What it saves to grade responses while others are still sampled: the same rollouts and answers, in the two orders.

    python -m studies.overlap [--compactions 6] [--repeats 5] [--answers 1 4]

The small policy of `infimmr bench` samples 4 x 8 responses of log-normal lengths, the longest 512 tokens and 8 times
the median. To every response belongs an answer that sympy has to decide (`--answers`: several to each, for slower
graders). "After" grades when all are sampled; "beside" gives the graders what each compaction finds finished, as
training does (`training/groups.py`). The device is core 0, the graders' process has core 1. Seconds are medians.
"""

from __future__ import annotations

import argparse
import functools
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from infimmr_jax.bench.work import Size, Work, load_work, lognormal_limits
from infimmr_jax.rewards.pool import GraderPool
from infimmr_jax.rewards.verdict import Question
from infimmr_jax.rollout.compaction import gather_branches, gather_prompts
from infimmr_jax.rollout.sampler import begin_stages, initial_state, run_loop
from infimmr_jax.rollout.stages import StageSteps, lengthen, next_stage, run_stages
from infimmr_jax.rollout.state import Rollouts, SampleSettings

SIZE = Size(prompts=4, prompt_tokens=64, image_size=112, group=8, new_tokens=512)
LONGEST = 8.0


def stages_of(work: Work, settings: SampleSettings, limits: np.ndarray) -> Callable[[], list[Rollouts]]:
    """Make a function that gives every token loop to the device at once and returns the rollouts after each."""
    P, model = SIZE.prompts, work.model

    @jax.jit
    def first(params: Any, batch: Any, key: jax.Array) -> tuple:
        trunk = model.trunk(params, batch)
        weights, stage = begin_stages(params, model, settings, trunk, key, limits)
        return weights, stage, initial_state(model, settings, trunk.start, batch)

    @functools.partial(jax.jit, static_argnums=(3, 4), donate_argnums=0)
    def loop(state: Any, stage: Any, weights: Any, number: int, end: int) -> Any:
        given = (state, stage, weights, work.allowed, None, model, settings)
        return run_loop(*given, number=number, P=P, end=end)

    @functools.partial(jax.jit, static_argnums=3)
    def end(state: Any, stage: Any, earlier: Any, number: int) -> tuple:
        return next_stage(state, stage, earlier, settings, number, P)

    begin = functools.partial(first, work.params, work.batch, jax.random.key(0))
    moves = jax.jit(gather_branches), jax.jit(gather_prompts)
    steps = StageSteps(begin, loop, end, jax.jit(lengthen, static_argnums=1), *moves)
    return lambda: run_stages(steps, settings, P)[0]


def answers_of(rows: np.ndarray, repeat: int, each: int) -> list[Question]:
    """Answers no text comparison decides, none asked before."""
    numbers = [(repeat * SIZE.rows + int(row)) * each + i + 2 for row in rows for i in range(each)]
    return [
        Question("math", rf"{n}\sqrt{{2}} + \frac{{1}}{{{n}}}", rf"\sqrt{{{2 * n * n}}} + {n}^{{-1}}") for n in numbers
    ]


def measure(
    dispatch: Callable[[], list[Rollouts]], limits: np.ndarray, pool: GraderPool, repeat: int, each: int, ahead: bool
) -> tuple[float, float]:
    """Seconds until all is sampled, and until all is graded."""
    began = time.monotonic()
    stages = dispatch()
    given = np.zeros(limits.size, bool)
    for stage in stages if ahead else stages[-1:]:
        # On the host: an operation on the device would wait behind the loops that are queued already.
        lengths = np.asarray(stage.mask).sum(-1).reshape(-1)
        done = (lengths >= limits.reshape(-1)) & ~given
        given |= done
        if ahead:
            pool.begin(answers_of(np.flatnonzero(done), repeat, each))
    sampled = time.monotonic() - began
    verdicts = pool.verify(answers_of(np.arange(limits.size), repeat, each))
    assert all(verdict.score == 1.0 for verdict in verdicts), verdicts[0]
    return sampled, time.monotonic() - began


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--compactions", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--answers", type=int, nargs="+", default=[1, 4])
    options = parser.parse_args()
    work = load_work(SIZE)
    limits = lognormal_limits(SIZE, LONGEST)
    dispatch = stages_of(work, SampleSettings(SIZE.group, SIZE.new_tokens, compactions=options.compactions), limits)
    with GraderPool() as pool:
        os.sched_setaffinity(0, {1})
        pool.verify([Question("math", r"\sqrt{8}", r"2\sqrt{2}")])
        os.sched_setaffinity(0, {0})
        jax.block_until_ready(dispatch())
        print("| answers a response | order | sampled after s | graded after s |\n|---|---|---|---|")
        number = 0
        for each in options.answers:
            found: dict[bool, list[tuple[float, float]]] = {False: [], True: []}
            for _ in range(options.repeats):
                for ahead in (False, True):
                    number += 1
                    found[ahead].append(measure(dispatch, limits, pool, number * max(options.answers), each, ahead))
            for ahead, name in ((False, "after"), (True, "beside")):
                sampled, graded = (statistics.median(part) for part in zip(*found[ahead], strict=True))
                print(f"| {each} | {name} | {sampled:.2f} | {graded:.2f} |")


if __name__ == "__main__":
    main()
