"""The mesh and the sharding rules, over the abstract parameters of a published size."""

import jax
import pytest
from jax.sharding import PartitionSpec as P

from infimmr_jax.config import ConfigError, MeshSection
from infimmr_jax.model.config import ModelConfig, TextConfig, TokenIds, VisionConfig
from infimmr_jax.model.family import Model
from infimmr_jax.parallel.mesh import PARAMETER_RULES, make_mesh, parameter_spec

THREE_B = ModelConfig(
    text=TextConfig(
        vocab_size=151_936,
        hidden_size=2048,
        num_layers=36,
        num_heads=16,
        num_kv_heads=2,
        head_dim=128,
        intermediate_size=11_008,
        mrope_section=(16, 24, 24),
    ),
    vision=VisionConfig(
        depth=32,
        hidden_size=1280,
        num_heads=16,
        intermediate_size=3420,
        out_hidden_size=2048,
        fullatt_block_indexes=(7, 15, 23, 31),
    ),
    tokens=TokenIds(151_643, 151_645, 151_652, 151_653, 151_655, 151_656),
)


def mesh_of(data: int, fsdp: int, tensor: int) -> jax.sharding.AbstractMesh:
    return jax.sharding.AbstractMesh((data, fsdp, tensor), ("data", "fsdp", "tensor"))


def paths() -> list[tuple[str, tuple[int, ...]]]:
    tree = Model(THREE_B).abstract_params()
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return [("/".join(part.key for part in path), leaf.shape) for path, leaf in leaves]


def test_every_parameter_of_the_3b_model_has_a_rule_and_every_rule_is_used():
    mesh = mesh_of(1, 16, 1)
    specs = {path: parameter_spec(path, shape, mesh) for path, shape in paths()}
    assert specs["decoder/embed/embedding"] == P("tensor", "fsdp")
    assert specs["decoder/layers/mlp/down/kernel"] == P(None, "tensor", "fsdp")
    tied_only = {r"lm_head/kernel$"}
    import re

    for pattern, _ in PARAMETER_RULES:
        assert pattern in tied_only or any(re.search(pattern, path) for path in specs), pattern


@pytest.mark.parametrize("shape", [(1, 16, 1), (2, 4, 2), (1, 8, 4)])
def test_no_device_holds_more_than_its_share_of_the_large_parameters(shape):
    mesh = mesh_of(*shape)
    total = held = 0
    for path, size in paths():
        spec = parameter_spec(path, size, mesh)
        count = 1
        for axis, length in enumerate(size):
            name = spec[axis] if axis < len(spec) else None
            count *= length // (mesh.shape[name] if name else 1)
        held += count
        total += int(jax.numpy.prod(jax.numpy.array(size, dtype=jax.numpy.float32)))
    assert held < 1.05 * total / (shape[1] * shape[2])


def test_an_axis_that_does_not_divide_stays_whole():
    assert parameter_spec("decoder/layers/k/kernel", (36, 2048, 255), mesh_of(1, 4, 2)) == P(None, "fsdp", None)


def test_an_unknown_parameter_is_refused():
    with pytest.raises(ConfigError, match="no sharding rule matches the parameter visual/new/thing"):
        parameter_spec("visual/new/thing", (4, 4), mesh_of(1, 1, 1))


def test_a_mesh_that_is_not_the_devices_is_refused():
    with pytest.raises(ConfigError, match="mesh data=-1 fsdp=3 sequence=1 tensor=1 is not"):
        make_mesh(MeshSection(fsdp=3), jax.devices()[:1])
