"""Reading compiled programs: against formulas, and against XLA's own count of a program without loops."""

import jax
import jax.numpy as jnp
import pytest

from infimmr_jax.plan import hlo

B, E, LAYERS = 32, 64, 5


def product(x, w):
    return jnp.tanh(x @ w)


def totals(text):
    module = hlo.parse_module(text)
    flops = sum(hlo.flops(module, i, c) * times for i, c, times in hlo.walk(module))
    return flops, sum(hlo.memory_bytes(module, i, c) * times for i, c, times in hlo.walk(module))


@pytest.fixture(scope="module")
def scanned():
    def run(x, weights):
        return jax.lax.scan(lambda x, w: (product(x, w), None), x, weights)[0]

    shapes = (jax.ShapeDtypeStruct((B, E), jnp.float32), jax.ShapeDtypeStruct((LAYERS, E, E), jnp.float32))
    return jax.jit(run).lower(*shapes).compile()


def test_a_loop_counts_as_often_as_it_runs(scanned):
    flops, _ = totals(scanned.as_text())
    assert flops == 2 * B * E * E * LAYERS
    # What XLA says itself counts the body once.
    assert scanned.cost_analysis()["flops"] < 2 * flops / LAYERS


def test_bytes_are_those_of_weights_and_rows(scanned):
    _, moved = totals(scanned.as_text())
    once = LAYERS * (E * E + 2 * B * E) * 4
    assert once <= moved <= 3 * once


def test_without_loops_flops_are_xlas_own():
    shapes = jax.ShapeDtypeStruct((B, E), jnp.float32), jax.ShapeDtypeStruct((E, 2 * E), jnp.float32)
    compiled = jax.jit(jnp.matmul).lower(*shapes).compile()
    assert totals(compiled.as_text())[0] == compiled.cost_analysis()["flops"] == 2 * B * E * 2 * E


# As the TPU compiler writes them: products are convolutions, trip counts stand in conditions, kernels span lines.
TPU_TEXT = """HloModule example, is_scheduled=true

%fused (p0: bf16[4,64,128], p1: s32[], p2: bf16[32,64]) -> bf16[32,128] {
  %p0 = bf16[4,64,128]{2,1,0:T(8,128)(2,1)} parameter(0)
  %p1 = s32[]{:T(128)} parameter(1)
  %zero = s32[]{:T(128)} constant(0)
  %slice = bf16[1,64,128]{2,1,0} dynamic-slice(%p0, %p1, %zero, %zero), dynamic_slice_sizes={1,64,128}
  %weight = bf16[64,128]{1,0} bitcast(%slice)
  %p2 = bf16[32,64]{1,0:T(8,128)(2,1)S(1)} parameter(2)
  ROOT %conv = bf16[32,128]{1,0:T(8,128)(2,1)} convolution(%p2, %weight), dim_labels=bf_io->bf, metadata={op_name="a/b"}
}

%body (arg: (s32[], bf16[4,64,128], bf16[32,64])) -> (s32[], bf16[4,64,128], bf16[32,64]) {
  %arg = (s32[]{:T(128)}, bf16[4,64,128]{2,1,0}, /*index=2*/bf16[32,64]{1,0:T(8,128)(2,1)S(1)}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%arg), index=0
  %w = bf16[4,64,128]{2,1,0:T(8,128)(2,1)} get-tuple-element(%arg), index=1
  %x = bf16[32,64]{1,0:T(8,128)(2,1)S(1)} get-tuple-element(%arg), index=2
  %out = bf16[32,128]{1,0:T(8,128)} fusion(%w, %i, %x), calls=%fused, metadata={op_name="jit(f)/DecoderLayer.trunk/q"}
  %shared = bf16[256,128]{1,0} all-gather(%out), channel_id=1, replica_groups=mesh['a'=2,'b'=8] {'b'}, dimensions={0}
  %sum = f32[16,128]{1,0} all-reduce(%part), replica_groups=[4,4]<=[16], to_apply=%add
  %part = f32[16,128]{1,0} parameter(1)
  ROOT %next = (s32[], bf16[4,64,128], bf16[32,64]) tuple(%i, %w, %x)
}

%condition (arg.1: (s32[], bf16[4,64,128], bf16[32,64])) -> pred[] {
  %limit = s32[]{:T(128)} constant(4), metadata={op_name="while"}
  %arg.1 = (s32[]{:T(128)}, bf16[4,64,128]{2,1,0}, bf16[32,64]{1,0}) parameter(0)
  %count = s32[]{:T(128)} get-tuple-element(%arg.1), index=0
  ROOT %less = pred[]{:T(512)} compare(%count, %limit), direction=LT
}

ENTRY %main (w0: bf16[4,64,128]) -> bf16[16,512,128] {
  %w0 = bf16[4,64,128]{2,1,0} parameter(0)
  %start = (s32[], bf16[4,64,128], bf16[32,64]) tuple(%w0)
  %loop = (s32[], bf16[4,64,128], bf16[32,64]) while(%start), condition=%condition, body=%body
  %grid = s8[1,1,1]{2,1,0} constant({...})
  %q = bf16[16,512,128]{2,1,0} parameter(1)
  %k = bf16[2,512,128]{2,1,0} parameter(2)
  ROOT %splash_mha_fwd.1 = bf16[16,512,128] custom-call(%grid, %q, %k, %k), frontend_attributes={kernel_metadata={
    "name": "a kernel"
}}, metadata={op_name="jit(f)/DecoderLayer.branch/pallas_call"}
}
"""


