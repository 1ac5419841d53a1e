"""How fast image files become patches: images a second on one and two threads, and processor time an image.

    python studies/preprocessing_speed.py [--seconds 3] [--side 448]

Four kinds of pictures: pure noise, a photograph-like PNG (smooth shapes with sensor noise), a flat drawing, and a JPEG;
each is decoded, resized to the patch grid where it does not fit, cut and normalised, as in training. The processor
time does not depend on what else the machine does; the images a second do, so the load is printed with them.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import io
import os
import time

import numpy as np
from PIL import Image

from infimmr_jax.config import ImageSection
from infimmr_jax.data.pictures import image_size, open_image
from infimmr_jax.preprocess.images import patchify, plan_grid

KINDS = ("noise.png", "photo.png", "drawing.png", "photo.jpg")
PICTURES = 16


def picture(kind: str, side: int, seed: int) -> bytes:
    """One encoded picture of side x side pixels."""
    chooser = np.random.default_rng(seed)
    if kind == "noise.png":
        pixels = chooser.integers(0, 256, (side, side, 3), dtype=np.uint8)
    elif kind == "drawing.png":
        blocks = Image.fromarray(chooser.integers(0, 256, (6, 6, 3), dtype=np.uint8))
        pixels = np.asarray(blocks.resize((side, side), Image.Resampling.NEAREST))
    else:
        smooth = Image.fromarray(chooser.integers(0, 256, (24, 24, 3), dtype=np.uint8))
        values = np.asarray(smooth.resize((side, side), Image.Resampling.BICUBIC)).astype(int)
        pixels = (values + chooser.integers(-6, 7, values.shape)).clip(0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG" if kind.endswith("jpg") else "PNG", quality=90)
    return buffer.getvalue()


def to_patches(source: bytes, section: ImageSection) -> np.ndarray:
    """What a training worker does with one image."""
    return patchify(open_image(source, section), plan_grid(*image_size(source, section), section, 14, 2), 14, 2, 2)


def measure(files: list[bytes], section: ImageSection, threads: int, seconds: float) -> tuple[float, float]:
    """Images a second by the clock, and processor milliseconds an image."""

    def work(_: int) -> int:
        done = 0
        while time.perf_counter() < end:
            to_patches(files[done % len(files)], section)
            done += 1
        return done

    to_patches(files[0], section)
    began, used = time.perf_counter(), time.process_time()
    end = began + seconds
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        done = sum(pool.map(work, range(threads)))
    return done / (time.perf_counter() - began), (time.process_time() - used) / done * 1e3


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--side", type=int, default=448)
    options = parser.parse_args()
    section = ImageSection(max_pixels=448 * 448)
    print(f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}; {options.side} px, into at most 448 x 448 px")
    print("| picture | kB | images/s, 1 thread | images/s, 2 threads | processor ms an image |\n|---|---|---|---|---|")
    for kind in KINDS:
        files = [picture(kind, options.side, seed) for seed in range(PICTURES)]
        one, cost = measure(files, section, 1, options.seconds)
        two, cost_two = measure(files, section, 2, options.seconds)
        print(
            f"| {kind} | {len(files[0]) // 1024} | {one:.0f} | {two:.0f} | {cost:.1f} ({cost_two:.1f} on 2 threads) |"
        )


if __name__ == "__main__":
    main()
