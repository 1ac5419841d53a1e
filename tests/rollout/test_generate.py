"""Streaming an answer: the sampler's tokens, whole characters, every kind of question, few executables."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast
from typer.testing import CliRunner

from infimmr_jax.cli import app
from infimmr_jax.config import ConfigError, DataSection, ModelShape, VideoSection
from infimmr_jax.data.records import DataError
from infimmr_jax.model.config import TokenIds, config_from_shape
from infimmr_jax.model.family import Model
from infimmr_jax.model.hf import save_params
from infimmr_jax.preprocess.tokenizer import train_tokenizer
from infimmr_jax.rollout import generate as generating
from infimmr_jax.rollout.generate import bucket_batch, generate, load_generator, plan_question, stream_tokens
from infimmr_jax.rollout.sampler import sample
from infimmr_jax.rollout.state import SampleSettings
from infimmr_jax.rollout.vocabulary import TextStream, allowed_tokens

TEXTS = ["how many cats", "你好，世界", "naïve café", "🐈‍⬛ and 🦊", "a\tb\n\n c  d", "\\boxed{½} <think>no</think>"]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(TEXTS * 2, 300)


@pytest.fixture(scope="module")
def directory(tokenizer, tmp_path_factory):
    def token(name):
        return tokenizer.convert_tokens_to_ids(f"<|{name}|>")

    ids = TokenIds(
        pad=tokenizer.pad_token_id,
        eos=tokenizer.eos_token_id,
        vision_start=token("vision_start"),
        vision_end=token("vision_end"),
        image=token("image_pad"),
        video=token("video_pad"),
    )
    shape = ModelShape(hidden_size=48, num_layers=2, intermediate_size=64, mrope_section=(2, 2, 2))
    model = Model(config_from_shape(shape, 320, ids))
    numbers = np.random.default_rng(0)

    def leaf(one):
        scale = one.shape[-2] ** -0.5 if len(one.shape) > 1 else 1
        return jnp.asarray(2 * scale * numbers.standard_normal(one.shape), one.dtype)

    params = jax.tree.map(leaf, model.abstract_params())
    directory = tmp_path_factory.mktemp("generate") / "model"
    save_params(params, model, directory, tokenizer, "float32")
    return directory


@pytest.fixture(scope="module")
def generator(directory):
    return load_generator(directory, video=VideoSection(min_pixels=28 * 28, max_pixels=56 * 56))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    numbers = np.random.default_rng(1)
    paths = []
    for number, size in enumerate([(60, 90), (120, 60)]):
        paths.append(folder / f"{number}.png")
        Image.fromarray(numbers.integers(0, 255, (*size, 3), np.uint8)).save(paths[-1])
    frames = folder / "frames"
    frames.mkdir()
    for number in range(4):
        Image.fromarray(numbers.integers(0, 255, (56, 84, 3), np.uint8)).save(frames / f"{number}.png")
    return paths, frames


def ids_of(generator, plan, settings, limit, seed=0):
    return list(stream_tokens(generator, bucket_batch(generator, plan), settings, limit, seed))


@pytest.mark.parametrize("text", TEXTS)
def test_streamed_text_is_the_text(tokenizer, text):
    stream = TextStream(tokenizer)
    pieces = [stream.push(token) for token in tokenizer.encode(text)]
    assert "".join(pieces) + stream.finish() == text
    assert not any("�" in piece for piece in pieces)


def test_a_character_is_kept_back_until_it_is_whole(tokenizer):
    ids = [tokenizer.convert_tokens_to_ids(character) for character in "ðŁĲĪ"]  # The four bytes of a cat.
    stream = TextStream(tokenizer)
    assert [stream.push(token) for token in ids] == ["", "", "", "🐈"]
    broken = TextStream(tokenizer)
    assert [broken.push(token) for token in ids[:2]] == ["", ""]
    assert broken.finish() == "�"


def test_any_ids_stream_to_what_the_tokenizer_decodes(tokenizer):
    numbers = np.random.default_rng(2)
    for _ in range(200):
        ids = numbers.integers(0, len(tokenizer), 12).tolist()
        stream = TextStream(tokenizer)
        streamed = "".join(map(stream.push, ids)) + stream.finish()
        assert streamed == tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)


def test_ids_without_text_are_silent_and_other_decoders_refused(tokenizer):
    assert TextStream(tokenizer).push(len(tokenizer) + 5) == ""
    words = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel({"a": 0}, unk_token="a")))
    with pytest.raises(ConfigError, match="byte-level"):
        TextStream(words)


def test_allowed_tokens(generator, tokenizer):
    allowed = allowed_tokens(tokenizer, generator.model)
    tokens = generator.model.tokens
    assert allowed[tokens.eos]
    assert not allowed[[tokens.pad, tokens.image, tokens.video, tokens.vision_start, tokens.vision_end]].any()
    assert not allowed[len(tokenizer) :].any()
    assert allowed[tokenizer.encode("<think> cats</think>")].all()


def test_the_stream_is_the_sampler_token_by_token(generator, pictures):
    (one, two), frames = pictures
    greedy, warm = SampleSettings(1, 24, 0.0), SampleSettings(1, 24, 1.0, 0, 0.9)
    cases = [(warm, (one, two), ()), (greedy, (one,), (frames,))]
    allowed = allowed_tokens(generator.tokenizer, generator.model)
    allowed[sorted(generator.stops)] = True
    run = jax.jit(sample, static_argnums=(1, 2))
    seen = []
    for settings, images, videos in cases:
        plan = plan_question(generator, "how many cats", images, videos)
        batch = bucket_batch(generator, plan)
        key = jax.random.key(7)
        whole, _ = run(generator.params, generator.model, settings, batch, allowed, key)
        expected = []
        for token in np.asarray(whole.tokens)[0, 0][np.asarray(whole.mask)[0, 0]].tolist():
            if token in generator.stops:
                break
            expected.append(token)
        assert ids_of(generator, plan, settings, 24, seed=7) == expected
        seen += expected
    assert len(set(seen)) > 10


def test_bucket_padding_does_not_change_the_answer(generator, pictures, monkeypatch):
    settings = SampleSettings(1, 16, 0.0)
    plan = plan_question(generator, "how many cats", pictures[0], ())
    small = ids_of(generator, plan, settings, 16)
    monkeypatch.setattr("infimmr_jax.rollout.policy.SMALLEST_TRUNK", 192)
    assert bucket_batch(generator, plan).tokens.shape == (1, 192)
    assert ids_of(generator, plan, settings, 16) == small


def test_questions_of_similar_size_share_executables(generator, pictures):
    (one, _), _ = pictures
    list(generate(generator, "how many cats", [one], max_new_tokens=3))
    before = generating._start._cache_size(), generating._step._cache_size()
    list(generate(generator, "and what else is in the picture?", [one], max_new_tokens=9))
    list(generate(generator, "<image> naïve café", [one], max_new_tokens=5, seed=3))
    assert (generating._start._cache_size(), generating._step._cache_size()) == before


def test_answers_stop_at_a_stop_id_and_at_the_limit(generator):
    plan = plan_question(generator, "how many cats", (), ())
    settings = SampleSettings(1, 24, 0.0)
    ids = ids_of(generator, plan, settings, 24)
    assert len(ids) == 24
    assert ids_of(generator, plan, settings, 5) == ids[:5]
    stop = ids[6]
    stopping = generating.dataclasses.replace(generator, stops=frozenset({stop}))
    assert ids_of(stopping, plan, settings, 24) == ids[: ids.index(stop)]
    last = generating.dataclasses.replace(generator, stops=frozenset({ids[ids.index(ids[6])]}))
    assert ids_of(last, plan, settings, ids.index(ids[6]) + 1) == ids[: ids.index(ids[6])]


def test_pieces_join_to_the_decoded_answer(generator):
    plan = plan_question(generator, "how many cats", (), ())
    ids = ids_of(generator, plan, SampleSettings(1, 64, 1.0), 40, seed=5)
    pieces = list(generate(generator, "how many cats", temperature=1.0, max_new_tokens=40, seed=5))
    assert "".join(pieces) == generator.tokenizer.decode(ids, skip_special_tokens=True)
    other = list(generate(generator, "how many cats", temperature=1.0, max_new_tokens=40, seed=6))
    assert other != pieces


def test_every_end_stops_an_answer(directory, generator, tmp_path):
    tokens = generator.model.tokens
    assert generator.stops == {tokens.eos}
    shutil.copytree(directory, tmp_path / "model")
    path = tmp_path / "model" / "generation_config.json"
    path.write_text(json.dumps({"eos_token_id": [9, tokens.eos]}))
    assert load_generator(tmp_path / "model").stops == {tokens.eos, 9}


def test_pictures_have_the_pixel_budget_of_the_directory(directory, tmp_path, pictures):
    shutil.copytree(directory, tmp_path / "model")
    path = tmp_path / "model" / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"min_pixels": 784, "max_pixels": 1568}))

    def shown(**given):
        plan = plan_question(load_generator(tmp_path / "model", **given), "how", pictures[0][:1], ())
        return plan.visuals[0].grid[1] * plan.visuals[0].grid[2] // 4

    small, large = shown(), shown(max_pixels=28 * 28 * 6)
    assert small <= 2 < large <= 6
    assert shown(data=DataSection()) > 2


def test_what_can_not_be_answered_is_said_before_the_first_piece(generator, tmp_path, pictures):
    with pytest.raises(ConfigError, match="positions"):
        generate(generator, "how", max_new_tokens=200_000)
    with pytest.raises(ConfigError, match="at least 1"):
        generate(generator, "how", max_new_tokens=0)
    with pytest.raises(ConfigError, match="top_p 0"):
        generate(generator, "how", top_p=0.0)
    with pytest.raises(DataError, match="does not exist"):
        generate(generator, "how", [tmp_path / "none.png"])
    with pytest.raises(DataError, match="marks"):
        generate(generator, "<image> <image>", pictures[0][:1])


def test_the_commands_convert_a_model_and_answer_with_it(directory, pictures, tmp_path, monkeypatch):
    """`infimmr convert` to the other names and back, then `infimmr generate`: pictures, a video, text alone."""
    monkeypatch.setattr("infimmr_jax.parallel.startup.use_compilation_cache", lambda: None)

    def infimmr(*arguments):
        done = CliRunner().invoke(app, [str(argument) for argument in arguments])
        assert done.exit_code == 0, done.output
        return done.output

    infimmr("convert", directory, tmp_path / "live", "--names", "transformers")
    assert any(name.startswith("model.visual.") for name in load_file(tmp_path / "live" / "model.safetensors"))
    infimmr("convert", tmp_path / "live", tmp_path / "back")
    one, other = (load_file(path / "model.safetensors") for path in (directory, tmp_path / "back"))
    assert one.keys() == other.keys()
    assert all(np.array_equal(one[name], other[name]) for name in one)

    (first, second), frames = pictures
    shown = ["--image", first, "--image", second, "--video", frames, "--max-new-tokens", 6]
    ask = ["generate", "--model", tmp_path / "live"]
    data, video = DataSection(), VideoSection()
    generator = load_generator(directory, data=data, video=video)
    expected = generate(generator, "how many cats", (first, second), (frames,), max_new_tokens=6)
    assert infimmr(*ask, *shown, "how many cats") == "".join(expected) + "\n"
    text_only = generate(generator, "how many cats", max_new_tokens=6)
    assert infimmr(*ask, "--max-new-tokens", 6, "how many cats") == "".join(text_only) + "\n"


def test_an_answer_ends_with_the_piece_that_completes_a_stop():
    pieces = ["<th", "ink> a", "b", "ab", " </ans", "wer> and", " more"]
    assert list(generating._until(iter(pieces), ("</answer>",))) == pieces[:-1]
    assert list(generating._until(iter(pieces), ("bab", "zz"))) == pieces[:4]
    assert list(generating._until(iter(pieces), ())) == pieces


def test_penalty_and_min_p_change_the_answer_and_bad_ones_are_refused(generator):
    def answer(**settings):
        return "".join(generate(generator, "how many cats", max_new_tokens=12, **settings))

    assert answer(repetition_penalty=1.5) != answer()
    # Only the likeliest token is left: sampling is greedy.
    assert answer(temperature=1.0, min_p=0.9999) == answer()
    for settings in ({"min_p": 1.0}, {"repetition_penalty": 0.0}, {"stop": [""]}):
        with pytest.raises(ConfigError, match="min_p"):
            generate(generator, "how", **settings)
