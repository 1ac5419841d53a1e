"""Forward parity with transformers' torch model on one accelerator, and prefill tokens/s and MFU of both.

    python studies/gpu_parity.py --shape 3b --out gpu_parity.json          # bfloat16 on one GPU, random weights

Both models get the same random weights and the same prompts, each with one picture. The torch model in float32 is the
reference; in bfloat16 it says how large an error rounding alone makes, and ours is measured against both. The numbers
of all prompt tokens' logits are compared. MFU is useful operations (see `infimmr_jax/bench/counts.py`) over
`--peak-tflops`, the device's own specification. Needs the test extra with a torch that can use the device; on a CPU
`--shape small --dtype float32` runs the same code, which is what the test does.
"""

from __future__ import annotations

import os

# torch shares the device: without this JAX takes three quarters of its memory at once.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from infimmr_jax.bench.counts import prefill_flops
from infimmr_jax.bench.timing import Timer, machine
from infimmr_jax.bench.work import Size, Work, load_work
from infimmr_jax.model.costs import head_weights
from infimmr_jax.model.hf_table import leaf_paths, transformers_name


def torch_twin(work: Work, device: torch.device, attention: str) -> Qwen2_5_VLForConditionalGeneration:
    """The torch model with our weights, in float32 on `device`; tensors go over one at a time."""
    config = Qwen2_5_VLConfig.from_dict(work.model.hf_config())
    config._attn_implementation = attention
    with device:
        twin = Qwen2_5_VLForConditionalGeneration(config).eval()
    leaves = dict(leaf_paths(work.params))
    own = dict(twin.named_parameters())
    with torch.no_grad():
        for tensor in work.model.tensors():
            leaf = leaves[tensor.path] if tensor.layer is None else leaves[tensor.path][tensor.layer]
            value = tensor.write(np.asarray(leaf.astype(jnp.float32)))
            own.pop(transformers_name(tensor.name)).copy_(torch.from_numpy(np.array(value)))
    if own:
        raise SystemExit(f"the torch model has parameters that ours lacks: {', '.join(sorted(own))}")
    return twin


def torch_inputs(work: Work, device: torch.device) -> dict[str, torch.Tensor]:
    """The prompts without their last token (ours predicts that one in the branches); all have one length."""
    layout = work.model.tokens
    ids = np.stack([prompt.tokens[:-1] for prompt in work.prompts]).astype(np.int64)
    inputs = {
        "input_ids": ids,
        "attention_mask": np.ones_like(ids),
        "mm_token_type_ids": (ids == layout.image).astype(np.int64),
        "pixel_values": np.concatenate([patches for prompt in work.prompts for patches in prompt.patches]),
        "image_grid_thw": np.array([visual.grid for prompt in work.prompts for visual in prompt.visuals]),
    }
    return {name: torch.from_numpy(value).to(device) for name, value in inputs.items()}


def torch_forward(twin: Any, inputs: dict[str, torch.Tensor]) -> np.ndarray:
    """Float32 logits [P, S, V] on the host."""
    twin.model.rope_deltas = None
    with torch.no_grad():
        return twin(**inputs).logits.float().cpu().numpy()


def seconds_of(call: Callable[[], Any], device: torch.device, repeats: int) -> float:
    """Median wall seconds of a torch call, after one to warm up."""
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    call()
    found = []
    for _ in range(repeats):
        wait()
        began = time.perf_counter()
        call()
        wait()
        found.append(time.perf_counter() - began)
    return statistics.median(found)


def distance(found: np.ndarray, wanted: np.ndarray) -> dict[str, float]:
    """Root mean square and largest difference, and the share of positions whose most likely token is the same."""
    error = found.astype(np.float64) - wanted
    return {
        "rms": math.sqrt(float(np.mean(error**2))),
        "relative_rms": math.sqrt(float(np.mean(error**2) / np.mean(wanted.astype(np.float64) ** 2))),
        "largest": float(np.abs(error).max()),
        "same_first_token": float(np.mean(found.argmax(-1) == wanted.argmax(-1))),
    }


