"""The optimisers' directions against NumPy, and where their moments lie."""

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from infimmr_jax.config import MeshSection, OptimizerSection
from infimmr_jax.objectives.train_state import TrainState, make_optimizer, state_shardings
from infimmr_jax.parallel.mesh import make_mesh


def tree(rng):
    def normal(*shape):
        return rng.standard_normal(shape).astype(np.float32)

    return {
        "layers": {"q": {"kernel": normal(3, 6, 16), "bias": normal(3, 16)}},
        "down": {"kernel": normal(16, 6)},
        "lm_head": {"kernel": normal(6, 12)},
        "embed": {"embedding": normal(12, 6)},
    }


def two_steps(section, rng):
    optimizer = make_optimizer(section)
    params, gradients = tree(rng), [tree(rng), tree(rng)]
    state = optimizer.init(params)
    for gradient in gradients:
        updates, state = optimizer.update(gradient, state, params)
    return params, gradients, updates


def newton_schulz(matrix):
    """Five quintic steps with Jordan's coefficients, in float64."""
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    x = wide.astype(np.float64) / np.linalg.norm(wide)
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x if wide is matrix else x.T


def test_muon_is_newton_schulz_of_the_nesterov_momentum():
    section = OptimizerSection(kind="muon", max_grad_norm=1e9, momentum=0.9)
    _, (first, second), updates = two_steps(section, np.random.default_rng(0))

    def momentum(a, b):
        # Nesterov over a bias-corrected moving average, as the accumulator of optax's Muon.
        a, b = a.astype(np.float64), b.astype(np.float64)
        mean = 0.9 * 0.1 * a + 0.1 * b
        return 0.9 * mean / (1 - 0.9**3) + 0.1 * b / (1 - 0.9**2)

    want = newton_schulz(momentum(first["down"]["kernel"], second["down"]["kernel"])) * 0.2 * np.sqrt(16)
    np.testing.assert_allclose(updates["down"]["kernel"], want, rtol=2e-3, atol=2e-4)
    for layer in range(3):
        moved = momentum(first["layers"]["q"]["kernel"][layer], second["layers"]["q"]["kernel"][layer])
        want = newton_schulz(moved) * 0.2 * np.sqrt(16)
        np.testing.assert_allclose(updates["layers"]["q"]["kernel"][layer], want, rtol=2e-3, atol=2e-4)


def test_muon_leaves_embeddings_heads_and_biases_to_adam():
    muon = two_steps(OptimizerSection(kind="muon", max_grad_norm=1e9), np.random.default_rng(1))[2]
    adam = two_steps(OptimizerSection(max_grad_norm=1e9), np.random.default_rng(1))[2]
    for one, other in ((muon["lm_head"], adam["lm_head"]), (muon["embed"], adam["embed"])):
        jax.tree.map(np.testing.assert_array_equal, one, other)
    np.testing.assert_array_equal(muon["layers"]["q"]["bias"], adam["layers"]["q"]["bias"])
    assert not np.allclose(muon["down"]["kernel"], adam["down"]["kernel"], rtol=0.1)


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_weight_decay_pulls_matrices_only(kind):
    plain = two_steps(OptimizerSection(kind=kind), np.random.default_rng(2))[2]
    params, _, decayed = two_steps(OptimizerSection(kind=kind, weight_decay=0.5), np.random.default_rng(2))
    np.testing.assert_allclose(
        decayed["down"]["kernel"], plain["down"]["kernel"] + 0.5 * params["down"]["kernel"], rtol=1e-5, atol=1e-6
    )
    np.testing.assert_array_equal(decayed["layers"]["q"]["bias"], plain["layers"]["q"]["bias"])


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_moments_lie_where_their_parameters_lie(kind):
    params = {"decoder": {"layers": {"q": tree(np.random.default_rng(3))["layers"]["q"]}}}
    nothing = np.zeros(())
    moments = make_optimizer(OptimizerSection(kind=kind)).init(params)
    specs = state_shardings(TrainState(nothing, params, moments, nothing), make_mesh(MeshSection(), jax.devices()[:1]))
    shaped = {str(s.spec) for s, m in zip(*map(jax.tree.leaves, (specs.moments, moments)), strict=True) if m.ndim == 3}
    assert shaped == {str(P(None, "fsdp", "tensor"))} == {str(specs.params["decoder"]["layers"]["q"]["kernel"].spec)}
    whole = [s.spec for s, m in zip(*map(jax.tree.leaves, (specs.moments, moments)), strict=True) if m.ndim < 2]
    assert whole
    assert set(whole) == {P()}


def test_momentum_of_adamw_is_refused():
    with pytest.raises(ValueError, match="momentum"):
        OptimizerSection(momentum=0.9)
