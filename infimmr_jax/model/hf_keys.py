"""The keys of a Hugging Face `config.json`: those that are read, those that change nothing, and no others.

A key that this program does not know may change the arithmetic, so it is refused by name. To allow a key, add it here
with the reason why it changes nothing.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Iterable, Mapping

from infimmr_jax.config import ConfigError
from infimmr_jax.preprocess.json_file import JsonObject, shorten

# Settings of transformers' generate(): sampling is set by this program's own options.
_GENERATION = (
    "max_length min_length do_sample early_stopping num_beams num_beam_groups diversity_penalty temperature top_k "
    "top_p typical_p repetition_penalty length_penalty no_repeat_ngram_size encoder_no_repeat_ngram_size "
    "bad_words_ids num_return_sequences forced_bos_token_id forced_eos_token_id remove_invalid_values "
    "exponential_decay_length_penalty suppress_tokens begin_suppress_tokens"
)
# key -> why it may be ignored, whatever its value.
_OF_EVERY_CONFIG = {
    "architectures": "names the class of the same model_type",
    "model_type": "compared where the file is read; of a part it only repeats the name",
    "transformers_version": "who wrote the file",
    "_name_or_path": "where the file came from",
    "_commit_hash": "where the file came from",
    "name_or_path": "where the file came from",
    "torch_dtype": "dtype of the stored weights; every tensor says its own",
    "dtype": "dtype of the stored weights; every tensor says its own",
    "use_cache": "how transformers decodes, not what it computes",
    "initializer_range": "of random weights, before training",
    "attn_implementation": "which kernel of transformers; the formula is the same",
    "_attn_implementation": "which kernel of transformers; the formula is the same",
    "_attn_implementation_autoset": "which kernel of transformers; the formula is the same",
    "return_dict": "how transformers returns results",
    "return_dict_in_generate": "how transformers returns results",
    "output_hidden_states": "how transformers returns results",
    "output_attentions": "how transformers returns results",
    "output_scores": "how transformers returns results",
    "torchscript": "how transformers exports",
    "tf_legacy_loss": "of TensorFlow",
    "use_bfloat16": "of TensorFlow",
    "finetuning_task": "a note",
    "task_specific_params": "settings of pipelines",
    "problem_type": "of classification heads",
    "id2label": "of classification heads",
    "label2id": "of classification heads",
    "num_labels": "of classification heads",
    "tokenizer_class": "the tokenizer's own files are read",
    "prefix": "of pipelines",
    "sep_token_id": "of other architectures",
    "decoder_start_token_id": "of encoder-decoders",
    "unsloth_fixed": "a note of a fine-tuning library",
    "unsloth_version": "a note of a fine-tuning library",
    **dict.fromkeys(
        _GENERATION.split(),
        "a setting of transformers' generate()",
    ),
}
_OF_DECODER = {
    "sliding_window": "read by transformers only where use_sliding_window is true, which is refused",
    "max_window_layers": "read by transformers only where use_sliding_window is true, which is refused",
    "vision_token_id": "names <|vision_pad|>, which no prompt holds",
}

# key -> the one value at which it changes nothing; anything else is refused.
_ONLY_OF_EVERY_CONFIG: JsonObject = {
    "is_encoder_decoder": False,
    "is_decoder": False,
    "add_cross_attention": False,
    "cross_attention_hidden_size": None,
    "tie_encoder_decoder": False,
    "chunk_size_feed_forward": 0,
    "pruned_heads": {},
    "hidden_act": "silu",
    "attention_dropout": 0,
    "hidden_dropout": 0,
}
_ONLY_OF_DECODER: JsonObject = {
    "use_sliding_window": False,
    "partial_rotary_factor": 1,
    "attention_bias": True,
    "qkv_bias": True,
    "mlp_bias": False,
    "attn_logit_softcapping": None,
    "final_logit_softcapping": None,
    "use_qk_norm": False,
    "qk_norm": False,
    "query_pre_attn_scalar": None,
    "attention_multiplier": None,
}
_DECODER = (
    "vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads rms_norm_eps "
    "max_position_embeddings tie_word_embeddings rope_theta rope_scaling rope_parameters head_dim layer_types "
    "bos_token_id eos_token_id pad_token_id image_token_id video_token_id vision_start_token_id "
    "vision_end_token_id"
)
DECODER_KEYS = frozenset(_DECODER.split())
_VISION = (
    "depth hidden_size intermediate_size num_heads in_channels in_chans patch_size spatial_patch_size "
    "spatial_merge_size temporal_patch_size tokens_per_second window_size out_hidden_size fullatt_block_indexes "
    "rope_parameters tie_word_embeddings"
)
VISION_KEYS = frozenset(_VISION.split())
_WRAPPER_KEYS = frozenset(["text_config", "vision_config"])


@dataclasses.dataclass(frozen=True)
class Part:
    """One object of a config.json with the words that name it in errors; getters raise ConfigError."""

    values: JsonObject
    where: str

    def integer(self, key: str, default: int, most: int, least: int = 1) -> int:
        """Return a whole number within [least, most]; absent and null are the default."""
        value = self._value(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or value != value or abs(value) == math.inf:
            raise self.wrong(key, f"expected a whole number from {least} to {most:,}")
        if value != int(value) or not least <= value <= most:
            raise self.wrong(key, f"expected a whole number from {least} to {most:,}")
        return int(value)

    def number(self, key: str, default: float | None = None, least: float = 0.0, most: float = 1e12) -> float:
        """Return a finite number within [least, most]; absent and null are the default, if there is one."""
        value = self._value(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
            raise self.wrong(key, f"expected a number from {least:g} to {most:g}")
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        """Return true or false; absent and null are the default."""
        value = self._value(key, default)
        if not isinstance(value, bool):
            raise self.wrong(key, "expected true or false")
        return value

    def integers(self, key: str, default: tuple[int, ...], most: int = 1024) -> tuple[int, ...]:
        """Return a list of at most `most` whole numbers; absent and null are the default."""
        value = self._value(key, default)
        given = value if isinstance(value, list | tuple) else [None]
        if len(given) > most or any(isinstance(one, bool) or not isinstance(one, int) for one in given):
            raise self.wrong(key, f"expected a list of at most {most} whole numbers")
        return tuple(int(one) for one in given if isinstance(one, int))

    def part(self, key: str) -> Part | None:
        """Return the object at a key; None when it is absent or null."""
        value = self.values.get(key)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise self.wrong(key, "expected an object")
        return Part(value, f"{self.where}, {key}")

    def wrong(self, key: str, expected: str) -> ConfigError:
        """Make the error that a key's value is not what it must be."""
        return ConfigError(f"{self.where}: {key} is {shorten(self.values.get(key))}; {expected}")

    def _value(self, key: str, default: object) -> object:
        value = self.values.get(key)
        return default if value is None else value


