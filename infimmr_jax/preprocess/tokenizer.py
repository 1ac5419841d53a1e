"""Tokenizers in Qwen2.5-VL's form: trained on the spot for a nano model, or loaded from a Hugging Face directory."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, pre_tokenizers, trainers
from tokenizers.models import BPE
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from infimmr_jax.config import ConfigError

END_OF_TEXT = "<|endoftext|>"
IM_START, IM_END = "<|im_start|>", "<|im_end|>"
VISION_START, VISION_END = "<|vision_start|>", "<|vision_end|>"
VISION_PAD, IMAGE_PAD, VIDEO_PAD = "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"
SPECIAL_TOKENS = (END_OF_TEXT, IM_START, IM_END, VISION_START, VISION_END, VISION_PAD, IMAGE_PAD, VIDEO_PAD)
# Ordinary text for the published tokenizers; one token each in a nano one, whose responses are counted in tokens.
# A digit after a space is one token as well: "red 6" then reads as two neighbours, which a small model copies soonest.
MARKUP_TOKENS = ("<think>", "</think>", "\\boxed{", *(f" {digit}" for digit in range(10)))

# Qwen2's pre-tokenization: contractions, words with one leading sign or space, single digits, signs, line ends, spaces.
PRETOKEN_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
    r"|[^\r\n\p{L}\p{N}]?\p{L}+"
    r"|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+"
    r"|\s+(?!\S)"
    r"|\s+"
)

# Qwen2.5-VL's turns and vision marks; unlike the published template it invents no system turn.
CHAT_TEMPLATE = """\
{%- set seen = namespace(images=0, videos=0) -%}
{%- for message in messages -%}
  {{- '<|im_start|>' + message['role'] + '\\n' -}}
  {%- if message['content'] is string -%}
    {{- message['content'] -}}
  {%- else -%}
    {%- for part in message['content'] -%}
      {%- if part['type'] == 'image' or 'image' in part or 'image_url' in part -%}
        {%- set seen.images = seen.images + 1 -%}
        {%- if add_vision_id -%}{{- 'Picture ' ~ seen.images ~ ': ' -}}{%- endif -%}
        {{- '<|vision_start|><|image_pad|><|vision_end|>' -}}
      {%- elif part['type'] == 'video' or 'video' in part -%}
        {%- set seen.videos = seen.videos + 1 -%}
        {%- if add_vision_id -%}{{- 'Video ' ~ seen.videos ~ ': ' -}}{%- endif -%}
        {{- '<|vision_start|><|video_pad|><|vision_end|>' -}}
      {%- elif 'text' in part -%}
        {{- part['text'] -}}
      {%- endif -%}
    {%- endfor -%}
  {%- endif -%}
  {{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""


LONGEST_TEXT = 60_000  # characters of a question, a caption and a solution together, at most


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer of at most `vocab_size` tokens with Qwen2.5-VL's special tokens and template.

    The same texts give the same tokenizer; every Unicode text survives encoding and decoding unchanged (no
    normalisation). `<think>`, `</think>` and `\\boxed{` are single ordinary tokens. The end of a turn is `<|im_end|>`,
    padding `<|endoftext|>`. Raises ConfigError when `vocab_size` leaves no room for the 256 bytes.
    """
    added = (*SPECIAL_TOKENS, *MARKUP_TOKENS)
    least = 256 + len(added)
    if vocab_size < least:
        raise ConfigError(f"model.vocab_size: {vocab_size} is too small; bytes and special tokens alone are {least}")
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRETOKEN_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(added),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_without_added(texts, added), trainer=trainer)
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in SPECIAL_TOKENS])
    tokenizer.add_tokens([AddedToken(t, special=False, normalized=False) for t in MARKUP_TOKENS])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=IM_END,
        pad_token=END_OF_TEXT,
        extra_special_tokens=[t for t in SPECIAL_TOKENS if t not in (IM_END, END_OF_TEXT)],
        clean_up_tokenization_spaces=False,
        model_max_length=131_072,
        chat_template=CHAT_TEMPLATE,
    )


def load_tokenizer(directory: str | Path) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a Hugging Face model directory, with the chat template of its processor when it has one.

    Only local files are read and no code of the directory is run. Raises ConfigError when there is no tokenizer, no
    chat template, or a template that does not place images.
    """
    directory = Path(directory)
    if not any((directory / name).exists() for name in ("tokenizer.json", "vocab.json")):
        raise ConfigError(f"{directory} holds no tokenizer: expected tokenizer.json (or vocab.json and merges.txt)")
    tokenizer = AutoTokenizer.from_pretrained(str(directory), local_files_only=True, trust_remote_code=False)
    # How it was loaded is no property of it, and would be saved with it.
    for name in ("is_local", "local_files_only"):
        tokenizer.init_kwargs.pop(name, None)
    # The published Qwen2.5-VL directories carry a text-only template beside the tokenizer and the real one here.
    processor_template = directory / "chat_template.json"
    if processor_template.exists():
        tokenizer.chat_template = json.loads(processor_template.read_text(encoding="utf-8"))["chat_template"]
    _check_template(tokenizer, directory)
    return tokenizer


def save_tokenizer(tokenizer: PreTrainedTokenizerBase, directory: str | Path) -> None:
    """Write the tokenizer in Hugging Face layout: `AutoTokenizer.from_pretrained(directory)` gives it back."""
    tokenizer.save_pretrained(str(directory))


def _without_added(texts: Iterable[str], added: tuple[str, ...]) -> Iterator[str]:
    # Added tokens are cut out before BPE sees a text, so merges across them would never be used.
    pattern = re.compile("|".join(re.escape(token) for token in added))
    for text in texts:
        if len(text) > LONGEST_TEXT:
            continue  # No problem's: the row is rejected later. Ten million letters in a row would take hours here.
        yield from (piece for piece in pattern.split(text) if piece)


def _check_template(tokenizer: PreTrainedTokenizerBase, directory: Path) -> None:
    if not tokenizer.chat_template:
        raise ConfigError(f"{directory} has no chat template: expected chat_template.json or chat_template.jinja")
    probe: Any = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "probe"}]}]
    try:
        shown = tokenizer.apply_chat_template(probe, tokenize=False, add_generation_prompt=True)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"the chat template of {directory} can not show an image: {error}") from error
    if str(shown).count(IMAGE_PAD) != 1:
        raise ConfigError(f"the chat template of {directory} does not place {IMAGE_PAD} for an image")
