"""Tokenizers in Qwen2.5-VL's form: trained on the spot for a nano model, or loaded from a Hugging Face directory."""

from __future__ import annotations

import functools
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import jinja2
import markupsafe
from tokenizers import AddedToken, Regex, Tokenizer, decoders, pre_tokenizers, trainers
from tokenizers.models import BPE
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from infimmr_jax.config import ConfigError
from infimmr_jax.preprocess import template_probe
from infimmr_jax.preprocess.json_file import read_json

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


LARGEST_FILE = 256 * 1024**2
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


def has_tokenizer(directory: Path) -> bool:
    """Whether a directory holds the files of a tokenizer."""
    return any((directory / name).exists() for name in ("tokenizer.json", "vocab.json"))


def read_tokenizer(directory: str | Path) -> PreTrainedTokenizerBase:
    """Read the tokenizer of a Hugging Face model directory, without looking at its chat template.

    Only local files are read and no code of the directory is run. Raises ConfigError when there is none, or its files
    are damaged.
    """
    directory = Path(directory)
    if not has_tokenizer(directory):
        raise ConfigError(f"{directory} holds no tokenizer: expected tokenizer.json (or vocab.json and merges.txt)")
    for path in directory.iterdir():
        if path.suffix in (".json", ".txt", ".jinja") and path.is_file() and path.stat().st_size > LARGEST_FILE:
            raise ConfigError(f"{path} has {path.stat().st_size:,} bytes, more than any tokenizer ({LARGEST_FILE:,})")
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(directory), local_files_only=True, trust_remote_code=False)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic of the Rust library is no Exception
        words = " ".join(str(error).split())[:300]
        raise ConfigError(
            f"the tokenizer of {directory} can not be read: {type(error).__name__}: {words}; fetch its files again"
        ) from error
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        raise ConfigError(f"the tokenizer of {directory} is a {type(tokenizer).__name__}, not one of transformers")
    # How it was loaded is no property of it, and would be saved with it.
    for name in ("is_local", "local_files_only"):
        tokenizer.init_kwargs.pop(name, None)
    return tokenizer


