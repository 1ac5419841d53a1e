"""Logits against transformers' torch model in float32, over trunk and branch, for every kind of prompt."""

import copy
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pair import SMALL, SMALL_VISION, assert_close, make_pair

from infimmr_jax.model.options import ModelOptions
from infimmr_jax.model.rope_scaling import LinearScaling, Llama3Scaling, YarnScaling

pytestmark = pytest.mark.parity


def prompts_of(pair, case):
    return {
        "text": lambda: [pair.image("how many cats")],
        "one image": lambda: [pair.image("what is in the picture", (4, 6))],
        "two unequal images": lambda: [pair.image("<image> and <image> how many", (6, 10), (2, 4))],
        "odd aspect": lambda: [pair.image("how many", (2, 26))],
        "video": lambda: [pair.video("what is the sum", (3, 4, 6), 0.5)],
        "mixed padded batch": lambda: [
            pair.image("how many cats are in the picture and what is the sum of the numbers"),
            pair.image("what", (6, 6)),
            pair.image("<image> and <image> how many", (4, 10), (10, 2)),
            pair.video("sum", (2, 6, 4), 1.0),
        ],
    }[case]()


CASES = ["text", "one image", "two unequal images", "odd aspect", "video", "mixed padded batch"]


def responses_for(pair, rows, length=5):
    return np.random.default_rng(1).integers(10, 250, size=(rows, length)).astype(np.int32)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    "which",
    ["tied", pytest.param("untied", marks=pytest.mark.slow), pytest.param("real_heads", marks=pytest.mark.slow)],
)
def test_logits(which, case, request):
    pair = request.getfixturevalue(which)
    prompts = prompts_of(pair, case)
    responses = responses_for(pair, len(prompts))
    ours = pair.our_logits(pair.batch(prompts), responses)
    assert_close(ours, pair.torch_logits(prompts, responses), 1e-4)


@pytest.mark.parametrize("kind", ["yarn", *(pytest.param(k, marks=pytest.mark.slow) for k in ("linear", "llama3"))])
def test_logits_with_rotary_scaling(kind):
    """Every kind changes the logits by far more than the bound, and both models change alike."""
    scaling = {
        "linear": LinearScaling(4.0),
        "yarn": YarnScaling(4.0, 64),
        "llama3": Llama3Scaling(8.0, 1.0, 4.0, 64),
    }[kind]
    pair = make_pair(SMALL | {"rope_scaling": scaling}, SMALL_VISION)
    prompts = prompts_of(pair, "one image")
    responses = responses_for(pair, len(prompts))
    ours, theirs = pair.our_logits(pair.batch(prompts), responses), pair.torch_logits(prompts, responses)
    assert_close(ours, theirs, 1e-4)
    plain = make_pair(SMALL, SMALL_VISION).torch_logits(prompts, responses)
    assert np.abs(theirs[0] - plain[0]).max() > 0.1


@pytest.mark.slow
def test_padding_side_of_torch_does_not_matter(tied):
    prompts = prompts_of(tied, "mixed padded batch")
    responses = responses_for(tied, len(prompts))
    ours = tied.our_logits(tied.batch(prompts, 5, 61, (4, 160)), responses)
    assert_close(ours, tied.torch_logits(prompts, responses, left=True), 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("mrope sections in another order", lambda c: {"text": dataclasses.replace(c.text, mrope_section=(4, 2, 6))}),
        ("no mrope", lambda c: {"text": dataclasses.replace(c.text, mrope_section=(12, 0, 0))}),
        ("another theta", lambda c: {"text": dataclasses.replace(c.text, rope_theta=9e3)}),
        ("another eps", lambda c: {"text": dataclasses.replace(c.text, rms_norm_eps=1e-2)}),
        ("a full layer too many", lambda c: {"vision": dataclasses.replace(c.vision, fullatt_block_indexes=(0, 1, 3))}),
        ("a full layer too few", lambda c: {"vision": dataclasses.replace(c.vision, fullatt_block_indexes=(3,))}),
    ],
)
def test_a_wrong_architecture_is_noticed(tied, what, change):
    prompts = prompts_of(tied, "two unequal images")
    responses = responses_for(tied, 1)
    wrong = dataclasses.replace(tied.config, **change(tied.config))
    right = tied.our_logits(tied.batch(prompts), responses)[0]
    other = dataclasses.replace(tied, config=wrong).our_logits(tied.batch(prompts), responses)[0]
    assert np.abs(right - other).max() > 1e-3, what


@pytest.mark.parametrize("field", ["patches", "patch_positions", "image_index", "positions"])
def test_a_wrong_order_is_noticed(tied, field):
    prompts = prompts_of(tied, "one image")
    responses = responses_for(tied, 1)
    batch = tied.batch(prompts)
    value = np.array(getattr(batch, field))
    if field == "patches":  # Exchange two patches of different windows.
        value[0, 0, [0, 16]] = value[0, 0, [16, 0]]
    elif field == "patch_positions":
        value = value[..., ::-1]
    elif field == "image_index":
        value[0, value[0] >= 0] = value[0, value[0] >= 0][::-1]
    else:
        value = value[:, [0, 2, 1]]
    right = tied.our_logits(batch, responses)[0]
    other = tied.our_logits(batch.replace(**{field: value}), responses)[0]
    assert np.abs(right - other).max() > 1e-3


@pytest.mark.slow
def test_bfloat16_is_as_close_as_torch_is(tied):
    """Both in bfloat16 against torch in float32: ours may be off by little more than torch's own rounding."""
    prompts = prompts_of(tied, "mixed padded batch")
    responses = responses_for(tied, len(prompts))
    exact = tied.torch_logits(prompts, responses)
    half = dataclasses.replace(tied, torch_model=copy.deepcopy(tied.torch_model).bfloat16())
    theirs = half.torch_logits(prompts, responses)
    options = ModelOptions(compute_dtype=jnp.dtype("bfloat16"), param_dtype=jnp.dtype("bfloat16"))
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), tied.params)
    ours = dataclasses.replace(tied, params=params).our_logits(tied.batch(prompts), responses, options)

    def error(found):
        return np.sqrt(np.mean([np.mean((a - b[: len(a)]) ** 2) for a, b in zip(found, exact, strict=True)]))

    assert error(ours) < 1.2 * error(theirs)
    assert error(ours) > 1e-3  # It really was computed in bfloat16.
