"""How often the planner thinks an update runs the model, against XLA's count of the update itself."""

from pathlib import Path

import pytest

from infimmr_jax.config import load_config
from infimmr_jax.parallel.mesh import make_mesh
from infimmr_jax.plan.abstract import lower_update, planned_run
from infimmr_jax.plan.arithmetic import Forwards, update_parts, work_of

NANO = Path(__file__).parents[2] / "configs/nano.yaml"
KL, MASKED, TWICE = "grpo.kl.coefficient=0.01", "grpo.perception.coefficient=0.02", "grpo.updates_per_batch=2"


def counted(*changes: str) -> tuple[Forwards, float, float]:
    """The runs of the model in an update, its FLOPs by arithmetic, and as XLA counts them in the lowered program."""
    config = load_config(NANO, ["grpo.kl.coefficient=0", *changes])
    run, phase = planned_run(config, make_mesh(config.mesh), "xla"), config.phases[-1]
    work = work_of(run, phase)
    return (
        work.forwards,
        sum(part.flops for part in update_parts(work, False)),
        lower_update(run, phase).cost_analysis()["flops"],
    )


@pytest.fixture(scope="module")
def plain() -> tuple[float, float]:
    return counted()[1:]


@pytest.mark.parametrize(
    ("changes", "forwards"),
    [
        ((KL,), Forwards(1, 1, 0)),
        ((KL, "grpo.kl.place=reward"), Forwards(1, 0, 1)),
        ((MASKED,), Forwards(1, 0, 1)),
        ((MASKED, "grpo.perception.differentiate_masked=true"), Forwards(2, 0, 0)),
        (("grpo.importance.level=token",), Forwards(1, 0, 0)),
        ((TWICE, "grpo.importance.level=token"), Forwards(1, 0, 1)),
        ((TWICE, MASKED, KL), Forwards(1, 1, 1)),
    ],
)
def test_every_term_costs_the_runs_of_the_model_that_the_update_makes(plain, changes, forwards):
    found, flops, compiled = counted(*changes)
    assert found == forwards
    assert flops / plain[0] == pytest.approx(compiled / plain[1], rel=0.03)


def test_the_plain_update_costs_what_is_compiled(plain):
    assert plain[0] == pytest.approx(plain[1], rel=0.05)
