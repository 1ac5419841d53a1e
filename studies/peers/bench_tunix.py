"""google-tunix GRPO (its sampler, cluster and trainer) on the text-only decoder: 4 prompts x GROUP responses, beta 0.

python bench_tunix.py WORK text64|text512 GROUP NEW STEPS [PROMPTS_PER_MICRO_BATCH]
"""

import os
import sys
import time
from importlib import metadata
from pathlib import Path

from spans import THREADS, Spans, hash_reward, pin, read_prompts

pin()
os.environ["JAX_PLATFORMS"] = "cpu"
import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import optax  # noqa: E402
from flax import nnx  # noqa: E402
from tokenizers import Tokenizer  # noqa: E402
from tunix.models.qwen2 import model as qwen2  # noqa: E402
from tunix.models.qwen2 import params as qwen2_params  # noqa: E402
from tunix.rl import rl_cluster  # noqa: E402
from tunix.rl.grpo import grpo_learner  # noqa: E402
from tunix.rl.rollout import base_rollout  # noqa: E402

work, name = Path(sys.argv[1]), sys.argv[2]
group, new, steps = map(int, sys.argv[3:6])
_, ids, _ = read_prompts(work, name)
prompts, length = ids.shape
micro = int(sys.argv[6]) if len(sys.argv) > 6 else prompts
WARM_UP = 2
backend = Tokenizer.from_file(str(work / "text" / "tokenizer.json"))
VOCABULARY = 2048


class Words:
    """The tokenizer as Tunix asks for it; end and padding are no tokens of the model, so no response ends early."""

    def encode(self, text, **_):
        return backend.encode(text, add_special_tokens=False).ids

    def decode(self, tokens, **_):
        return backend.decode([int(token) for token in tokens], skip_special_tokens=True)

    def bos_id(self):
        return 0

    def eos_id(self):
        return VOCABULARY + 1

    def pad_id(self):
        return VOCABULARY


words = Words()
texts = [backend.decode([int(token) for token in row], skip_special_tokens=False) for row in ids]
assert all(words.encode(text) == row.tolist() for text, row in zip(texts, ids, strict=True))
mesh = jax.make_mesh((1, 1), ("fsdp", "tp"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
shape = qwen2.ModelConfig(
    num_layers=6,
    vocab_size=VOCABULARY,
    embed_dim=256,
    hidden_dim=768,
    num_heads=4,
    head_dim=64,
    num_kv_heads=2,
    rope_theta=1_000_000,
    norm_eps=1e-6,
    use_tied_embedding=True,
    dtype=jnp.float32,
    param_dtype=jnp.float32,
    remat_config=qwen2.RematConfig.NONE,
)
actor = qwen2_params.create_model_from_safe_tensors(str(work / "text"), shape, mesh, dtype=jnp.float32)
training = rl_cluster.RLTrainingConfig(
    actor_optimizer=optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-6, weight_decay=0.0)),
    eval_every_n_steps=10**6,
    max_steps=steps + WARM_UP,
    mini_batch_size=prompts,
    train_micro_batch_size=micro,
    rollout_micro_batch_size=prompts,
    compute_logps_micro_batch_size=prompts,
)
sampling = base_rollout.RolloutConfig(
    max_tokens_to_generate=new,
    max_prompt_length=length,
    kv_cache_size=length + new,
    temperature=1.0,
    top_p=1.0,
    top_k=None,
    eos_tokens=[VOCABULARY + 1],
)
roles = dict.fromkeys((rl_cluster.Role.ACTOR, rl_cluster.Role.REFERENCE, rl_cluster.Role.ROLLOUT), mesh)
cluster = rl_cluster.RLCluster(
    actor=actor,
    reference=None,
    tokenizer=words,
    cluster_config=rl_cluster.ClusterConfig(
        role_to_mesh=roles,
        rollout_engine="vanilla",
        offload_to_cpu=False,
        training_config=training,
        rollout_config=sampling,
    ),
)
spans, last = Spans(), {}
generate, update = spans.around("rollout", cluster.generate), cluster.update_actor
began, calls = [(time.perf_counter(), time.process_time())], [0]


def checked_generate(*args, **named):
    out = generate(*args, **named)
    last["tokens"] = [np.asarray(tokens) for tokens in out.tokens]
    assert [len(tokens) for tokens in last["tokens"]] == [new] * (prompts * group)
    return out


def timed_update(*args, **named):
    out = update(*args, **named)
    jax.block_until_ready(nnx.state(cluster.actor_trainer.model))
    calls[0] += 1
    if calls[0] % (prompts // micro) == 0:
        now = time.perf_counter(), time.process_time()
        spans.seen.setdefault("step", []).append((now[0] - began[0][0], now[1] - began[0][1]))
        began[0] = now
    return out


cluster.generate, cluster.update_actor = checked_generate, timed_update
learner = grpo_learner.GRPOLearner(
    rl_cluster=cluster,
    reward_fns=lambda prompts, completions, **_: [hash_reward(tokens) for tokens in last["tokens"]],
    algo_config=grpo_learner.GRPOConfig(num_generations=group, num_iterations=1, beta=0.0, epsilon=0.2),
)
with mesh:
    learner.train([{"prompts": np.array(texts)} for _ in range(steps + WARM_UP + 1)])
count = min(len(found) for found in spans.seen.values())
spans.seen = {part: found[:count] for part, found in spans.seen.items()}
versions = {package: metadata.version(package) for package in ("jax", "flax", "google-tunix")}
spans.report(WARM_UP, peer="tunix", prompts=name, group=group, new=new, threads=THREADS, micro=micro, versions=versions)
