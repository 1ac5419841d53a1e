"""What a model directory says of its pictures: the pixel budget, and whether they are prepared as here."""

from __future__ import annotations

from pathlib import Path

from infimmr_jax.config import ConfigError, DataSection, ImageSection
from infimmr_jax.preprocess.images import MEAN, STD
from infimmr_jax.preprocess.json_file import JsonObject, read_json, shorten
from infimmr_jax.preprocess.layout import VisionLayout

FILES = ("preprocessor_config.json", "processor_config.json")


def check_processor(directory: Path, layout: VisionLayout) -> None:
    """Raise ConfigError when the directory's processor prepares pictures otherwise than this program does."""
    given, where = _processor(directory)
    only: JsonObject = {
        "image_mean": list(MEAN),
        "image_std": list(STD),
        "patch_size": layout.patch_size,
        "merge_size": layout.merge_size,
        "temporal_patch_size": layout.temporal_patch_size,
        "do_resize": True,
        "do_rescale": True,
        "do_normalize": True,
        "rescale_factor": 1 / 255,
        "resample": 3,
        "do_center_crop": False,
        "do_pad": False,
    }
    for key, value in only.items():
        found = given.get(key)
        if found is not None and not _equal(found, value):
            raise ConfigError(f"{where}: {key} is {shorten(found)}; pictures are prepared with {shorten(value)} only")


def directory_image(directory: Path, min_pixels: int | None = None, max_pixels: int | None = None) -> ImageSection:
    """Give the pixel budget of a directory; numbers that are given replace the directory's.

    A directory that says nothing has the budget of `ImageSection`. Raises ConfigError for numbers that can not be.
    """
    given, where = _processor(directory)
    size = given.get("size")
    edges = size if isinstance(size, dict) else {}
    budget: dict[str, object] = {
        # transformers 5 calls numbers of pixels edges; older names win there as well.
        "min_pixels": given.get("min_pixels") or edges.get("shortest_edge"),
        "max_pixels": given.get("max_pixels") or edges.get("longest_edge"),
    }
    for key, value in budget.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 2**40):
            raise ConfigError(f"{where}: {key} is {shorten(value)}; expected a number of pixels")
    budget |= {key: v for key, v in (("min_pixels", min_pixels), ("max_pixels", max_pixels)) if v is not None}
    image = ImageSection.model_construct(**(ImageSection().model_dump() | {k: v for k, v in budget.items() if v}))
    if image.min_pixels > image.max_pixels:
        raise ConfigError(
            f"pictures of at least {image.min_pixels} and at most {image.max_pixels} pixels can not be ({where}); "
            "give other --min-pixels and --max-pixels"
        )
    return image


def directory_data(
    data: DataSection, directory: Path, min_pixels: int | None = None, max_pixels: int | None = None
) -> DataSection:
    """Give a data section the pixel budget of a directory, where it names none itself; numbers that are given win."""
    named = data.image.model_fields_set if "image" in data.model_fields_set else set()
    own = {key: getattr(data.image, key) for key in ("min_pixels", "max_pixels") if key in named}
    given = {key: v for key, v in (("min_pixels", min_pixels), ("max_pixels", max_pixels)) if v is not None}
    image = directory_image(directory, **(own | given))
    return data.model_copy(update={"image": image.model_copy(update={"max_file_pixels": data.image.max_file_pixels})})


def _processor(directory: Path) -> tuple[JsonObject, str]:
    """The settings of the image processor, and the file that they are in."""
    for name in FILES:
        path = directory / name
        if path.exists():
            tree = read_json(path)
            # transformers 5 writes those of all modalities into one file.
            inner = tree.get("image_processor") if name == "processor_config.json" else tree
            if isinstance(inner, dict):
                return inner, str(path)
    return {}, str(directory / FILES[0])


def _equal(found: object, value: object) -> bool:
    if isinstance(found, list) and isinstance(value, list):
        return len(found) == len(value) and all(map(_equal, found, value))
    if isinstance(found, int | float) and isinstance(value, int | float):
        return abs(found - value) <= 1e-6
    return found == value
