r"""Read a plain number exactly, from the many ways people write one, without a computer algebra system.

Understood: sign, thousands separators (`1,234`, `1{,}234`, `1 234`), decimals, recurring ones (`0.1\overline{6}`),
`1.5e3` and `1.5 \times 10^{3}`, fractions (`3/4`, `\frac{3}{4}`, `\dfrac34`), mixed numbers (`1\frac12`, `1 1/2`),
percent, currency signs, degrees and units. Anything else is not a plain number: None.
"""

from __future__ import annotations

import dataclasses
import re
from fractions import Fraction

from infimmr_jax.rewards.math.latex import tidy
from infimmr_jax.rewards.math.measures import is_number_word, is_unit_word, same_unit

MAX_LENGTH = 200
MAX_DIGITS = 60
MAX_UNIT = 60
MAX_EXPONENT = 300


@dataclasses.dataclass(frozen=True)
class PlainNumber:
    """An exact value as written: `50%` has value 50 and `percent`; `unit` is the unit's name, "" when there is none.

    `decimals` is the number of digits written after the decimal point, None without a point: such a value may be a
    rounded one.
    """

    value: Fraction
    percent: bool = False
    unit: str = ""
    decimals: int | None = None


_INTEGER = re.compile(r"-?[0-9]{1,18}")
_DIGITS = r"(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]{1,3}(?: [0-9]{3})+|[0-9]+)"
_DECIMAL = re.compile(rf"({_DIGITS})?(?:\.([0-9]*))?(?:[eE]([+-]?[0-9]{{1,3}}))?")
_POWER = re.compile(r"(?:(?:\\times|\\cdot|\*|x)|^)10\^(?:\{([+-]?[0-9]{1,3})\}|([+-]?[0-9]{1,3}))$")
_PART = r"(?:\{([+-]?[0-9]+)\}|([0-9]))"
_FRACTION = re.compile(rf"\\frac{_PART}{_PART}")
_RECURRING = re.compile(r"([0-9]*)\.([0-9]*)\\(?:overline|bar)(?:\{([0-9]+)\}|([0-9]))")
_SLASH = re.compile(r"([0-9]+)/([0-9]+)")
_MIXED = re.compile(r"([0-9]+)(?:\\frac\{?([0-9]+)\}?\{?([0-9]+)\}?| ([0-9]+)/([0-9]+))")
_BEFORE_UNIT = re.compile(r"(?:[0-9}).]|\\pi)\s*$")
_CURRENCY_SIGN = r"(?:US|A|C|HK|NZ|S)?\$|€|£|¥|₹|₩|₽|\\pounds|\\euro"
_CURRENCY = re.compile(rf"^([+-]?)\s*({_CURRENCY_SIGN}|(?:USD|EUR|GBP|RMB|CNY|INR)\s|Rs\.?\s)\s*([+-]?)")
_CURRENCY_BEHIND = re.compile(rf"\s*({_CURRENCY_SIGN})$")
_CURRENCY_NAMES = {
    "$": "dollar",
    "€": "euro",
    r"\euro": "euro",
    "£": "pound",
    r"\pounds": "pound",
    "¥": "yen",
    "₹": "rupee",
    "₩": "won",
    "₽": "ruble",
    "USD": "dollar",
    "EUR": "euro",
    "GBP": "pound",
    "RMB": "yuan",
    "CNY": "yuan",
    "INR": "rupee",
    "Rs": "rupee",
}
_STYLE = r"\\(?:text|mathrm|textrm|textnormal|textsf|textit|mathit|mathsf|mbox|hbox)"
_PERCENT = re.compile(
    rf"\s*(?:%|(?:{_STYLE}\s*\{{)?\s*(?:percent|per cent|pct\.?|percentage|prozent|pour cent)\s*\}}?)$", re.IGNORECASE
)
_DEGREE = re.compile(
    rf"\s*\^?\s*(?:\{{\s*\\circ\s*\}}|\\circ|\\degree|(?:{_STYLE}\s*\{{)?\s*degrees?\s*\}}?)"
    r"\s*(?:(?:\\(?:text|mathrm)\s*\{\s*)?(?P<scale>[CF]|Celsius|Fahrenheit)\s*\}?)?$"
)
_STYLED_UNIT = re.compile(
    rf"(?P<space>)\s*{_STYLE}\s*\{{\s*(?P<name>[^{{}}0-9\\^]{{1,40}}?)\s*"
    r"(?:\^\{?(?P<inside>[23])\}?)?\s*\}\s*(?:\^\{?(?P<power>[23])\}?)?$"
)
_LETTERS = r"(?:\\mu |\\Omega )?[^\W\d_]+"
_PLAIN_UNIT = re.compile(
    rf"(?P<space> *)(?<![\\A-Za-z])(?P<name>{_LETTERS}(?:(?:[ /.-]+|\\cdot ){_LETTERS}){{0,3}}\.?)"
    r"(?:\^\{?(?P<power>[23])\}?)?(?P<inside>)$"
)
# 5(cm), 5\,(\text{cm}), 5(cm^2); not 5(m), which is a product as well.
_BRACKETED_UNIT = re.compile(
    rf"\s*\(\s*({_STYLE}\s*\{{[^{{}}]{{1,40}}\}}(?:\^\{{?[23]\}}?)?|[^\W\d_]{{2}}[^()\\{{}}0-9]{{0,40}}(?:\^\{{?[23]\}}?)?)\s*\)$"
)
_MAGNITUDES = frozenset("kKMBTG")
_KEPT_CASE = frozenset(("K", "MW", "MV", "MJ", "MN", "MPa", "Mg", "MA", "Mb", "MB"))
_LETTER_UNITS = frozenset("msghlLVWJNK")