def test_an_unrolled_loop_counts_by_what_it_adds_to_its_counter():
    # Two pieces of a product a turn, as the compiler makes of products whose pieces go round a ring.
    two = "  %two = s32[]{:T(128)} constant(2)\n  %j = s32[]{:T(128)} add(%i, %two)\n  ROOT %next"
    text = TPU_TEXT.replace("  ROOT %next", two).replace("tuple(%i, %w, %x)", "tuple(%j, %w, %x)")
    times = [times for item, _, times in hlo.walk(hlo.parse_module(text)) if item.opcode == "fusion"]
    assert times == [2]


def test_the_tpu_compilers_text_is_read():
    module = hlo.parse_module(TPU_TEXT)
    rows = list(hlo.walk(module))
    fusion, inside, times = next(row for row in rows if row[0].opcode == "fusion")
    assert (fusion.scope, times) == ("jit(f)/DecoderLayer.trunk/q", 4)
    assert hlo.flops(module, fusion, inside) == 2 * 32 * 64 * 128
    # One layer's slice is read, not the stack; x lies on the chip; the result is written.
    assert hlo.memory_bytes(module, fusion, inside) == (64 * 128 + 32 * 128) * 2 + 4
    found = [hlo.collective(i, c) for i, c, _ in rows]
    gather, reduced = [one for one in found if one is not None]
    assert (gather.kind, gather.group, gather.sent) == ("all-gather", 8, 7 * 32 * 128 * 2)
    assert (reduced.kind, reduced.group, reduced.sent) == ("all-reduce", 4, 2 * 3 / 4 * 16 * 128 * 4)
    kernel, around, _ = rows[-1]
    assert kernel.scope.endswith("DecoderLayer.branch/pallas_call")
    assert hlo.flops(module, kernel, around) == 2 * 2 * 16 * 512 * 512 * 128


def test_a_convolution_counts_no_padding():
    text = """HloModule m

ENTRY %main (a: f32[1,8,3], b: f32[3,3,5]) -> f32[1,8,5] {
  %a = f32[1,8,3]{2,1,0} parameter(0)
  %b = f32[3,3,5]{2,1,0} parameter(1)
  ROOT %c = f32[1,8,5]{2,1,0} convolution(%a, %b), window={size=3 pad=1_1}, dim_labels=b0f_0io->b0f
}
"""
    module = hlo.parse_module(text)
    (_, _, _), (_, _, _), (instruction, computation, _) = hlo.walk(module)
    assert hlo.flops(module, instruction, computation) == 2 * (3 * 8 - 2) * 3 * 5


@pytest.mark.parametrize(
    ("groups", "size"),
    [
        ("replica_groups={{0,1,2,3},{4,5,6,7}}", 4),
        ("replica_groups=[2,8]<=[16]", 8),
        ("replica_groups=mesh['x'=4,'y'=2] {'x','y'}", 8),
        ("no groups", 1),
    ],
)
def test_groups_are_read_in_every_notation(groups, size):
    assert hlo.group_size(groups) == size


def test_loops_with_one_counter_make_every_turn_once():
    def run(x):
        for limit in (4, 9, 9):
            with jax.named_scope("decode"):
                state = (jnp.int32(0), x)
                more = lambda s, limit=limit: s[0] < limit  # noqa: E731
                x = jax.lax.while_loop(more, lambda s: (s[0] + 1, jnp.tanh(s[1] @ s[1])), state)[1]
        return x

    module = hlo.parse_module(jax.jit(run).lower(jax.ShapeDtypeStruct((E, E), jnp.float32)).compile().as_text())

    def products(**options):
        rows = hlo.walk(module, **options)
        return sum(hlo.flops(module, i, c) * times for i, c, times in rows) / (2 * E**3)

    assert products() == 4 + 9 + 9
    assert products(one_counter="decode") == 9
    assert products(one_counter="something else") == 4 + 9 + 9
