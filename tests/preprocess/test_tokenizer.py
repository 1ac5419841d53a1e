"""The trained tokenizer: exact round trips, Qwen's splitting, the chat format, and loading by transformers."""

import json
import os
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from infimmr_jax.config import ConfigError
from infimmr_jax.preprocess import template_probe
from infimmr_jax.preprocess.tokenizer import (
    CHAT_TEMPLATE,
    MARKUP_TOKENS,
    PROBES,
    SPECIAL_TOKENS,
    end_of_turn,
    load_tokenizer,
    save_tokenizer,
    train_tokenizer,
)

TEXTS = [
    "<think> the red bar is 6 , the blue bar is 12 . 6 + 12 = 18 </think> \\boxed{18}",
    "How high is the red bar and the blue bar together?",
    "Image description: a red bar of height 6, a blue bar of height 12.",
] * 10


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(TEXTS, 400)


AWKWARD = [
    "",
    "  two  spaces\tand\n\n lines \r\n",
    "e\u0301 is not \u00e9, \u212b is not \u00c5",
    "\u4e2d\u6587, \U0001f642\u200d\u2642, \u0000 and \u00a0",
    "can't I'm 'S WE'LL 1,234.5",
    " <think>x</think> \\boxed{\\frac{1}{2}} ",
    "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|><|im_end|>",
    " , . ! ? n't 's",
]


@pytest.mark.parametrize("text", AWKWARD)
def test_awkward_texts_survive(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text)) == text


@settings(max_examples=300, deadline=None)
@given(text=st.text())
def test_every_text_survives(tokenizer, text):
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert max(ids, default=0) < len(tokenizer)


def test_special_and_markup_tokens_are_single(tokenizer):
    for token in (*SPECIAL_TOKENS, *MARKUP_TOKENS):
        assert len(tokenizer.encode(token)) == 1
        assert tokenizer.convert_ids_to_tokens(tokenizer.encode(token)) == [token]
    assert tokenizer.decode(tokenizer.encode("<think>a</think><|im_end|>"), skip_special_tokens=True) == (
        "<think>a</think>"
    )
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|endoftext|>")
    assert tokenizer.bos_token is None


def test_digits_are_split_one_by_one(tokenizer):
    assert tokenizer.convert_ids_to_tokens(tokenizer.encode("x=1234")) == ["x", "=", "1", "2", "3", "4"]


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("I'm 12cm  tall.\n\nOK", ["I", "'m", " ", "1", "2", "cm", " ", " tall", ".\n\n", "OK"]),
        ("\\frac{a}{b}", ["\\frac", "{a", "}{", "b", "}"]),
        ("a \n b  ", ["a", " \n", " b", "  "]),
    ],
)
def test_pieces_are_those_of_qwen2(tokenizer, text, pieces):
    from transformers import Qwen2Tokenizer

    published = Qwen2Tokenizer(vocab={"<|endoftext|>": 0}, merges=[])
    split = [text[slice(*span)] for _, span in published.backend_tokenizer.pre_tokenizer.pre_tokenize_str(text)]
    assert split == pieces
    split = [text[slice(*span)] for _, span in tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str(text)]
    assert split == pieces


def test_training_merges_and_respects_the_size(tokenizer):
    assert len(tokenizer.encode(" together")) < len(" together")
    assert len(tokenizer) <= 400
    assert len(train_tokenizer(TEXTS, 300)) == 300
    with pytest.raises(ConfigError, match="vocab_size: 266 is too small"):
        train_tokenizer(TEXTS, 266)


def test_training_is_deterministic(tokenizer):
    expected = json.loads(tokenizer.backend_tokenizer.to_str())
    for _ in range(5):
        assert json.loads(train_tokenizer(iter(TEXTS), 400).backend_tokenizer.to_str()) == expected


@pytest.mark.slow
def test_training_is_the_same_in_another_process(tokenizer):
    program = (
        "import json, sys; from infimmr_jax.preprocess.tokenizer import train_tokenizer;"
        "print(train_tokenizer(json.load(sys.stdin), 400).backend_tokenizer.to_str())"
    )
    found = subprocess.run(
        [sys.executable, "-c", program],
        input=json.dumps(TEXTS),
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "RAYON_NUM_THREADS": "4", "PYTHONHASHSEED": "7", "TOKENIZERS_PARALLELISM": "true"},
    )
    assert json.loads(found.stdout) == json.loads(tokenizer.backend_tokenizer.to_str())


USER = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is it?"}]}


