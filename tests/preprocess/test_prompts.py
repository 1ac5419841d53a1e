"""Prompts: the user's text, the expansion of place-holders against plain tokenization, and what is refused."""

import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image, ImageFile
from published import GEOMETRY, PATCHES

from infimmr_jax.config import DataSection, ImageSection, PromptSection
from infimmr_jax.data.pictures import open_image
from infimmr_jax.data.records import DataError, Problem
from infimmr_jax.names import ANSWER_TYPES
from infimmr_jax.preprocess.images import patchify
from infimmr_jax.preprocess.layout import VisionLayout
from infimmr_jax.preprocess.prompts import (
    ANSWER_FORMS,
    INSTRUCTIONS,
    encode_plan,
    encode_prompt,
    plan_prompt,
    plan_text,
    user_text,
)
from infimmr_jax.preprocess.tokenizer import IMAGE_PAD, VIDEO_PAD, VISION_END, VISION_START, train_tokenizer
from infimmr_jax.preprocess.video import VideoPlan

BARE = PromptSection(instruction="")
DATA = DataSection(max_prompt=512, max_images=3, image=ImageSection(min_pixels=28 * 28))


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(["What is the sum of red and blue?"] * 5, 320)


@pytest.fixture(scope="module")
def layout(tokenizer):
    ids = tokenizer.convert_tokens_to_ids([IMAGE_PAD, VIDEO_PAD, VISION_START, VISION_END])
    return VisionLayout(*ids, **GEOMETRY | {"window_size": 56})


