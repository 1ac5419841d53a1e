"""One trunk with G branches is the repeated prompt, in log-probs and gradients; how it is computed changes nothing."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_model
from devices import on_eight_devices
from tiny_model import layout, mixed_batch, mixed_prompts, random_params, tiny

from infimmr_jax.model.logprobs import token_logprobs
from infimmr_jax.model.options import REMAT_POLICIES
from infimmr_jax.rollout.sampler import sample
from infimmr_jax.rollout.state import SampleSettings

G, R = 3, 5


@pytest.fixture(scope="module")
def model():
    return tiny()


@pytest.fixture(scope="module")
def params(model):
    return random_params(model)


def responses(rows=3, groups=G, length=R):
    return np.random.default_rng(5).integers(5, 250, size=(rows, groups, length)).astype(np.int32)


def branch_logprobs(params, model, batch, tokens):
    """Log-probs of G responses a prompt over one trunk: what training computes."""
    trunk = model.trunk(params, batch)
    hidden = model.branch(params, trunk, tokens)
    allowed = jnp.ones(model.vocab_size, bool)
    return token_logprobs(hidden, model.head_kernel(params), tokens, allowed, chunk=7)[0]


log_probs_of = jax.jit(branch_logprobs, static_argnums=1)


def repeated_logprobs(params, model, batch, tokens):
    """The same without trunk and branches: every prompt repeated G times with its response behind it, one forward."""
    P, groups, length = tokens.shape
    S = batch.tokens.shape[1]
    rows = []
    for p in range(P):
        for g in range(groups):
            n = int(batch.lengths[p])
            ids, positions = np.zeros(S + length, np.int32), np.zeros((3, S + length), np.int32)
            shown = np.full(S + length, -1, np.int32)
            ids[:n], positions[:, :n] = batch.tokens[p, :n], batch.positions[p, :, :n]
            ids[n : n + length] = [batch.bridge[p], *tokens[p, g, :-1]]
            positions[:, n : n + length] = batch.next_position[p] + np.arange(length)
            shown[:n] = batch.image_index[p, :n]
            rows.append((ids, positions, shown, n + length))
    ids, positions, shown, lengths = (np.stack(column) for column in zip(*rows, strict=True))
    names = ("bridge", "next_position", "patches", "patch_positions", "patch_mask", "row_mask")
    rest = {name: np.repeat(getattr(batch, name), groups, axis=0) for name in names}
    long = batch.replace(tokens=ids, positions=positions, image_index=shown, lengths=lengths, **rest)
    hidden, _ = model.prompt_hidden(params, long)
    log_probs = jax.nn.log_softmax(model.logits(params, hidden), axis=-1)
    starts = jnp.repeat(jnp.asarray(batch.lengths), groups)
    picked = jnp.take_along_axis(log_probs, (starts[:, None] + jnp.arange(length))[..., None], axis=1)
    return jnp.take_along_axis(picked, tokens.reshape(P * groups, length, 1), axis=-1).reshape(P, groups, length)


def value_and_gradient(function, params, model, batch, tokens):
    """Log-probs, and the gradient of a sum that weighs every token differently."""
    weights = np.random.default_rng(6).normal(size=tokens.shape).astype(np.float32)

    @jax.jit
    def run(params):
        def loss(params):
            log_probs = function(params, model, batch, tokens)
            return (log_probs * weights).sum(), log_probs

        return jax.value_and_grad(loss, has_aux=True)(params)

    (_, log_probs), gradient = run(jax.tree.map(jnp.asarray, params))
    return log_probs, gradient


def assert_equal_trees(ours, theirs, bound=1e-5):
    largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(theirs))
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(ours), jax.tree.leaves(theirs), strict=True):
        assert np.abs(a - b).max() < bound * max(np.abs(b).max(), 1e-2 * largest), jax.tree_util.keystr(path)


@pytest.fixture(scope="module")
def reference(model, params):
    """Log-probs of the scanned model."""
    return log_probs_of(params, model, mixed_batch(), responses())


@pytest.fixture(scope="module")
def differentiated(model, params):
    """Log-probs and gradient of the scanned model without remat."""
    return value_and_gradient(branch_logprobs, params, model, mixed_batch(), responses())


def test_branches_over_one_trunk_are_the_repeated_prompt(model, params, reference):
    repeated = jax.jit(lambda params: repeated_logprobs(params, model, mixed_batch(), responses()))
    np.testing.assert_allclose(reference, repeated(params), atol=1e-5)


@pytest.mark.slow
def test_so_is_their_gradient(model, params, differentiated):
    log_probs, gradient = value_and_gradient(repeated_logprobs, params, model, mixed_batch(), responses())
    np.testing.assert_allclose(differentiated[0], log_probs, atol=1e-5)
    assert_equal_trees(differentiated[1], gradient, 2e-5)
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradient))


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [{"scan": False}, *({"remat": name} for name in REMAT_POLICIES)],
    ids=str,
)
def test_scan_and_remat_change_nothing(params, differentiated, options):
    log_probs, gradient = value_and_gradient(branch_logprobs, params, tiny(**options), mixed_batch(), responses())
    np.testing.assert_allclose(differentiated[0], log_probs, atol=1e-5)
    assert_equal_trees(differentiated[1], gradient)


@pytest.mark.slow
def test_unrolled_forward_equals_scanned(params, reference):
    unrolled = tiny(scan=False)
    np.testing.assert_allclose(log_probs_of(params, unrolled, mixed_batch(), responses()), reference, atol=1e-5)


def test_bucket_size_and_filler_rows_change_nothing(model, params, reference):
    larger = mixed_batch(length=61, images=(5, 96), rows=4)
    filler = np.concatenate([responses(), responses()[:1]])
    log_probs = log_probs_of(params, model, larger, filler)
    np.testing.assert_allclose(log_probs[:3], reference, atol=1e-5)


def test_what_lies_in_padding_is_never_read(model, params, reference):
    batch = mixed_batch()
    past = np.arange(batch.tokens.shape[1]) >= batch.lengths[:, None]
    dirty = batch.replace(
        tokens=np.where(past, 7, batch.tokens),
        positions=np.where(past[:, None], 99, batch.positions),
        patches=np.where(batch.patch_mask[..., None], batch.patches, 1e3).astype(np.float32),
        patch_positions=np.where(batch.patch_mask[..., None], batch.patch_positions, 50).astype(np.int32),
    )
    log_probs = log_probs_of(params, model, dirty, responses())
    np.testing.assert_array_equal(log_probs, reference)


def test_a_row_does_not_depend_on_its_neighbours(model, params, reference):
    batch = mixed_batch()
    order = np.array([2, 0, 1])
    turned = jax.tree.map(lambda leaf: leaf[order], batch)
    log_probs = log_probs_of(params, model, turned, responses()[order])
    np.testing.assert_allclose(log_probs, reference[order], atol=1e-5)


def test_text_without_image_slots_is_the_zero_image_case(model, params, reference):
    from infimmr_jax.preprocess.batching import collate

    batch = collate(mixed_prompts()[:1], 1, 48, (0, 0), layout())
    log_probs = log_probs_of(params, model, batch, responses()[:1])
    np.testing.assert_allclose(log_probs, reference[:1], atol=1e-5)


def test_prefill_and_decode_are_the_full_forward(model, params):
    """Log-probs that the sampler records token by token are those of the teacher-forced branches."""
    settings = SampleSettings(group_size=G, max_response=12)
    allowed = np.ones(model.vocab_size, bool)
    allowed[model.tokens.eos] = False
    run = jax.jit(sample, static_argnums=(1, 2))
    drawn, _ = run(params, model, settings, mixed_batch(), allowed, jax.random.key(3))

    @jax.jit
    def full(params, tokens):
        trunk = model.trunk(params, mixed_batch())
        hidden = model.branch(params, trunk, tokens)
        return token_logprobs(hidden, model.head_kernel(params), tokens, allowed)[0]

    assert np.asarray(drawn.mask).all()
    assert len(np.unique(drawn.tokens)) > 20
    np.testing.assert_allclose(full(params, drawn.tokens), drawn.logprobs, atol=1e-5)


def test_bfloat16_compute_stays_close(params, reference):
    half = tiny(compute_dtype=jnp.dtype("bfloat16"))
    log_probs = log_probs_of(params, half, mixed_batch(), responses())
    assert log_probs.dtype == jnp.float32
    error = np.abs(log_probs - reference)
    assert 1e-4 < error.mean() < 0.05
    assert error.max() < 0.3


def test_untied_heads_use_their_own_matrix(params):
    untied = tiny(tied=False)
    own = random_params(untied)
    hidden = np.random.default_rng(0).normal(size=(2, 64)).astype(np.float32)
    np.testing.assert_allclose(
        untied.logits(own, jnp.asarray(hidden)), hidden @ own["decoder"]["lm_head"]["kernel"], atol=1e-4
    )
    np.testing.assert_allclose(
        tiny().logits(params, jnp.asarray(hidden)),
        hidden @ params["decoder"]["embed"]["embedding"].T,
        atol=1e-4,
    )


@pytest.mark.slow
def test_eight_devices_equal_one():
    """Log-probs and gradient of 8 prompts on 8 virtual devices against one device, in a process of its own."""
    program = """
        import jax, numpy as np
        from infimmr_jax.config import MeshSection
        from infimmr_jax.parallel.mesh import make_mesh, parameter_shardings, shard_batch
        from test_trunk_branch import branch_logprobs, responses
        from tiny_model import mixed_batch, random_params, tiny
        assert len(jax.devices()) == 8
        model = tiny()
        batch, tokens = mixed_batch(rows=8), responses(8)
        weights = np.random.default_rng(6).normal(size=tokens.shape).astype(np.float32)

        @jax.jit
        def step(params, batch, tokens, weights):
            def loss(params):
                log_probs = branch_logprobs(params, model, batch, tokens)
                return (log_probs * weights).sum(), log_probs
            return jax.value_and_grad(loss, has_aux=True)(params)

        def run(devices, section):
            mesh = make_mesh(section, devices)
            params = random_params(model)
            params = jax.device_put(params, parameter_shardings(params, mesh))
            (_, log_probs), gradient = step(params, *shard_batch((batch, tokens, weights), mesh))
            return jax.tree.map(np.asarray, (log_probs, gradient))

        one = run(jax.devices()[:1], MeshSection())
        largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(one[1]))
        for sizes in ((8, 1, 1), (2, 2, 2), (1, 4, 2)):
            eight = run(jax.devices(), MeshSection(**dict(zip(("data", "fsdp", "tensor"), sizes))))
            np.testing.assert_allclose(eight[0], one[0], atol=1e-5, err_msg=str(sizes))
            for a, b in zip(jax.tree.leaves(eight[1]), jax.tree.leaves(one[1]), strict=True):
                assert np.abs(a - b).max() < 1e-5 * max(np.abs(b).max(), 1e-1 * largest), (sizes, np.abs(a - b).max())
    """
    on_eight_devices(program, Path(__file__).parent)


def test_repeated_batches_share_an_executable(model, params):
    """Text, one image and two images in one bucket are one compilation."""
    from infimmr_jax.preprocess.batching import collate

    log_probs_of(params, model, mixed_batch(), responses())
    before = log_probs_of._cache_size()
    for prompt in mixed_prompts():
        log_probs_of(params, model, collate([prompt], 3, 48, (3, 64), layout()), responses())
    assert log_probs_of._cache_size() == before


def test_a_model_is_a_static_argument():
    assert hash(tiny()) == hash(tiny())
    assert dataclasses.replace(tiny()) == tiny()
    assert tiny_model.layout() is tiny_model.layout()
