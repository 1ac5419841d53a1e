"""The model as one value: equal, hashable, one row a family; and nobody outside `model/` knows what it is made of."""

import ast
import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from tiny_model import mixed_batch, random_params, tiny

import infimmr_jax
from infimmr_jax.config import ConfigError
from infimmr_jax.model.family import FAMILIES, Family, Model, preset_model, read_model
from infimmr_jax.model.hf_table import leaf_paths
from infimmr_jax.preprocess.packing import PackedBatch

PACKAGE = Path(infimmr_jax.__file__).parent
INSIDE = ("qwen2_5_vl", "decoder", "vision")
GEOMETRY = {"patch_size", "merge_size", "merge_unit", "temporal_patch_size", "window_size", "patch_width"}
OUTSIDE = [path for path in sorted(PACKAGE.rglob("*.py")) if path.parent.name != "model"]


def test_equal_models_are_one_static_argument():
    one, other = tiny(), tiny()
    assert one == other
    assert hash(one) == hash(other)
    assert one != tiny(tied=False)
    assert one != tiny(scan=False)
    traced = jax.jit(lambda params, model: model.logits(params, np.ones((1, 64), np.float32)), static_argnums=1)
    params = random_params(one)
    traced(params, one), traced(params, other)
    assert traced._cache_size() == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.model_type = "other"


@pytest.mark.parametrize("model_type", FAMILIES)
def test_a_family_reads_what_it_writes_and_names_every_parameter(model_type, tmp_path):
    family = FAMILIES[model_type]
    assert all(getattr(family, field.name) for field in dataclasses.fields(Family))
    for name, config in family.presets.items():
        model = Model(config, model_type=model_type)
        assert preset_model(name) == model
        (tmp_path / "config.json").write_text(json.dumps(model.hf_config()))
        assert read_model(tmp_path) == model
        shapes = dict(leaf_paths(model.abstract_params()))
        stored = {tensor.path: tensor.layer for tensor in model.tensors()}
        assert stored.keys() == shapes.keys()
        assert sum(np.prod(tensor.shape) for tensor in model.tensors()) == sum(leaf.size for leaf in shapes.values())


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ("qwen2_vl", r"says model_type 'qwen2_vl'; only 'qwen2_5_vl' is supported \(the nearest is 'qwen2_5_vl'\)"),
        (None, "says model_type None; only 'qwen2_5_vl' is supported$"),
    ],
)
def test_an_unknown_family_is_refused_with_the_nearest_name(given, sentence, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": given}))
    with pytest.raises(ConfigError, match=sentence):
        read_model(tmp_path)
    with pytest.raises(ConfigError, match=r"no published size 'qwen9'; choose one of qwen2\.5-vl-3b, "):
        preset_model("qwen9")


def test_visual_tokens_are_placed_alike_in_prompts_and_in_packed_rows():
    """Slots of a prompt are its own, those of packed rows are the batch's: the same tokens in the same places."""
    model, batch = tiny(), mixed_batch()
    params = random_params(model)
    P, slots, N, X = batch.patches.shape
    tokens = N // model.layout.merge_unit * slots
    first = np.arange(P)[:, None] * tokens
    packed = PackedBatch(
        tokens=batch.tokens,
        segments=np.ones_like(batch.tokens),
        positions=batch.positions,
        image_index=np.where(batch.image_index >= 0, batch.image_index + first, -1).astype(np.int32),
        patches=batch.patches.reshape(P * slots, N, X),
        patch_positions=batch.patch_positions.reshape(P * slots, N, 2),
        patch_mask=batch.patch_mask.reshape(P * slots, N),
        places=np.zeros((P, 1), np.int32),
        targets=np.zeros((P, 1), np.int32),
        mask=np.ones((P, 1), bool),
    )
    one, other = (np.asarray(jax.jit(model.embed)(params, each)) for each in (batch, packed))
    assert np.array_equal(one, other)
    shown = batch.image_index >= 0
    text = params["decoder"]["embed"]["embedding"][batch.tokens]
    assert np.array_equal(one[~shown], text[~shown])
    slots = [part.reshape(-1, *part.shape[2:]) for part in (batch.patches, batch.patch_positions, batch.patch_mask)]
    visual = np.asarray(jax.jit(model.embed_images)(params, *slots)).reshape(P, tokens, -1)
    for row, place in np.argwhere(shown):
        assert np.array_equal(one[row, place], visual[row, batch.image_index[row, place]])


def test_nobody_outside_knows_what_a_model_is_made_of():
    for path in OUTSIDE:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                modules = [getattr(node, "module", None) or "", *(alias.name for alias in node.names)]
                of_model = any(module.startswith("infimmr_jax.model") for module in modules)
                names = {module.rsplit(".", 1)[-1] for module in modules} if of_model else set()
                assert not names & set(INSIDE), f"{path}:{node.lineno} imports {sorted(names)}; go through model.family"


def test_nobody_outside_has_a_default_for_the_geometry_of_patches():
    for path in OUTSIDE:
        if path.parent.name == "config":  # The shape of a model made from scratch is the user's choice.
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            given = []
            if isinstance(node, ast.FunctionDef):
                arguments = node.args
                positional = [*arguments.posonlyargs, *arguments.args][-len(arguments.defaults) or None :]
                given = [arg.arg for arg, _ in zip(positional, arguments.defaults, strict=False)]
                keywords = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
                given += [arg.arg for arg, default in keywords if default is not None]
            elif isinstance(node, ast.AnnAssign) and node.value is not None:
                given = [ast.unparse(node.target)]
            elif isinstance(node, ast.Assign):
                constant = isinstance(node.value, ast.Constant)
                given = [ast.unparse(target).lower() for target in node.targets if constant]
            assert not GEOMETRY & set(given), f"{path}:{node.lineno} has a default for {GEOMETRY & set(given)}"
