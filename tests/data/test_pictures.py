"""Decoding rules of pictures by independent arithmetic; bad, huge and damaged files are refused in one sentence."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageFile, ImageOps

from infimmr_jax.config import ImageSection
from infimmr_jax.data.pictures import check_image, decode_url, image_size, open_image
from infimmr_jax.data.records import DataError

SECTION = ImageSection()


def _noise(width, height, channels=3, seed=0):
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def _encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _pixels(source, section=SECTION):
    image = open_image(source, section)
    assert image.mode == "RGB"
    assert image.size == image_size(source, section)
    return np.asarray(image)


def test_alpha_is_composited_on_white():
    rgba = _noise(31, 17, 4)
    exact = rgba[..., :3] * (rgba[..., 3:] / 255) + 255 * (1 - rgba[..., 3:] / 255)
    assert np.abs(_pixels(_encoded(Image.fromarray(rgba))) - exact).max() <= 1
    luminance_alpha = Image.fromarray(rgba[..., :2].copy(), "LA")
    exact = rgba[..., :1] * (rgba[..., 1:2] / 255) + 255 * (1 - rgba[..., 1:2] / 255)
    assert np.abs(_pixels(_encoded(luminance_alpha)) - exact).max() <= 1


def test_a_transparent_colour_becomes_white():
    pixels = _noise(9, 9)
    pixels[2:5, 3:7] = [1, 2, 3]
    found = _pixels(_encoded(Image.fromarray(pixels), transparency=(1, 2, 3)))
    expected = pixels.copy()
    expected[(pixels == [1, 2, 3]).all(axis=-1)] = 255
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_palettes_with_and_without_transparency(kind):
    palette = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8) % 5, "P")
    colours = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 9, 9], [200, 100, 0]], np.uint8)
    palette.putpalette(colours.tobytes())
    expected = colours[np.asarray(palette)]
    assert np.array_equal(_pixels(_encoded(palette, kind)), expected)
    expected[np.asarray(palette) == 2] = 255
    assert np.array_equal(_pixels(_encoded(palette, kind, transparency=2)), expected)


def test_gray_and_bilevel_repeat_their_value():
    gray = _noise(12, 7, 1)
    assert np.array_equal(_pixels(_encoded(Image.fromarray(gray))), np.repeat(gray[..., None], 3, axis=-1))
    bilevel = Image.fromarray(gray > 127)
    expected = np.repeat(np.where(gray > 127, 255, 0)[..., None], 3, axis=-1)
    assert np.array_equal(_pixels(_encoded(bilevel)), expected)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_gray_keeps_the_high_byte(kind):
    values = np.random.default_rng(0).integers(0, 65536, (11, 13), dtype=np.uint16)
    found = _pixels(_encoded(Image.fromarray(values), kind))
    assert np.array_equal(found, np.repeat((values // 256)[..., None], 3, axis=-1))


def test_cmyk_becomes_rgb():
    cmyk = Image.fromarray(np.full((16, 16, 4), [0, 255, 255, 0], np.uint8), "CMYK")
    assert np.abs(_pixels(_encoded(cmyk, "JPEG", quality=100)).astype(int) - [255, 0, 0]).max() <= 3
    assert np.array_equal(_pixels(_encoded(cmyk, "TIFF"))[0, 0], [255, 0, 0])


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_of_an_animation_the_first_frame_is_shown(kind):
    frames = [Image.new("RGB", (20, 10), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    source = _encoded(frames[0], kind, save_all=True, append_images=frames[1:], duration=100, **options)
    assert np.array_equal(_pixels(source), np.full((10, 20, 3), [255, 0, 0]))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied_once(kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    source = _encoded(Image.fromarray(_noise(30, 20)), kind, exif=exif)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(source)))
    assert np.array_equal(_pixels(source), np.asarray(upright.convert("RGB")))
    assert image_size(source, SECTION) == ((30, 20) if orientation < 5 else (20, 30))
    assert not open_image(source, SECTION).getexif()


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_unreadable_exif_does_not_lose_the_picture():
    source = _encoded(Image.fromarray(_noise(30, 20)), "JPEG", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff")
    assert _pixels(source).shape == (20, 30, 3)


def test_files_and_bytes_are_the_same(tmp_path):
    source = _encoded(Image.fromarray(_noise(30, 20)))
    path = tmp_path / "a.png"
    path.write_bytes(source)
    assert np.array_equal(_pixels(path), _pixels(source))
    assert np.array_equal(_pixels(str(path)), _pixels(source))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP"])
def test_the_size_is_read_without_decoding(kind, monkeypatch):
    def forbidden(self):
        raise AssertionError("pixels were decoded")

    source = _encoded(Image.fromarray(_noise(30, 20)), kind)
    monkeypatch.setattr(ImageFile.ImageFile, "load", forbidden)
    assert image_size(source, SECTION) == (30, 20)


def _png_header(width, height):
    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(8001, 8000), (100_000, 100_000)])
@pytest.mark.parametrize("read", [open_image, image_size])
def test_a_huge_image_is_refused_by_its_header(read, size, tmp_path):
    path = tmp_path / "huge.png"
    path.write_bytes(_png_header(*size))
    with pytest.raises(DataError, match=r"huge\.png.*(max_file_pixels|too large)"):
        read(path, SECTION)


def _bad_files(folder):
    png, jpeg = (_encoded(Image.fromarray(_noise(200, 200)), kind) for kind in ("PNG", "JPEG"))
    broken = bytearray(png)
    broken[len(png) // 2] ^= 255
    contents = {
        "truncated.png": png[: len(png) // 2],
        "truncated.jpg": jpeg[: len(jpeg) // 2],
        "header_only.png": png[:30],
        "corrupt.png": bytes(broken),
        "empty.png": b"",
        "text.png": b"this is not an image",
        "figure.eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n",
        "float.tiff": _encoded(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF"),
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return [*contents, "missing.png"]


def test_every_bad_file_is_named_in_one_sentence(tmp_path):
    for name in _bad_files(tmp_path):
        with pytest.raises(DataError, match=name.replace(".", r"\.")) as caught:
            open_image(tmp_path / name, SECTION)
        assert "\n" not in str(caught.value), name
    with pytest.raises(DataError, match="of 20 encoded bytes"):
        open_image(b"this is not an image", SECTION)


def test_the_greatest_limit_of_a_file_is_pillows_own():
    greatest = 2 * Image.MAX_IMAGE_PIXELS
    assert ImageSection(max_file_pixels=greatest).max_file_pixels == greatest
    with pytest.raises(ValueError, match="less than or equal to 178956970"):
        ImageSection(max_file_pixels=greatest + 1)


@pytest.mark.parametrize("orientation", [0, 9, 255, 65535])
def test_orientations_that_do_not_exist_turn_nothing(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    source = _encoded(Image.fromarray(_noise(30, 20)), "JPEG", exif=exif)
    assert _pixels(source).shape == (20, 30, 3)


@pytest.mark.parametrize("size", [(1, 64_000_000), (64_000_000, 1), (201, 1)])
def test_a_header_longer_than_can_be_shown_is_refused_before_anything_is_decoded(size):
    for read in (open_image, image_size, check_image):
        with pytest.raises(DataError, match="longer than 200 times its width"):
            read(_png_header(*size), SECTION)


def _stored(chunks):
    bodies = (struct.pack(">I", len(b)) + k + b + struct.pack(">I", zlib.crc32(k + b)) for k, b in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(bodies)


@pytest.mark.parametrize("rows", [10, 19, 20])
def test_a_png_whose_pixels_stop_early_is_refused_where_rows_are_checked(rows):
    header = struct.pack(">IIBBBBB", 30, 20, 8, 2, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + bytes(90) for _ in range(rows)))
    source = _stored([(b"IHDR", header), (b"IDAT", data[:7]), (b"IDAT", data[7:]), (b"IEND", b"")])
    if rows == 20:
        check_image(source, SECTION)
    else:
        with pytest.raises(DataError, match=rf"stops early: it holds {91 * rows:,} bytes .* asks for 1,820"):
            check_image(source, SECTION)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
@pytest.mark.parametrize("size", [(1, 1), (7, 3), (30, 21)])
def test_intact_pictures_of_every_kind_pass_the_check(mode, size):
    image = Image.fromarray(_noise(*size))
    image = Image.new("I;16", size, 700) if mode == "I;16" else image.convert(mode)
    check_image(_encoded(image), SECTION)


def test_an_interlaced_png_passes_the_check_and_half_of_it_does_not():
    # Adam7 of 5 x 3 pixels of one byte: passes of 1, 1, 2 x 1, 2 x 1, .. columns and rows, a filter byte a row.
    passes = [(1, 1), (1, 1), (0, 0), (1, 1), (3, 1), (2, 2), (5, 1)]
    rows = b"".join((b"\0" + bytes(columns)) * count for columns, count in passes)
    header = struct.pack(">IIBBBBB", 5, 3, 8, 0, 0, 0, 1)
    for data, complete in ((rows, True), (rows[:-6], False)):
        source = _stored([(b"IHDR", header), (b"IDAT", zlib.compress(data)), (b"IEND", b"")])
        if complete:
            check_image(source, SECTION)
        else:
            with pytest.raises(DataError, match="stops early"):
                check_image(source, SECTION)


def test_a_picture_swapped_for_a_link_after_the_check_is_not_opened(tmp_path):
    (tmp_path / "a.png").write_bytes(_encoded(Image.fromarray(_noise(30, 20))))
    (tmp_path / "b.png").symlink_to(tmp_path / "a.png")
    assert open_image(tmp_path / "b.png", SECTION).size == (30, 20), "a person may name a link"
    with pytest.raises(DataError, match="a symbolic link stands where none was"):
        open_image(str(tmp_path / "b.png"), SECTION)


@pytest.mark.parametrize(
    ("text", "reason"),
    [("https://x.org/a.png", "on the web"), ("data:image/png,abc", "without base64"), ("data:x;base64,*", "no base64")],
)
def test_addresses_that_are_not_read(text, reason):
    with pytest.raises(DataError, match=reason):
        decode_url(text)
