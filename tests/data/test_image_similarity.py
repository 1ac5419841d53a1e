"""Copies of a picture keep its fingerprint; other pictures do not have it; the recall of crops is measured."""

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageOps
from scipy.fft import dctn

from infimmr_jax.data.image_similarity import KEPT, SIDE, crop_fingerprints, distances, fingerprint, joined


def drawing(seed, size=(300, 220)):
    """A diagram-like picture: shapes and lines on white."""
    chooser = np.random.default_rng(seed)
    image = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(image)
    for _ in range(12):
        x, y = chooser.integers(0, size[0] - 60), chooser.integers(0, size[1] - 60)
        w, h = chooser.integers(15, 60, 2)
        colour = tuple(int(c) for c in chooser.integers(0, 200, 3))
        if chooser.random() < 0.5:
            pen.rectangle((int(x), int(y), int(x + w), int(y + h)), fill=colour)
        else:
            pen.line((int(x), int(y), int(x + w), int(y + h)), fill=colour, width=4)
    return image


def jpeg(image, quality):
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(io.BytesIO(buffer.getvalue()))


def cropped(image, share, chooser):
    width, height = image.size
    w, h = int(width * share), int(height * share)
    x, y = int(chooser.integers(0, width - w + 1)), int(chooser.integers(0, height - h + 1))
    return image.crop((x, y, x + w, y + h))


COPIES = {
    "the same": lambda image: image,
    "half the size": lambda image: image.resize((150, 110)),
    "larger": lambda image: image.resize((510, 374)),
    "JPEG of quality 40": lambda image: jpeg(image, 40),
    "gray": lambda image: image.convert("L").convert("RGB"),
    "darker": lambda image: Image.eval(image, lambda value: int(value * 0.85)),
    "with a margin": lambda image: ImageOps.expand(image, (40, 25), "white"),
    "stretched": lambda image: image.resize((300, 250)),
}


def least(copy, prints):
    return distances(fingerprint(copy), prints).min()


@pytest.mark.parametrize("name", sorted(COPIES))
def test_a_copy_keeps_its_fingerprint(name):
    apart = [least(COPIES[name](drawing(seed)), fingerprint(drawing(seed))) for seed in range(30)]
    assert np.mean(np.array(apart) < 0.12) >= 0.95


def test_other_pictures_are_far_away():
    prints = joined([fingerprint(drawing(seed)) for seed in range(80)])
    apart = distances(prints, prints)[np.triu_indices(80, 1)]
    assert apart.min() > 0.25
    assert abs(np.median(apart) - 0.45) < 0.08


def test_crops_are_recognised_by_trying_crops():
    chooser = np.random.default_rng(0)
    originals = [drawing(seed) for seed in range(24)]
    crops = [jpeg(cropped(image, chooser.uniform(0.75, 0.95), chooser), 70) for image in originals]
    tried = [least(crop, crop_fingerprints(image)) for crop, image in zip(crops, originals, strict=True)]
    plain = [least(crop, fingerprint(image)) for crop, image in zip(crops, originals, strict=True)]
    assert np.mean(np.array(tried) < 0.25) >= 0.8
    assert np.mean(np.array(tried) < 0.25) > np.mean(np.array(plain) < 0.25) + 0.2
    others = joined([crop_fingerprints(drawing(seed)) for seed in range(100, 120)])
    assert np.mean([least(crop, others) < 0.25 for crop in crops]) <= 0.05


def test_the_transform_is_the_type_two_cosine_transform():
    # A picture without a margin, already at the size it is reduced to.
    pixels = np.random.default_rng(1).integers(0, 255, (SIDE, SIDE), dtype=np.uint8)
    spectrum = dctn(pixels.astype(float), norm="ortho")[:KEPT, :KEPT]
    spectrum[0, 0] = 0
    expected = (spectrum > np.median(spectrum)).ravel()
    bits = np.unpackbits(fingerprint(Image.fromarray(pixels).convert("RGB")).bits.view(np.uint8)).astype(bool)
    assert (bits == expected).mean() > 0.99


@pytest.mark.parametrize("value", [0, 255])
def test_an_empty_picture_has_a_fingerprint_too(value):
    assert fingerprint(Image.new("RGB", (5, 3), (value,) * 3)).bits.shape == (1, 4)


def test_other_colours_in_one_template_are_another_picture():
    original = drawing(5)
    red, green, blue = original.split()
    other = Image.merge("RGB", (blue, green, red))
    assert distances(fingerprint(original), fingerprint(other))[0, 0] > 0.2
    assert distances(fingerprint(original), fingerprint(jpeg(original, 60)))[0, 0] < 0.06
    assert distances(fingerprint(original), fingerprint(original.convert("L").convert("RGB")))[0, 0] < 0.06
