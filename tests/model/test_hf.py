"""Weights in and out of Hugging Face directories, without torch; tests/parity compares with transformers itself."""

import json
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from devices import on_eight_devices
from safetensors.numpy import load_file, save_file

from infimmr_jax.config import ConfigError, MeshSection, ModelShape
from infimmr_jax.model import hf
from infimmr_jax.model.config import TokenIds, config_from_shape
from infimmr_jax.model.family import Model, read_model
from infimmr_jax.model.hf import convert, load_params, save_params
from infimmr_jax.model.hf_files import is_finite
from infimmr_jax.model.hf_table import TABLE, hub_name, leaf_paths, transformers_name
from infimmr_jax.model.options import PLAIN, ModelOptions
from infimmr_jax.parallel.mesh import make_mesh

TOKENS = TokenIds(pad=0, eos=2, vision_start=3, vision_end=4, image=6, video=7)


def tiny(tied: bool = True, options: ModelOptions = PLAIN) -> Model:
    shape = ModelShape(hidden_size=48, num_layers=2, intermediate_size=40, mrope_section=(2, 2, 2))
    return Model(config_from_shape(shape.model_copy(update={"tie_word_embeddings": tied}), 64, TOKENS), options)


def random_params(model):
    numbers = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: jnp.asarray(numbers.normal(size=leaf.shape), leaf.dtype), model.abstract_params())


def one_device():
    return make_mesh(MeshSection(), jax.devices()[:1])


