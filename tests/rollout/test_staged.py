"""The sampler in stages on a mesh: the tokens of one program, and nothing large that lies whole on every device."""

import dataclasses

import jax
from devices import on_eight_devices
from small import ALLOWED, MODEL, prompts

from infimmr_jax.config import MeshSection
from infimmr_jax.parallel.mesh import batch_sharding, make_mesh
from infimmr_jax.rollout.staged import sample_staged, staged_sampler
from infimmr_jax.rollout.state import SampleSettings

EIGHT_DEVICES = """
import dataclasses
import jax, numpy as np
from small import ALLOWED, MODEL, prompts, with_layers
from infimmr_jax.config import MeshSection
from infimmr_jax.parallel.mesh import batch_sharding, make_mesh, parameter_shardings, shard_batch
from infimmr_jax.rollout.sampler import sample
from infimmr_jax.rollout.state import SampleSettings
from infimmr_jax.rollout.staged import sample_staged, staged_sampler

model = with_layers(1)
settings = SampleSettings(4, 16, temperature=2.0, compactions=2, cache_sizes=2)
mesh = make_mesh(MeshSection(data=2, fsdp=2, tensor=2), jax.devices())
rows = batch_sharding(mesh)
params = jax.jit(model.init)(jax.random.key(0))
batch, key = prompts(8), jax.random.key(3)
expected, rows_computed = jax.jit(lambda: sample(params, model, settings, batch, ALLOWED, key, shards=4))()
with jax.set_mesh(mesh):
    params = jax.device_put(params, parameter_shardings(params, mesh))
    batch = shard_batch(batch, mesh)
    sampler = staged_sampler(model, settings, None, mesh, rows)
    found, executed = sample_staged(sampler, params, batch, ALLOWED, key, shards=4)
    weights, stage = sampler.begin(params, batch, key)
    state = sampler.empty(stage, batch)
assert len(found) == 3, len(found)
for name in ("tokens", "mask", "finished"):
    assert np.array_equal(getattr(found[-1], name), getattr(expected, name)), name
assert executed == rows_computed
assert found[0].tokens.sharding.is_equivalent_to(rows, 3)
heads = 2 if model.config.text.num_kv_heads % 2 == 0 else 1
cache, (trunk, _) = state.caches[0][0], stage.kv[0]
assert cache.addressable_shards[0].data.size * 4 * heads == cache.size, cache.sharding
assert trunk.addressable_shards[0].data.size * 4 <= trunk.size, trunk.sharding
print("early", int(found[0].finished.sum()), "heads", heads)
"""


def test_stages_on_eight_devices_sample_what_one_program_does():
    assert "heads 2" in on_eight_devices(EIGHT_DEVICES)


def test_keys_and_values_are_never_there_twice():
    """Where layers move to another shape, those that have moved are gone before the next one comes."""
    mesh = make_mesh(MeshSection(), jax.devices()[:1])
    settings = SampleSettings(4, 8, temperature=2.0, compactions=1, cache_sizes=2)
    left: dict[str, list[int]] = {"grow": [], "move_rows": [], "move_prompts": []}

    def counted(name, move):
        def moving(layer, how):
            k, v = layer
            assert k.shape == v.shape
            left[name].append(sum(x.shape == k.shape for x in jax.live_arrays()) // 2)
            return move(layer, how)

        return moving

    with jax.set_mesh(mesh):
        sampler = staged_sampler(MODEL, settings, None, mesh, batch_sharding(mesh))
        sampler = dataclasses.replace(sampler, **{name: counted(name, getattr(sampler, name)) for name in left})
        params = jax.jit(MODEL.init)(jax.random.key(0))
        sample_staged(sampler, params, prompts(4), ALLOWED, jax.random.key(3), shards=1)
    layers = MODEL.config.text.num_layers
    assert layers > 1
    for name, counts in left.items():
        assert counts == list(range(layers, 0, -1)), name
