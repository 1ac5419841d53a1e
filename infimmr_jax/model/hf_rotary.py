"""The rotary embedding of a `config.json`: base, sections, and the kind of scaling with its keys."""

from __future__ import annotations

import dataclasses

from infimmr_jax.config import ConfigError
from infimmr_jax.model.hf_keys import Part, refuse_unknown
from infimmr_jax.model.rope_scaling import KINDS, LinearScaling, Llama3Scaling, RopeScaling, YarnScaling
from infimmr_jax.preprocess.json_file import shorten


def read_rotary(root: Part, text: Part, positions: int) -> tuple[float, tuple[int, int, int], RopeScaling | None]:
    """Read base, sections and scaling, from `rope_parameters` (transformers 5) or `rope_scaling` and `rope_theta`.

    Raises ConfigError for kinds of scaling that are not computed and keys that a kind does not know.
    """
    new, old = text.part("rope_parameters"), text.part("rope_scaling")
    if new is not None and old is not None and new.values != old.values:
        raise ConfigError(f"{text.where} has both rope_parameters and rope_scaling, which differ; keep the right one")
    rope = new or old or Part({}, text.where)
    given = [rope.values[key] for key in ("rope_type", "type") if rope.values.get(key) is not None]
    kinds = list(dict.fromkeys("default" if kind == "mrope" else shorten(kind).strip("'") for kind in given))
    if len(kinds) > 1:
        raise ConfigError(f"{rope.where}: rope_type and type say {' and '.join(kinds)}; keep the right one")
    kind = kinds[0] if kinds else "default"
    beside = text.values.get("rope_theta") or root.values.get("rope_theta")
    fallback = Part({"rope_theta": beside}, text.where).number("rope_theta", 1e6, least=1.0)
    theta = rope.number("rope_theta", fallback, least=1.0)
    section = rope.integers("mrope_section", (16, 24, 24))
    if len(section) != 3 or min(section) < 0:
        raise rope.wrong("mrope_section", "expected three whole numbers")
    if rope.number("partial_rotary_factor", 1.0) != 1:
        raise rope.wrong("partial_rotary_factor", "only 1 is supported")
    common = {"rope_type", "type", "mrope_section", "rope_theta", "partial_rotary_factor"}
    if kind == "default":
        # transformers 5 notes the context of an unscaled embedding as well; nothing reads it.
        refuse_unknown(rope.where, set(rope.values) - common - {"original_max_position_embeddings"})
        return theta, (section[0], section[1], section[2]), None
    if kind not in KINDS:
        advice = ""
        if kind in ("dynamic", "longrope"):
            advice = " (it changes with the length of a text)"
        raise ConfigError(
            f"{rope.where}: rotary scaling of kind {kind} is not computed{advice}; only {', '.join(KINDS)} are"
        )
    names = {field.name for field in dataclasses.fields(KINDS[kind])} - {"kind"}
    refuse_unknown(f"{rope.where} (kind {kind})", set(rope.values) - common - names)
    return theta, (section[0], section[1], section[2]), _scaling(kind, rope, positions)


def _scaling(kind: str, rope: Part, positions: int) -> RopeScaling:
    factor = rope.number("factor", least=1.0, most=1e6)
    if kind == "linear":
        return LinearScaling(factor)
    original = rope.integer("original_max_position_embeddings", positions, most=2**40)
    if kind == "llama3":
        low, high = rope.number("low_freq_factor", least=1e-3), rope.number("high_freq_factor", least=1e-3)
        if high <= low:
            raise rope.wrong("high_freq_factor", f"it must be above low_freq_factor {low:g}")
        return Llama3Scaling(factor, low, high, original)

    def optional(key: str) -> float | None:
        return None if rope.values.get(key) is None else rope.number(key, most=1e6)

    return YarnScaling(
        factor,
        original,
        attention_factor=optional("attention_factor"),
        # As in transformers, 0 is the default too.
        beta_fast=rope.number("beta_fast", 32.0) or 32.0,
        beta_slow=rope.number("beta_slow", 1.0) or 1.0,
        mscale=optional("mscale"),
        mscale_all_dim=optional("mscale_all_dim"),
        truncate=rope.flag("truncate", True),
    )
