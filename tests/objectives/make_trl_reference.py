"""Write trl_reference.npz: losses, gradients and advantages as computed by TRL itself.

    python -m venv trl && trl/bin/pip install torch trl==1.16.0 && trl/bin/python tests/objectives/make_trl_reference.py

The losses come from TRL's own `GRPOTrainer._compute_loss`, called in float64 on random log-probs in place of a model's;
the advantages from a `GRPOTrainer` that trains a two-layer model for one step on preset rewards (TRL keeps rewards in
float32). `test_trl.py` reads the file, and computes it again where TRL is installed.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np

SEQUENCES, LENGTH, MAX_COMPLETION, GROUP = 12, 7, 9, 4
# Each case: TRL's arguments. `epsilon_high` of cispo is TRL's cap itself.
LOSSES = {
    "grpo": {"loss_type": "grpo"},
    "bnpo": {"loss_type": "bnpo"},
    "dr_grpo": {"loss_type": "dr_grpo"},
    "dapo": {"loss_type": "dapo"},
    "dapo_kl": {"loss_type": "dapo", "beta": 0.3},
    "dapo_correction": {"loss_type": "dapo", "use_vllm": True},
    "gspo": {"loss_type": "grpo", "importance_sampling_level": "sequence", "epsilon_low": 0.05, "epsilon_high": 0.08},
    "cispo": {"loss_type": "cispo", "epsilon_high": 1.4},
    "sapo": {"loss_type": "sapo"},
}
ADVANTAGES = {
    "grpo": {"scale_rewards": "group"},
    "no_std": {"scale_rewards": "none"},
    "batch_std": {"scale_rewards": "batch"},
    "gdpo": {"multi_objective_aggregation": "normalize_then_sum"},
}
REWARD_WEIGHTS = (0.9, 0.1)


def inputs() -> dict[str, np.ndarray]:
    """The random tensors every case is computed on."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, LENGTH + 1, SEQUENCES)
    logprobs = -np.abs(rng.normal(size=(SEQUENCES, LENGTH))) - 0.1
    old = logprobs + 0.4 * rng.normal(size=logprobs.shape)
    mask = np.arange(LENGTH) < lengths[:, None]
    behaviour = old + 0.5 * rng.normal(size=logprobs.shape)
    rewards = rng.integers(0, 3, (SEQUENCES, 2)).astype(np.float64) / 2
    rewards[:GROUP] = 0.5
    return {
        "logprobs": logprobs,
        "old": old,
        "mask": mask,
        "behaviour": behaviour,
        "reference": logprobs + 0.3 * rng.normal(size=logprobs.shape),
        "correction": np.clip(np.exp(np.where(mask, old - behaviour, 0)), None, 1.5),
        "advantages": rng.normal(size=SEQUENCES),
        "rewards": rewards,
    }


def losses(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Loss and gradient of every case, by TRL's loss function."""
    import torch
    from trl import GRPOTrainer

    found = {}
    for name, keys in LOSSES.items():
        t = {k: torch.tensor(v) for k, v in arrays.items()}
        logprobs = t["logprobs"].requires_grad_()
        settings = {"beta": 0.0, "use_vllm": False, "importance_sampling_level": "token"} | keys
        arguments = SimpleNamespace(
            delta=None,
            use_bias_correction_kl=False,
            sapo_temperature_pos=1.0,
            sapo_temperature_neg=1.25,  # exact in float32: TRL's torch.where makes it one
            steps_per_generation=1,
        )
        trainer = SimpleNamespace(
            _get_per_token_logps_and_entropies=lambda *a, value=logprobs, **k: (value, torch.zeros_like(value), None),
            _metrics={"train": defaultdict(list)},
            accelerator=SimpleNamespace(num_processes=1, gather=lambda x: x, reduce=lambda x, reduction: x),
            args=arguments,
            aux_loss_enabled=False,
            beta=settings["beta"],
            current_gradient_accumulation_steps=1,
            epsilon_low=settings.get("epsilon_low", 0.2),
            epsilon_high=settings.get("epsilon_high", 0.28),
            importance_sampling_level=settings["importance_sampling_level"],
            loss_type=settings["loss_type"],
            max_completion_length=MAX_COMPLETION,
            model=SimpleNamespace(training=True),
            off_policy_mask_threshold=None,
            top_entropy_quantile=1.0,
            use_vllm=settings["use_vllm"],
            vllm_importance_sampling_correction=True,
            _entropy_bonus_enabled=False,
        )
        batch = {
            "prompt_ids": torch.zeros(SEQUENCES, 1, dtype=torch.long),
            "prompt_mask": torch.ones(SEQUENCES, 1, dtype=torch.long),
            "completion_ids": torch.zeros(SEQUENCES, LENGTH, dtype=torch.long),
            "completion_mask": t["mask"].long(),
            "advantages": t["advantages"],
            "old_per_token_logps": t["old"],
            "ref_per_token_logps": t["reference"],
            "importance_sampling_ratio": t["correction"],
            "num_items_in_batch": t["mask"].sum(),
        }
        loss = GRPOTrainer._compute_loss(trainer, None, batch)
        loss.backward()
        found[f"loss/{name}"] = loss.detach().numpy()
        found[f"gradient/{name}"] = logprobs.grad.numpy()
    return found


def advantages(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Advantages of every case, by a GRPOTrainer that takes one step on preset rewards."""
    from datasets import Dataset
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM
    from trl import GRPOConfig, GRPOTrainer

    words = {word: index for index, word in enumerate(["<pad>", "<eos>", "a", "b", "c"])}
    plain = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=plain, pad_token="<pad>", eos_token="<eos>")
    shape = Qwen2Config(
        vocab_size=5, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2,
        intermediate_size=16, eos_token_id=1, pad_token_id=0, bos_token_id=1,
    )  # fmt: skip
    found = {}

    class Recorder(GRPOTrainer):
        def _generate_and_score_completions(self, examples):
            output = super()._generate_and_score_completions(examples)
            found[f"advantages/{case}"] = output["advantages"].numpy()
            return output

    def component(index):
        def reward(completions, **_):
            return arrays["rewards"][:, index].tolist()

        reward.__name__ = f"component_{index}"
        return reward

    for case, keys in ADVANTAGES.items():  # noqa: B007 (Recorder reads it)
        with tempfile.TemporaryDirectory() as folder:
            trainer = Recorder(
                model=Qwen2ForCausalLM(shape),
                processing_class=tokenizer,
                reward_funcs=[component(0), component(1)],
                train_dataset=Dataset.from_dict({"prompt": ["a b", "b c", "c a"]}),
                args=GRPOConfig(
                    output_dir=folder,
                    max_steps=1,
                    per_device_train_batch_size=SEQUENCES,
                    num_generations=GROUP,
                    max_completion_length=3,
                    reward_weights=list(REWARD_WEIGHTS),
                    use_cpu=True,
                    report_to=[],
                    bf16=False,
                    save_strategy="no",
                    disable_tqdm=True,
                    **keys,
                ),
            )
            trainer.train()
    return found


def main() -> None:
    arrays = inputs()
    target = Path(__file__).with_name("trl_reference.npz")
    np.savez(target, **arrays, **losses(arrays), **advantages(arrays))
    print(f"wrote {target}, {target.stat().st_size} bytes")


if __name__ == "__main__":
    main()
