"""Packed demonstrations give the losses and gradients of one row each; rows are filled and never overfilled."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small import SHAPE

from infimmr_jax.config import DataSection, PromptSection
from infimmr_jax.data.conversations import Conversation, Turn
from infimmr_jax.data.records import DataError
from infimmr_jax.data.synthetic import SyntheticSource
from infimmr_jax.model.config import TokenIds, config_from_shape
from infimmr_jax.model.family import Model
from infimmr_jax.model.logprobs import token_logprobs
from infimmr_jax.model.options import ModelOptions
from infimmr_jax.objectives.packed import packed_logprobs, packed_loss
from infimmr_jax.parallel.hosts import RowShare
from infimmr_jax.preprocess import tokenizer as tokenizers
from infimmr_jax.preprocess.batching import collate
from infimmr_jax.preprocess.demonstrations import continue_plan, plan_conversation
from infimmr_jax.preprocess.packing import PackedShape, collate_packed, needed_shape, pack
from infimmr_jax.preprocess.prompts import encode_plan, encode_prompt

DATA = DataSection.model_validate({"max_prompt": 96, "max_images": 2, "image": {"max_pixels": 12544}})
T = 240


@pytest.fixture(scope="module")
def made():
    """Tokenizer, model, and demonstrations with 0 or 1 images and responses of unequal length."""
    words = [f"What is the value of the {color} bar? {i} It is taller." for i, color in enumerate(["red", "blue"] * 20)]
    tokenizer = tokenizers.train_tokenizer(words, 400)
    ids = {name: tokenizer.convert_tokens_to_ids(name) for name in tokenizers.SPECIAL_TOKENS}
    special = TokenIds(
        pad=ids[tokenizers.END_OF_TEXT],
        eos=ids[tokenizers.IM_END],
        vision_start=ids[tokenizers.VISION_START],
        vision_end=ids[tokenizers.VISION_END],
        image=ids[tokenizers.IMAGE_PAD],
        video=ids[tokenizers.VIDEO_PAD],
    )
    model = Model(config_from_shape(SHAPE, -(-len(tokenizer) // 16) * 16, special), ModelOptions(scan=False))
    layout = model.layout
    rng = np.random.default_rng(0)
    prompts, responses = [], []
    for number in range(6):
        modality = "image" if number % 2 else "text"
        problem = SyntheticSource(("bars",), "plain", "train", 0, 20, modality)[number]
        section = PromptSection(instruction="")
        prompts.append(encode_prompt(problem, modality, tokenizer, layout, DATA, section))
        responses.append(rng.integers(20, 280, 4 + 3 * number).astype(np.int32))
    return tokenizer, model, layout, prompts, responses


def one_row_each(params, model, allowed, prompts, responses):
    """The trunk and branch forward of the cold start: a prompt and a response a row, padded."""
    longest = max(len(response) for response in responses)
    tokens = np.zeros((len(prompts), 1, longest), np.int32)
    mask = np.zeros(tokens.shape, bool)
    for row, response in enumerate(responses):
        tokens[row, 0, : len(response)], mask[row, 0, : len(response)] = response, True
    batch = collate(prompts, len(prompts), 96, (1, 64), model.layout)

    def log_probs(params):
        trunk = model.trunk(params, batch)
        hidden = model.branch(params, trunk, jnp.asarray(tokens))
        kernel = model.head_kernel(params)
        return token_logprobs(hidden, kernel, jnp.asarray(tokens), allowed)[0]

    def loss(params):
        values = log_probs(params)
        return -jnp.sum(jnp.where(mask, values, 0.0)) / mask.sum(), values

    (value, values), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    return np.asarray(values)[mask], value, gradient


def test_packed_losses_and_gradients_are_those_of_one_row_each(made):
    _, model, _, prompts, responses = made
    params = jax.jit(model.init)(jax.random.key(0))
    allowed = jnp.ones(model.vocab_size, bool)
    expected, expected_loss, expected_gradient = one_row_each(params, model, allowed, prompts, responses)

    plans = [continue_plan(prompt, response) for prompt, response in zip(prompts, responses, strict=True)]
    rows = pack([plan.length for plan in plans], T)
    assert len(rows) < len(plans), "nothing was packed"
    assert max(len(row) for row in rows) >= 3
    shape = needed_shape([[plans[i] for i in row] for row in rows], T)
    # A row, a taught token and an image slot more than needed: padding takes part in nothing.
    shape = PackedShape(shape.rows + 1, T, shape.targets + 1, shape.images + 1, shape.patches)
    pixels = {prompt.name: prompt for prompt in prompts}
    shown = [[plans[i] for i in row] for row in rows]
    batch = collate_packed(shown, lambda plan: pixels[plan.name], shape, RowShare(), model.layout)

    def loss_of(params):
        settings = (allowed, model, 64)
        return packed_loss(params, batch, *settings), packed_logprobs(params, batch, *settings)

    (loss, log_probs), gradient = jax.jit(jax.value_and_grad(loss_of, has_aux=True))(params)
    log_probs = np.asarray(log_probs)[batch.mask]
    order = [i for row in rows for i in row]
    starts = np.concatenate([[0], np.cumsum([len(response) for response in responses])])
    wanted = np.concatenate([np.asarray(expected)[starts[i] : starts[i + 1]] for i in order])
    np.testing.assert_allclose(log_probs, wanted, atol=1e-5)

    assert float(loss) == pytest.approx(float(expected_loss), abs=1e-5)
    for got, want in zip(jax.tree.leaves(gradient), jax.tree.leaves(expected_gradient), strict=True):
        np.testing.assert_allclose(np.asarray(got), np.asarray(want), atol=1e-5)


def test_every_assistant_turn_is_taught_and_nothing_else(made):
    tokenizer, model, layout, _, _ = made
    eos = model.tokens.eos
    png = SyntheticSource(("bars",), "plain", "train", 0, 20, "image")[1].images[0]
    turns = (
        Turn("user", "<image>the red bar?"),
        Turn("assistant", " 4"),
        Turn("user", "blue?"),
        Turn("assistant", "7"),
    )
    demonstration = plan_conversation(Conversation("c", turns, (png,)), tokenizer, eos, layout, DATA)
    taught = demonstration.plan.tokens[demonstration.learnt]
    assert tokenizer.decode(taught) == " 4<|im_end|>7<|im_end|>"
    assert demonstration.images == 1
    assert demonstration.targets == len(taught)
    # The conversation without its place-holders is the template's own rendering.
    text = tokenizer.decode(demonstration.plan.tokens[demonstration.plan.token_slot < 0])
    messages = [{"role": t.role, "content": t.text.replace("<image>", "")} for t in turns]
    rendered = tokenizer.apply_chat_template(messages, tokenize=False)
    assert text.replace("<|vision_start|><|vision_end|>", "") + "\n" == rendered
    # One turn alone is a prompt and its response.
    single = plan_conversation(Conversation("s", turns[:2], (png,)), tokenizer, eos, layout, DATA)
    response = np.asarray([*tokenizer.encode(" 4", add_special_tokens=False), eos], np.int32)
    prompt = made[3][1]
    again = continue_plan(prompt, response)
    for plan in (single.plan, again.plan):
        tail = plan.positions[:, -len(response) - 1 :]
        assert (np.diff(tail, axis=1) == 1).all()
    pixels = encode_plan(single.plan, layout, DATA).patches[0]
    np.testing.assert_array_equal(pixels, prompt.patches[0])


def test_a_template_that_rewrites_earlier_turns_is_refused(made):
    tokenizer, model, layout, _, _ = made

    class Forgetful:
        added_tokens_decoder = tokenizer.added_tokens_decoder

        def __getattr__(self, name):
            return getattr(tokenizer, name)

        def apply_chat_template(self, messages, **options):
            return tokenizer.apply_chat_template(messages[-1:], **options)

    turns = (Turn("user", "a"), Turn("assistant", "b"), Turn("user", "c"), Turn("assistant", "d"))
    with pytest.raises(DataError, match="conversation c: the chat template renders earlier turns differently"):
        plan_conversation(Conversation("c", turns), Forgetful(), model.tokens.eos, layout, DATA)
    bad = (Turn("user", "a"), Turn("assistant", "b<|im_end|>"))
    with pytest.raises(DataError, match=r"messages\.1 holds the control token <\|im_end\|>"):
        plan_conversation(Conversation("c", bad), tokenizer, model.tokens.eos, layout, DATA)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 50), min_size=1, max_size=40))
def test_rows_hold_everything_once_and_are_never_overfilled(lengths):
    rows = pack(lengths, 50)
    assert sorted(i for row in rows for i in row) == list(range(len(lengths)))
    assert all(sum(lengths[i] for i in row) <= 50 for row in rows)
    # Two rows that are both half empty would have been one.
    assert sum(sum(lengths[i] for i in row) <= 25 for row in rows) <= 1


def test_a_demonstration_longer_than_a_row_is_refused():
    with pytest.raises(DataError, match="51 tokens does not fit into rows of 50"):
        pack([3, 51], 50)


def test_a_shape_grows_in_steps_that_devices_divide():
    shape = PackedShape(rows=8, tokens=50, targets=64, images=4, patches=64, multiple=4)
    assert shape.grown(PackedShape(7, 50, 60, 3, 16)) == shape
    assert shape.grown(PackedShape(9, 50, 65, 5, 128)) == PackedShape(12, 50, 128, 8, 128, 4)