@pytest.mark.parametrize(
    ("turns", "expected"),
    [
        (
            [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}],
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
        ),
        (
            [USER],
            "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>What is it?<|im_end|>\n"
            "<|im_start|>assistant\n",
        ),
        (
            [
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "See "},
                        {"type": "video"},
                        {"type": "text", "text": " and "},
                        {"type": "image"},
                    ],
                },
                {"role": "assistant", "content": [{"type": "text", "text": "A cat."}]},
                {"role": "user", "content": "Sure?"},
            ],
            "<|im_start|>user\nSee <|vision_start|><|video_pad|><|vision_end|> and "
            "<|vision_start|><|image_pad|><|vision_end|><|im_end|>\n<|im_start|>assistant\nA cat.<|im_end|>\n"
            "<|im_start|>user\nSure?<|im_end|>\n<|im_start|>assistant\n",
        ),
        (
            [{"role": "user", "content": [{"type": "text", "text": " \n spaces stay \n "}]}],
            "<|im_start|>user\n \n spaces stay \n <|im_end|>\n<|im_start|>assistant\n",
        ),
    ],
)
def test_the_chat_format_is_that_of_qwen(tokenizer, turns, expected):
    assert tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True) == expected
    closed = tokenizer.apply_chat_template(turns, tokenize=False)
    assert closed + "<|im_start|>assistant\n" == expected


def test_pictures_are_numbered_on_request(tokenizer):
    content = [{"type": "image"}, {"type": "video"}, {"type": "image"}]
    shown = tokenizer.apply_chat_template([{"role": "user", "content": content}], tokenize=False, add_vision_id=True)
    assert [part.rsplit(">", 1)[-1].strip() for part in shown.split("<|vision_start|>")][1:3] == [
        "Video 1:",
        "Picture 2:",
    ]
    assert "Picture 1: <|vision_start|>" in shown


@pytest.mark.parametrize("model_type", [None, "qwen2_5_vl"])
def test_saved_files_are_loaded_by_transformers(tokenizer, tmp_path, model_type):
    save_tokenizer(tokenizer, tmp_path)
    if model_type:  # A model's config.json beside the tokenizer must not change what is loaded.
        (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    for loaded in (AutoTokenizer.from_pretrained(tmp_path, use_fast=True), load_tokenizer(tmp_path)):
        for text in AWKWARD:
            assert loaded.encode(text) == tokenizer.encode(text)
            assert loaded.decode(loaded.encode(text)) == text
        assert loaded.apply_chat_template([USER], tokenize=False) == tokenizer.apply_chat_template(
            [USER], tokenize=False
        )
        assert (loaded.eos_token_id, loaded.pad_token_id) == (tokenizer.eos_token_id, tokenizer.pad_token_id)
        assert loaded.decode(loaded.encode("<think>1<|im_end|>"), skip_special_tokens=True) == "<think>1"


def test_the_processors_template_wins(tokenizer, tmp_path):
    save_tokenizer(tokenizer, tmp_path)
    template = "{% for m in messages %}{{ '[' + m['role'] + ']<|image_pad|>' }}{% endfor %}"
    (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": template}))
    loaded = load_tokenizer(tmp_path)
    assert loaded.apply_chat_template([USER], tokenize=False) == "[user]<|image_pad|>"


def test_a_directory_in_the_published_layout(tokenizer, tmp_path):
    """Hub files of Qwen2.5-VL: a Qwen2Tokenizer, a text-only template beside it, the real one with the processor."""
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    state["added_tokens"] = [token for token in state["added_tokens"] if token["content"] in SPECIAL_TOKENS]
    state["normalizer"] = {"type": "NFC"}
    (tmp_path / "tokenizer.json").write_text(json.dumps(state))
    (tmp_path / "vocab.json").write_text(json.dumps(state["model"]["vocab"]))
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in state["model"]["merges"]]
    (tmp_path / "merges.txt").write_text("\n".join(merges))
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    settings = {
        "added_tokens_decoder": {
            str(token["id"]): {"content": token["content"], **flags} for token in state["added_tokens"]
        },
        "additional_special_tokens": [token for token in SPECIAL_TOKENS if token != "<|endoftext|>"],
        "chat_template": "{% for m in messages %}{{ m['content'] + '\n' }}{% endfor %}",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "tokenizer_class": "Qwen2Tokenizer",
    }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": tokenizer.chat_template}))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen2_5_vl"}))
    loaded = load_tokenizer(tmp_path)
    for token in SPECIAL_TOKENS:
        assert loaded.encode(token) == tokenizer.encode(token)
    assert len(loaded.encode("<think>")) > 1
    assert loaded.encode("the red bar 12") != []
    assert loaded.decode(loaded.encode("the red bar 12 </think>")) == "the red bar 12 </think>"
    assert loaded.apply_chat_template([USER], tokenize=False) == tokenizer.apply_chat_template([USER], tokenize=False)
    # What is saved again is what was loaded, the processor's template included.
    again = tmp_path / "again"
    save_tokenizer(loaded, again)
    for text in AWKWARD:
        assert load_tokenizer(again).encode(text) == loaded.encode(text)
    assert load_tokenizer(again).chat_template == loaded.chat_template


