"""Videos: sampling and grids against transformers, patches against the image path, both kinds of source."""

import json
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from published import GEOMETRY, PATCHES

from infimmr_jax.config import ImageSection, VideoSection
from infimmr_jax.data.records import DataError
from infimmr_jax.preprocess.images import flat_patches, patchify
from infimmr_jax.preprocess.layout import VisionLayout
from infimmr_jax.preprocess.video import natural_order, plan_video, sample_frames, video_grid, video_patches

LAYOUT = VisionLayout(1, 2, 3, 4, **GEOMETRY)
IMAGE = ImageSection()
# Matrices of an MP4 track (16.16 and 2.30 fixed point): as recorded, and a quarter turn clockwise.
UPRIGHT = (1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
CLOCKWISE = (0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)
SMALL = VideoSection(min_pixels=28 * 28, max_pixels=28 * 28 * 16)

# transformers' video processor needs torchvision to be imported; a hollow one is enough for the parts asked here.
TORCH_SIDE = """
import importlib.machinery, json, sys, types
import torch
torch.set_num_threads(1)
MODES = "NEAREST NEAREST_EXACT BILINEAR BICUBIC BOX HAMMING LANCZOS".split()

def hollow(name):
    if name.startswith("__"):
        raise AttributeError(name)
    return type(name, (), {mode: mode for mode in MODES})

for name in ("", ".transforms", ".transforms.functional", ".transforms.v2", ".transforms.v2.functional", ".io"):
    module = types.ModuleType("torchvision" + name)
    module.__spec__ = importlib.machinery.ModuleSpec(module.__name__, None)
    module.__path__, module.__getattr__, module.__version__ = [], hollow, "0.99"
    parent, _, child = module.__name__.rpartition(".")
    if parent:
        setattr(sys.modules[parent], child, module)
    sys.modules[module.__name__] = module

from transformers.models.qwen2_vl import video_processing_qwen2_vl as video
from transformers.video_utils import VideoMetadata

asked = json.load(sys.stdin)
Processor = video.Qwen2VLVideoProcessor
sampled, seconds = [], []
for total, fps, wanted, least, most in asked["samples"]:
    settings = types.SimpleNamespace(
        num_frames=None, fps=wanted, temporal_patch_size=2, min_frames=least, max_frames=most
    )
    metadata = VideoMetadata(total_num_frames=total, fps=fps)
    metadata.frames_indices = Processor.sample_frames(settings, metadata)
    sampled.append(metadata.frames_indices.tolist())
    seconds.append(2 / metadata.sampled_fps)

class Bare(Processor):
    def __init__(self, max_video_tokens):
        self.max_video_tokens = max_video_tokens

grids = []
video.BaseVideoProcessor.resize = lambda self, image, size, resample: image.new_zeros(
    (*image.shape[:3], size.height, size.width)
)
for frames, width, height, least, most, tokens in asked["grids"]:
    clip = torch.zeros((1, frames, 1, height, width), dtype=torch.uint8)
    size = video.SizeDict(shortest_edge=least, longest_edge=most)
    bare = Bare(tokens)
    resized = bare.resize(clip, size, None, 28, 2, cap_pixels_per_frame=tokens is not None)
    grids.append(bare.patchify(resized, 14, 2, 2)[1:])

clip = torch.tensor(asked["clip"], dtype=torch.float32)[None].permute(0, 1, 4, 2, 3)
patches = Processor.patchify(None, clip, 14, 2, 2)[0][0].tolist()
print(json.dumps({"sampled": sampled, "seconds": seconds, "grids": grids, "patches": patches}))
"""


@pytest.mark.parity
@pytest.mark.slow
def test_sampling_grids_and_patch_order_equal_the_torch_processor():
    rng = np.random.default_rng(0)
    samples = [(int(total), fps, 2.0, 4, 768) for total in range(2, 400, 3) for fps in (24.0, 29.97, 1.0)]
    samples += [
        (int(rng.integers(4, 20_000)), float(rng.uniform(0.5, 60)), float(rng.uniform(0.3, 8)), 4, 64)
        for _ in range(300)
    ]
    shapes = [(4, 320, 240), (5, 64, 48), (1, 100, 50), (60, 640, 360), (700, 64, 64), (768, 32, 200)]
    grids = [(*shape, *budget) for shape in shapes for budget in ((100_352, 602_112, 128_000), (784, 50_176, None))]
    # Budgets so small that a frame keeps 1.05 times its least size.
    grids += [(60, 200 + 20 * n, 700 - 13 * n, 100_352, 602_112, 2_000) for n in range(20)]
    clip = rng.integers(0, 256, (5, 56, 84, 3)).tolist()
    answer = subprocess.run(
        [sys.executable, "-c", TORCH_SIDE],
        input=json.dumps({"samples": samples, "grids": grids, "clip": clip}),
        capture_output=True,
        text=True,
        check=True,
    )
    expected = json.loads(answer.stdout.splitlines()[-1])
    for (total, fps, wanted, least, most), frames, seconds in zip(
        samples, expected["sampled"], expected["seconds"], strict=True
    ):
        section = VideoSection(fps=wanted, min_frames=least, max_frames=most)
        found = sample_frames(total, fps, section, LAYOUT)
        assert found.tolist() == frames, (total, fps, wanted)
        assert LAYOUT.temporal_patch_size / (len(found) / total * fps) == pytest.approx(seconds, rel=1e-12)
    for (frames, width, height, least, most, tokens), grid in zip(grids, expected["grids"], strict=True):
        section = VideoSection(min_pixels=least, max_pixels=most, max_tokens=tokens)
        assert list(video_grid(frames, width, height, section, LAYOUT)) == grid
    frames = np.array(clip, np.uint8)
    found = np.concatenate([flat_patches(list(frames[n : n + 2]), 14, 2, 2) for n in (0, 2, 4)])
    raw = np.array(expected["patches"], np.float32)
    # The normalisation is one increasing function a channel: order and values agree when raw bytes map to it.
    from infimmr_jax.preprocess.images import normalisation_table

    channel = np.repeat(np.arange(3), 2 * 196)
    assert np.array_equal(found, normalisation_table()[channel, raw.astype(int)])


def test_two_frames_a_second_by_hand():
    assert sample_frames(60, 30.0, VideoSection(), LAYOUT).tolist() == [0, 15, 30, 45]
    assert sample_frames(7, 30.0, VideoSection(), LAYOUT).tolist() == [0, 1, 3, 5]
    assert sample_frames(3, 30.0, VideoSection(), LAYOUT).tolist() == [0, 1]
    assert sample_frames(1, 30.0, VideoSection(), LAYOUT).tolist() == [0]
    assert len(sample_frames(100_000, 30.0, VideoSection(), LAYOUT)) == 768
    with pytest.raises(DataError, match="fewer frames than one temporal patch"):
        sample_frames(10, 1.0, VideoSection(min_frames=1, max_frames=1), LAYOUT)


def test_a_token_budget_bounds_long_videos():
    free = VideoSection(max_tokens=None)
    assert video_grid(4, 640, 480, free, LAYOUT) == video_grid(4, 640, 480, VideoSection(), LAYOUT) == (2, 34, 46)
    time, rows, columns = video_grid(700, 640, 480, VideoSection(), LAYOUT)
    assert time == 350
    assert time * rows * columns // 4 <= 128_000 * 0.9 < 350 * 34 * 46 // 4


def _frames(count, width=60, height=44):
    rng = np.random.default_rng(3)
    return [Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)) for _ in range(count)]


