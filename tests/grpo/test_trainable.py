"""Frozen parts: no update, no weight decay, no moments; factors on the learning rate; ranges of layers."""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from small import MODEL, OPTIONS, train_state

from infimmr_jax.config import ConfigError, GrpoSection, OptimizerSection, TrainableSection
from infimmr_jax.grpo.state import TrainState, apply_gradient, make_optimizer
from infimmr_jax.grpo.trainable import frozen_stopped, learning_factors, part_of, thaws
from infimmr_jax.model.qwen2_5_vl import abstract_params

ADAM = OptimizerSection(learning_rate=1e-2, weight_decay=0.1)
ABSTRACT = abstract_params(MODEL, OPTIONS)


@pytest.fixture(scope="module")
def start():
    return train_state(GrpoSection(), ADAM)


def named(tree):
    return {
        tuple(str(key.key) for key in path if hasattr(key, "key")): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def moved(start: TrainState, **section) -> tuple[TrainState, dict[str, float]]:
    """One step with a gradient of ones; the largest move of each part."""
    factors = learning_factors(start.params, TrainableSection(**section))
    gradient = jax.grad(lambda p: sum(jnp.sum(x) for x in jax.tree.leaves(frozen_stopped(p, factors))))(start.params)
    after, _ = apply_gradient(start, gradient, make_optimizer(ADAM), jnp.float32(1e-2), factors)
    largest: dict[str, float] = {}
    for path, leaf in named(after.params).items():
        move = float(jnp.abs(leaf - named(start.params)[path]).max())
        largest[part_of(path)] = max(move, largest.get(part_of(path), 0.0))
    return after, largest


@pytest.mark.parametrize("part", ["vision", "merger", "decoder", "embeddings"])
def test_a_frozen_part_stays_bit_for_bit_and_the_others_move(start, part):
    after, largest = moved(start, **{part: False})
    assert {name for name, move in largest.items() if move == 0} == {part}
    for path, leaf in named(after.moments[1].mu).items():
        assert (float(jnp.abs(leaf).max()) == 0) == (part_of(path) == part), path


def test_a_factor_scales_the_step_of_its_part(start):
    _, whole = moved(start)
    _, less = moved(start, vision=0.1)
    assert less["vision"] == pytest.approx(0.1 * whole["vision"], rel=1e-3)
    assert less["decoder"] == whole["decoder"]


def test_only_the_named_layers_move_and_the_last_norm_with_the_last_layer(start):
    after, _ = moved(start, vision=False, merger=False, embeddings=False, layers=[[1, 1]])
    old, new = named(start.params), named(after.params)
    for path in old:
        change = np.abs(np.asarray(new[path]) - np.asarray(old[path]))
        if path[:2] == ("decoder", "layers"):
            assert change[0].max() == 0 < change[1].max(), path
        else:
            assert (change.max() > 0) == (path[:2] == ("decoder", "norm")), path
    first, _ = moved(start, layers=[[0, -2]])
    assert np.array_equal(first.params["decoder"]["norm"]["scale"], start.params["decoder"]["norm"]["scale"])


def test_layers_that_are_not_there_are_refused():
    with pytest.raises(ConfigError, match=r"\[0, 2\] is no range of the decoder's 2 layers"):
        learning_factors(ABSTRACT, TrainableSection(layers=[[0, 2]]))


def test_no_backward_pass_goes_through_a_frozen_tower(start):
    """Counted in what JAX traces: with the tower frozen there is no transposed matrix product of its width."""
    from small import prompts

    from infimmr_jax.model.qwen2_5_vl import trunk_forward

    def products(section):
        factors = learning_factors(ABSTRACT, section)

        def loss(params):
            return jnp.sum(trunk_forward(frozen_stopped(params, factors), MODEL, OPTIONS, prompts(2)).k)

        return str(jax.make_jaxpr(jax.grad(loss))(start.params)).count("dot_general")

    everything, decoder = products(TrainableSection()), products(TrainableSection(vision=False, merger=False))
    forward = str(jax.make_jaxpr(lambda p: trunk_forward(p, MODEL, OPTIONS, prompts(2)).k)(start.params)).count(
        "dot_general"
    )
    assert forward < decoder < everything


def test_parts_that_never_move_have_no_moments():
    factors = learning_factors(ABSTRACT, TrainableSection(vision=False))
    moving = jax.tree.map(lambda factor: bool(np.any(np.asarray(factor) > 0)), factors)
    state = jax.eval_shape(make_optimizer(ADAM, moving).init, ABSTRACT)
    kept = {part_of(path) for path in (p for p in named(state) if p and p[0] in ("visual", "decoder"))}
    assert kept == {"merger", "decoder", "embeddings"}


def test_thawing_is_noticed():
    def factors(**section):
        return learning_factors(ABSTRACT, TrainableSection(**section))

    assert thaws(factors(vision=False), factors())
    assert thaws(factors(layers=[[0, 0]]), factors(layers=[[1, 1]]))
    assert not thaws(factors(), factors(vision=False, decoder=0.5))