def check_root_keys(root: Part, nested: bool) -> None:
    """Raise ConfigError for keys of the whole file that this program does not know; `nested` has a text_config."""
    if "auto_map" in root.values:
        raise ConfigError(
            f"{root.where}: auto_map names code of this directory, which is never run; give a directory of the plain "
            "architecture"
        )
    quantised = root.values.get("quantization_config") or root.values.get("compression_config")
    if quantised:
        method = quantised.get("quant_method") if isinstance(quantised, dict) else None
        by = f" by {shorten(method).strip(chr(39))}" if method else ""
        raise ConfigError(
            f"{root.where} says that the weights are quantised{by}, which are not read; give the directory of the "
            "bf16 weights"
        )
    known = DECODER_KEYS | _WRAPPER_KEYS | {"quantization_config", "compression_config"}
    _check(root, known, _OF_DECODER, _ONLY_OF_DECODER)
    if nested:
        _check_agreement(root)


def check_decoder_keys(text: Part) -> None:
    """Raise ConfigError for keys of a text_config that this program does not know, by name."""
    _check(text, DECODER_KEYS, _OF_DECODER, _ONLY_OF_DECODER)


def check_vision_keys(vision: Part) -> None:
    """Raise ConfigError for keys of a vision_config that this program does not know, by name."""
    _check(vision, VISION_KEYS, {}, {})


def check_layer_types(text: Part, layers: int) -> None:
    """Raise ConfigError unless every layer attends to everything before it."""
    kinds = text.values.get("layer_types")
    if kinds is None:
        return
    if not isinstance(kinds, list) or any(kind != "full_attention" for kind in kinds):
        other = next((kind for kind in kinds if kind != "full_attention"), kinds) if isinstance(kinds, list) else kinds
        raise ConfigError(f"{text.where}: layer_types has {shorten(other)}; only 'full_attention' is supported")
    if len(kinds) != layers:
        raise ConfigError(f"{text.where}: layer_types has {len(kinds)} entries for {layers} layers")


def refuse_unknown(where: str, keys: Iterable[str]) -> None:
    """Raise ConfigError that names at most five of the keys, when there are any."""
    names = sorted(keys)
    if names:
        shown = ", ".join(shorten(name).strip("'") for name in names[:5])
        rest = f" and {len(names) - 5} more" if len(names) > 5 else ""
        raise ConfigError(
            f"{where} has {'the key' if len(names) == 1 else 'the keys'} {shown}{rest}, unknown to this program: it "
            "may change what the model computes, so it is not ignored; remove it only if it changes nothing"
        )


def _check(part: Part, known: Collection[str], ignored: Mapping[str, str], only: JsonObject) -> None:
    for key, allowed in (_ONLY_OF_EVERY_CONFIG | only).items():
        value = part.values.get(key, allowed)
        if value is not None and value != allowed:
            raise ConfigError(f"{part.where}: {key} {shorten(value)} is not supported, only {allowed!r}")
    keys = set(part.values) - set(known) - set(ignored) - set(only)
    refuse_unknown(part.where, keys - set(_OF_EVERY_CONFIG) - set(_ONLY_OF_EVERY_CONFIG))


def _check_agreement(root: Part) -> None:
    """Compare keys that transformers 4.52 to 4.57 write at the root as well, where they count for nothing."""
    text = root.part("text_config")
    if text is None:
        return
    read_from_both = {"tie_word_embeddings", "bos_token_id", "eos_token_id", "pad_token_id"}
    for key in sorted((DECODER_KEYS - read_from_both) & set(root.values) & set(text.values)):
        one, other = root.values[key], text.values[key]
        if one is not None and other is not None and one != other:
            raise ConfigError(
                f"{root.where}: {key} is {shorten(one)} beside a text_config that says {shorten(other)}; keep the "
                "one that belongs to the weights"
            )
