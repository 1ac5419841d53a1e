"""Attention against a float64 formula, in blocks, and by the kernels; values and gradients."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from devices import on_eight_devices

from infimmr_jax.model import attention, splash
from infimmr_jax.model.attention import choose_attention
from infimmr_jax.model.splash import BranchMask

P, G, K, Q, D = 2, 3, 2, 2, 16
H = K * Q


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def float64_attention(q, k, v, visible):
    """softmax(q k^T / sqrt(D)) v for q [T, D], k [S, D], visible [T, S]."""
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    scores = np.where(visible, q @ k.T / np.sqrt(q.shape[-1]), -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True) @ v


def trunk_case(S=20):
    lengths = np.array([S, S - 7])
    q, k, v = numbers(P, S, H, D), numbers(P, K, S, D, seed=1), numbers(P, K, S, D, seed=2)
    return (q, k, v), np.arange(S) < lengths[:, None]


def packed_case(S=20):
    """Two sequences in every row, and padding behind the second row's."""
    args, mask = trunk_case(S)
    return args, np.where(mask, 1 + (np.arange(S) >= S // 3), 0).astype(np.int32)


def packed_attention(q, k, v, segments, implementation="xla"):
    return attention.trunk_attention(q, k, v, segments > 0, implementation, segments)


def branch_case(S=20, R=7):
    (_, trunk_k, trunk_v), mask = trunk_case(S)
    q = numbers(P, G, R, H, D, seed=3)
    k, v = numbers(P, G, K, R, D, seed=4), numbers(P, G, K, R, D, seed=5)
    return (q, k, v, trunk_k, trunk_v), mask


def vision_case(T=24):
    return tuple(numbers(P, T, H, D, seed=seed) for seed in range(3)), np.random.default_rng(9).random((P, T)) < 0.7


def test_vision_is_the_formula():
    (q, k, v), mask = vision_case()
    out = attention.vision_attention(q, k, v, mask)
    for p in range(P):
        for h in range(H):
            expected = float64_attention(q[p, :, h], k[p, :, h], v[p, :, h], mask[p][None])
            np.testing.assert_allclose(out[p, :, h], expected, atol=2e-6)


def test_trunk_is_the_formula():
    (q, k, v), mask = trunk_case()
    out = attention.trunk_attention(q, k, v, mask)
    causal = np.tril(np.ones((20, 20), bool))
    for p in range(P):
        for h in range(H):
            expected = float64_attention(q[p, :, h], k[p, h // Q], v[p, h // Q], causal & mask[p])
            np.testing.assert_allclose(out[p, :, h], expected, atol=2e-6)


def test_packed_sequences_are_the_formula_of_each_alone():
    (q, k, v), segments = packed_case()
    out = packed_attention(q, k, v, segments)
    for p in range(P):
        for own in (1, 2):
            here = segments[p] == own
            for h in range(H):
                causal = np.tril(np.ones((here.sum(), here.sum()), bool))
                expected = float64_attention(q[p, here, h], k[p, h // Q][here], v[p, h // Q][here], causal)
                np.testing.assert_allclose(out[p, here, h], expected, atol=2e-6)


def test_branches_are_the_formula_and_decoding_is_their_last_row():
    (q, k, v, trunk_k, trunk_v), mask = branch_case()
    out = attention.branch_attention(q, k, v, trunk_k, trunk_v, mask)
    for p in range(P):
        for g in range(G):
            for h in range(H):
                keys = np.concatenate([trunk_k[p, h // Q], k[p, g, h // Q]])
                values = np.concatenate([trunk_v[p, h // Q], v[p, g, h // Q]])
                visible = np.concatenate([np.broadcast_to(mask[p], (7, 20)), np.tril(np.ones((7, 7), bool))], axis=1)
                expected = float64_attention(q[p, g, :, h], keys, values, visible)
                np.testing.assert_allclose(out[p, g, :, h], expected, atol=2e-6)
    for last in (0, 4):
        one = attention.decode_attention(q[:, :, last], k, v, trunk_k, trunk_v, mask, jnp.int32(last))
        np.testing.assert_allclose(one, out[:, :, last], atol=1e-6)


def weighed(function, args, mask, read):
    """Output, and gradients of a weighted sum over the rows that anybody reads."""
    out = jax.jit(function)(*args)
    weights = numbers(*out.shape, seed=8) * read
    return out * read, jax.jit(jax.grad(lambda *a: (function(*a) * weights).sum(), argnums=range(len(args))))(*args)


def assert_same(one, other, bound):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert np.abs(np.asarray(a) - np.asarray(b)).max() < bound * max(1.0, np.abs(b).max())


CASES = {
    "vision": (vision_case, attention.vision_attention, lambda mask: mask[:, :, None, None]),
    "trunk": (trunk_case, attention.trunk_attention, lambda mask: mask[:, :, None, None]),
    "packed": (packed_case, packed_attention, lambda segments: (segments > 0)[:, :, None, None]),
    "branch": (branch_case, attention.branch_attention, lambda mask: 1.0),
}


@pytest.mark.parametrize("form", CASES)
def test_blocks_of_queries_change_nothing(form, monkeypatch):
    case, function, read = CASES[form]
    args, mask = case(37)
    whole = weighed(lambda *a: function(*a, mask), args, mask, read(mask))
    monkeypatch.setattr(attention, "SCORES_AT_ONCE", 64)
    assert_same(weighed(lambda *a: function(*a, mask), args, mask, read(mask)), whole, 1e-5)


def test_long_sequences_never_hold_all_scores():
    """4096 tokens of 4 heads are 256 MiB of float32 scores; blocks need a fraction of it, gradients included."""
    shapes = [jax.ShapeDtypeStruct(s, jnp.float32) for s in ((1, 4096, H, D), (1, K, 4096, D), (1, K, 4096, D))]

    def loss(q, k, v):
        return (attention.trunk_attention(q, k, v, jnp.ones((1, 4096), bool)) ** 2).sum()

    memory = jax.jit(jax.grad(loss, argnums=(0, 1, 2))).lower(*shapes).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 64 * 2**20


@pytest.mark.slow
@pytest.mark.parametrize("form", CASES)
def test_splash_equals_xla(form, monkeypatch):
    """In the kernel's interpret mode, with lengths that no block divides."""
    monkeypatch.setattr(splash, "INTERPRET", True)
    case, function, read = CASES[form]
    args, mask = case(150, 140) if form == "branch" else case(150)
    expected = weighed(lambda *a: function(*a, mask), args, mask, read(mask))
    found = weighed(lambda *a: function(*a, mask, "splash"), args, mask, read(mask))
    assert_same(found, expected, 2e-5)


@pytest.mark.slow
def test_splash_on_eight_devices_equals_xla_on_one():
    """Rows over (data, fsdp) and heads over tensor, under the mesh in use; in a process of its own."""
    program = """
        import jax, numpy as np
        from infimmr_jax.config import MeshSection
        from infimmr_jax.model import attention, splash
        from infimmr_jax.parallel.mesh import make_mesh, shard_batch
        from test_attention import branch_case, numbers
        splash.INTERPRET = True
        args, mask = branch_case(130, 128)
        args, mask = jax.tree.map(lambda x: np.concatenate([x, x[::-1]]), (args, mask))
        expected = jax.jit(attention.branch_attention)(*args, mask)
        mesh = make_mesh(MeshSection(data=2, fsdp=2, tensor=2))
        with jax.set_mesh(mesh):
            found = jax.jit(lambda *a: attention.branch_attention(*a, "splash"))(*shard_batch((*args, mask), mesh))
        assert len(found.sharding.device_set) == 8
        np.testing.assert_allclose(found, expected, atol=2e-5)
    """
    on_eight_devices(program, Path(__file__).parent)


def test_branch_mask_is_trunk_and_own_past():
    mask = BranchMask(trunk=4, branches=2, length=3)
    dense = mask[0:6, 0:10].astype(int)
    assert mask.shape == (6, 10)
    assert dense.tolist() == [
        [1, 1, 1, 1, 1, 0, 0, 0, 0, 0],
        [1, 1, 1, 1, 1, 1, 0, 0, 0, 0],
        [1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 0, 0, 0, 1, 0, 0],
        [1, 1, 1, 1, 0, 0, 0, 1, 1, 0],
        [1, 1, 1, 1, 0, 0, 0, 1, 1, 1],
    ]
    assert np.array_equal(mask[2:5, 3:9], dense[2:5, 3:9])
    assert mask == BranchMask(4, 2, 3)
    assert hash(mask) == hash(BranchMask(4, 2, 3))


def test_choice_of_implementation(monkeypatch):
    assert choose_attention("auto", jnp.dtype("float32")) == "xla"
    assert choose_attention("splash", jnp.dtype("float32")) == "splash"
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert choose_attention("auto", jnp.dtype("bfloat16")) == "cudnn"
    assert choose_attention("auto", jnp.dtype("float32")) == "xla"
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    assert choose_attention("auto", jnp.dtype("float32")) == "splash"
    with pytest.raises(ValueError, match="choose one of auto, xla, splash, cudnn"):
        choose_attention("flash", jnp.dtype("float32"))
    with pytest.raises(ValueError, match="bfloat16"):
        choose_attention("cudnn", jnp.dtype("float32"))


@pytest.mark.skipif(jax.default_backend() != "gpu", reason="cuDNN needs an NVIDIA GPU")
def test_cudnn_equals_xla():
    args, mask = trunk_case(200)
    args = tuple(jnp.asarray(np.repeat(x, 4, axis=-1), jnp.bfloat16) for x in args)
    read = mask[:, :, None, None]
    expected = weighed(lambda *a: attention.trunk_attention(*a, mask), args, mask, read)
    found = weighed(lambda *a: attention.trunk_attention(*a, mask, "cudnn"), args, mask, read)
    assert_same(found, expected, 2e-2)
