"""A chat template of others, rendered for the first time in a process of its own with limits on time and memory.

This file is run by path: it imports nothing of the package. Templates are rendered as transformers renders them.
"""

from __future__ import annotations

import datetime
import json
import sys
from collections.abc import Mapping, Sequence

from jinja2 import TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.nodes import Scope
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

CPU_SECONDS, WALL_SECONDS = 5, 60  # a real template takes milliseconds
MEMORY_BYTES = 1024**3
LONGEST = 1_000_000  # characters of a rendered probe


class GenerationTag(Extension):
    """The block that marks what an assistant said; it renders to its content."""

    tags = {"generation"}  # noqa: RUF012 - as jinja declares it

    def parse(self, parser: Parser) -> Scope:
        """Parse the block up to its end."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return Scope(body, lineno=line)


def render(template: str, messages: Sequence[Mapping[str, object]], variables: Mapping[str, object]) -> str:
    """Render a conversation; `variables` are those that transformers gives beside it. Raises what jinja raises."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[GenerationTag, loopcontrols]
    )

    def raise_exception(message: str) -> None:
        raise TemplateError(message)

    def tojson(value: object, ensure_ascii: bool = False, **settings: object) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, **settings)  # type: ignore[arg-type]

    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(form)
    given = {"messages": messages, "tools": None, "documents": None, **variables}
    return environment.from_string(template).render(given)


def main() -> None:
    """Render the conversations of the JSON object on standard input; writes a JSON object to standard output."""
    import resource

    given = json.load(sys.stdin)
    resource.setrlimit(resource.RLIMIT_CPU, (given["seconds"], given["seconds"]))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    texts = []
    for conversation, variables in given["conversations"]:
        try:
            text = render(given["template"], conversation, variables)
            texts.append(
                {"text": text} if len(text) <= LONGEST else {"limit": "it renders more than a million letters"}
            )
        except MemoryError:
            texts.append({"limit": "it needs more than a gigabyte of memory"})
        except Exception as error:  # whatever a template does
            texts.append({"error": f"{type(error).__name__}: {error}"[:300]})
    json.dump(texts, sys.stdout)


if __name__ == "__main__":
    main()