def test_unusable_directories_are_said(tokenizer, tmp_path):
    with pytest.raises(ConfigError, match="holds no tokenizer"):
        load_tokenizer(tmp_path)
    save_tokenizer(tokenizer, tmp_path)

    def use(template):
        (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": template}))

    use("{% for m in messages %}{{ m['role'] }}{% endfor %}")
    with pytest.raises(ConfigError, match="does not place"):
        load_tokenizer(tmp_path)
    use("{% for m in messages %}{{ 'x' + m['content'] }}{% endfor %}")
    with pytest.raises(ConfigError, match="can not show an image: TypeError"):
        load_tokenizer(tmp_path)
    for nothing in (None, "", 7):
        use(nothing)
        with pytest.raises(ConfigError, match="no chat template"):
            load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"the tokenizer of .* can not be read"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize(
    ("template", "sentence"),
    [
        (
            "{% for a in range(99999) %}{% for b in range(99999) %}{% set x = a * b %}{% endfor %}{% endfor %}",
            "does not end within 1 seconds of computing",
        ),
        ("{{ 'x' * 3000000000 }}", "more than a gigabyte of memory"),
        ("{% for a in range(9999) %}{{ 'x' * 999 }}{% endfor %}", "more than a million letters"),
        ("{{ messages.__class__.__mro__[1].__subclasses__() }}", "SecurityError"),
        ("{{ raise_exception('no pictures') }}", "TemplateError: no pictures"),
        ("{% if %}", "TemplateSyntaxError"),
    ],
)
def test_a_template_is_rendered_under_limits(tokenizer, tmp_path, template, sentence, monkeypatch):
    monkeypatch.setattr(template_probe, "CPU_SECONDS", 1)
    save_tokenizer(tokenizer, tmp_path)
    (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": template}))
    with pytest.raises(ConfigError, match=sentence):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize(
    ("tail", "end"), [("<|im_end|>\n", "<|im_end|>"), ("\n<|endoftext|>", "<|endoftext|>"), ("\n", None)]
)
def test_the_end_of_a_turn_is_the_templates(tokenizer, tmp_path, tail, end):
    save_tokenizer(tokenizer, tmp_path)
    template = CHAT_TEMPLATE.replace("{{- '<|im_end|>\\n' -}}", "{{- " + repr(tail) + " -}}")
    assert template.count("<|im_end|>") == tail.count("<|im_end|>")
    (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": template}))
    expected = None if end is None else tokenizer.convert_tokens_to_ids(end)
    assert end_of_turn(load_tokenizer(tmp_path)) == expected


def test_a_probe_renders_what_transformers_renders(tokenizer):
    for template in (CHAT_TEMPLATE, "{% generation %}{{ messages | tojson }}{% endgeneration %}{{ eos_token }}"):
        for messages, answer_next in PROBES:
            variables = {**tokenizer.special_tokens_map, "add_generation_prompt": answer_next}
            expected = tokenizer.apply_chat_template(
                messages, chat_template=template, tokenize=False, add_generation_prompt=answer_next
            )
            assert template_probe.render(template, messages, variables) == expected


def test_saved_files_are_in_the_form_that_transformers_4_reads(tokenizer, tmp_path):
    """The forms of transformers 5 alone, a list of extra_special_tokens above all, crash its older releases."""
    save_tokenizer(tokenizer, tmp_path)
    tree = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert "extra_special_tokens" not in tree
    assert set(tree["additional_special_tokens"]) == set(SPECIAL_TOKENS) - {"<|im_end|>", "<|endoftext|>"}
    assert tree["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert tree["chat_template"] == CHAT_TEMPLATE
    assert json.loads((tmp_path / "chat_template.json").read_text()) == {"chat_template": CHAT_TEMPLATE}
    assert not (tmp_path / "chat_template.jinja").exists()
    assert set(load_tokenizer(tmp_path).all_special_tokens) == set(SPECIAL_TOKENS)


def test_a_text_that_no_problem_can_have_is_left_out_of_training():
    texts = ["three red bars", "two blue bars"]
    huge = "z" * 10_000_000
    assert train_tokenizer([*texts, huge], 320).get_vocab() == train_tokenizer(texts, 320).get_vocab()