def _folder(tmp_path, frames):
    for number, frame in enumerate(frames):
        frame.save(tmp_path / f"frame_{number:03d}.png")
    (tmp_path / "notes.txt").write_text("not a frame")
    return tmp_path


def test_a_folder_of_frames_is_shown_whole(tmp_path):
    frames = _frames(5)
    plan = plan_video(_folder(tmp_path, frames), SMALL, IMAGE, LAYOUT)
    assert plan.frames == (0, 1, 2, 3, 4)
    assert plan.grid == (3, 4, 4)
    assert plan.seconds_per_grid == 1.0
    patches = video_patches(plan, IMAGE, LAYOUT)
    assert [values.shape for values in patches] == [(16, 1176)] * 3
    for number, values in enumerate(patches):
        first, second = frames[2 * number], frames[min(2 * number + 1, 4)]
        by_time = values.reshape(16, 3, 2, 196)
        for time, frame in enumerate((first, second)):
            alone = patchify(frame, (1, 4, 4), **PATCHES).reshape(16, 3, 2, 196)
            assert np.array_equal(by_time[:, :, time], alone[:, :, time])


def test_frames_are_in_the_order_of_their_numbers(tmp_path):
    """frame_1 .. frame_12 without leading zeros: by letters, 10 would come before 2."""
    names = [f"frame_{number}.png" for number in range(1, 13)]
    frames = _frames(12)
    for name, frame in zip(names, frames, strict=True):
        frame.save(tmp_path / name)
    plan = plan_video(tmp_path, SMALL, IMAGE, LAYOUT)
    for number, patches in enumerate(video_patches(plan, IMAGE, LAYOUT)):
        expected = patchify(frames[2 * number], (1, 4, 4), **PATCHES).reshape(16, 3, 2, 196)[:, :, 0]
        assert np.array_equal(patches.reshape(16, 3, 2, 196)[:, :, 0], expected)
    mixed = ["10.png", "a.png", "a2.png", "a10.png", "2b.png", "02.png", "2.png", "b1c10.png", "b1c9.png"]
    ordered = ["02.png", "2.png", "2b.png", "10.png", "a.png", "a2.png", "a10.png", "b1c9.png", "b1c10.png"]
    assert [path.name for path in sorted(map(Path, mixed), key=natural_order)] == ordered