def assert_same(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for (path, a), (_, b) in zip(leaf_paths(one), leaf_paths(other), strict=True):
        assert a.dtype == b.dtype, path
        assert np.array_equal(np.asarray(a), np.asarray(b)), path


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A tied tiny model and its float32 directory."""
    params = random_params(tiny())
    directory = tmp_path_factory.mktemp("saved") / "model"
    save_params(params, tiny(), directory, dtype="float32")
    return params, directory


def rewritten(directory, target, change):
    """A copy of a one-file model whose tensors went through `change`."""
    target.mkdir()
    tensors = load_file(directory / "model.safetensors")
    save_file(change(tensors) or tensors, target / "model.safetensors")
    (target / "config.json").write_bytes((directory / "config.json").read_bytes())
    return target


def test_every_parameter_has_one_row_and_one_name():
    for tied in (True, False):
        tensors = tiny(tied).tensors()
        assert len({tensor.name for tensor in tensors}) == len(tensors)
        assert any(tensor.name == "lm_head.weight" for tensor in tensors) is not tied
    assert len({path for path, *_ in TABLE}) == len({name for _, name, _ in TABLE}) == len(TABLE)


def test_names_translate_both_ways():
    for tensor in tiny(False).tensors():
        assert hub_name(transformers_name(tensor.name)) == tensor.name == hub_name(tensor.name)
    assert transformers_name("visual.blocks.3.norm1.weight") == "model.visual.blocks.3.norm1.weight"
    assert transformers_name("model.layers.3.mlp.up_proj.weight") == "model.language_model.layers.3.mlp.up_proj.weight"
    assert transformers_name("lm_head.weight") == "lm_head.weight"


@pytest.mark.parametrize("tied", [True, False])
def test_what_is_saved_is_loaded(tied, tmp_path):
    model = tiny(tied)
    params = random_params(model)
    save_params(params, model, tmp_path / "m", dtype="float32", max_shard_bytes=100_000)
    assert len(list((tmp_path / "m").glob("*.safetensors"))) > 2
    assert read_model(tmp_path / "m") == model
    assert_same(load_params(tmp_path / "m", model, one_device()), params)


def test_index_counts_bytes_and_shards_keep_the_limit(tmp_path):
    model = tiny()
    save_params(random_params(model), model, tmp_path / "m", max_shard_bytes=60_000)
    index = json.loads((tmp_path / "m" / "model.safetensors.index.json").read_text())
    sizes = {
        path.name: sum(a.nbytes for a in load_file(path).values()) for path in (tmp_path / "m").glob("*.safetensors")
    }
    assert set(index["weight_map"].values()) == set(sizes)
    assert index["metadata"]["total_size"] == sum(sizes.values())
    largest = max(int(np.prod(tensor.shape)) * 2 for tensor in model.tensors())
    assert max(sizes.values()) <= max(60_000, largest)


def test_dtypes_are_converted(saved, tmp_path):
    params, directory = saved
    half = ModelOptions(param_dtype=jnp.dtype("bfloat16"))
    expected = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params)
    assert_same(load_params(directory, tiny(options=half), one_device()), expected)
    save_params(params, tiny(), tmp_path / "bf16", dtype="bfloat16")
    assert load_file(tmp_path / "bf16" / "model.safetensors")["model.norm.weight"].dtype == ml_dtypes.bfloat16
    assert_same(load_params(tmp_path / "bf16", tiny(options=half), one_device()), expected)
    with pytest.raises(ConfigError, match="int8"):
        save_params(params, tiny(), tmp_path / "no", dtype="int8")


def test_kernel_layout_is_the_one_of_torch(saved):
    params, directory = saved
    tensors = load_file(directory / "model.safetensors")
    q = np.asarray(params["decoder"]["layers"]["q"]["kernel"][1])
    assert np.array_equal(tensors["model.layers.1.self_attn.q_proj.weight"], q.T)
    # out[e] of Conv3d over one patch = sum over channel, frame, row, column.
    patch = np.random.default_rng(0).normal(size=(3, 2, 14, 14)).astype(np.float32)
    conv = np.einsum("ecthw,cthw->e", tensors["visual.patch_embed.proj.weight"], patch)
    ours = patch.reshape(-1) @ np.asarray(params["visual"]["patch_embed"]["kernel"])
    np.testing.assert_allclose(ours, conv, rtol=1e-4, atol=1e-5)


def test_every_fault_is_named_in_one_sentence(saved, tmp_path):
    def spoil(tensors):
        del tensors["visual.merger.ln_q.weight"], tensors["model.layers.1.mlp.up_proj.weight"]
        tensors["model.layers.7.extra.weight"] = np.zeros(3, np.float32)
        tensors["model.norm.weight"] = np.zeros(5, np.float32)
        tensors["visual.blocks.0.attn.qkv.bias"] = tensors["visual.blocks.0.attn.qkv.bias"].astype(np.int32)

    directory = rewritten(saved[1], tmp_path / "m", spoil)
    with pytest.raises(ConfigError) as caught:
        load_params(directory, tiny(), one_device())
    message = str(caught.value)
    assert "2 missing (model.layers.1.mlp.up_proj.weight, visual.merger.ln_q.weight)" in message
    assert "1 unexpected (model.layers.7.extra.weight)" in message
    assert "model.norm.weight is [5] instead of [48]" in message
    assert "visual.blocks.0.attn.qkv.bias is I32" in message


def prefixed(prefix):
    return lambda tensors: {prefix + name: value for name, value in tensors.items()}


def quantised(tensors):
    for name in [name for name in tensors if name.endswith("proj.weight")]:
        tensors[name.replace(".weight", ".qweight")] = np.zeros((4, 4), np.int32)
        tensors[name.replace(".weight", ".scales")] = tensors.pop(name)[:1]


def without_tower(tensors):
    return {name: value for name, value in tensors.items() if not name.startswith("visual.")}


def adapted(tensors):
    kernel = tensors.pop("model.layers.0.self_attn.q_proj.weight")
    tensors["model.layers.0.self_attn.q_proj.base_layer.weight"] = kernel
    tensors["model.layers.0.self_attn.q_proj.lora_A.default.weight"] = kernel[:2].copy()


@pytest.mark.parametrize(
    ("change", "advice"),
    [
        (prefixed("base_model.model."), "adapter: merge it into its base model first"),
        (prefixed("base_model.model.model.language_model."), "adapter: merge it"),
        (prefixed("module."), "their names begin with 'module.', as a wrapper saves them"),
        (prefixed("_orig_mod.module."), "begin with '_orig_mod.module.'"),
        (adapted, "adapter: merge it into its base model first"),
        (quantised, "quantised: give the directory of the bf16 weights"),
        (without_tower, "a part of the model: give all files of it"),
        (lambda tensors: {"w" * 5000: np.zeros(2)}, "give the config.json that belongs to these weights"),
    ],
)
def test_weights_of_another_kind_are_said_in_one_short_sentence(saved, tmp_path, change, advice):
    with pytest.raises(ConfigError) as caught:
        load_params(rewritten(saved[1], tmp_path / "m", change), tiny(), one_device())
    message = str(caught.value)
    assert advice in message
    assert len(message) < 1500 + len(str(tmp_path))
    assert message.count(".weight") + message.count("qkv.bias") <= 15


def test_two_sets_of_weights_are_refused(saved, tmp_path):
    directory = rewritten(saved[1], tmp_path / "m", lambda tensors: None)
    index = directory / "model.safetensors.index.json"
    names = {tensor.name: "model.safetensors" for tensor in tiny().tensors()}
    index.write_text(json.dumps({"weight_map": names}))
    assert_same(load_params(directory, tiny(), one_device()), saved[0])
    (directory / "model-00001-of-00001.safetensors").write_bytes((directory / "model.safetensors").read_bytes())
    index.write_text(json.dumps({"weight_map": dict.fromkeys(names, "model-00001-of-00001.safetensors")}))
    with pytest.raises(ConfigError, match=r"two sets of weights, model\.safetensors and the 1 files .*00001-of-00001"):
        load_params(directory, tiny(), one_device())
    (directory / "model.safetensors").unlink()
    assert_same(load_params(directory, tiny(), one_device()), saved[0])
    (directory / "adapter_config.json").write_text("{}")
    with pytest.raises(ConfigError, match="holds an adapter"):
        load_params(directory, tiny(), one_device())


@pytest.mark.parametrize("name", ["../m/model.safetensors", "/etc/model.safetensors", "model.bin"])
def test_an_index_names_only_safetensors_of_its_directory(saved, tmp_path, name):
    directory = rewritten(saved[1], tmp_path / "m", lambda tensors: None)
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(ConfigError, match="no safetensors file of this directory"):
        load_params(directory, tiny(), one_device())


@pytest.mark.parametrize(
    ("dtype", "value"), [("float32", np.nan), ("float32", -np.inf), ("bfloat16", np.inf), ("float16", 1e30)]
)
def test_weights_that_are_not_finite_are_neither_read_nor_written(saved, tmp_path, dtype, value):
    name = "model.layers.1.mlp.up_proj.weight"
    params, source = saved
    save_params(params, tiny(), tmp_path / "m", dtype="float32")
    broken = jax.tree.map(lambda leaf: leaf, params)
    kernel = broken["decoder"]["layers"]["mlp"]["up"]["kernel"]
    broken["decoder"]["layers"]["mlp"]["up"]["kernel"] = kernel.at[1, 3, 2].set(value)
    with pytest.raises(ConfigError, match=f"not written to .*{name} holds values that are no finite {dtype} numbers"):
        save_params(broken, tiny(), tmp_path / "m", dtype=dtype)
    assert [path.name for path in tmp_path.iterdir()] == ["m"]
    assert_same(load_params(tmp_path / "m", tiny(), one_device()), params)

    def spoil(tensors):
        tensors[name][2, 3] = value

    spoiled = rewritten(source, tmp_path / "spoiled", spoil)
    half = tiny(options=ModelOptions(param_dtype=jnp.dtype(dtype)))
    with pytest.raises(ConfigError, match=f"the tensor {name} of .* holds values that are no finite {dtype} numbers"):
        load_params(spoiled, half, one_device())
    with pytest.raises(ConfigError, match=f"the tensor {name} of .* no finite {dtype}"):
        convert(spoiled, tmp_path / "converted", dtype=dtype)
    assert not (tmp_path / "converted").exists()


def test_finite_by_bits():
    for dtype in (np.float16, ml_dtypes.bfloat16, np.float32):
        for value, finite in [(0, True), (-3.5, True), (6e4, True), (np.nan, False), (np.inf, False), (-np.inf, False)]:
            assert is_finite(np.array([[1, value], [2, 3]], dtype)) is finite


def test_a_tied_head_may_be_stored_twice_but_not_differ(saved, tmp_path):
    def twice(tensors):
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].copy()

    def other(tensors):
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"] + 1

    assert_same(load_params(rewritten(saved[1], tmp_path / "a", twice), tiny(), one_device()), saved[0])
    with pytest.raises(ConfigError, match=r"unexpected \(lm_head.weight\)"):
        load_params(rewritten(saved[1], tmp_path / "b", other), tiny(), one_device())


def test_pickled_damaged_and_absent_files_are_refused(saved, tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80")
    with pytest.raises(ConfigError, match="safetensors only"):
        load_params(tmp_path, tiny(), one_device())
    (tmp_path / "model.safetensors").write_bytes(b"no header")
    with pytest.raises(ConfigError, match="can not be read as safetensors"):
        load_params(tmp_path, tiny(), one_device())
    (tmp_path / "model.safetensors").unlink()
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "gone.safetensors"}}))
    with pytest.raises(ConfigError, match=r"gone\.safetensors"):
        load_params(tmp_path, tiny(), one_device())
    index.write_text("{}")
    with pytest.raises(ConfigError, match="is not an index"):
        load_params(tmp_path, tiny(), one_device())


def test_save_replaces_a_model_and_nothing_else(saved, tmp_path):
    params, _ = saved
    target = tmp_path / "model"
    save_params(params, tiny(), target)
    (target / "stale.txt").write_text("old")
    save_params(params, tiny(), target)
    assert not (target / "stale.txt").exists()
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "diary.txt").write_text("keep")
    with pytest.raises(ConfigError, match="not a model directory"):
        save_params(params, tiny(), mine)
    assert (mine / "diary.txt").read_text() == "keep"


def test_a_failed_save_leaves_the_old_model(saved, tmp_path):
    params, _ = saved
    target = tmp_path / "model"
    save_params(params, tiny(), target)
    broken = {"visual": params["visual"], "decoder": {**params["decoder"], "norm": {"scale": jnp.zeros((5,))}}}
    with pytest.raises(ValueError, match="reshape"):
        save_params(broken, tiny(), target)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    load_params(target, tiny(), one_device())


def test_convert_renames_recasts_and_copies(saved, tmp_path):
    params, source = saved
    source_copy = rewritten(source, tmp_path / "source", lambda tensors: None)
    (source_copy / "README.txt").write_text("{}")
    (source_copy / "code.py").write_text("raise SystemExit")
    convert(source_copy, tmp_path / "new", dtype="bfloat16", names="transformers", max_shard_bytes=100_000)
    assert (tmp_path / "new" / "README.txt").exists()
    assert not (tmp_path / "new" / "code.py").exists()
    names = json.loads((tmp_path / "new" / "model.safetensors.index.json").read_text())["weight_map"]
    assert "model.language_model.norm.weight" in names
    assert "model.visual.merger.ln_q.weight" in names
    assert json.loads((tmp_path / "new" / "config.json").read_text())["torch_dtype"] == "bfloat16"
    convert(tmp_path / "new", tmp_path / "back", dtype="float32")
    rounded = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16).astype(jnp.float32), params)
    assert_same(load_params(tmp_path / "back", tiny(), one_device()), rounded)
    convert(source, tmp_path / "same")
    assert_same(load_params(tmp_path / "same", tiny(), one_device()), params)


@pytest.mark.parametrize("at_once", [pytest.param(0, marks=pytest.mark.slow), 3000])
def test_large_parameters_are_placed_in_blocks(at_once, tmp_path, monkeypatch):
    model = tiny(tied=False)
    params = random_params(model)
    save_params(params, model, tmp_path / "m", dtype="float32")
    whole = load_params(tmp_path / "m", model, one_device())
    monkeypatch.setattr(hf, "AT_ONCE_BYTES", at_once)
    assert_same(load_params(tmp_path / "m", model, one_device()), params)
    assert_same(whole, params)


@pytest.mark.slow
def test_the_host_holds_little_more_than_the_devices(tmp_path):
    """On a CPU the devices are the host: loading 0.6 GB may raise the peak by its size and a few blocks."""
    program = f"""
        import jax, jax.numpy as jnp, resource, sys
        from pathlib import Path
        from infimmr_jax.config import MeshSection, ModelShape, VisionShape
        from infimmr_jax.model.config import TokenIds, config_from_shape
        from infimmr_jax.model.family import Model
        from infimmr_jax.model.hf import AT_ONCE_BYTES, load_params, save_params
        from infimmr_jax.parallel.mesh import make_mesh
        shape = ModelShape(hidden_size=1024, num_layers=12, num_heads=8, intermediate_size=2048,
                           mrope_section=(16, 24, 24))
        model = Model(config_from_shape(shape, 50_000, TokenIds(0, 2, 3, 4, 6, 7)))
        directory, mesh = Path({str(tmp_path)!r}) / "m", make_mesh(MeshSection())
        size = sum(leaf.size * 4 for leaf in jax.tree.leaves(model.abstract_params()))
        if sys.argv[1] == "save":
            zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), model.abstract_params())
            save_params(zeros, model, directory, dtype="bfloat16", max_shard_bytes=2**26)
        else:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            params = load_params(directory, model, mesh)
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            files = [path.stat().st_size for path in directory.glob("*.safetensors")]
            over = peak - before - size - sum(files)  # Mapped pages count as resident.
            print(len(files), "files,", size, "bytes of parameters, host peak over them and the mapped files:", over)
            assert len(files) > 4
            assert over < 4 * AT_ONCE_BYTES
    """
    for step in ("save", "load"):
        subprocess.run(
            [sys.executable, "-c", textwrap.dedent(program), step],
            check=True,
            env={"JAX_PLATFORMS": "cpu", "PATH": ""},
        )


@pytest.mark.slow
@pytest.mark.parametrize("at_once", [0, 2**26])
def test_loads_and_saves_over_eight_devices(saved, tmp_path, at_once):
    program = f"""
        import jax, numpy as np
        from pathlib import Path
        from infimmr_jax.config import MeshSection
        from infimmr_jax.model import hf
        from infimmr_jax.model.family import read_model
        from infimmr_jax.model.hf import load_params, save_params
        from infimmr_jax.parallel.mesh import make_mesh, parameter_shardings
        assert len(jax.devices()) == 8
        source = Path({str(saved[1])!r})
        hf.AT_ONCE_BYTES = {at_once}
        mesh = make_mesh(MeshSection(data=2, fsdp=2, tensor=2))
        model = read_model(source)
        params = load_params(source, model, mesh)
        wanted = parameter_shardings(params, mesh)
        jax.tree.map(lambda a, s: None if a.sharding.is_equivalent_to(s, a.ndim) else 1 / 0, params, wanted)
        up = params["decoder"]["layers"]["mlp"]["up"]["kernel"]
        assert up.addressable_shards[0].data.size * 4 == up.size
        save_params(params, model, Path({str(tmp_path / "m")!r}), dtype="float32")
    """
    on_eight_devices(program)
    one, other = (load_file(d / "model.safetensors") for d in (saved[1], tmp_path / "m"))
    assert one.keys() == other.keys()
    assert all(np.array_equal(one[name], other[name]) for name in one)
