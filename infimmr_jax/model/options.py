"""How a model is computed (not what it is): dtypes, scan or unrolled layers, rematerialisation."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from infimmr_jax.config import ModelSection
from infimmr_jax.names import JsonObject
from infimmr_jax.parallel.gather import whole_parameters

FLOAT32 = jnp.dtype("float32")

REMAT_POLICIES: JsonObject = {
    "full": jax.checkpoint_policies.nothing_saveable,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}


@dataclasses.dataclass(frozen=True)
class ModelOptions:
    """Dtypes; `scan` compiles one layer instead of all; `remat` is 'none' or a name in REMAT_POLICIES.

    `attention` is a name that `attention.choose_attention` knows.
    """

    compute_dtype: jnp.dtype = FLOAT32
    param_dtype: jnp.dtype = FLOAT32
    scan: bool = True
    remat: str = "none"
    attention: str = "auto"


PLAIN = ModelOptions()


def model_options(section: ModelSection) -> ModelOptions:
    """How the configuration wants the model computed; few layers are faster unrolled, many compile faster scanned."""
    layers = section.shape.num_layers if section.path is None and section.preset is None else None
    return ModelOptions(
        compute_dtype=jnp.dtype(section.compute_dtype),
        param_dtype=jnp.dtype(section.param_dtype),
        scan=layers is None or layers > 8,
        remat=section.remat,
        attention=section.attention,
    )


def run_layers(
    layer: Callable[[PyTree, PyTree, PyTree, PyTree], tuple[PyTree, PyTree]],
    x: PyTree,
    stacked: PyTree,
    flags: np.ndarray,
    options: ModelOptions,
    inputs: PyTree = None,
) -> tuple[PyTree, PyTree]:
    """Apply `layer(x, params_i, flag_i, inputs_i) -> (x, output_i)` over stacked parameters; outputs come stacked.

    Under scan the flag is a traced boolean; unrolled it is a Python bool, so a branch on it costs nothing. On a mesh
    the parameters are whole only inside their own layer, forward and (with remat) backward.
    """

    def call(x: PyTree, params: PyTree, flag: PyTree, extra: PyTree) -> tuple[PyTree, PyTree]:
        return layer(x, whole_parameters(params, "layers", options.compute_dtype), flag, extra)

    if options.remat != "none":
        # Inside a scan the barrier against common-subexpression elimination is not needed and blocks fusion.
        static = () if options.scan else (2,)
        policy = REMAT_POLICIES[options.remat]
        call = jax.checkpoint(call, policy=policy, prevent_cse=not options.scan, static_argnums=static)
    if options.scan:
        return jax.lax.scan(lambda x, item: call(x, *item), x, (stacked, jnp.asarray(flags), inputs))
    outputs = []
    for index, flag in enumerate(flags):
        params, extra = layer_slice((stacked, inputs), index)
        x, output = call(x, params, bool(flag), extra)
        outputs.append(output)
    return x, jax.tree.map(lambda *leaves: jnp.stack(leaves), *outputs)


def layer_slice(stacked: PyTree, index: int) -> PyTree:
    """The tree of layer `index` of a stacked tree."""
    return jax.tree.map(lambda leaf: leaf[index], stacked)
