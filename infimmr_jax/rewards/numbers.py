r"""Read a plain number exactly, from the many ways people write one, without a computer algebra system.

Understood: sign, thousands separators (`1,234`, `1{,}234`, `1,\!234`), decimals, `1.5e3` and `1.5 \times 10^{3}`,
fractions (`3/4`, `\frac{3}{4}`, `\dfrac34`), mixed numbers (`1\frac12`, `1 1/2`), percent, currency signs, degrees
and units. Anything else is not a plain number: None.
"""

from __future__ import annotations

import dataclasses
import re
from fractions import Fraction

from infimmr_jax.rewards.text import fold, unwrap

MAX_DIGITS = 60
MAX_EXPONENT = 300


@dataclasses.dataclass(frozen=True)
class PlainNumber:
    """An exact value as written; `percent` says that a percent sign stood behind it, `unit` names the unit if any.

    `value` leaves the percent sign out: `50\\%` has value 50. `decimal` says that a decimal point was written.
    """

    value: Fraction
    percent: bool = False
    unit: str = ""
    decimal: bool = False


_DIGITS = r"(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)"
_DECIMAL = re.compile(rf"({_DIGITS})?(?:\.([0-9]*))?(?:[eE]([+-]?[0-9]{{1,3}}))?")
_POWER = re.compile(r"(?:\\times|\\cdot|\*|x|×|·)10\^(?:\{([+-]?[0-9]{1,3})\}|([+-]?[0-9]))$")
_FRACTION = re.compile(r"\\frac(?:\{([+-]?[0-9]+)\}|([0-9]))(?:\{([+-]?[0-9]+)\}|([0-9]))")
_SLASH = re.compile(r"([0-9]+)/([0-9]+)")
_MIXED = re.compile(r"([0-9]+)(\\frac.*)")
_MIXED_SLASH = re.compile(r"([0-9]+) +([0-9]+)/([0-9]+)")
_FRAC_STYLE = re.compile(r"\\[dtc]frac")
_SPACING = re.compile(r"\\[!,;: ]|\\quad|\\qquad|~|\\displaystyle|\\left(?![a-z])|\\right(?![a-z])")
_CURRENCY = re.compile(r"^([+-]?)\s*(?:\\?\$|\\?[€£¥₹]|\\pounds|\\euro)\s*")
_PERCENT = re.compile(r"\s*(?:\\?%|\\text\{ ?percent\}|percent)$", re.IGNORECASE)
_DEGREE = re.compile(r"\s*(?:\^\{?\\circ\}?|°|\\degree|\\text\{ ?degrees?\}|degrees?)$", re.IGNORECASE)
_UNIT = re.compile(
    r"(?:\s*\\(?:text|mathrm|textrm|mbox|hbox)\s*\{\s*(?P<boxed>[^{}0-9\\]{1,40})\}"
    r"|(?<=[0-9}])\s*(?P<plain>(?:[kcmdμ]?m|km|mi|ft|in|yd|[kmμ]?g|lbs?|oz|[mkc]?[lL]|ms|sec|s|min|hrs?|h|mph|[kM]?Hz|[kM]?W|[kM]?J|N|Pa|V)"
    r"|[A-Za-z]{4,20}(?:\s+[A-Za-z]{2,20}){0,3}))"
    r"(?P<power>\^\{?[23]\}?|²|³)?$"
)


def parse_number(text: str) -> PlainNumber | None:
    """The plain number a text is, or None; never slow and never large (at most 60 digits, exponents up to 300)."""
    if len(text) > 200:
        return None
    text = _SPACING.sub(lambda match: " " if match.group() in (r"\ ", r"\quad", r"\qquad", "~") else "", fold(text))
    text = _FRAC_STYLE.sub(r"\\frac", text.replace("{,}", ","))
    text = unwrap(text)
    text = _CURRENCY.sub(r"\1", text)
    percent, unit, text = _suffixes(text)
    sign, text = _sign(text.strip())
    value, decimal = _value(text)
    if value is None:
        return None
    return PlainNumber(sign * value, percent, unit, decimal)


def _suffixes(text: str) -> tuple[bool, str, str]:
    """Strip at most one percent sign, degree sign or unit from the end."""
    shorter = _PERCENT.sub("", text)
    if shorter != text:
        return True, "", shorter
    shorter = _DEGREE.sub("", text)
    if shorter != text:
        return False, "degree", shorter
    match = _UNIT.search(text)
    if match and match.start() > 0:
        name = (match["boxed"] or match["plain"]).strip().rstrip(".").lower()
        power = re.sub(r"[^0-9²³]", "", match["power"] or "").translate({0xB2: "2", 0xB3: "3"})
        return False, name + power, text[: match.start()]
    return False, "", text


def _sign(text: str) -> tuple[int, str]:
    if text[:1] in "+-" and text[1:2] not in ("+", "-"):
        return (-1 if text[0] == "-" else 1), text[1:].lstrip()
    return 1, text


def _value(text: str) -> tuple[Fraction | None, bool]:
    """The unsigned value of a number without suffixes, and whether it was written as a decimal."""
    power = _POWER.search(text.replace(" ", ""))
    if power:
        base, _ = _value(text.replace(" ", "")[: power.start()])
        exponent = int(power[1] or power[2])
        if base is None or abs(exponent) > MAX_EXPONENT:
            return None, False
        return base * Fraction(10) ** exponent, False
    mixed_slash = _MIXED_SLASH.fullmatch(text)
    if mixed_slash:
        return _mixed(mixed_slash[1], mixed_slash[2], mixed_slash[3]), False
    compact = text.replace(" ", "") if text.startswith("\\frac") or "\\frac" in text else text
    mixed = _MIXED.fullmatch(compact)
    fraction = _FRACTION.fullmatch(mixed[2] if mixed else compact)
    if fraction:
        top, bottom = fraction[1] or fraction[2], fraction[3] or fraction[4]
        if mixed:
            return (_mixed(mixed[1], top, bottom) if top.isdigit() and bottom.isdigit() else None), False
        return _ratio(top, bottom), False
    slash = _SLASH.fullmatch(text.replace(" ", "")) if "/" in text else None
    if slash:
        return _ratio(slash[1], slash[2]), False
    return _decimal(text)


def _decimal(text: str) -> tuple[Fraction | None, bool]:
    match = _DECIMAL.fullmatch(text)
    if not match or (match[1] is None and not match[2]):
        return None, False
    whole, digits = (match[1] or "0").replace(",", ""), match[2] or ""
    exponent = int(match[3] or 0)
    if len(whole) + len(digits) > MAX_DIGITS or abs(exponent) > MAX_EXPONENT:
        return None, False
    value = Fraction(int(whole + digits), 10 ** len(digits)) * Fraction(10) ** exponent
    return value, match[2] is not None or match[3] is not None


def _ratio(top: str, bottom: str) -> Fraction | None:
    if len(top) > MAX_DIGITS or len(bottom) > MAX_DIGITS or int(bottom) == 0:
        return None
    return Fraction(int(top), int(bottom))


def _mixed(whole: str, top: str, bottom: str) -> Fraction | None:
    """A mixed number has a proper fraction; 12 3/2 is something else."""
    part = _ratio(top, bottom)
    if part is None or not 0 < part < 1 or len(whole) > MAX_DIGITS:
        return None
    return int(whole) + part


__all__ = ["PlainNumber", "parse_number"]
