"""YAML as configurations are written in: nothing twice, nothing that grows without bound."""

from __future__ import annotations

import yaml

from infimmr_jax.config.base import ConfigError
from infimmr_jax.names import JsonValue

# The largest configuration of the project has about 300 values.
MAX_VALUES = 100_000


class _Loader(yaml.SafeLoader):
    """SafeLoader with limits; PyYAML itself lets the second of two equal keys win."""


def read_yaml(text: str, origin: str) -> JsonValue:
    """Read one YAML document into plain values.

    Raises ConfigError, naming `origin` and the line: for what is not YAML, a key that stands twice in one mapping, and
    aliases that refer to themselves or make more than 100,000 values.
    """
    loader = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        size = _check(node, origin, {}, frozenset())
        if size > MAX_VALUES:
            raise ConfigError(f"{origin}: its aliases make {size:,} values of it; write out what is meant")
        return loader.construct_document(node)
    except yaml.YAMLError as error:
        raise ConfigError(f"{origin} is not valid YAML: {error}") from error
    except RecursionError:
        raise ConfigError(f"{origin}: its values are nested too deeply to be a configuration") from None
    except ValueError as error:
        if isinstance(error, ConfigError):
            raise
        # Dates of a month that does not exist, integers of thousands of digits.
        raise ConfigError(f"{origin} holds a value that can not be read: {error}") from error
    finally:
        if loader is not None:
            loader.dispose()


def _check(node: yaml.Node, origin: str, sizes: dict[int, int], above: frozenset[int]) -> int:
    """Return how many values a node makes with its aliases written out; refuse keys that stand twice."""
    if id(node) in sizes:
        return sizes[id(node)]
    if id(node) in above:
        raise ConfigError(f"{origin}: line {node.start_mark.line + 1}: an alias refers to the value that it stands in")
    above |= {id(node)}
    children: list[yaml.Node] = []
    if isinstance(node, yaml.MappingNode):
        lines: dict[str, int] = {}
        for key, value in node.value:
            # 0 and "0" name the same phase.
            name, line = str(key.value), key.start_mark.line + 1
            # `<<` lays another mapping below this one and may be repeated.
            if key.tag != "tag:yaml.org,2002:merge" and isinstance(key, yaml.ScalarNode):
                if name in lines:
                    raise ConfigError(
                        f"{origin}: the key {key.value!r} stands twice, in line {lines[name]} and in line {line}; "
                        "write both parts below one"
                    )
                lines[name] = line
            children += [key, value]
    elif isinstance(node, yaml.SequenceNode):
        children = node.value
    sizes[id(node)] = 1 + sum(_check(child, origin, sizes, above) for child in children)
    return sizes[id(node)]


__all__ = ["read_yaml"]
