"""JSON objects of a model directory, whoever wrote them: one sentence for whatever is wrong with a file."""

from __future__ import annotations

import json
import reprlib
from pathlib import Path

from infimmr_jax.config import ConfigError

JsonObject = dict[str, object]
LARGEST_BYTES = 64 * 1024**2  # the index of a model of ten thousand layers has 20 MB


def read_json(path: Path) -> JsonObject:
    """Read a JSON object of at most `LARGEST_BYTES`.

    Raises ConfigError when the file is missing, no regular file, too large, no JSON or no object.
    """
    try:
        if not path.is_file():
            raise ConfigError(f"{path} is {'no regular file' if path.exists() else 'missing'}; fetch it again")
        size = path.stat().st_size
        if size > LARGEST_BYTES:
            raise ConfigError(f"{path} has {size:,} bytes, more than a file of its kind can have ({LARGEST_BYTES:,})")
        tree = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} can not be read: {error.strerror or error}") from error
    except RecursionError:
        raise ConfigError(f"{path} is nested too deeply to be the JSON of a model directory") from None
    except ValueError as error:
        raise ConfigError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} holds {shorten(tree)} instead of a JSON object")
    return tree


def shorten(value: object) -> str:
    """Show a value in a sentence: its repr, cut in the middle when it is long."""
    words = reprlib.Repr()
    words.maxstring = words.maxother = 80
    return words.repr(value)
