"""Videos to patches without torch: frames from a folder of images or, with PyAV, from a video file."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64
from PIL import Image

from infimmr_jax.config import ImageSection, VideoSection
from infimmr_jax.data.pictures import image_size, open_image
from infimmr_jax.data.records import DataError
from infimmr_jax.preprocess.images import flat_patches, resize, smart_resize
from infimmr_jax.preprocess.layout import VisionLayout
from infimmr_jax.preprocess.positions import Grid

FRAME_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")


@dataclasses.dataclass(frozen=True)
class VideoPlan:
    """Which frames of a video are shown and in which grid (time, rows, columns) of patches.

    `frames` are indices into the source; `seconds_per_grid` is the time between two temporal patches, in seconds.
    """

    source: Path
    frames: tuple[int, ...]
    grid: Grid
    seconds_per_grid: float


@dataclasses.dataclass(frozen=True)
class _Header:
    total: int
    fps: float
    width: int
    height: int


def plan_video(
    source: str | Path,
    video: VideoSection,
    image: ImageSection,
    layout: VisionLayout,
    frames_per_second: float | None = None,
) -> VideoPlan:
    """Choose frames and grid of a video file or a folder of frames (2.png before 10.png), from the headers.

    Of a file the first frame is decoded as well: it alone says whether the pictures lie on their side.

    The frames of a folder are taken to be `frames_per_second` apart; without it the folder is already sampled at
    `video.fps` and all its frames are shown. Sampling, resizing and timing follow transformers' Qwen2VLVideoProcessor.
    Raises DataError on a missing or empty source, frames of unequal sizes, and a file PyAV can not read.
    """
    source = Path(source)
    folder = source.is_dir()
    header = _folder_header(source, image, frames_per_second or video.fps) if folder else _file_header(source, image)
    whole = folder and frames_per_second is None and header.total <= video.max_frames
    frames = np.arange(header.total) if whole else sample_frames(header.total, header.fps, video, layout)
    grid = video_grid(len(frames), header.width, header.height, video, layout)
    sampled_fps = len(frames) / header.total * header.fps
    return VideoPlan(source, tuple(int(n) for n in frames), grid, layout.temporal_patch_size / sampled_fps)


def sample_frames(total: int, fps: float, video: VideoSection, layout: VisionLayout) -> Int64[np.ndarray, "frames"]:
    """Choose the frames shown of `total` frames at `fps` a second: `video.fps` of them a second, evenly spread.

    Their number lies within [min_frames, max_frames], is a multiple of the temporal patch and at most `total`;
    a video shorter than one temporal patch is shown whole. As `Qwen2VLVideoProcessor.sample_frames` of transformers.
    """
    unit = layout.temporal_patch_size
    if total < unit:
        return np.arange(total)
    most = min(video.max_frames, total) // unit * unit
    count = math.floor(min(max(total / fps * video.fps, video.min_frames), most) / unit) * unit
    if count == 0:
        raise DataError(f"data.video allows fewer frames than one temporal patch of {unit}; raise max_frames")
    step = total / count
    # float32 before truncation, and the length from the rounded quotient: torch.arange's arithmetic.
    return (np.arange(math.ceil(total / step)) * step).astype(np.float32).astype(np.int64)


def video_grid(frames: int, width: int, height: int, video: VideoSection, layout: VisionLayout) -> Grid:
    """Give the grid (time, rows, columns) of patches of so many frames of this size in pixels.

    The last frame is repeated where a temporal patch is not full. Raises DataError at aspect ratios above 200.
    """
    most = video.max_pixels
    if video.max_tokens is not None:
        budget = int(video.max_tokens * layout.factor**2 * 0.9)
        share = budget * layout.temporal_patch_size // frames
        most = max(min(most, share), int(video.min_pixels * 1.05))
    resized_height, resized_width = smart_resize(height, width, layout.factor, video.min_pixels, most)
    return (
        -(-frames // layout.temporal_patch_size),
        resized_height // layout.patch_size,
        resized_width // layout.patch_size,
    )


def video_patches(
    plan: VideoPlan, image: ImageSection, layout: VisionLayout
) -> list[Float32[np.ndarray, "patches features"]]:
    """Decode the planned frames: for each temporal patch its normalised flat patches in processor order.

    Raises DataError when a frame can not be decoded or the file holds fewer frames than its header says.
    """
    size = plan.grid[2] * layout.patch_size, plan.grid[1] * layout.patch_size
    read = _folder_frames if plan.source.is_dir() else _file_frames
    frames = [resize(frame, *size) for frame in read(plan, image)]
    if len(frames) != len(plan.frames):
        raise DataError(f"video {plan.source} ends early: {len(frames)} of {len(plan.frames)} frames could be read")
    unit = layout.temporal_patch_size
    return [
        flat_patches(frames[start : start + unit], layout.patch_size, layout.merge_size, unit)
        for start in range(0, len(frames), unit)
    ]


def _frame_files(folder: Path) -> list[Path]:
    return sorted((path for path in folder.iterdir() if path.suffix.lower() in FRAME_SUFFIXES), key=natural_order)


def natural_order(path: Path) -> tuple[list[tuple[int, str]], str]:
    """Give the key that sorts names as people number them: frame_2 before frame_10."""
    pieces = re.split(r"([0-9]+)", path.stem)
    # Numbers by their size; texts, at the even places, by their letters.
    return [(int(piece), "") if place % 2 else (0, piece) for place, piece in enumerate(pieces)], path.name


def _folder_header(folder: Path, section: ImageSection, fps: float) -> _Header:
    files = _frame_files(folder)
    if not files:
        raise DataError(f"the folder of frames {folder} holds no image")
    sizes = {file: image_size(file, section) for file in files}
    width, height = sizes[files[0]]
    for file, size in sizes.items():
        if size != (width, height):
            raise DataError(f"frame {file} is {size[0]} x {size[1]} pixels, the first one is {width} x {height}")
    return _Header(len(files), fps, width, height)


def _folder_frames(plan: VideoPlan, section: ImageSection) -> Iterator[Image.Image]:
    files = _frame_files(plan.source)
    for index in plan.frames:
        if index < len(files):
            yield open_image(files[index], section)


def _pyav() -> Any:
    try:
        import av
    except ImportError as error:
        raise DataError("video files are read with PyAV: pip install av, or give frames") from error
    return av


def _file_header(source: Path, section: ImageSection) -> _Header:
    av = _pyav()
    try:
        with av.open(str(source)) as container:
            if not container.streams.video:
                raise DataError(f"{source} holds no video stream")
            stream = container.streams.video[0]
            fps, width, height = stream.average_rate, stream.width, stream.height
            # Containers such as Matroska state no number of frames: count the packets, without decoding.
            total = stream.frames or sum(packet.size > 0 for packet in container.demux(stream))
            quarter_turn = _rotation(source) % 180 != 0
    except av.FFmpegError as error:
        raise DataError(f"video {source} can not be read: {error}") from error
    if not total or not fps:
        raise DataError(f"video {source} states no frames or no frame rate")
    if width * height > section.max_file_pixels:
        raise DataError(f"video {source} has frames of {width} x {height} pixels, above data.image.max_file_pixels")
    return _Header(total, float(fps), *((height, width) if quarter_turn else (width, height)))


def _rotation(source: Path) -> int:
    """Degrees counter-clockwise that the first frame must be turned to stand upright (phones record sideways)."""
    av = _pyav()
    with av.open(str(source)) as container:
        frame = next(container.decode(video=0), None)
        return 0 if frame is None else int(frame.rotation)


def _file_frames(plan: VideoPlan, section: ImageSection) -> Iterator[Image.Image]:
    av = _pyav()
    wanted = set(plan.frames)
    try:
        with av.open(str(plan.source)) as container:
            container.streams.video[0].thread_type = "AUTO"
            for index, frame in enumerate(container.decode(video=0)):
                if index in wanted:
                    picture = frame.to_image()
                    yield picture.rotate(frame.rotation, expand=True) if frame.rotation else picture
                if index >= plan.frames[-1]:
                    return
    except av.FFmpegError as error:
        raise DataError(f"video {plan.source} can not be decoded: {error}") from error
