"""Write what every peer is given: the bench's model as a vision-language and as a text-only directory, and its prompts.

python studies/peers/make_work.py WORK        (in this project's environment)
"""

import json
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from infimmr_jax.bench.work import Size, load_work, prompt_texts
from infimmr_jax.model.hf import save_params

SIZES = {"short": (64, 112), "long": (512, 448), "text64": (64, 0), "text512": (512, 0)}


def main(folder: Path) -> None:
    work = load_work(Size())
    save_params(work.params, work.model, folder / "vl", work.tokenizer, "float32")
    write_text_only(folder)
    for name, (tokens, side) in SIZES.items():
        size = Size(prompts=4, prompt_tokens=tokens, image_size=side)
        found = prompt_texts(size, work.model, work.tokenizer)
        exact = load_work(size, model=folder / "vl")
        arrays = {"ids": np.stack([prompt.tokens for prompt in exact.prompts])}
        if side:
            arrays["images"] = np.stack([np.asarray(picture) for _, picture in found])
        np.savez(folder / f"{name}.npz", **arrays)
        (folder / f"{name}.json").write_text(json.dumps([text for text, _ in found]))


def write_text_only(folder: Path) -> None:
    """The decoder alone as a Qwen2 model: the same weights and tokenizer."""
    source, target = folder / "vl", folder / "text"
    target.mkdir(exist_ok=True)
    tensors = {}
    for path in source.glob("*.safetensors"):
        tensors |= {name: value for name, value in load_file(path).items() if not name.startswith("visual.")}
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
    given = json.loads((source / "config.json").read_text())
    text = given.get("text_config", given)
    keys = ["vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"]
    keys += ["num_key_value_heads", "max_position_embeddings", "rms_norm_eps", "tie_word_embeddings"]
    keys += ["bos_token_id", "eos_token_id", "pad_token_id"]
    config = {key: text.get(key, given.get(key)) for key in keys}
    rope = {"rope_type": "default", "rope_theta": 1e6}
    config |= {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "hidden_act": "silu", "dtype": "float32"}
    config |= {"use_sliding_window": False, "attention_dropout": 0.0, "rope_parameters": rope, "rope_theta": 1e6}
    (target / "config.json").write_text(json.dumps(config, indent=1))
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"):
        if (source / name).exists():
            (target / name).write_bytes((source / name).read_bytes())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
