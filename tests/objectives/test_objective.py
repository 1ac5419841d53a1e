import jax
import jax.numpy as jnp
import numpy as np
import numpy_formulas as formulas
import pytest
from devices import on_eight_devices

from infimmr_jax.config import GrpoSection
from infimmr_jax.objectives.advantages import advantages, init_estimator_state
from infimmr_jax.objectives.metrics import add_metrics, finish_metrics
from infimmr_jax.objectives.objective import AGGREGATIONS, OBJECTIVES, denominators, policy_loss, training_mask
from infimmr_jax.objectives.schedules import Clock, coefficients

P, G, R = 4, 3, 7


def batch(seed=0, spread=0.4):
    """Log-probs of a policy that has moved, with ragged responses, one of them without any token."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, R + 1, (P, G))
    lengths[2, 1] = 0
    mask = np.arange(R) < lengths[..., None]
    lp = -np.abs(rng.normal(size=(P, G, R))) - 0.1
    return {
        "logprobs": lp,
        "old": lp + spread * rng.normal(size=lp.shape),
        "advantages": rng.normal(size=(P, G)),
        "mask": mask,
        "reference": lp + 0.3 * rng.normal(size=lp.shape),
        "behaviour": lp + 0.8 * rng.normal(size=lp.shape),
        "entropies": rng.random(lp.shape),
        "masked_image": lp + 0.5 * rng.normal(size=lp.shape),
        "kl_weights": rng.random((P, G)),
    }


def full(**keys):
    """A configuration in which every term of the loss is on."""
    return GrpoSection(
        **{
            "kl": {"coefficient": 0.3},
            "entropy": {"coefficient": 0.2},
            "importance": {"level": "token"},
            "perception": {
                "coefficient": 0.15,
                "entropy_coefficient": 0.05,
                "masked_entropy_coefficient": 0.02,
                "differentiate_masked": True,
            },
        }
        | keys
    )


def evaluate(b, config, old=True, whole=None, rows=slice(None), **extra):
    b = {k: jnp.asarray(v)[rows] for k, v in b.items()}
    whole = denominators(b["mask"]) if whole is None else whole
    return policy_loss(
        b["logprobs"],
        b["old"] if old else None,
        b["advantages"],
        b["mask"],
        config,
        denominators=whole,
        reference_logprobs=b["reference"],
        entropies=b["entropies"],
        behaviour_logprobs=b["behaviour"],
        kl_weights=b["kl_weights"],
        masked_image_logprobs=b["masked_image"],
        **extra,
    )


def gradient(b, config, **keys):
    def loss(logprobs):
        return evaluate(b | {"logprobs": logprobs}, config, **keys)[0]

    return jax.grad(loss)(jnp.asarray(b["logprobs"]))


CLIPS = {"ppo_clip": (0.2, 0.3), "gspo": (0.05, 0.08), "gspo_token": (0.05, 0.08), "cispo": (0.5, 0.4)}


@pytest.mark.parametrize("how", sorted(AGGREGATIONS))
@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_each_objective_and_aggregation_is_its_formula(x64, name, how):
    b, (lo, hi) = batch(), CLIPS.get(name, (None, None))
    config = GrpoSection(objective=name, aggregation=how, clip_low=lo, clip_high=hi, tau_positive=0.9, tau_negative=1.3)
    loss, _ = evaluate(b, config, whole=denominators(jnp.asarray(b["mask"]), 11))
    tokens = formulas.token_losses(name, b["logprobs"], b["old"], b["advantages"], b["mask"], lo, hi, tau=(0.9, 1.3))
    np.testing.assert_allclose(loss, formulas.aggregate(tokens, b["mask"], how, 11), rtol=1e-10)


@pytest.mark.parametrize("name", ["ppo_clip", "gspo", "gspo_token"])
def test_dual_clip_is_its_formula_and_bounds_a_runaway_token(x64, name):
    b = batch(spread=3.0)
    config = GrpoSection(objective=name, clip_low=0.2, clip_high=0.3, dual_clip=1.5)
    tokens = formulas.token_losses(name, b["logprobs"], b["old"], b["advantages"], b["mask"], 0.2, 0.3, dual=1.5)
    np.testing.assert_allclose(
        evaluate(b, config)[0], formulas.aggregate(tokens, b["mask"], "token_mean", R), rtol=1e-10
    )
    b["old"] = b["logprobs"] - 25.0
    b["advantages"] = -np.ones((P, G))
    assert evaluate(b, config)[0] == pytest.approx(1.5)


def expected_everything(b, config, how):
    """Every term of the loss together, from the formulas."""
    clips = (config.clip_low, config.clip_high)
    lp, old, mask = b["logprobs"], b["old"], b["mask"]
    L = formulas.token_losses(config.objective, lp, old, b["advantages"], mask, *clips)
    gap = np.where(mask, old - b["behaviour"], 0)
    if config.importance.level == "sequence":
        gap = np.repeat(gap.sum(-1, keepdims=True), R, -1)
    w, low, high = np.exp(gap), config.importance.low, config.importance.high
    L = L * (w.clip(low, high) if config.importance.mode == "truncate" else w * ((w >= low) & (w <= high)))
    kl = formulas.kl(config.kl.estimator, lp, b["reference"]) * b["kl_weights"][..., None]
    d = b["masked_image"] - lp
    perception = -0.15 * (np.exp(d) - 1 - d) - 0.05 * lp - 0.02 * b["masked_image"]
    return formulas.aggregate(L + 0.3 * kl - 0.2 * b["entropies"] + perception, mask, how, R)


@pytest.mark.parametrize("kind", ["k1", "k2", "k3"])
@pytest.mark.parametrize("how", sorted(AGGREGATIONS))
@pytest.mark.parametrize("level", ["token", "sequence"])
@pytest.mark.parametrize("mode", ["truncate", "mask"])
def test_kl_entropy_importance_and_perception_terms_are_their_formulas(x64, kind, how, level, mode):
    config = full(
        aggregation=how,
        kl={"coefficient": 0.3, "estimator": kind},
        importance={"level": level, "mode": mode, "low": 0.5, "high": 1.8},
    )
    found, _ = evaluate(batch(), config)
    np.testing.assert_allclose(found, expected_everything(batch(), config, how), rtol=1e-10)


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
@pytest.mark.parametrize("how", sorted(AGGREGATIONS))
def test_gradients_equal_finite_differences(x64, name, how):
    """Where a method stops a gradient, the difference quotient is taken of the formula with that factor held fixed."""
    b, (lo, hi) = batch(3), CLIPS.get(name, (None, None))
    config = full(objective=name, aggregation=how, clip_low=lo, clip_high=hi, importance={"level": "none"})
    found = gradient(b, config)

    def surrogate(lp):
        tokens = formulas.token_losses(name, lp, b["old"], b["advantages"], b["mask"], lo, hi)
        if name == "cispo":
            ratio = np.clip(np.exp(b["logprobs"] - b["old"]), 1 - lo, 1 + hi)
            tokens = -b["advantages"][..., None] * ratio * lp
        if name == "gspo_token":
            n = np.maximum(b["mask"].sum(-1, keepdims=True), 1)
            s = np.exp((np.where(b["mask"], b["logprobs"] - b["old"], 0)).sum(-1, keepdims=True) / n)
            s, a = s * np.exp(lp - b["logprobs"]), b["advantages"][..., None]
            tokens = -np.minimum(s * a, np.clip(s, 1 - lo, 1 + hi) * a)
        d = b["masked_image"] - lp
        tokens = tokens + 0.3 * formulas.kl("k3", lp, b["reference"]) * b["kl_weights"][..., None]
        tokens = tokens - 0.15 * (np.exp(d) - 1 - d) - 0.05 * lp
        return formulas.aggregate(tokens, b["mask"], how, R)

    step, numeric = 1e-6, np.zeros((P, G, R))
    for index in zip(*np.nonzero(b["mask"]), strict=True):
        up, down = b["logprobs"].copy(), b["logprobs"].copy()
        up[index] += step
        down[index] -= step
        numeric[index] = (surrogate(up) - surrogate(down)) / (2 * step)
    np.testing.assert_allclose(found, numeric, atol=2e-8)
    assert np.abs(numeric).max() > 1e-3


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_first_on_policy_update_has_ratio_one_no_clipping_and_no_divergence(x64, name):
    b, config = batch(), GrpoSection(objective=name, kl={"coefficient": 0.5})
    b["reference"] = b["behaviour"] = b["logprobs"]
    _, metrics = evaluate(b, config, old=False)
    found = finish_metrics(metrics)
    assert found["policy/ratio"] == found["policy/ratio_max"] == 1
    for key in ("policy/kl", "policy/kl_old", "policy/clip_share", "policy/mismatch", "policy/mismatch_max"):
        assert found[key] == 0
    # There every objective's gradient is the policy gradient (gspo spreads it evenly over the response).
    expected = np.where(b["mask"], -b["advantages"][..., None], 0) / b["mask"].sum()
    np.testing.assert_allclose(gradient(b, config, old=False), expected, atol=1e-12)
    explicit = gradient(b | {"old": b["logprobs"]}, config)
    np.testing.assert_allclose(explicit, gradient(b, config, old=False), atol=1e-15)


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
@pytest.mark.parametrize("old", [True, False])
def test_a_group_without_signal_gets_no_gradient(name, old):
    b = batch()
    config = GrpoSection(objective=name)
    rewards = jnp.asarray(np.random.default_rng(0).random((P, G))).at[1].set(0.9)
    b["advantages"] = advantages(rewards, {}, {}, config, init_estimator_state(1), jnp.zeros(P, jnp.int32))[0]
    found = gradient(b, config, old=old)
    np.testing.assert_array_equal(found[1], 0)
    assert np.abs(found[0]).max() > 0


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
@pytest.mark.parametrize("how", sorted(AGGREGATIONS))
@pytest.mark.parametrize("sizes", [(1, 1, 1, 1), (2, 2), (1, 3)])
def test_micro_batches_add_up_to_the_whole_batch(x64, name, how, sizes):
    b, config = batch(), full(objective=name, aggregation=how)
    whole = denominators(jnp.asarray(b["mask"]))
    loss, metrics = evaluate(b, config)
    total, parts, grads, start = 0.0, None, [], 0
    for size in sizes:
        rows = slice(start, start + size)
        part, m = evaluate(b, config, whole=whole, rows=rows)
        total, parts, start = total + part, m if parts is None else add_metrics(parts, m), start + size
        grads.append(gradient({k: v[rows] for k, v in b.items()}, config, whole=whole))
    np.testing.assert_allclose(total, loss, rtol=1e-12)
    np.testing.assert_allclose(np.concatenate(grads), gradient(b, config), atol=1e-15)
    for name_, value in finish_metrics(metrics).items():
        np.testing.assert_allclose(finish_metrics(parts)[name_], value, rtol=1e-5, err_msg=name_)


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
@pytest.mark.parametrize("how", sorted(AGGREGATIONS))
@pytest.mark.parametrize("garbage", [np.nan, -np.inf, np.inf])
@pytest.mark.parametrize("old", [True, False])
def test_padding_changes_nothing_and_gets_exactly_no_gradient(x64, name, how, garbage, old):
    b, config = batch(), full(objective=name, aggregation=how)
    whole = denominators(jnp.asarray(b["mask"]), R)
    loss, metrics = evaluate(b, config, whole=whole, old=old)
    longer = {}
    for key, value in b.items():
        pad = [(0, 1), (0, 0)] + [(0, 2)] * (value.ndim - 2)
        filler = False if key == "mask" else garbage
        longer[key] = np.pad(value, pad, constant_values=filler)
    for key in ("logprobs", "old", "reference", "behaviour", "entropies", "masked_image"):
        longer[key] = np.where(longer["mask"], longer[key], garbage)
    longer["advantages"] = np.where(longer["mask"].any(-1), longer["advantages"], garbage)
    longer["kl_weights"] = np.where(longer["mask"].any(-1), longer["kl_weights"], garbage)
    padded, more = evaluate(longer, config, whole=denominators(jnp.asarray(longer["mask"]), R), old=old)
    np.testing.assert_allclose(padded, loss, rtol=1e-12)
    for key, value in finish_metrics(metrics).items():
        np.testing.assert_allclose(finish_metrics(more)[key], value, rtol=1e-6)
    found = gradient(longer, config, whole=denominators(jnp.asarray(longer["mask"]), R), old=old)
    np.testing.assert_array_equal(np.asarray(found)[~longer["mask"]], 0)
    np.testing.assert_allclose(found[:P, :, :R], gradient(b, config, whole=whole, old=old), atol=1e-15)


def test_a_batch_with_nothing_to_train_on_has_zero_loss_and_gradient():
    b = batch()
    b["mask"][:] = False
    for how in AGGREGATIONS:
        assert evaluate(b, full(aggregation=how))[0] == 0
        np.testing.assert_array_equal(gradient(b, full(aggregation=how)), 0)


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_per_token_advantages_are_accepted_with_anything_in_the_padding(x64, name):
    b, config = batch(), full(objective=name)
    spread = dict(b, advantages=np.where(b["mask"], b["advantages"][..., None], np.nan))
    assert evaluate(spread, config)[0] == evaluate(b, config)[0]
    np.testing.assert_array_equal(gradient(spread, config), gradient(b, config))


def test_metrics_are_their_formulas(x64):
    b = batch()
    config = GrpoSection(clip_low=0.2, clip_high=0.3, dual_clip=1.6)
    found = finish_metrics(evaluate(b, config)[1])
    m, a = b["mask"], np.repeat(b["advantages"][..., None], R, -1)[b["mask"]]
    r = np.exp(b["logprobs"] - b["old"])[m]
    low, high = (a < 0) & (r < 0.8), ((a > 0) & (r > 1.3)) | ((a < 0) & (r > 1.6))
    gap = np.abs(b["old"] - b["behaviour"])[m]
    expected = {
        "policy/clip_share_low": low.mean(),
        "policy/clip_share_high": high.mean(),
        "policy/clip_share": (low | high).mean(),
        "policy/kl_old": (r - 1 - np.log(r)).mean(),
        "policy/kl": formulas.kl("k3", b["logprobs"], b["reference"])[m].mean(),
        "policy/ratio": r.mean(),
        "policy/ratio_max": r.max(),
        "policy/entropy": b["entropies"][m].mean(),
        "policy/mismatch": gap.mean(),
        "policy/mismatch_max": gap.max(),
    }
    assert set(found) == set(expected)
    assert low.any()
    assert high.any()
    for key, value in expected.items():
        np.testing.assert_allclose(found[key], value, rtol=1e-6, err_msg=key)
    clipped = gradient(b, config)[jnp.asarray(m)] == 0
    np.testing.assert_array_equal(clipped, low | high)


def test_overlong_mask_takes_cut_responses_out_of_loss_and_denominators():
    mask = jnp.asarray(batch()["mask"])
    truncated = jnp.zeros((P, G), bool).at[0, 0].set(True)
    np.testing.assert_array_equal(training_mask(mask, truncated, GrpoSection()), mask)
    left = training_mask(mask, truncated, GrpoSection(overlong={"mode": "mask"}))
    assert not left[0, 0].any()
    np.testing.assert_array_equal(left[1:], mask[1:])
    assert denominators(left).sequences == denominators(mask).sequences - 1


@pytest.mark.parametrize(
    ("keys", "missing"),
    [
        ({"kl": {"coefficient": 0.1}}, "reference_logprobs"),
        ({"entropy": {"coefficient": 0.1}}, "entropies"),
        ({"importance": {"level": "token"}}, "behaviour_logprobs"),
        ({"perception": {"coefficient": 0.1}}, "masked_image_logprobs"),
    ],
)
def test_a_term_without_its_array_is_an_error_that_names_it(keys, missing):
    lp, adv, mask = (jnp.asarray(batch()[key]) for key in ("logprobs", "advantages", "mask"))
    with pytest.raises(ValueError, match=missing):
        policy_loss(lp, None, adv, mask, GrpoSection(**keys), denominators=denominators(mask))


def test_scheduled_coefficients_must_be_given_and_are_used(x64):
    kl = {"coefficient": 0.4, "schedule": "linear"}
    b, config = batch(), GrpoSection(kl=kl)
    with pytest.raises(ValueError, match=r"kl\.schedule"):
        evaluate(b, config)
    half = evaluate(b, config, coefficients=coefficients(config, Clock(5, 10, 5, 10)))[0]
    np.testing.assert_allclose(half, evaluate(b, GrpoSection(kl={"coefficient": 0.2}))[0], rtol=1e-12)


def test_defaults_of_the_clip_are_the_objectives_own():
    assert (GrpoSection(objective="gspo").clip_low, GrpoSection(objective="gspo").clip_high) == (3e-4, 4e-4)
    assert GrpoSection(objective="cispo").clip_low == 1.0
    assert GrpoSection(objective="sapo").clip_high is None
    assert GrpoSection.model_validate(GrpoSection(objective="cispo").model_dump()) == GrpoSection(objective="cispo")


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"objective": "cispo", "clip_high": -0.8}, "shrinks every token's gradient"),
        ({"objective": "cispo", "clip_low": 0.0}, "would be raised to 1"),
        ({"objective": "sapo", "clip_high": 0.2}, "does not clip"),
        ({"objective": "cispo", "dual_clip": 3.0}, "belongs to ppo_clip"),
        ({"dual_clip": 1.1}, "above 1 \\+ clip_high"),
        ({"clip_low": None}, "needs numbers"),
        ({"kl": {"sample_weight": "apo"}}, "place 'loss'"),
        ({"kl": {"coefficient": 1, "end_step": 5}}, "does not move"),
        ({"kl": {"coefficient": 1, "schedule": "linear_then_flat"}}, "needs `end_step`"),
        ({"overlong": {"mode": "soft", "buffer": 8}, "estimator": "gdpo"}, "set overlong.mode: mask"),
        ({"perception": {"coefficient": 0.1, "masked_entropy_coefficient": 0.1}}, "has no gradient"),
        ({"perception": {"entropy_coefficient": 0.1}}, "need perception.coefficient"),
    ],
)
def test_combinations_that_can_not_work_are_refused_with_a_sentence(keys, sentence):
    with pytest.raises(ValueError, match=sentence):
        GrpoSection(**keys)


SHARDED = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from infimmr_jax.config import GrpoSection
from infimmr_jax.objectives.advantages import ESTIMATORS, advantages, init_estimator_state
from infimmr_jax.objectives.objective import AGGREGATIONS, OBJECTIVES, denominators, policy_loss
jax.config.update("jax_enable_x64", True)
assert jax.device_count() == 8
P, G, R = 16, 3, 5
rng = np.random.default_rng(0)
rewards, logprobs = rng.random((P, G)), -rng.random((P, G, R))
old, mask = logprobs + rng.normal(size=(P, G, R)), rng.random((P, G, R)) < 0.6
task = rng.integers(0, 3, P)
across = NamedSharding(Mesh(np.array(jax.devices()), ("data",)), PartitionSpec("data"))
def step(config):
    def whole(rewards, logprobs, old, mask, task):
        parts = {"accuracy": rewards, "format": rewards**2}
        state = init_estimator_state(3)
        A, state = advantages(rewards, parts, {"accuracy": 0.9, "format": 0.1}, config, state, task)
        def loss(x):
            return policy_loss(x, old, A, mask, config, denominators=denominators(mask))[0]
        return jax.value_and_grad(loss)(logprobs), A, state
    return jax.jit(whole)
settings = [dict(estimator=e) for e in ESTIMATORS]
settings += [dict(objective=o, aggregation=a) for o in OBJECTIVES for a in AGGREGATIONS]
for keys in settings:
    run, inputs = step(GrpoSection(**keys)), (rewards, logprobs, old, mask, task)
    one, eight = run(*inputs), run(*(jax.device_put(x, across) for x in inputs))
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(eight), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14, err_msg=str(keys))
print("equal on", len(settings), "settings")
"""


@pytest.mark.slow
def test_one_device_and_eight_give_the_same_numbers():
    assert "equal on 23 settings" in on_eight_devices(SHARDED)
