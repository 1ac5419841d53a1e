"""Captions of geometry diagrams from Geometry3K's annotated logic forms (Lu et al. 2021, Inter-GPS)."""

from __future__ import annotations

import re
from collections.abc import Sequence

from infimmr_jax.data.records import DataError

Term = tuple[str, list]  # a name or number, and its arguments, which are terms

_TOKEN = re.compile(r"[(),]|[^(),]+")
_RELATIONS = {"Perpendicular": "is perpendicular to", "Parallel": "is parallel to", "Congruent": "is congruent to"}


def describe_diagram(forms: Sequence[str]) -> str:
    """Sentences for logic forms such as `Equals(LengthOf(Line(A, B)), 13)`: "AB = 13."

    A form that this grammar does not know is given as it is written; raises DataError on unbalanced brackets.
    """
    return " ".join(f"{_sentence(_parse(form))}." for form in forms if form.strip())


def _sentence(term: Term) -> str:
    name, arguments = term
    words = [_phrase(argument) for argument in arguments]
    if name == "Equals" and len(words) == 2:
        degrees = "°" if arguments[0][0] == "MeasureOf" and re.fullmatch(r"[\d.]+", words[1]) else ""
        return f"{words[0]} = {words[1]}{degrees}"
    if name in _RELATIONS and len(words) == 2:
        return f"{words[0]} {_RELATIONS[name]} {words[1]}"
    if name == "PointLiesOnLine" and len(words) == 2:
        return f"Point {words[0]} lies on line {words[1]}"
    if name == "PointLiesOnCircle" and len(words) == 2:
        return f"Point {words[0]} lies on {words[1]}"
    if not arguments:
        return name
    return _phrase(term)


def _phrase(term: Term) -> str:
    name, arguments = term
    words = [_phrase(argument) for argument in arguments]
    if not arguments:
        return name
    if name in ("Line", "Point"):
        return "".join(words)
    if name == "Angle":
        return "∠" + "".join(words)
    if name == "Arc":
        return "arc " + "".join(words)
    if name == "Circle":
        return f"the circle with center {words[0]}"
    if name in ("LengthOf", "MeasureOf"):
        return words[0]
    if name in ("Triangle", "Quadrilateral", "Rectangle", "Square", "Parallelogram", "Trapezoid", "Rhombus", "Polygon"):
        return f"{name.lower()} {''.join(words)}"
    if name == "AreaOf":
        return f"the area of {words[0]}"
    return f"{name}({', '.join(words)})"


def _parse(form: str) -> Term:
    tokens = [token.strip() for token in _TOKEN.findall(form) if token.strip()]
    term, rest = _term(tokens, form)
    if rest:
        raise DataError(f"the logic form {form[:80]!r} goes on after its end")
    return term


def _term(tokens: list[str], form: str) -> tuple[Term, list[str]]:
    if not tokens or tokens[0] in "(),":
        raise DataError(f"the logic form {form[:80]!r} misses a name or argument")
    name, rest = tokens[0], tokens[1:]
    arguments: list[Term] = []
    if rest and rest[0] == "(":
        rest = rest[1:]
        while True:
            argument, rest = _term(rest, form)
            arguments.append(argument)
            if not rest or rest[0] not in ",)":
                raise DataError(f"the logic form {form[:80]!r} has an unclosed bracket")
            closing, rest = rest[0], rest[1:]
            if closing == ")":
                break
    return (name, arguments), rest
