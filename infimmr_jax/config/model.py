"""The policy, its pictures and its prompts."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from infimmr_jax.config.base import PositiveInt, Section, UserPath


class VisionShape(Section):
    """Shape of a Qwen2.5-VL vision tower made from scratch."""

    hidden_size: PositiveInt = 64
    depth: PositiveInt = 2
    num_heads: PositiveInt = 4
    intermediate_size: PositiveInt = 128
    window_size: PositiveInt = 56
    fullatt_block_indexes: tuple[int, ...] = (1,)


class ModelShape(Section):
    """Shape of a Qwen2.5-VL made from scratch (`model.path: null`)."""

    hidden_size: PositiveInt = 96
    num_layers: PositiveInt = 3
    num_heads: PositiveInt = 4
    num_kv_heads: PositiveInt = 2
    intermediate_size: PositiveInt = 256
    mrope_section: tuple[int, int, int] = (4, 4, 4)
    rope_theta: float = 1e4
    tie_word_embeddings: bool = True
    vision: VisionShape = VisionShape()


class ModelSection(Section):
    """Which policy is trained: a Hugging Face directory, or one made from scratch in the given shape.

    `preset` names a published size: what the directory must hold (so that a run is planned before it is there), or,
    without `path`, the shape of a model with random weights.
    """

    path: UserPath | None = None
    preset: Literal["qwen2.5-vl-3b", "qwen2.5-vl-7b", "qwen2.5-vl-32b", "qwen2.5-vl-72b"] | None = None
    shape: ModelShape = ModelShape()
    vocab_size: PositiveInt = 512
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    param_dtype: Literal["float32", "bfloat16"] = "float32"
    remat: Literal["none", "full", "dots"] = "none"
    attention: Literal["auto", "xla", "splash", "cudnn"] = "auto"

    @model_validator(mode="after")
    def _one_shape(self) -> ModelSection:
        if "shape" in self.model_fields_set and self.shape != ModelShape() and self.preset is not None:
            raise ValueError(f"give either `preset` ({self.preset}) or `shape`, not both")
        return self


class ImageSection(Section):
    """Pixel budget of an image, in pixels of the resized image (multiples of 28 x 28).

    A file of more than `max_file_pixels` is refused by its header; Pillow itself refuses more than the greatest value.
    """

    min_pixels: PositiveInt = 56 * 56
    max_pixels: PositiveInt = 1280 * 28 * 28
    max_file_pixels: Annotated[int, Field(gt=0, le=178_956_970)] = 64_000_000

    @model_validator(mode="after")
    def _ordered(self) -> ImageSection:
        if self.min_pixels > self.max_pixels:
            raise ValueError(f"min_pixels {self.min_pixels} is above max_pixels {self.max_pixels}")
        return self


class VideoSection(Section):
    """Sampling of a video's frames, and the pixel budget of one frame after resizing.

    `max_tokens` bounds the visual tokens of a whole video: each frame's budget is an even share of 90% of it.
    """

    fps: Annotated[float, Field(gt=0)] = 2.0
    min_frames: PositiveInt = 4
    max_frames: PositiveInt = 768
    min_pixels: PositiveInt = 128 * 28 * 28
    max_pixels: PositiveInt = 768 * 28 * 28
    max_tokens: PositiveInt | None = 128_000

    @model_validator(mode="after")
    def _ordered(self) -> VideoSection:
        if self.min_pixels > self.max_pixels or self.min_frames > self.max_frames:
            raise ValueError("min_pixels and min_frames must not be above max_pixels and max_frames")
        return self


class PromptSection(Section):
    """How a problem becomes a prompt: the response format asked for and the chat template's system text.

    `instruction` replaces the text that asks for the format; {answer_form} in it becomes the sentence that says how an
    answer of the problem's type is written (empty for math, choice and string).
    """

    format: Literal["think_boxed", "boxed", "think_answer", "think_answer_boxed", "observe_think_answer"] = (
        "think_boxed"
    )
    system: str | None = None
    instruction: str | None = None
