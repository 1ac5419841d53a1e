"""TRL's loss types and advantages: our settings reproduce the numbers TRL itself computed (make_trl_reference.py)."""

from pathlib import Path

import jax
import jax.numpy as jnp
import make_trl_reference as trl_side
import numpy as np
import pytest

from infimmr_jax.config import GrpoSection
from infimmr_jax.objectives.advantages import advantages, init_estimator_state
from infimmr_jax.objectives.objective import denominators, policy_loss

REFERENCE = Path(__file__).with_name("trl_reference.npz")
CLIP = {"clip_low": 0.2, "clip_high": 0.28}
# What each of TRL's loss types is called here.
OURS = {
    "grpo": CLIP | {"aggregation": "sequence_mean"},
    "bnpo": CLIP | {"aggregation": "token_mean"},
    "dr_grpo": CLIP | {"aggregation": "constant"},
    "dapo": CLIP | {"aggregation": "token_mean"},
    "dapo_kl": CLIP | {"aggregation": "token_mean", "kl": {"coefficient": 0.3}},
    "dapo_correction": CLIP | {"importance": {"level": "token", "high": 1.5}},
    "gspo": {"objective": "gspo", "clip_low": 0.05, "clip_high": 0.08, "aggregation": "sequence_mean"},
    "cispo": {"objective": "cispo", "clip_low": 1.0, "clip_high": 0.4},
    "sapo": {"objective": "sapo", "tau_negative": 1.25, "aggregation": "sequence_mean"},
}


@pytest.fixture(scope="module")
def stored():
    with np.load(REFERENCE) as archive:
        return dict(archive)


@pytest.mark.parametrize("name", sorted(trl_side.LOSSES))
def test_loss_and_gradient_equal_trl(x64, stored, name):
    shape = (trl_side.SEQUENCES // trl_side.GROUP, trl_side.GROUP)
    b = {k: jnp.asarray(stored[k]).reshape(shape + stored[k].shape[1:]) for k in ("old", "mask", "reference")}
    behaviour = jnp.asarray(stored["behaviour"]).reshape(b["old"].shape)
    config = GrpoSection(**OURS[name])

    def loss(logprobs):
        return policy_loss(
            logprobs.reshape(b["old"].shape),
            b["old"],
            jnp.asarray(stored["advantages"]).reshape(shape),
            b["mask"],
            config,
            denominators=denominators(b["mask"], trl_side.MAX_COMPLETION),
            reference_logprobs=b["reference"],
            behaviour_logprobs=behaviour,
        )[0]

    value, slope = jax.value_and_grad(loss)(jnp.asarray(stored["logprobs"]))
    np.testing.assert_allclose(value, stored[f"loss/{name}"], rtol=1e-12)
    np.testing.assert_allclose(slope, stored[f"gradient/{name}"], rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("name", sorted(trl_side.ADVANTAGES))
def test_advantages_equal_trl(x64, stored, name):
    config = GrpoSection(estimator=name, std_epsilon=1e-4)
    parts = [jnp.asarray(stored["rewards"][:, index]).reshape(-1, trl_side.GROUP) for index in range(2)]
    weights = dict(zip(("accuracy", "format"), trl_side.REWARD_WEIGHTS, strict=True))
    components = dict(zip(weights, parts, strict=True))
    total = sum(weight * part for weight, part in zip(weights.values(), parts, strict=True))
    task = jnp.zeros(len(total), jnp.int32)
    found, _ = advantages(total, components, weights, config, init_estimator_state(1), task)
    np.testing.assert_allclose(found.ravel(), stored[f"advantages/{name}"], atol=2e-6)


@pytest.mark.parity
@pytest.mark.slow
def test_the_stored_numbers_are_those_of_the_installed_trl(stored):
    pytest.importorskip("trl")
    arrays = trl_side.inputs()
    for name, value in (arrays | trl_side.losses(arrays) | trl_side.advantages(arrays)).items():
        np.testing.assert_allclose(value, stored[name], rtol=1e-6, atol=1e-7, err_msg=name)
