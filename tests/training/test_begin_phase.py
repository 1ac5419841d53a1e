"""What the start of a phase does to the state: nothing, fresh moments, or a new reference policy."""

from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import tiny_tree

from infimmr_jax.config import MeshSection, parse_config
from infimmr_jax.model.config import TokenIds, config_from_shape
from infimmr_jax.model.family import Model
from infimmr_jax.model.options import ModelOptions
from infimmr_jax.parallel.mesh import make_mesh
from infimmr_jax.training.programs import Programs

KL = {"coefficient": 0.1, "reference": "ema"}


def programs(*changes: dict) -> Programs:
    tree = tiny_tree(Path("nowhere")) | {"sft": None, "grpo": {"kl": KL}}
    tree["phases"] = [phase | change for phase, change in zip(tree["phases"], changes, strict=False)]
    tree["model"]["shape"]["num_layers"] = 1
    config = parse_config(tree)
    tokens = TokenIds(pad=0, eos=1, vision_start=2, vision_end=3, image=4, video=5)
    model = Model(config_from_shape(config.model.shape, 16, tokens), ModelOptions(scan=False))
    mesh = make_mesh(MeshSection(), jax.devices()[:1])
    recipe = SimpleNamespace(config=config, mesh=mesh, model=model, allowed=None)
    return Programs(recipe)


def begun(*changes: dict):
    """The state before (everything 1, the reference 2) and after the start of the second phase."""
    made = programs(*changes)
    state = jax.tree.map(lambda x: np.ones(x.shape, x.dtype), made.abstract_state())
    state = jax.tree.map(jnp.asarray, state.replace(reference=jax.tree.map(lambda x: 2 * x, state.reference)))
    return state, made.begin_phase(jax.tree.map(jnp.copy, state), 1)


def values(tree) -> set[float]:
    return {float(value) for leaf in jax.tree.leaves(tree) for value in np.unique(leaf)}


def test_a_phase_like_the_one_before_changes_nothing():
    before, after = begun({}, {})
    assert values(after) == values(before) == {1.0, 2.0}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({}, {"optimizer": {"fresh": True}}),
        ({"trainable": {"vision": False}}, {"trainable": {"merger": False}}),
    ],
)
def test_moments_start_afresh_when_asked_or_when_something_thaws(first, second):
    _, after = begun(first, second)
    assert values(after.moments) == {0.0}
    assert values(after.params) == {1.0}
    assert values(after.reference) == {2.0}


def test_freezing_more_keeps_the_moments():
    _, after = begun({}, {"trainable": {"vision": False}})
    assert values(after.moments) == {1.0}


def test_a_reference_of_the_phase_is_the_policy_at_its_start():
    _, after = begun({}, {"grpo": {"kl": {"reference": "phase_start"}}})
    assert values(after.reference) == {1.0}
    assert values(after.moments) == {1.0}


def test_a_moving_average_starts_at_the_first_phase_that_asks_for_it():
    start = {"grpo": {"kl": {"reference": "initial"}}}
    _, after = begun(start, {})
    assert values(after.reference) == {1.0}


def test_no_reference_is_kept_without_a_kl_term():
    off = {"grpo": {"kl": {"coefficient": 0.0, "reference": "initial"}}}
    assert programs(off, off, off).abstract_state().reference is None