def parse_number(text: str) -> PlainNumber | None:
    """The plain number a text is, or None; never slow and never large (60 digits, exponents up to 300)."""
    if _INTEGER.fullmatch(text):
        return PlainNumber(Fraction(int(text)))
    return read_number(tidy(text)) if len(text) <= MAX_LENGTH else None


def read_number(text: str) -> PlainNumber | None:
    """`parse_number` of a text that `latex.tidy` has already been through."""
    if len(text) > MAX_LENGTH or not any("0" <= character <= "9" for character in text):
        return None
    currency = _CURRENCY.match(text)
    unit = ""
    if currency:
        if currency[1] and currency[3]:
            return None
        text = currency[1] + currency[3] + text[currency.end() :]
        unit = _currency_name(currency[2])
    percent, suffix, text = _suffix(text)
    if suffix and unit and not same_unit(suffix, unit):
        return None
    sign = 1
    if text[:1] in ("+", "-"):
        sign, text = (-1 if text[0] == "-" else 1), text[1:].lstrip()
    found = _value(text.strip())
    return None if found is None else PlainNumber(sign * found[0], percent, suffix or unit, found[1])


def split_unit(text: str) -> tuple[str, str]:
    """A tidy text without the unit or degree sign at its end, and that unit ("" for none)."""
    percent, unit, rest = _suffix(text)
    return (text, "") if percent else (rest.strip(), unit)


def _suffix(text: str) -> tuple[bool, str, str]:
    """Strip at most one percent sign, degree sign, currency sign or unit from the end."""
    start = max(0, len(text) - MAX_UNIT)
    if text[-1:].isdigit() and "^" not in text:
        return False, "", text
    match = _PERCENT.search(text, start)
    if match and match.start() > 0:
        return True, "", text[: match.start()]
    match = _DEGREE.search(text, start)
    if match and match.start() > 0:
        return False, "degree" + (match["scale"] or "")[:1], text[: match.start()]
    match = _CURRENCY_BEHIND.search(text, start)
    if match and match.start() > 0:
        return False, _currency_name(match[1]), text[: match.start()]
    match = _BRACKETED_UNIT.search(text, start)
    if match and match.start() > 0:
        text = f"{text[: match.start()]} {match[1]}"
    match = _STYLED_UNIT.search(text, start) or _PLAIN_UNIT.search(text, start)
    if match and match.start() > 0 and _BEFORE_UNIT.search(text[: match.start()]) and _is_unit(match):
        return False, _lower(match["name"].strip()) + (match["power"] or match["inside"] or ""), text[: match.start()]
    return False, "", text


