"""A run so small that a test can make it many times: the whole curriculum in a dozen steps."""

from pathlib import Path
from typing import Any

from infimmr_jax.config import RunConfig, apply_overrides, parse_config


def source(**changes: Any) -> dict[str, Any]:
    return {"reader": "synthetic", "families": ["bars"], "size": 64, **changes}


def tiny_tree(output: Path) -> dict[str, Any]:
    phase = {"steps": 2, "prompts_per_step": 8, "group_size": 2, "max_response": 12}
    return {
        "name": "tiny",
        "output": str(output),
        "model": {
            "vocab_size": 400,
            "shape": {
                "hidden_size": 48,
                "num_layers": 2,
                "num_heads": 4,
                "num_kv_heads": 2,
                "intermediate_size": 64,
                "mrope_section": [2, 2, 2],
                "vision": {"hidden_size": 32, "depth": 2, "num_heads": 2, "intermediate_size": 32},
            },
        },
        "data": {
            "max_prompt": 96,
            "prompt_buckets": [88],
            "image_buckets": [[1, 64]],
            "image": {"max_pixels": 12544},
        },
        "prompt": {"instruction": ""},
        "sft": {
            "stages": [{"steps": 3}],
            "sources": {"text": [source()], "image": [source()]},
            "batch_size": 8,
            "warmup_steps": 1,
        },
        "phases": [
            {"name": "text", "modality": "text", "sources": [source(seed=1)], **phase},
            {"name": "caption", "modality": "caption", "sources": [source(seed=2)], **phase},
            {"name": "image", "modality": "image", "sources": [source(seed=3)], **phase},
        ],
        "optimizer": {"learning_rate": 1e-3},
        "evaluation": {
            "problems": 8,
            "batch_size": 8,
            "every_steps": 2,
            "sources": {"text": [source(split="heldout")], "image": [source(split="heldout")]},
        },
        "checkpoint": {"every_steps": 2},
        "logging": {"tensorboard": False, "transcripts_every": 2},
    }


def tiny_config(output: Path, *overrides: str) -> RunConfig:
    return parse_config(apply_overrides(tiny_tree(output), list(overrides)))
