"""A configuration read from YAML files, with overrides, and written back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml
from pydantic import ValidationError

from infimmr_jax.config.base import ConfigError
from infimmr_jax.config.inheritance import without_inherited
from infimmr_jax.config.merging import merge_layers
from infimmr_jax.config.overrides import apply_overrides
from infimmr_jax.config.run import RunConfig
from infimmr_jax.config.schema import Tree
from infimmr_jax.config.sentences import sentences_of
from infimmr_jax.config.yaml_file import read_yaml


def load_config(paths: Path | Sequence[Path], overrides: list[str] | None = None) -> RunConfig:
    """Read one YAML file, or several in which the later ones' values win (see `layers`), into a RunConfig.

    Errors are ConfigError sentences that name every bad key.
    """
    paths = [paths] if isinstance(paths, Path) else list(paths)
    layers = [(str(path), _read(path)) for path in paths]
    overrides = overrides or []
    # Which scale is meant depends on the model, which a later file or an override may name.
    model = apply_overrides(merge_layers(layers, RunConfig, "small"), overrides).get("model")
    made = not isinstance(model, dict) or (model.get("path") is None and model.get("preset") is None)
    tree = merge_layers(layers, RunConfig, "small" if made else "published")
    return parse_config(apply_overrides(tree, overrides), " + ".join(name for name, _ in layers))


def _read(path: Path) -> Tree:
    try:
        tree = read_yaml(path.read_text(encoding="utf-8"), str(path))
    except FileNotFoundError:
        raise ConfigError(f"there is no configuration file {path}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} must hold a mapping of sections, it holds {type(tree).__name__}")
    return tree


def parse_config(tree: Tree, origin: str = "the configuration") -> RunConfig:
    """Validate a plain tree; see `load_config`."""
    try:
        return RunConfig.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(f"{origin} can not be used:\n  " + "\n  ".join(sentences_of(error, RunConfig))) from None


def dump_config(config: RunConfig) -> str:
    """Write the resolved configuration as YAML, phases with what differs; `load_config` of it gives an equal one."""
    return yaml.safe_dump(without_inherited(config.model_dump(mode="json")), sort_keys=False, allow_unicode=True)


def dump_phases(config: RunConfig) -> str:
    """Write every phase with its whole sections as YAML: what is in force while it runs."""
    phases = [phase.model_dump(mode="json") for phase in config.phases]
    return yaml.safe_dump(phases, sort_keys=False, allow_unicode=True)