def _currency_name(sign: str) -> str:
    sign = sign.strip(" .")
    return _CURRENCY_NAMES.get(sign) or _CURRENCY_NAMES[sign[-1]]


def _lower(name: str) -> str:
    """A unit in lower case, but for a lone K (kelvin, or thousands) and a leading M (mega, where m is milli)."""
    return name if name in _KEPT_CASE else name.lower()


def _is_unit(match: re.Match[str]) -> bool:
    words = [word for word in re.split(r"[ /.-]+", match["name"].strip(" .")) if word != "per"]
    if not words or any(is_number_word(word) for word in words if len(word) > 1 or not word.isascii()):
        return False
    if match.re is _STYLED_UNIT:
        return match["name"].strip() not in _MAGNITUDES - {"K"}
    # Without a space a single letter is a factor (5m); with one, or from two letters on, it is taken for a unit.
    return all(_is_word(word) for word in words) and bool(match["space"] or len(words[0]) > 1 or not words[0].isascii())


def _is_word(word: str) -> bool:
    """Whether a word without a style may be a unit: three letters or more, or a short one that is known as a unit."""
    if not word.isascii() or len(word) > 2:
        return True
    return word in _LETTER_UNITS if len(word) == 1 else is_unit_word(word)


def _value(text: str) -> tuple[Fraction, int | None] | None:
    """The unsigned value of a number without suffixes, and the digits written behind its decimal point."""
    solid = text.replace(" ", "")
    power = _POWER.search(solid)
    if power:
        base, exponent = _decimal(solid[: power.start()] or "1"), int(power[1] or power[2])
        return (base[0] * Fraction(10) ** exponent, None) if base and abs(exponent) <= MAX_EXPONENT else None
    recurring = _RECURRING.fullmatch(solid)
    if recurring and len(solid) <= MAX_DIGITS:
        before, after, period = recurring[1] or "0", recurring[2], recurring[3] or recurring[4]
        return Fraction(int(before + after) * (10 ** len(period) - 1) + int(period), 10 ** len(after)) / (
            10 ** len(period) - 1
        ), None
    fraction = _FRACTION.fullmatch(solid)
    if fraction:
        return _ratio(fraction[1] or fraction[2], fraction[3] or fraction[4])
    mixed = _MIXED.fullmatch(text if "/" in text else solid)
    if mixed:
        part = _ratio(mixed[2] or mixed[4], mixed[3] or mixed[5])
        return (int(mixed[1]) + part[0], None) if part and part[0] < 1 and len(mixed[1]) <= MAX_DIGITS else None
    slash = _SLASH.fullmatch(solid)
    if slash:
        return _ratio(slash[1], slash[2])
    return _decimal(text)


def _decimal(text: str) -> tuple[Fraction, int | None] | None:
    match = _DECIMAL.fullmatch(text)
    if not match or (match[1] is None and not match[2]):
        return None
    whole, digits = (match[1] or "0").replace(",", "").replace(" ", ""), match[2] or ""
    exponent = int(match[3] or 0)
    if len(whole) + len(digits) > MAX_DIGITS or abs(exponent) > MAX_EXPONENT:
        return None
    value = Fraction(int(whole + digits), 10 ** len(digits)) * Fraction(10) ** exponent
    return value, None if match[2] is None else max(0, len(digits) - exponent)


def _ratio(top: str, bottom: str) -> tuple[Fraction, None] | None:
    if len(top) > MAX_DIGITS or len(bottom) > MAX_DIGITS or int(bottom) == 0:
        return None
    return Fraction(int(top), int(bottom)), None
