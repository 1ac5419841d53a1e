"""Work that parameters' shardings alone would leave whole on every device: the optimiser's products, padded logits."""

import jax
import jax.numpy as jnp
import pytest
from devices import on_eight_devices
from jax.sharding import AbstractMesh
from jax.sharding import PartitionSpec as P

from infimmr_jax.model.logprobs import token_logprobs
from infimmr_jax.parallel.mesh import AXES, work_spec
from infimmr_jax.plan import hlo

EIGHT_DEVICES = """
import functools
import jax, jax.numpy as jnp, numpy as np
from small import *
from infimmr_jax.config import GrpoSection, MeshSection, OptimizerSection
from infimmr_jax.objectives.schedules import Clock, coefficients
from infimmr_jax.objectives.train_state import make_optimizer, state_shardings
from infimmr_jax.objectives.step import grpo_update
from infimmr_jax.parallel.mesh import make_mesh, replicated, shard_batch
from infimmr_jax.plan import hlo

model = with_layers(1)
grpo, section = GrpoSection(), OptimizerSection(kind="muon", learning_rate=1e-3)
run = functools.partial(grpo_update, settings=settings(grpo, model), optimizer=make_optimizer(section))
moved, flops = [], []
for mesh in (
    make_mesh(MeshSection(data=8), jax.devices()),
    make_mesh(MeshSection(fsdp=8), jax.devices()),
):
    jax.set_mesh(mesh)
    state = train_state(grpo, section, model=model)
    shardings = state_shardings(state, mesh)
    state = jax.device_put(state, shardings)
    batch, scores, sampled = prompts(16), rewards(16, 4), rollouts(16, 4, 6)
    rows = shard_batch((batch, scores), mesh)
    sampled = jax.device_put(sampled, replicated(mesh))
    numbers = (jnp.float32(1e-3), coefficients(grpo, Clock(0, 10, 0, 10)), jax.random.key(0))
    program = jax.jit(run, out_shardings=(shardings, replicated(mesh)))
    compiled = program.lower(state, rows[0], sampled, np.int32(6), rows[1], ALLOWED, *numbers).compile()
    module = hlo.parse_module(compiled.as_text())
    flops.append(sum(hlo.flops(module, i, c) * times for i, c, times in hlo.walk(module)))
    moved.append(jax.device_get(compiled(state, rows[0], sampled, np.int32(6), rows[1], ALLOWED, *numbers)[0].params))
for other in moved[1:]:
    for one, two in zip(jax.tree.leaves(moved[0]), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=2e-5)
print("flops", *flops)
"""


def test_copies_of_the_parameters_share_the_products_of_muon():
    data, fsdp = map(float, on_eight_devices(EIGHT_DEVICES).split("flops")[1].split())
    assert data == pytest.approx(fsdp, rel=0.05)


@pytest.mark.parametrize(
    ("sizes", "path", "shape", "expected"),
    [
        # Whole layers, whatever lies over fsdp and tensor.
        ((4, 2, 1, 1), "layers/q/kernel", (36, 64, 96), P(("data",), "fsdp", "tensor")),
        # 3 layers can not be dealt out to 8, so the rows are.
        ((8, 1, 1, 1), "layers/q/kernel", (3, 64, 96), P(None, ("fsdp", "data"), "tensor")),
        ((2, 4, 1, 1), "merger/fc1/kernel", (64, 96), P(("fsdp", "data"), "tensor")),
        # Nothing divides: as the parameter lies.
        ((8, 1, 1, 1), "merger/fc1/kernel", (12, 96), P("fsdp", "tensor")),
    ],
)
def test_products_are_split_by_layers_or_else_by_rows(sizes, path, shape, expected):
    assert work_spec(path, shape, AbstractMesh(sizes, AXES)) == expected


def test_logits_are_not_padded_to_whole_chunks():
    def run(hidden, kernel, targets):
        return token_logprobs(hidden, kernel, targets, jnp.ones(64, bool), chunk=32)

    # 40 tokens in chunks of at most 32: two of 20, not 32 and 8.
    shapes = ((1, 1, 40, 16), jnp.float32), ((16, 64), jnp.float32), ((1, 1, 40), jnp.int32)
    text = jax.jit(run).lower(*(jax.ShapeDtypeStruct(*item) for item in shapes)).compile().as_text()
    module = hlo.parse_module(text)
    assert sum(hlo.flops(module, i, c) * times for i, c, times in hlo.walk(module)) == 2 * 40 * 16 * 64
