"""What preprocessing must know of a Qwen2.5-VL model: patch geometry and the ids of the vision tokens."""

from __future__ import annotations

import dataclasses

CHANNELS = 3


@dataclasses.dataclass(frozen=True)
class VisionLayout:
    """Patch geometry (pixels, patches) and special token ids of one model.

    `tokens_per_second` is the temporal position step of one second of video.
    Raises ValueError when the attention window is not a whole number of merge units.
    """

    image_token_id: int
    video_token_id: int
    vision_start_token_id: int
    vision_end_token_id: int
    patch_size: int
    merge_size: int
    temporal_patch_size: int
    window_size: int
    tokens_per_second: int | float

    def __post_init__(self) -> None:
        if self.window_size % self.factor:
            raise ValueError(
                f"vision window_size {self.window_size} is not a multiple of patch_size x merge_size = {self.factor}"
            )

    @property
    def factor(self) -> int:
        """Side in pixels of one merge unit: resized images are multiples of it."""
        return self.patch_size * self.merge_size

    @property
    def merge_unit(self) -> int:
        """Patches that become one visual token."""
        return self.merge_size**2

    @property
    def window_patches(self) -> int:
        """Patch slots of one attention window."""
        return (self.window_size // self.patch_size) ** 2

    @property
    def patch_width(self) -> int:
        """Numbers in one flattened patch: channel x temporal x height x width."""
        return CHANNELS * self.temporal_patch_size * self.patch_size**2