def load_tokenizer(directory: str | Path) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a Hugging Face model directory, with the chat template of its processor when it has one.

    The template is rendered for the first time in a process of its own, with limits. Raises ConfigError as
    `read_tokenizer`, and when there is no chat template, or one that does not end or does not place images.
    """
    directory = Path(directory)
    tokenizer = read_tokenizer(directory)
    # The published Qwen2.5-VL directories carry a text-only template beside the tokenizer and the real one here.
    processor_template = directory / "chat_template.json"
    if processor_template.exists():
        tokenizer.chat_template = read_json(processor_template).get("chat_template")
    if isinstance(tokenizer.chat_template, dict):
        tokenizer.chat_template = tokenizer.chat_template.get("default")
    if not tokenizer.chat_template or not isinstance(tokenizer.chat_template, str):
        raise ConfigError(f"{directory} has no chat template: expected chat_template.json or chat_template.jinja")
    try:
        shown, _ = _rendered_probes(tokenizer)
    except _ProbeError as error:
        raise ConfigError(f"the chat template of {directory} can not show an image: {error}") from error
    if shown.count(IMAGE_PAD) != 1:
        raise ConfigError(f"the chat template of {directory} does not place {IMAGE_PAD} for an image")
    return tokenizer


def end_of_turn(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Find the special token with which the chat template ends what an assistant said; None when there is none."""
    _, turns = _rendered_probes(tokenizer)
    _, said, tail = turns.partition(ANSWER)
    special = {index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    special |= set(tokenizer.all_special_ids)
    ids = tokenizer.encode(tail, add_special_tokens=False) if said else []
    return next((index for index in ids if index in special), None)


def save_tokenizer(tokenizer: PreTrainedTokenizerBase, directory: str | Path) -> None:
    """Write the tokenizer in Hugging Face layout: `AutoTokenizer.from_pretrained(directory)` gives it back.

    The files are those that transformers 4.49 reads as well as 5: special tokens as a list of their own, a class that
    both know, the chat template within tokenizer_config.json and, for processors, in chat_template.json.
    """
    directory = Path(directory)
    tokenizer.save_pretrained(str(directory))
    path = directory / "tokenizer_config.json"
    tree = read_json(path)
    extra = tree.pop("extra_special_tokens", None)
    if isinstance(extra, list):
        tree["additional_special_tokens"] = extra
    elif extra is not None:
        tree["extra_special_tokens"] = extra
    if tree.get("tokenizer_class") == "TokenizersBackend":
        tree["tokenizer_class"] = "PreTrainedTokenizerFast"
    tree.pop("backend", None)
    template = directory / "chat_template.jinja"
    if template.exists():
        tree["chat_template"] = template.read_text(encoding="utf-8")
        template.unlink()
        words = json.dumps({"chat_template": tree["chat_template"]}, indent=2, ensure_ascii=False)
        (directory / "chat_template.json").write_text(words + "\n", encoding="utf-8")
    path.write_text(json.dumps(tree, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _without_added(texts: Iterable[str], added: tuple[str, ...]) -> Iterator[str]:
    # Added tokens are cut out before BPE sees a text, so merges across them would never be used.
    pattern = re.compile("|".join(re.escape(token) for token in added))
    for text in texts:
        if len(text) > LONGEST_TEXT:
            continue  # No problem's: the row is rejected later. Ten million letters in a row would take hours here.
        yield from (piece for piece in pattern.split(text) if piece)


class _ProbeError(Exception):
    """What is wrong with a chat template, in words."""


# What a template is tried with: a question about a picture, an answered question.
ANSWER = "It is an answer."
PROBES: tuple[tuple[list[dict[str, object]], bool], ...] = (
    ([{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "probe"}]}], True),
    (
        [
            {"role": "user", "content": [{"type": "text", "text": "probe"}]},
            {"role": "assistant", "content": ANSWER},
        ],
        False,
    ),
)


def _rendered_probes(tokenizer: PreTrainedTokenizerBase) -> tuple[str, str]:
    """A question about a picture, and an answered question; raises _ProbeError where the first can not be shown."""
    names = tokenizer.special_tokens_map
    variables = {name: str(token) for name, token in names.items() if not isinstance(token, list)}
    shown, turns = _render_probes(str(tokenizer.chat_template), json.dumps(variables))
    if "text" not in shown:
        raise _ProbeError(next(iter(shown.values())))
    if "limit" in turns:
        raise _ProbeError(turns["limit"])
    return shown["text"], turns.get("text", "")


@functools.lru_cache(maxsize=32)
def _render_probes(template: str, variables: str) -> list[dict[str, str]]:
    given = [
        (messages, {**json.loads(variables), "add_generation_prompt": answer_next}) for messages, answer_next in PROBES
    ]
    if template == CHAT_TEMPLATE:  # Our own needs no process to be watched in.
        return [{"text": template_probe.render(template, *one)} for one in given]
    # The packages of the probe, wherever they were installed.
    paths = {str(Path(str(module.__file__)).parents[1]) for module in (jinja2, markupsafe)}
    program = f"import sys, runpy; sys.path += {sorted(paths)!r}; runpy.run_path(sys.argv[1], run_name='__main__')"
    command = [sys.executable, "-I", "-c", program, str(template_probe.__file__)]
    try:
        done = subprocess.run(
            command,
            input=json.dumps({"template": template, "conversations": given, "seconds": template_probe.CPU_SECONDS}),
            capture_output=True,
            text=True,
            timeout=template_probe.WALL_SECONDS,
            check=True,
        )
        found: list[dict[str, str]] = json.loads(done.stdout)
    except (subprocess.SubprocessError, ValueError) as error:
        code = getattr(error, "returncode", None)
        late = isinstance(error, subprocess.TimeoutExpired) or code in (-signal.SIGXCPU, -signal.SIGKILL)
        words = (
            f"it does not end within {template_probe.CPU_SECONDS} seconds of computing"
            if late
            else f"rendering it died ({error})"
        )
        return [{"limit": words}] * 2
    return found
