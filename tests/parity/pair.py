"""One architecture twice with the same random weights, ours and the torch model of transformers; prompts for both."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jax
import numpy as np
import torch
from transformers import PreTrainedTokenizerBase, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from infimmr_jax.model.config import ModelConfig, TextConfig, TokenIds, VisionConfig, to_hf_config, vision_layout
from infimmr_jax.model.family import Model
from infimmr_jax.model.hf_table import leaf_paths, transformers_name
from infimmr_jax.model.options import ModelOptions
from infimmr_jax.preprocess.batching import PromptBatch, collate
from infimmr_jax.preprocess.layout import VisionLayout
from infimmr_jax.preprocess.prompts import EncodedPrompt, Picture, PromptPlan, plan_text
from infimmr_jax.preprocess.tokenizer import train_tokenizer
from infimmr_jax.preprocess.video import VideoPlan

torch.set_num_threads(1)
SMALL = {
    "hidden_size": 96,
    "num_layers": 3,
    "num_heads": 4,
    "num_kv_heads": 2,
    "head_dim": 24,
    "intermediate_size": 128,
    "mrope_section": (2, 4, 6),
    "rope_theta": 1e4,
}
SMALL_VISION = {
    "depth": 4,
    "hidden_size": 64,
    "num_heads": 4,
    "intermediate_size": 96,
    "fullatt_block_indexes": (1, 3),
    "window_size": 56,
}
OPTIONS = ModelOptions()


@dataclasses.dataclass(frozen=True)
class Pair:
    """Both models, what prepares prompts for them, and the numbers that random prompts come from."""

    config: ModelConfig
    params: dict
    torch_model: Qwen2_5_VLForConditionalGeneration
    tokenizer: PreTrainedTokenizerBase
    layout: VisionLayout

    @property
    def model(self) -> Model:
        return Model(self.config)

    def image(self, text: str, *grids: tuple[int, int], seed: int = 0) -> EncodedPrompt:
        """A prompt that shows pictures of these (rows, columns) of patches, with random pixels, before or in `text`."""
        marked = text if "<image>" in text else "<image>" * len(grids) + text
        return self._encode(marked, [Picture(b"", (1, *grid)) for grid in grids], seed)

    def video(self, text: str, grid: tuple[int, int, int], seconds: float, seed: int = 0) -> EncodedPrompt:
        """A prompt that shows a video of (time, rows, columns) patches, `seconds` between two temporal patches."""
        return self._encode(f"<image>{text}", [VideoPlan(Path("none"), (), grid, seconds)], seed)

    def _encode(self, text: str, visuals: list, seed: int) -> EncodedPrompt:
        plan = plan_text(text, visuals, self.tokenizer, self.layout)
        numbers = np.random.default_rng(seed)
        patches = [
            numbers.normal(size=(int(np.prod(visual.grid[1:])), self.layout.patch_width)).astype(np.float32)
            for visual in visuals
            for _ in range(visual.grid[0])
        ]
        fields = {field.name: getattr(plan, field.name) for field in dataclasses.fields(PromptPlan)}
        return EncodedPrompt(**fields, patches=tuple(patches))

    def batch(self, prompts: list[EncodedPrompt], rows: int = 4, length: int = 56, images: tuple = ()) -> PromptBatch:
        """The prompts in one bucket that holds all cases of these tests, so that they share an executable."""
        return collate(prompts, rows, length, images or (3, 7 * self.layout.window_patches), self.layout)

    def torch_inputs(
        self, prompts: list[EncodedPrompt], responses: np.ndarray | None = None, left: bool = False
    ) -> dict[str, torch.Tensor]:
        """The same prompts (and responses [P, R]) as the torch model takes them."""
        rows = [prompt.tokens for prompt in prompts]
        if responses is not None:
            rows = [np.concatenate(pair) for pair in zip(rows, responses, strict=True)]
        width = max(map(len, rows))
        ids = np.full((len(rows), width), self.config.tokens.pad, np.int64)
        mask = np.zeros((len(rows), width), np.int64)
        for number, row in enumerate(rows):
            place = slice(width - len(row), width) if left else slice(0, len(row))
            ids[number, place], mask[number, place] = row, 1
        kinds = np.where(ids == self.layout.image_token_id, 1, np.where(ids == self.layout.video_token_id, 2, 0)) * mask
        inputs = {"input_ids": ids, "attention_mask": mask, "mm_token_type_ids": kinds}
        for name, grid_name, kind in (
            ("pixel_values", "image_grid_thw", Picture),
            ("pixel_values_videos", "video_grid_thw", VideoPlan),
        ):
            patches, grids = [], []
            for prompt in prompts:
                first = 0
                for visual in prompt.visuals:
                    if isinstance(visual, kind):
                        patches += prompt.patches[first : first + visual.grid[0]]
                        grids.append(visual.grid)
                    first += visual.grid[0]
            if grids:
                inputs[name], inputs[grid_name] = np.concatenate(patches), np.array(grids)
        seconds = [v.seconds_per_grid for prompt in prompts for v in prompt.visuals if isinstance(v, VideoPlan)]
        if seconds:
            inputs["second_per_grid_ts"] = np.array(seconds, np.float32)
        return {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in inputs.items()}

    def torch_logits(self, prompts: list[EncodedPrompt], responses: np.ndarray, left: bool = False) -> list[np.ndarray]:
        """Logits of every real token of prompt + response, row by row."""
        inputs = self.torch_inputs(prompts, responses, left)
        self.torch_model.model.rope_deltas = None
        with torch.no_grad():
            logits = self.torch_model(**inputs).logits.float().numpy()
        return [row[mask.astype(bool)] for row, mask in zip(logits, inputs["attention_mask"].numpy(), strict=True)]

    def our_logits(
        self, batch: PromptBatch, responses: np.ndarray, options: ModelOptions = OPTIONS
    ) -> list[np.ndarray]:
        """The same from the trunk (all prompt tokens but the last) and one branch, for as many rows as responses."""
        filler = np.zeros((len(batch.lengths) - len(responses), responses.shape[1]), responses.dtype)
        branches = np.concatenate([responses, filler])[:, None]
        above, own = all_logits(self.params, Model(self.config, options), batch, branches)
        return [
            np.concatenate([row[:length], branch[0]])
            for row, length, branch in zip(np.asarray(above), batch.lengths, np.asarray(own), strict=True)
        ][: len(responses)]


def _all_logits(params, model, batch, responses):
    hidden, trunk = model.prompt_hidden(params, batch)
    branches = model.branch(params, trunk, responses)
    return model.logits(params, hidden), model.logits(params, branches)


all_logits = jax.jit(_all_logits, static_argnums=1)


def random_params(config: ModelConfig, seed: int = 0) -> dict:
    """Weights at which every part matters: unit-variance layers, large biases, scales away from 1."""
    numbers = np.random.default_rng(seed)

    def leaf(path: tuple[str, ...], shape: tuple[int, ...]) -> np.ndarray:
        values = numbers.standard_normal(shape, np.float32)
        if path[-1] == "scale":
            return 1 + 0.3 * values
        if path[-1] == "bias":
            return 0.3 * values
        # Sharp attention and strong layers: greedy answers then wander instead of repeating one token.
        gain = 2 if path[-2] in ("q", "k", "down") else 1
        return gain * values * (shape[-1] if path[-1] == "embedding" else shape[-2]) ** -0.5

    tree = Model(config).abstract_params()
    leaves = [leaf(path, one.shape) for path, one in leaf_paths(tree)]
    return jax.tree.unflatten(jax.tree.structure(tree), leaves)


def torch_state(params: dict, config: ModelConfig) -> dict[str, np.ndarray]:
    """A parameter tree (or a tree of gradients) by the names that the torch model gives in memory."""
    leaves = dict(leaf_paths(params))
    return {
        transformers_name(tensor.name): tensor.write(
            np.asarray(leaves[tensor.path] if tensor.layer is None else leaves[tensor.path][tensor.layer])
        )
        for tensor in Model(config).tensors()
    }


def make_pair(text: dict, vision: dict) -> Pair:
    """Both models of one architecture; the vocabulary is the one of a tokenizer trained here."""
    tokenizer = train_tokenizer(["how many cats are in the picture", "what is the sum of the numbers"] * 4, 320)
    ids = {name: tokenizer.convert_tokens_to_ids(f"<|{name}|>") for name in ("image_pad", "video_pad")}
    starts = {name: tokenizer.convert_tokens_to_ids(f"<|{name}|>") for name in ("vision_start", "vision_end")}
    config = ModelConfig(
        text=TextConfig(vocab_size=len(tokenizer) + 9, **text),
        vision=VisionConfig(out_hidden_size=text["hidden_size"], **vision),
        tokens=TokenIds(
            pad=tokenizer.pad_token_id,
            eos=tokenizer.eos_token_id,
            image=ids["image_pad"],
            video=ids["video_pad"],
            **starts,
        ),
    )
    params = random_params(config)
    hf_config = Qwen2_5_VLConfig.from_dict(to_hf_config(config))
    hf_config._attn_implementation = "eager"
    torch_model = Qwen2_5_VLForConditionalGeneration(hf_config).eval()
    state = {name: torch.from_numpy(value) for name, value in torch_state(params, config).items()}
    missing, unexpected = torch_model.load_state_dict(state, strict=False)
    assert not unexpected
    assert missing == (["lm_head.weight"] if config.text.tie_word_embeddings else [])
    return Pair(config, params, torch_model, tokenizer, vision_layout(config))


def assert_close(ours: list[np.ndarray], theirs: list[np.ndarray], bound: float, skip_last: bool = True) -> None:
    """Logits of every row within `bound`; the very last token of prompt + response has no counterpart in ours."""
    for row, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        b = b[:-1] if skip_last else b
        assert a.shape == b.shape
        assert np.abs(a - b).max() < bound, f"row {row} is off by {np.abs(a - b).max()}"