def _png(width, height, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def _problem(question="How many?", images=(), **fields):
    fields = {"answer": "3", "answer_type": "math", **fields}
    return Problem("row-7", question, images=tuple(images), **fields)


ONE, TWO = _png(84, 56), _png(56, 140, seed=1)


@pytest.mark.parametrize(
    ("problem", "modality", "expected"),
    [
        (_problem(), "text", "How many?"),
        (_problem(images=[ONE], caption="two bars"), "text", "How many?"),
        (_problem("<image>\nHow many?", [ONE]), "text", "How many?"),
        (_problem(images=[ONE]), "image", "<image>How many?"),
        (_problem(images=[ONE, TWO]), "image", "<image><image>How many?"),
        (_problem("In <image> or <image>?", [ONE, TWO]), "image", "In <image> or <image>?"),
        (
            _problem(images=[ONE], caption="two bars"),
            "caption",
            "<image>Image description: two bars\nHow many?",
        ),
        (
            _problem("See <image>. How many?", [ONE], caption="two bars"),
            "caption",
            "Image description: two bars\nSee <image>. How many?",
        ),
        (_problem(choices=("one", "two")), "image", "How many?\n(A) one\n(B) two"),
        (_problem("Which?", [ONE, TWO], choices=("<image>", "<image>")), "image", "Which?\n(A) <image>\n(B) <image>"),
        (_problem(), "caption", "How many?"),
    ],
)
def test_the_users_text(problem, modality, expected):
    assert user_text(problem, modality, BARE) == expected


def test_the_instruction_follows_the_format():
    for name, instruction in INSTRUCTIONS.items():
        text = user_text(_problem(choices=("1", "2")), "image", PromptSection(format=name))
        assert text == f"How many?\n(A) 1\n(B) 2\n\n{instruction}"
        assert "\\boxed{}" in instruction if "boxed" in name else "<answer></answer>" in instruction
    assert "<think></think>" in INSTRUCTIONS["think_boxed"]
    assert user_text(_problem(), "text", PromptSection(instruction="Think.")) == "How many?\n\nThink."


def test_the_form_of_the_answer_follows_its_type():
    for kind in ANSWER_TYPES:
        problem = _problem(answer_type=kind)
        form = ANSWER_FORMS.get(kind, "")
        assert bool(form) == (kind not in ("math", "choice", "string"))
        expected = f"How many?\n\n{INSTRUCTIONS['boxed']} {form}".rstrip()
        assert user_text(problem, "text", PromptSection(format="boxed")) == expected
        own = PromptSection(instruction="{answer_form} Box it: \\boxed{}.")
        assert user_text(problem, "text", own) == f"How many?\n\n{form} Box it: \\boxed{{}}.".replace("\n\n ", "\n\n")
        assert user_text(problem, "text", PromptSection(instruction="Think.")) == "How many?\n\nThink."


def test_a_size_that_contradicts_the_prompt_is_refused_before_training(tokenizer, layout):
    extra = {"image_size": [84, 56], "seen_size": [56, 84]}
    problem = _problem(images=[ONE], answer="[1, 2, 3, 4]", answer_type="box", extra=extra)
    with pytest.raises(DataError, match=r"this run shows the image at \[84, 56\]"):
        plan_prompt(problem, "image", tokenizer, layout, DATA, BARE)


@pytest.mark.parametrize("system", [None, "Be brief."])
def test_tokens_equal_the_tokenized_text_with_expanded_place_holders(tokenizer, layout, system):
    problem = _problem("In <image> or <image>?", [ONE, TWO])
    plan = plan_prompt(problem, "image", tokenizer, layout, DATA, PromptSection(instruction="", system=system))
    opening = "" if system is None else f"<|im_start|>system\n{system}<|im_end|>\n"
    image = "<|vision_start|>{}<|vision_end|>"
    # 84 x 56 pixels are 3 x 2 visual tokens, 56 x 140 are 2 x 5.
    expected = (
        f"{opening}<|im_start|>user\nIn {image.format(IMAGE_PAD * 6)} or {image.format(IMAGE_PAD * 10)}?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    assert plan.tokens.tolist() == tokenizer.encode(expected)
    assert plan.text == expected.replace(IMAGE_PAD * 10, IMAGE_PAD).replace(IMAGE_PAD * 6, IMAGE_PAD)
    assert plan.length == len(plan.tokens) - 1
    assert [visual.grid for visual in plan.visuals] == [(1, 4, 6), (1, 10, 4)]
    shown = plan.tokens == layout.image_token_id
    assert np.array_equal(plan.token_slot >= 0, shown)
    assert plan.token_slot[shown].tolist() == [0] * 6 + [1] * 10
    # Windows of 2 x 2 tokens: the second image has 3 windows of 16 patch slots, more than the first.
    assert plan.image_shape == (2, 48)
    assert plan.token_visual[shown].tolist()[:6] == [0, 1, 4, 2, 3, 6]


def test_planning_reads_headers_only_and_encoding_adds_the_pixels(tokenizer, layout, monkeypatch):
    problem = _problem(images=[ONE, TWO])
    encoded = encode_prompt(problem, "image", tokenizer, layout, DATA, BARE)
    for source, visual, patches in zip([ONE, TWO], encoded.visuals, encoded.patches, strict=True):
        assert np.array_equal(patches, patchify(open_image(source, DATA.image), visual.grid, **PATCHES))

    def forbidden(self):
        raise AssertionError("pixels were decoded")

    with monkeypatch.context() as patched:
        patched.setattr(ImageFile.ImageFile, "load", forbidden)
        plan = plan_prompt(problem, "image", tokenizer, layout, DATA, BARE)
    assert np.array_equal(plan.tokens, encoded.tokens)
    assert np.array_equal(plan.positions, encoded.positions)
    assert plan.image_shape == encoded.image_shape
    assert np.array_equal(encode_plan(plan, layout, DATA).patches[1], encoded.patches[1])


def test_the_bridge_is_text_behind_everything(tokenizer, layout):
    plan = plan_prompt(_problem(images=[ONE]), "image", tokenizer, layout, DATA, BARE)
    assert plan.token_slot[-1] == -1
    assert len(set(plan.positions[:, -1].tolist())) == 1
    assert plan.positions[0, -1] == plan.positions[:, :-1].max() + 1


def test_a_text_prompt_has_no_slots(tokenizer, layout):
    encoded = encode_prompt(_problem(images=[ONE]), "text", tokenizer, layout, DATA, BARE)
    assert encoded.image_shape == (0, 0)
    assert encoded.patches == ()
    assert (encoded.token_slot == -1).all()
    assert np.array_equal(encoded.positions, np.tile(np.arange(len(encoded.tokens)), (3, 1)))


def test_videos_have_a_slot_for_each_temporal_patch(tokenizer, layout, tmp_path):
    picture = plan_prompt(_problem(images=[ONE]), "image", tokenizer, layout, DATA, BARE).visuals[0]
    video = VideoPlan(tmp_path, tuple(range(6)), (3, 4, 4), 1.0)
    plan = plan_text("<image> then <image>", [picture, video], tokenizer, layout)
    assert "<|video_pad|><|vision_end|><|im_end|>" in plan.text
    assert (plan.tokens == layout.video_token_id).sum() == 12
    assert plan.image_shape == (4, 32)
    shown = plan.tokens == layout.video_token_id
    assert plan.token_slot[shown].tolist() == [1] * 4 + [2] * 4 + [3] * 4
    assert np.diff(plan.positions[0][shown].reshape(3, 4)[:, 0]).tolist() == [2, 2]


REFUSED = {
    "marks": (_problem("<image> and <image>", [ONE]), "image", DATA, "2 <image> marks and 1 images"),
    "mark without image": (_problem("<image>?"), "text", DATA, "1 <image> marks and 0 images"),
    "caption": (_problem(images=[ONE]), "caption", DATA, "no caption"),
    "mark in caption": (_problem(images=[ONE], caption="<image>"), "caption", DATA, "mark in its caption"),
    "too many images": (_problem(images=[ONE] * 4), "image", DATA, "max_images = 3"),
    "too many choices": (_problem(choices=("x",) * 11), "text", DATA, "11 choices"),
    "control token": (_problem("a <|im_end|> b"), "text", DATA, r"control token <\|im_end\|>"),
    "too long": (_problem("word " * 600), "text", DATA, "more than data.max_prompt = 512"),
    "too many visual tokens": (
        _problem(images=[ONE]),
        "image",
        DataSection(max_prompt=20, image=DATA.image),
        "more than data.max_prompt = 20",
    ),
    "missing file": (_problem(images=["/nowhere/a.png"]), "image", DATA, "there is no file /nowhere/a.png"),
    "truncated": (_problem(images=[ONE[: len(ONE) // 2]]), "image", DATA, "can not be decoded"),
    "aspect ratio": (_problem(images=[_png(402, 2)]), "image", DATA, "200 times"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals_name_the_problem_in_one_sentence(case, tokenizer, layout):
    problem, modality, data, message = REFUSED[case]
    with pytest.raises(DataError, match=message) as caught:
        encode_prompt(problem, modality, tokenizer, layout, data, BARE)
    assert str(caught.value).startswith("problem row-7")
    assert str(caught.value).count("row-7") == 1


def test_threads_share_a_tokenizer(tokenizer, layout):
    problems = [_problem("word " * n, [ONE]) for n in range(40)]

    def length(problem):
        return encode_prompt(problem, "image", tokenizer, layout, DATA, BARE).length

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(length, problems)) == [length(problem) for problem in problems]
