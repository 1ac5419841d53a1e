"""Frozen parts: no update, no weight decay, no moments; factors on the learning rate; ranges of layers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import MODEL, prompts

from infimmr_jax.config import ConfigError, OptimizerSection, TrainableSection
from infimmr_jax.objectives.advantages import init_estimator_state
from infimmr_jax.objectives.train_state import TrainState, apply_gradient, make_optimizer
from infimmr_jax.objectives.trainable import frozen_stopped, learning_factors, part_of, thaws

ADAM = OptimizerSection(learning_rate=1e-2, weight_decay=0.1)
ABSTRACT = MODEL.abstract_params()
ONE = {"kernel": jnp.ones((2, 2))}
# A parameter of every part, and two layers of the decoder.
PARAMS = {
    "visual": {"patch_embed": ONE, "merger": {"fc1": ONE}},
    "decoder": {
        "embed": {"embedding": jnp.ones((2, 2))},
        "layers": {"q": {"kernel": jnp.ones((2, 2, 2))}},
        "norm": {"scale": jnp.ones(2)},
    },
}


def named(tree):
    return {
        tuple(str(key.key) for key in path if hasattr(key, "key")): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def moments(tree):
    """(path of the parameter, moment) of every moment, whatever optimisers hold them."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        names = [str(key.key) for key in path if isinstance(key, jax.tree_util.DictKey)]
        top = [i for i, name in enumerate(names) if name in PARAMS]
        if top:
            yield tuple(names[top[0] :]), leaf


def moved(optimizer: OptimizerSection = ADAM, **section) -> tuple[TrainState, dict[str, float]]:
    """The state after one step with a gradient of ones, and the largest move of each part."""
    factors = learning_factors(PARAMS, TrainableSection(**section))
    mover = make_optimizer(optimizer)
    start = TrainState(jnp.int32(0), PARAMS, mover.init(PARAMS), init_estimator_state(1))
    gradient = jax.tree.map(jnp.ones_like, PARAMS)
    after, _ = jax.jit(lambda s, g: apply_gradient(s, g, mover, jnp.float32(1e-2), factors))(start, gradient)
    largest: dict[str, float] = {}
    for path, leaf in named(after.params).items():
        move = float(jnp.abs(leaf - named(PARAMS)[path]).max())
        largest[part_of(path)] = max(move, largest.get(part_of(path), 0.0))
    return after, largest


@pytest.mark.parametrize("kind", ["adamw", "muon"])
@pytest.mark.parametrize("part", ["vision", "merger", "decoder", "embeddings"])
def test_a_frozen_part_stays_bit_for_bit_and_the_others_move(part, kind):
    after, largest = moved(OptimizerSection(kind=kind, weight_decay=0.1), **{part: False})
    assert {name for name, move in largest.items() if move == 0} == {part}
    for path, leaf in moments(after.moments):
        assert (float(jnp.abs(leaf).max()) == 0) == (part_of(path) == part), path


def test_a_factor_scales_the_step_of_its_part():
    whole, less = moved()[1], moved(vision=0.1)[1]
    assert less["vision"] == pytest.approx(0.1 * whole["vision"], rel=1e-3)
    assert less["decoder"] == whole["decoder"]


def test_only_the_named_layers_move_and_the_last_norm_with_the_last_layer():
    new = named(moved(vision=False, merger=False, embeddings=False, layers=[[1, 1]])[0].params)
    for path, old in named(PARAMS).items():
        change = np.abs(np.asarray(new[path]) - np.asarray(old))
        if path[:2] == ("decoder", "layers"):
            assert change[0].max() == 0 < change[1].max(), path
        else:
            assert (change.max() > 0) == (path[:2] == ("decoder", "norm")), path
    first = moved(layers=[[0, -2]])[0].params
    assert np.array_equal(first["decoder"]["norm"]["scale"], PARAMS["decoder"]["norm"]["scale"])


def test_layers_that_are_not_there_are_refused():
    with pytest.raises(ConfigError, match=r"\[0, 2\] is no range of the decoder's 2 layers"):
        learning_factors(ABSTRACT, TrainableSection(layers=[[0, 2]]))


def test_the_gradient_of_frozen_layers_is_zero_and_that_of_the_others_untouched():
    factors = learning_factors(PARAMS, TrainableSection(layers=[[0, 0]], merger=False))
    gradient = jax.grad(lambda p: sum(jnp.sum(x) for x in jax.tree.leaves(frozen_stopped(p, factors))))(PARAMS)
    assert np.asarray(gradient["decoder"]["layers"]["q"]["kernel"]).max(axis=(1, 2)).tolist() == [1, 0]
    assert float(gradient["visual"]["merger"]["fc1"]["kernel"].max()) == 0
    assert float(gradient["visual"]["patch_embed"]["kernel"].min()) == 1


def test_no_backward_pass_goes_through_a_frozen_tower():
    """Counted in what JAX traces: with the tower frozen its backward matrix products are not there."""

    def products(section):
        factors = learning_factors(ABSTRACT, section)

        def loss(params):
            return jnp.sum(MODEL.trunk(frozen_stopped(params, factors), prompts(2)).k)

        return str(jax.make_jaxpr(jax.grad(loss))(ABSTRACT)).count("dot_general")

    def forward(params):
        return MODEL.trunk(params, prompts(2)).k

    once = str(jax.make_jaxpr(forward)(ABSTRACT)).count("dot_general")
    assert once < products(TrainableSection(vision=False, merger=False)) < products(TrainableSection())


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_parts_that_never_move_have_no_moments(kind):
    factors = learning_factors(ABSTRACT, TrainableSection(vision=False))
    moving = jax.tree.map(lambda factor: bool(np.any(np.asarray(factor) > 0)), factors)
    state = jax.eval_shape(make_optimizer(OptimizerSection(kind=kind), moving).init, ABSTRACT)
    assert {part_of(path) for path, _ in moments(state)} == {"merger", "decoder", "embeddings"}


def test_thawing_is_noticed():
    def factors(**section):
        return learning_factors(ABSTRACT, TrainableSection(**section))

    assert thaws(factors(vision=False), factors())
    assert thaws(factors(layers=[[0, 0]]), factors(layers=[[1, 1]]))
    assert not thaws(factors(), factors(vision=False, decoder=0.5))
