import jax.numpy as jnp
import numpy as np
import pytest

from infimmr_jax.config import GrpoSection, OverlapWeight
from infimmr_jax.objectives.group_weights import weigh_advantages

GROUP = 8
ACCURACY = np.array([[1.0] * k + [0.0] * (GROUP - k) for k in range(GROUP + 1)])
SHARE = np.arange(GROUP + 1) / GROUP
ONES = np.ones_like(ACCURACY)
LENGTHS = np.full(ACCURACY.shape, 10)


def weigh(advantages=ONES, accuracy=ACCURACY, lengths=LENGTHS, component="accuracy", task=None, names=(), **keys):
    config = GrpoSection(group_weight={"component": component, **keys}).group_weight
    return weigh_advantages(
        jnp.asarray(advantages), {component: jnp.asarray(accuracy) * 1.0}, jnp.asarray(lengths), config, task, names
    )


def test_none_changes_nothing():
    np.testing.assert_array_equal(weigh(), ONES)


def test_observe_r1_is_largest_at_one_half_and_drops_decided_groups(x64):
    found = weigh(kind="observe_r1", sigma=1.8)
    np.testing.assert_allclose(found[:, 0], [1.8 * 4 * p * (1 - p) for p in SHARE], rtol=1e-12)
    assert found[0, 0] == found[-1, 0] == 0
    assert found[4, 0] == found.max() == 1.8


@pytest.mark.parametrize("difficulty", ["easy", "medium", "hard"])
def test_vl_cogito_weighs_by_difficulty_of_the_stage(x64, difficulty):
    expected = {
        "easy": [np.sin(np.pi * p) if p < 0.5 else 1.0 for p in SHARE],
        "medium": [np.sin(np.pi * p) for p in SHARE],
        "hard": [0.25 if p == 0 else 1.0 if p <= 0.5 else np.sin(np.pi * p) for p in SHARE],
    }[difficulty]
    found = weigh(kind="vl_cogito", difficulty=difficulty)
    np.testing.assert_allclose(found[:, 0], expected, rtol=1e-12, atol=1e-15)


def test_vl_cogito_never_turns_the_gradient_round_in_float32():
    assert (weigh(kind="vl_cogito", difficulty="medium") >= 0).all()


def test_univg_weighs_by_mean_overlap(x64):
    overlap = np.array([[0.2, 0.4, 0.9], [0.0, 0.0, 0.0]])
    found = weigh(np.ones((2, 3)), overlap, np.ones((2, 3), int), component="iou", kind="univg")
    np.testing.assert_allclose(found[:, 0], [np.exp(1 - 0.5), np.e], rtol=1e-12)


def test_apo_presses_harder_on_wrong_answers_longer_than_the_right_ones(x64):
    accuracy = np.array([[1, 1, 0, 0], [0, 0, 0, 0]])
    lengths = np.array([[900, 1100, 2000, 500], [10, 9000, 5, 5]])
    found = weigh(-np.ones((2, 4)), accuracy, lengths, kind="apo")
    expected = -np.ones((2, 4))
    expected[0, 2] *= 1 + (1 - 1.00001**-1000)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert found[0, 2] == pytest.approx(-1.00995, abs=1e-5)


def test_apo_keeps_its_digits_in_float32():
    accuracy, lengths = np.array([[1, 0]]), np.array([[10, 4010]])
    found = weigh(np.ones((1, 2), np.float32), accuracy, lengths, kind="apo")
    assert found[0, 1] == pytest.approx(2 - 1.00001**-4000, abs=2e-7)


def test_only_the_named_tasks_are_weighed():
    task = jnp.asarray([0, 1] * 4 + [0])
    found = weigh(kind="observe_r1", tasks=("boxes",), task=task, names=("math", "boxes"))
    np.testing.assert_array_equal(found[::2], 1)
    assert found[3, 0] == pytest.approx(1.8 * 4 * 3 / 8 * 5 / 8)
    with pytest.raises(ValueError, match=r"names \['points'\], the tasks of this run are \['math'\]"):
        weigh(kind="univg", tasks=("points",), task=task, names=("math",))


def test_a_missing_component_is_named():
    with pytest.raises(ValueError, match=r"reads the reward component 'iou', the graders gave \['accuracy'\]"):
        weigh_advantages(
            jnp.asarray(ONES),
            {"accuracy": jnp.asarray(ONES)},
            jnp.asarray(LENGTHS),
            OverlapWeight(kind="univg", component="iou"),
        )
