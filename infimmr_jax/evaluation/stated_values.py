r"""The number or list that a short statement gives, as MathVista's published extraction by GPT writes it.

What is done with units, percent and fractions was read off the extractions that are published with the benchmark:
units and the percent sign are dropped (`5\text{ m}^2` is 5, `30\%` is 30); a fraction becomes a decimal where a decimal
is asked for, and where an integer is asked for only when it is one (10/2 is 5, 4/3 stays 4/3, which is no integer).
"""

from __future__ import annotations

import re
from fractions import Fraction

from infimmr_jax.evaluation.latex_values import number
from infimmr_jax.rewards.math.latex import tidy
from infimmr_jax.rewards.math.numbers import PlainNumber, parse_number

MAX_STATEMENT = 300
_DIGITS = r"(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+"
_POWER_OF_TEN = r"(?:\s*(?:\\times|\\cdot|[x*×])\s*10\s*\^\s*\{?[-+]?\d+\}?)?"
_DECIMAL = rf"(?<![\w.^])-?(?:{_DIGITS}){_POWER_OF_TEN}"
_NUMBER = re.compile(_DECIMAL)
# In running text a number may stick to a letter: S10.4, x1.
_ANYWHERE = re.compile(rf"(?<![\d.])-?(?:{_DIGITS}){_POWER_OF_TEN}")
_SIDES = re.compile(r"=|\\approx|\\simeq|≈")
_WRAPPED = re.compile(r"\\(?:text|textbf|textrm|mathrm|mathbf|mbox|operatorname)\s*\{([^{}]*)\}")
_EXPONENT = r"(?:\s*\^\s*\{?-?[1-4]\}?)?"
_WRAPPED_END = re.compile(rf"(?:{_WRAPPED.pattern}{_EXPONENT}[\s/.]*)+$")
_WRAPPED_START = re.compile(rf"^(?:{_WRAPPED.pattern}\s*)+")
_LEAD = re.compile(r"^(?:about|approximately|approx\.?|around|roughly|nearly|~)\s*(?=[-.\d\\])", re.IGNORECASE)
_UNIT_NAMES = r"""[cdkmnµμ]?m|[kmµμ]?g|m?s|min|hr?s?|[kmM]?(?:N|W|J|V|A|Pa|Hz)|k?cal|mol|K|C|[md]?[lL]|T|rad|deg
    |ft|in|yd|mi|lbs?|oz|mph|Ω|°C?|\\(?:Omega|degree)|\^\s*\{?\s*\\circ\s*\}?[CF]?|units?|(?:sq|square|cubic)\s+[a-z]+"""
_UNIT = rf"(?:{''.join(_UNIT_NAMES.split())}){_EXPONENT}"
# 5m^2, 4.5 m / s^2, 3 kg \cdot m/s
_UNITS_AT_END = re.compile(rf"(?<=[\d}}\s]){_UNIT}(?:\s*(?:/|\\cdot|\*|per|\s)\s*{_UNIT})*\s*$")
_UNIT_EXPONENT = re.compile(r"(?<=[A-Za-z}°])\s*\^\s*\{?-?[1-4]\}?(?!\d)")
_LEADING = re.compile(
    rf"({_DECIMAL}(?:/\d+)?)\s*%?(?:\s*[,;(]\s*|\s+)(?!(?:and|or|to|by|plus|minus|over)\b)[A-Za-z]{{2,}}[^+*^=\\]*$"
)
_WORDS_ONLY = re.compile(r"(?:[A-Za-z]{2,}+|\ba\b|[\s.,:;()'\"$%°-])*")
_SEVERAL = re.compile(rf"{_DECIMAL}(?:(?:\s*,\s*(?:and\s+)?|\s+and\s+){_DECIMAL})+")
_LIST = re.compile(r"\[[^\[\]]*\]")


def written_number(statement: str, integer: bool) -> str | None:
    """The one number a short statement gives, as a decimal where it has a short one; None for none or several."""
    if len(statement) > MAX_STATEMENT:
        return None
    text = tidy(statement)
    for side in [text, *reversed(_SIDES.split(text))]:
        found = _plain(side.strip())
        if found is not None:
            return _decimal(found, integer, side.strip())
    words = _UNIT_EXPONENT.sub("", _WRAPPED.sub(r" \1 ", text)).strip()
    leading = _LEADING.match(words)
    if leading:
        found = parse_number(leading[1])
        return None if found is None else _decimal(found, integer, leading[1])
    value = number(_without_units(text))
    if value is not None:
        whole = round(value)
        if abs(value - whole) < 1e-9:
            return str(whole)
        return None if integer else repr(value)
    return _only_number(words)


def last_value(text: str, integer: bool) -> str | None:
    """The last number of a longer text; exponents of units are none."""
    found = _ANYWHERE.findall(_UNIT_EXPONENT.sub("", text))
    value = parse_number(found[-1]) if found else None
    return None if value is None else _decimal(value, integer, found[-1])


def written_list(text: str) -> str | None:
    """The last list of a text in brackets, or else its last numbers joined by commas or "and", as Python writes it."""
    text = re.sub(r"\\left|\\right|\\[,;! ]", "", text)
    bracketed = _LIST.findall(text)
    if bracketed:
        return spaced(bracketed[-1])
    several = _SEVERAL.findall(text)
    return f"[{', '.join(_NUMBER.findall(several[-1]))}]" if several else None


def spaced(text: str) -> str:
    """A list with one space behind each comma: the published extraction writes it so, models need not."""
    inside = text.strip().removeprefix("[").removesuffix("]")
    return f"[{', '.join(part.strip() for part in inside.split(','))}]"


def _plain(text: str) -> PlainNumber | None:
    text = _LEAD.sub("", text)
    return parse_number(text) or parse_number(_without_units(text))


def _without_units(text: str) -> str:
    r"""Without `\text{..}` at the ends, units at the end, and their exponents."""
    bare = _WRAPPED_START.sub("", _WRAPPED_END.sub("", text)).strip(" /.")
    if not re.search(r"\d", bare):
        bare = _WRAPPED.sub(r" \1 ", text).strip()
    return _LEAD.sub("", _UNITS_AT_END.sub("", bare).strip())


def _only_number(words: str) -> str | None:
    found = set(_NUMBER.findall(words))
    if len(found) != 1 or not _WORDS_ONLY.fullmatch(_NUMBER.sub(" ", words)):
        return None
    value = parse_number(found.pop())
    return None if value is None else _decimal(value, False, words)


def _decimal(found: PlainNumber, integer: bool, text: str) -> str:
    value: Fraction = found.value
    if value.denominator == 1:
        return str(value.numerator)
    if integer and found.decimals is None and "10^" not in text:
        return text
    return repr(float(value))