def study(
    size: Size, shape: str, dtype: str, repeats: int, peak_tflops: float | None, attention: str
) -> dict[str, Any]:
    """Everything that is measured, as one JSON object."""
    work = load_work(size, shape=shape, dtype=dtype)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def forward(params: Any, batch: Any) -> jax.Array:
        return work.model.logits(params, work.model.prompt_hidden(params, batch)[0])

    def prefill(params: Any, batch: Any) -> Any:
        return work.model.trunk(params, batch)

    length = len(work.prompts[0].tokens) - 1
    if any(len(prompt.tokens) != length + 1 for prompt in work.prompts):
        raise SystemExit("the prompts differ in length: torch would need padding")
    ours = np.asarray(jax.jit(forward)(work.params, work.batch))[:, :length]
    inputs = torch_inputs(work, device)
    twin = torch_twin(work, device, attention)
    exact = torch_forward(twin, inputs)
    twin = twin.to(getattr(torch, dtype))
    theirs = torch_forward(twin, inputs)

    tokens = size.prompts * length
    patches, windows = work.batch.patches.shape[2], work.batch.patches.shape[2] // work.model.layout.window_patches
    flops = prefill_flops(work.model.config, size, patches, windows)
    timer = Timer(repeats)
    program = timer.compile(prefill, work.params, work.batch)
    timer.time("prefill", lambda: program(work.params, work.batch), program, flops)
    jax_seconds = timer.parts["prefill"]["wall_seconds"]["median"]

    def torch_prefill() -> None:
        twin.model.rope_deltas = None
        with torch.no_grad():
            twin(**inputs, logits_to_keep=1)

    # Their forward also makes the last token's logits: counted for them.
    torch_flops = flops + 2.0 * head_weights(work.model.config) * size.prompts
    torch_seconds = seconds_of(torch_prefill, device, repeats)
    peak = None if peak_tflops is None else peak_tflops * 1e12

    def speed(seconds: float, operations: float) -> dict[str, float | None]:
        share = None if peak is None else round(operations / seconds / peak, 4)
        return {"seconds": seconds, "tokens_per_second": round(tokens / seconds, 1), "mfu": share}

    return {
        "machine": machine() | {"torch": torch.__version__, "torch_device": str(device)},
        "shape": shape,
        "dtype": dtype,
        "attention": {"ours": work.model.options.attention, "torch": attention},
        "prompts": size.prompts,
        "prompt_tokens": length,
        "patches": patches,
        "prefill_tflop": round(flops / 1e12, 3),
        "peak_tflops": peak_tflops,
        "to_torch_float32": {"ours": distance(ours, exact), "torch": distance(theirs, exact)},
        "to_torch_same_dtype": distance(ours, theirs),
        "prefill": {"ours": speed(jax_seconds, flops), "torch": speed(torch_seconds, torch_flops)},
    }


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="3b", help="a name in infimmr_jax/bench/work.py: small, 3b, 7b")
    parser.add_argument("--dtype", default="bfloat16", choices=("bfloat16", "float32"))
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--prompt-tokens", type=int, default=1024)
    parser.add_argument("--image-size", type=int, default=448, help="side of each prompt's picture in pixels")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--peak-tflops", type=float, help="dense peak of the device in this dtype (H100, H200: 989)")
    parser.add_argument("--attention", default="sdpa", help="attention of the torch model")
    parser.add_argument("--out", type=Path, help="JSON file to write; printed in any case")
    given = parser.parse_args(arguments)
    size = Size(given.prompts, given.prompt_tokens, given.image_size)
    found = study(size, given.shape, given.dtype, given.repeats, given.peak_tflops, given.attention)
    text = json.dumps(found, indent=1)
    print(text)
    if given.out is not None:
        given.out.write_text(text + "\n", encoding="utf-8")
    return found


if __name__ == "__main__":
    main()
