"""The `sequence` axis: the same numbers as on one device, its share of the work, and what it refuses."""

from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from devices import on_eight_devices
from jax.sharding import AbstractMesh

from infimmr_jax.config import ConfigError, load_config
from infimmr_jax.parallel.mesh import AXES
from infimmr_jax.parallel.sequence import collected, dealt, lay, with_copies
from infimmr_jax.plan.abstract import planned_run
from infimmr_jax.plan.arithmetic import described_mesh, update_parts, work_of
from infimmr_jax.plan.planner import largest_phase

NANO = Path(__file__).parents[2] / "configs" / "nano.yaml"
START = """
import dataclasses, functools
import jax, jax.numpy as jnp, numpy as np
from infimmr_jax.config import GrpoSection, MeshSection, OptimizerSection
from infimmr_jax.parallel.mesh import make_mesh, replicated, shard_batch
"""
UPDATE = """
from small import *
from infimmr_jax.objectives.schedules import Clock, coefficients
from infimmr_jax.objectives.train_state import make_optimizer, state_shardings
from infimmr_jax.objectives.step import grpo_update
from infimmr_jax.plan import hlo
from infimmr_jax.rollout.sampler import sample
from infimmr_jax.rollout.state import SampleSettings

model = with_layers(1)
grpo, section = GrpoSection(), OptimizerSection(learning_rate=1e-3)
run = functools.partial(grpo_update, settings=settings(grpo, model), optimizer=make_optimizer(section))
draw = functools.partial(sample, model=model, settings=SampleSettings(4, 6, compactions=1))

def count(program):
    module = hlo.parse_module(program.as_text())
    return sum(hlo.flops(module, i, c) * times for i, c, times in hlo.walk(module))

found, flops = [], []
for mesh in (
    make_mesh(MeshSection(), jax.devices()[:1]),
    make_mesh(MeshSection(fsdp=2, sequence=2, tensor=2), jax.devices()),
    make_mesh(MeshSection(data=2, sequence=4), jax.devices()),
):
    jax.set_mesh(mesh)
    state = train_state(grpo, section, model=model)
    state = jax.device_put(state, state_shardings(state, mesh))
    rows = shard_batch((prompts(8), rewards(8, 4)), mesh)
    key = jax.random.key(3)
    sampler = jax.jit(draw).lower(state.params, batch=rows[0], allowed=ALLOWED, key=key).compile()
    sampled = sampler(state.params, batch=rows[0], allowed=ALLOWED, key=key)
    numbers = (jnp.float32(1e-3), coefficients(grpo, Clock(0, 10, 0, 10)), jax.random.key(0))
    # Rewards of other rollouts would be another step: all meshes take those of the first.
    given = jax.device_put(found[0][0] if found else sampled, replicated(mesh))
    update = jax.jit(run).lower(state, rows[0], *given, rows[1], ALLOWED, *numbers).compile()
    moved, metrics = update(state, rows[0], *given, rows[1], ALLOWED, *numbers)
    gradient = next(part.mu for part in moved.moments if hasattr(part, "mu"))
    found.append(jax.device_get((sampled, gradient, metrics)))
    flops.append(count(update))
for other in found[1:]:
    assert np.array_equal(found[0][0][0].tokens, other[0][0].tokens), "other devices sampled other tokens"
    for one, two in zip(jax.tree.leaves(found[0][1:]), jax.tree.leaves(other[1:]), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-6)
print("flops", *flops)
"""
KERNEL = """
from infimmr_jax.model import splash
from infimmr_jax.model.attention import trunk_attention

splash.INTERPRET = True
mesh = make_mesh(MeshSection(fsdp=2, sequence=4), jax.devices())
keys = jax.random.split(jax.random.key(0), 4)
q, g = (jax.random.normal(key, (2, 512, 2, 128)) for key in keys[:2])
k, v = (jax.random.normal(key, (2, 1, 512, 128)) for key in keys[2:])
mask = jnp.ones((2, 512), bool)

def both(implementation):
    out, back = jax.vjp(lambda q, k, v: trunk_attention(q, k, v, mask, implementation), q, k, v)
    return out, *back(g)

plain = jax.jit(lambda: both("xla"))()
jax.set_mesh(mesh)
for name in ("splash", "xla"):
    for one, two in zip(plain, jax.jit(lambda: both(name))(), strict=True):
        np.testing.assert_allclose(one, two, rtol=2e-4, atol=2e-4)
print("equal")
"""


def test_devices_along_sequence_sample_and_update_like_one():
    one, *shared = map(float, on_eight_devices(START + UPDATE).split("flops")[1].split())
    assert all(flops < 1.3 * one / 8 for flops in shared), (one, shared)


def test_the_kernel_of_trunks_takes_part_of_the_queries():
    assert "equal" in on_eight_devices(START + KERNEL)


@pytest.mark.parametrize("sizes", [None, (2, 2, 1, 2)])
def test_an_axis_of_one_changes_no_program(sizes):
    def all_of_them(x):
        return collected(dealt(with_copies(lay(x, "tokens"), 1), 1), 1)

    x = jax.ShapeDtypeStruct((4, 8, 16), jnp.float32)
    if sizes is None:
        assert not jax.make_jaxpr(all_of_them)(x).eqns
        return
    with jax.sharding.use_abstract_mesh(AbstractMesh(sizes, AXES)):
        assert not jax.make_jaxpr(all_of_them)(x).eqns


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["mesh.sequence=3"], "phases.0.group_size 8"),
        (["mesh.sequence=8", "data.prompt_buckets=[60]"], "60 of data.prompt_buckets"),
        (["mesh.sequence=16", *(f"phases.{i}.group_size=16" for i in range(3)), "data.prompt_buckets=[]"], "multiples"),
    ],
)
def test_what_can_not_be_split_is_refused_by_name(changes, words):
    with pytest.raises(ConfigError, match=r"mesh\.sequence") as refused:
        load_config(NANO, changes)
    assert words in str(refused.value)


def test_the_planner_halves_the_tokens_of_a_device_and_gathers_their_keys():
    def of(*changes):
        config = load_config(NANO, [*changes, "mesh.data=8"])
        run = planned_run(config, described_mesh(config.mesh, 8 * config.mesh.sequence), "xla")
        work = work_of(run, largest_phase(config))
        return work, {part.name: part for part in update_parts(work, False)}

    (one, alone), (two, shared) = of(), of("mesh.sequence=2")
    assert (two.trunk_tokens, two.branch_tokens) == (one.trunk_tokens / 2, one.branch_tokens / 2)
    for name in ("trunk", "branch", "head"):
        assert shared[name].flops == alone[name].flops / 2
    assert shared["trunk"].sent > alone["trunk"].sent
