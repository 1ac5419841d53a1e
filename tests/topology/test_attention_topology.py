"""The splash kernels compiled by the real TPU compiler for a described v5e slice, on a machine without one."""

import importlib.util
import json
import os
import subprocess
import sys
import textwrap

import pytest

pytestmark = [
    pytest.mark.topology,
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs the tpu extra (libtpu)"),
]

PROGRAM = """
    import json

    import jax
    import jax.numpy as jnp
    import numpy as np
    from jax.experimental import topologies
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    from infimmr_jax.model import attention, decoder
    from infimmr_jax.model import qwen2_5_vl as model
    from infimmr_jax.model.config import ModelConfig, TextConfig, TokenIds, VisionConfig
    from infimmr_jax.model.logprobs import token_logprobs
    from infimmr_jax.model.options import ModelOptions
    from infimmr_jax.parallel.mesh import parameter_shardings
    from infimmr_jax.preprocess.batching import PromptBatch

    topology = topologies.get_topology_desc(platform="tpu", topology_name="v5e:4x4")
    mesh = Mesh(np.array(topology.devices).reshape(4, 2, 2), ("data", "fsdp", "tensor"))
    P, G, R, S, H, K, D = 8, 4, 512, 640, 16, 2, 128

    def array(*shape, dtype=jnp.bfloat16):
        rows = PartitionSpec(("data", "fsdp"), *[None] * (len(shape) - 1))
        return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, rows))

    def compiled(function, *arguments, wanted):
        loss = lambda *a: (function(*a).astype(jnp.float32) ** 2).sum()
        with jax.set_mesh(mesh):
            return jax.jit(jax.grad(loss, argnums=wanted)).lower(*arguments).compile()

    def kernels(program):
        return program.as_text().count("tpu_custom_call")

    found = {}
    mask = array(P, S, dtype=jnp.bool_)
    trunk = [array(P, S, H, D), array(P, K, S, D), array(P, K, S, D), mask]
    found["trunk"] = kernels(compiled(lambda *a: attention.trunk_attention(*a, "splash"), *trunk, wanted=(0, 1, 2)))
    vision = [*[array(P, 1024, 16, 80)] * 3, array(P, 1024, dtype=jnp.bool_)]
    found["vision"] = kernels(compiled(lambda *a: attention.vision_attention(*a, "splash"), *vision, wanted=(0, 1, 2)))
    branch = [array(P, G, R, H, D), *[array(P, G, K, R, D)] * 2, *[array(P, K, S, D)] * 2, mask]
    run = lambda *a: attention.branch_attention(*a, "splash")
    found["branch"] = kernels(compiled(run, *branch, wanted=(0, 1, 2, 3, 4)))

    config = ModelConfig(
        text=TextConfig(1024, 2048, 2, 16, 2, 128, 512, (16, 24, 24)),
        vision=VisionConfig(2, 1280, 16, 512, 2048, (1,)),
        tokens=TokenIds(0, 1, 2, 3, 4, 5),
    )
    options = ModelOptions(jnp.bfloat16, jnp.float32, remat="full", attention="splash")
    params = model.abstract_params(config, options)
    place = lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
    params = jax.tree.map(place, params, parameter_shardings(params, mesh))
    integers = lambda *shape: array(*shape, dtype=jnp.int32)
    batch = PromptBatch(
        tokens=integers(P, S),
        lengths=integers(P),
        bridge=integers(P),
        positions=integers(P, 3, S),
        next_position=integers(P),
        image_index=integers(P, S),
        patches=array(P, 1, 512, 1176, dtype=jnp.float32),
        patch_positions=integers(P, 1, 512, 2),
        patch_mask=array(P, 1, 512, dtype=jnp.bool_),
        row_mask=array(P, dtype=jnp.bool_),
    )

    def log_probs(params, batch, responses):
        above = model.trunk_forward(params, config, options, batch)
        hidden = model.branch_forward(params, config, options, above, responses)
        kernel = decoder.head_kernel(params["decoder"], config.text)
        return token_logprobs(hidden, kernel, responses, jnp.ones(config.text.vocab_size, bool))[0]

    whole = compiled(log_probs, params, batch, integers(P, G, R), wanted=0)
    found["model"] = kernels(whole)
    print(json.dumps(found))
"""


def test_splash_compiles_for_v5e():
    """Forward, and backward for queries and for keys: three kernels an attention, on every device of the slice."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PROGRAM)],
        env={**os.environ, "JAX_PLATFORMS": "cpu", "TPU_SKIP_MDS_QUERY": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["trunk"] == found["vision"] == found["branch"] == 3
    # Rematerialised layers run the forward kernel once more; the three forms share nothing.
    assert found["model"] >= 9
