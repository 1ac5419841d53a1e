"""Which options of `infimmr bench` each part reads: one that would do nothing is refused."""

from __future__ import annotations

from collections.abc import Collection

from infimmr_jax.config import ConfigError

_MODEL = {"model", "config", "overrides", "shape", "dtype", "repeats"}
_PROMPTS = {"prompts", "prompt_tokens", "image_size"}
_RESPONSES = {"group", "new_tokens"}
_SAMPLING = {"compactions", "cache_sizes", "longest"}
_UPDATE = {"micro_batches", "logprob_chunk", "remat"}
READ = {
    "prefill": _MODEL | _PROMPTS,
    "decode": _MODEL | _PROMPTS | _RESPONSES | _SAMPLING,
    "rollout": _MODEL | _PROMPTS | _RESPONSES | _SAMPLING,
    "update": _MODEL | _PROMPTS | _RESPONSES | _UPDATE | {"repeated"},
    "step": _MODEL | _PROMPTS | _RESPONSES | _SAMPLING | _UPDATE,
    "curriculum": {"config", "overrides"},
}
# An option that another one overrules, and why.
_OVERRULED = {
    ("shape", "model"): "the directory has its own shape",
    ("shape", "config"): "the configuration has its own shape, as model.shape or model.preset",
    ("remat", "config"): "the configuration has its own, as model.remat",
}


def refuse_unread(part: str, given: Collection[str]) -> None:
    """Raise ConfigError where `part` is unknown, or one of the options that were `given` would do nothing."""
    if part not in READ:
        raise ConfigError(f"there is no part {part!r} to measure; choose one of {', '.join(READ)}")
    unread = [_flag(name) for name in given if name not in READ[part] | {"part"}]
    if unread:
        what = "give it to the parts that do"
        if part == "curriculum":
            what = "a run's sizes are in its configuration: change them with --set"
        raise ConfigError(f"bench {part} does not read {', '.join(unread)}; {what}")
    if part != "curriculum" and "overrides" in given and "config" not in given:
        raise ConfigError("--set changes a configuration: give --config as well")
    for (name, other), why in _OVERRULED.items():
        if name in given and other in given:
            raise ConfigError(f"give {_flag(name)} or {_flag(other)}, not both: {why}")


def _flag(name: str) -> str:
    return "--set" if name == "overrides" else "--" + name.replace("_", "-")