def test_a_folder_with_a_frame_rate_is_sampled(tmp_path):
    plan = plan_video(_folder(tmp_path, _frames(40)), SMALL, IMAGE, LAYOUT, frames_per_second=10.0)
    assert plan.frames == (0, 5, 10, 15, 20, 25, 30, 35)
    assert plan.seconds_per_grid == 1.0


def _write_video(path, frames, fps, codec, pixel_format):
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps)
        stream.width, stream.height, stream.pix_fmt = frames[0].width, frames[0].height, pixel_format
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_image(frame)))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize("suffix", [".mkv", ".avi"])
def test_a_lossless_file_equals_its_frames(tmp_path, suffix):
    frames = _frames(30)
    path = _write_video(tmp_path / f"clip{suffix}", frames, 10, "ffv1", "bgr0")
    plan = plan_video(path, SMALL, IMAGE, LAYOUT)
    assert plan.frames == (0, 5, 10, 15, 20, 25)
    assert plan.grid == (3, 4, 4)
    assert plan.seconds_per_grid == pytest.approx(1.0)
    found = np.stack(video_patches(plan, IMAGE, LAYOUT)).reshape(3, 16, 3, 2, 196)
    for number, index in enumerate(plan.frames):
        expected = patchify(frames[index], (1, 4, 4), **PATCHES).reshape(16, 3, 2, 196)[:, :, 0]
        assert np.array_equal(found[number // 2, :, :, number % 2], expected)


def test_an_mp4_is_read(tmp_path):
    smooth = [Image.new("RGB", (64, 48), (8 * n, 100, 200 - 6 * n)) for n in range(24)]
    path = _write_video(tmp_path / "clip.mp4", smooth, 24, "mpeg4", "yuv420p")
    plan = plan_video(path, SMALL, IMAGE, LAYOUT)
    assert plan.frames == (0, 6, 12, 18)
    assert len(video_patches(plan, IMAGE, LAYOUT)) == 2


def test_a_video_recorded_sideways_is_turned(tmp_path):
    left_red = Image.new("RGB", (112, 56), (0, 0, 255))
    left_red.paste((255, 0, 0), (0, 0, 56, 56))
    path = _write_video(tmp_path / "clip.mp4", [left_red] * 8, 4, "mpeg4", "yuv420p")
    content = path.read_bytes()
    track = content.index(b"tkhd")
    upright, clockwise = struct.pack(">9i", *UPRIGHT), struct.pack(">9i", *CLOCKWISE)
    place = content.index(upright, track)
    path.write_bytes(content[:place] + clockwise + content[place + len(upright) :])
    section = VideoSection(min_pixels=28 * 28, max_pixels=56 * 112)
    plan = plan_video(path, section, IMAGE, LAYOUT)
    assert plan.grid == (2, 8, 4)
    # Turned clockwise, the left half of the picture lies on top.
    values = video_patches(plan, IMAGE, LAYOUT)[0].reshape(4, 2, 2, 2, 3, 2, 196)
    red = values[..., 0, :, :].mean(axis=(-1, -2))
    assert (red[:2] > 1).all()
    assert (red[2:] < 0).all()


def test_bad_videos_are_named(tmp_path):
    (tmp_path / "noise.mp4").write_bytes(b"no video at all" * 100)
    (tmp_path / "empty").mkdir()
    unequal = tmp_path / "unequal"
    unequal.mkdir()
    _folder(unequal, [*_frames(2), *_frames(1, width=62)[:1]])
    for source, message in (
        ("noise.mp4", r"noise\.mp4 can not be read"),
        ("missing.mp4", r"missing\.mp4 can not be read"),
        ("empty", "empty holds no image"),
        ("unequal", r"frame_002\.png is 62 x 44 pixels, the first one is 60 x 44"),
    ):
        with pytest.raises(DataError, match=message):
            plan_video(tmp_path / source, SMALL, IMAGE, LAYOUT)
    whole = plan_video(_write_video(tmp_path / "clip.mkv", _frames(20), 10, "ffv1", "bgr0"), SMALL, IMAGE, LAYOUT)
    _write_video(tmp_path / "clip.mkv", _frames(6), 10, "ffv1", "bgr0")
    with pytest.raises(DataError, match=r"clip\.mkv ends early: 2 of 4 frames"):
        video_patches(whole, IMAGE, LAYOUT)


def test_without_pyav_files_are_refused_and_folders_work(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(DataError, match="pip install av"):
        plan_video(tmp_path / "clip.mp4", SMALL, IMAGE, LAYOUT)
    assert plan_video(_folder(tmp_path, _frames(2)), SMALL, IMAGE, LAYOUT).grid == (1, 4, 4)
