"""The pixel budget of a model directory: older and newer files, what wins, and processors of another kind."""

import json

import pytest

from infimmr_jax.config import ConfigError, DataSection, ImageSection
from infimmr_jax.preprocess.images import MEAN, STD
from infimmr_jax.preprocess.layout import VisionLayout
from infimmr_jax.preprocess.processor_config import check_processor, directory_data, directory_image

LAYOUT = VisionLayout(
    image_token_id=4,
    video_token_id=5,
    vision_start_token_id=2,
    vision_end_token_id=3,
    patch_size=14,
    merge_size=2,
    temporal_patch_size=2,
    window_size=112,
    tokens_per_second=2.0,
)


def write(directory, tree, name="preprocessor_config.json"):
    (directory / name).write_text(json.dumps(tree))


def budget(directory, *given):
    image = directory_image(directory, *given)
    return image.min_pixels, image.max_pixels


def test_older_and_newer_files_say_the_same(tmp_path):
    assert budget(tmp_path) == (ImageSection().min_pixels, ImageSection().max_pixels)
    write(
        tmp_path, {"image_processor": {"size": {"shortest_edge": 900, "longest_edge": 9000}}}, "processor_config.json"
    )
    assert budget(tmp_path) == (900, 9000)
    write(tmp_path, {"size": {"shortest_edge": 800, "longest_edge": 8000}, "min_pixels": None})
    assert budget(tmp_path) == (800, 8000)
    write(tmp_path, {"min_pixels": 784, "max_pixels": 12544, "size": {"shortest_edge": 800, "longest_edge": 8000}})
    assert budget(tmp_path) == (784, 12544)
    assert budget(tmp_path, 1000) == (1000, 12544)
    assert budget(tmp_path, None, 2000) == (784, 2000)


@pytest.mark.parametrize(
    ("tree", "given", "sentence"),
    [
        ({"max_pixels": "many"}, (), "max_pixels is 'many'; expected a number of pixels"),
        ({"size": {"shortest_edge": -5}}, (), "min_pixels is -5"),
        ({"min_pixels": 900, "max_pixels": 800}, (), "at least 900 and at most 800"),
        ({"min_pixels": 900}, (None, 100), "at least 900 and at most 100 pixels .* give other --min-pixels"),
    ],
)
def test_numbers_that_can_not_be_are_said(tmp_path, tree, given, sentence):
    write(tmp_path, tree)
    with pytest.raises(ConfigError, match=sentence):
        directory_image(tmp_path, *given)


def test_a_configuration_that_names_a_budget_keeps_it(tmp_path):
    write(tmp_path, {"min_pixels": 784, "max_pixels": 12544})

    def image(data, *given):
        found = directory_data(DataSection.model_validate(data), tmp_path, *given).image
        return found.min_pixels, found.max_pixels, found.max_file_pixels

    most = ImageSection().max_file_pixels
    assert image({"max_prompt": 100}) == (784, 12544, most)
    assert image({"image": {"max_file_pixels": 10**6}}) == (784, 12544, 10**6)
    assert image({"image": {"max_pixels": 50176}}) == (784, 50176, most)
    assert image({"image": {"max_pixels": 50176}}, 800, 900) == (800, 900, most)


def test_processors_of_another_kind_are_refused(tmp_path):
    check_processor(tmp_path, LAYOUT)
    plain = {
        "image_mean": list(MEAN),
        "image_std": list(STD),
        "patch_size": 14,
        "merge_size": 2,
        "temporal_patch_size": 2,
        "rescale_factor": 0.00392156862745098,
        "resample": 3,
        "do_normalize": True,
        "size": {"longest_edge": 100},
    }
    write(tmp_path, plain)
    check_processor(tmp_path, LAYOUT)
    for change in ({"image_std": [1, 1, 1]}, {"patch_size": 16}, {"do_normalize": False}, {"resample": 2}):
        write(tmp_path, plain | change)
        with pytest.raises(ConfigError, match=f"{next(iter(change))} is .*; pictures are prepared with"):
            check_processor(tmp_path, LAYOUT)
