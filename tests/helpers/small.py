"""A small model, prompts with pictures and rollouts, for tests of the sampler and of the update."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from infimmr_jax.config import GrpoSection, ModelShape, OptimizerSection
from infimmr_jax.model.config import TokenIds, config_from_shape
from infimmr_jax.model.family import Model
from infimmr_jax.model.options import ModelOptions
from infimmr_jax.objectives.advantages import init_estimator_state
from infimmr_jax.objectives.step import Rewards, UpdateSettings
from infimmr_jax.objectives.train_state import TrainState, make_optimizer
from infimmr_jax.preprocess.batching import PromptBatch
from infimmr_jax.rollout.state import Rollouts

V, PAD, EOS = 64, 0, 1
SHAPE = ModelShape.model_validate(
    {
        "hidden_size": 48,
        "num_layers": 2,
        "num_heads": 4,
        "num_kv_heads": 2,
        "intermediate_size": 64,
        "mrope_section": [2, 2, 2],
        "vision": {"hidden_size": 32, "depth": 2, "num_heads": 2, "intermediate_size": 48},
    }
)
TOKENS = TokenIds(pad=PAD, eos=EOS, vision_start=2, vision_end=3, image=4, video=5)
MODEL = Model(config_from_shape(SHAPE, V, TOKENS), ModelOptions(scan=False))
ALLOWED = np.asarray([index not in (PAD, 2, 3, 4, 5) for index in range(V)])


def with_layers(count: int) -> Model:
    """The small model with so many decoder layers."""
    return Model(config_from_shape(SHAPE.model_copy(update={"num_layers": count}), V, TOKENS), MODEL.options)


def prompts(P: int, S: int = 24, seed: int = 0) -> PromptBatch:
    """P prompts of unequal length; even rows show a picture of 4 visual tokens, odd rows none."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(10, S, P).astype(np.int32)
    real = np.arange(S) < lengths[:, None]
    tokens = np.where(real, rng.integers(6, V, (P, S)), 0).astype(np.int32)
    image_index = np.full((P, S), -1, np.int32)
    image_index[::2, 2:6] = np.arange(4)
    positions = np.broadcast_to(np.arange(S, dtype=np.int32), (P, 3, S)).copy()
    patch_mask = np.zeros((P, 1, 16), bool)
    patch_mask[::2] = True
    places = np.stack(np.divmod(np.arange(16), 4), -1).astype(np.int32)
    return PromptBatch(
        tokens=tokens,
        lengths=lengths,
        bridge=rng.integers(6, V, P).astype(np.int32),
        positions=positions,
        next_position=lengths,
        image_index=image_index,
        patches=rng.normal(size=(P, 1, 16, 1176)).astype(np.float32),
        patch_positions=np.broadcast_to(places, (P, 1, 16, 2)).copy(),
        patch_mask=patch_mask,
        row_mask=np.ones(P, bool),
    )


def rollouts(P: int, G: int, R: int, seed: int = 0) -> Rollouts:
    """Made-up responses of unequal length with made-up log-probs."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, R + 1, (P, G))
    mask = np.arange(R) < lengths[..., None]
    tokens = np.where(mask, rng.integers(6, V, (P, G, R)), PAD).astype(np.int32)
    logprobs = np.where(mask, -rng.uniform(1, 6, (P, G, R)), 0).astype(np.float32)
    fields: dict[str, Any] = {
        "tokens": tokens,
        "mask": mask,
        "logprobs": logprobs,
        "behaviour": logprobs,
        "finished": lengths < R,
    }
    return Rollouts(**fields)


def rewards(P: int, G: int, seed: int = 0) -> Rewards:
    rng = np.random.default_rng(seed)
    accuracy = rng.integers(0, 2, (P, G)).astype(np.float32)
    form = rng.integers(0, 2, (P, G)).astype(np.float32)
    return Rewards(
        0.9 * accuracy + 0.1 * form, {"accuracy": accuracy, "format": form}, np.zeros(P, np.int32), np.ones(P, bool)
    )


def train_state(
    grpo: GrpoSection, optimizer: OptimizerSection, reference: bool = False, model: Model = MODEL
) -> TrainState:
    params = jax.jit(model.init)(jax.random.key(0))
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        moments=jax.jit(make_optimizer(optimizer).init)(params),
        estimator=init_estimator_state(3),
        reference=jax.jit(model.init)(jax.random.key(1)) if reference else None,
    )


def settings(grpo: GrpoSection, model: Model = MODEL) -> UpdateSettings:
    return UpdateSettings(model, grpo, (("accuracy", 0.9), ("format", 0.1)), 1.0, ("math",))
