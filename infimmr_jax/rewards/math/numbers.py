r"""Read a plain number exactly, from the many ways people write one, without a computer algebra system.

Understood: sign, thousands separators (`1,234`, `1{,}234`, `1 234`), decimals, recurring ones (`0.1\overline{6}`),
`1.5e3` and `1.5 \times 10^{3}`, fractions (`3/4`, `\frac{3}{4}`, `\dfrac34`), mixed numbers (`1\frac12`, `1 1/2`),
percent, currency signs, degrees and units. Anything else is not a plain number: None.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from fractions import Fraction

from infimmr_jax.rewards.math.latex import tidy

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
_CURRENCY = re.compile(r"^([+-]?)\s*(\$|€|£|¥|₹|\\pounds|\\euro)\s*([+-]?)")
_CURRENCY_NAMES = {"$": "dollar", "€": "euro", "£": "pound", "¥": "yen", "₹": "rupee", r"\pounds": "pound"}
_PERCENT = re.compile(r"\s*(?:%|(?:\\(?:text|mathrm)\s*\{)?\s*(?:percent|per cent)\s*\}?)$", re.IGNORECASE)
_DEGREE = re.compile(
    r"\s*\^?\s*(?:\{\s*\\circ\s*\}|\\circ|\\degree|(?:\\text\s*\{)?\s*degrees?\s*\}?)"
    r"\s*(?:(?:\\(?:text|mathrm)\s*\{\s*)?(?P<scale>[CF]|Celsius|Fahrenheit)\s*\}?)?$"
)
_STYLED_UNIT = re.compile(
    r"(?P<space>)\s*\\(?:text|mathrm|textrm|textit|mathit|mbox|hbox)\s*\{\s*(?P<name>[^{}0-9\\^]{1,40}?)\s*"
    r"(?:\^\{?(?P<inside>[23])\}?)?\s*\}\s*(?:\^\{?(?P<power>[23])\}?)?$"
)
_PLAIN_UNIT = re.compile(
    r"(?P<space> *)(?<![\\A-Za-z])(?P<name>[A-Za-z]+(?:[ /.-]+[A-Za-z]+){0,3}\.?)"
    r"(?:\^\{?(?P<power>[23])\}?)?(?P<inside>)$"
)
# A number word is part of the value, and these words say something about it: none of them is a unit.
_NO_UNIT_WORDS = """hundred hundreds thousand thousands million millions billion billions trillion trillions dozen
    dozens half halves third thirds quarter quarters fourth fifth sixth tenth tenths hundredth hundredths pi e i x y z
    n k and or not to plus minus times over per point squared cubed root sqrt log ln sin cos tan mod less than more at
    least most about approximately around nearly between infinity undefined none no unknown zero one two three four
    five six seven eight nine ten eleven twelve twenty thirty forty fifty
    mil mio mln bn lakh crore score gross couple couples ppm ppb permille
    twice thrice fewer once or base factorial choose if when is negative
    positive doubled tripled halved inverse reciprocal wrong false owed below above under percent percentage degree"""
_NO_UNIT = frozenset(_NO_UNIT_WORDS.split())
_LETTER_UNITS = frozenset("msghlLVWJNK")
_MAGNITUDES = frozenset("kKMBTG")
_MEGA = frozenset(("MW", "MV", "MJ", "MN", "MPa", "Mg", "MA", "Mb", "MB"))
_SHORT_UNIT_WORDS = """cm mm km dm nm in ft yd mi g kg mg lb lbs oz ms hr hrs min ml cl kw kj pa
    hz khz mhz mw mv mj mn ma mb mph kph km/h m/s sq cu am pm mol rad ha"""
_SHORT_UNITS = frozenset(_SHORT_UNIT_WORDS.split())


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
        unit = _CURRENCY_NAMES.get(currency[2], "euro")
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


def same_unit(first: str, second: str) -> bool:
    """Whether two unit names are one unit; a bare "unit" agrees with every unit of the same power."""
    first, second = _unit_name(first), _unit_name(second)
    if first[-1:] == second[-1:] or not (first[-1:] in "23" or second[-1:] in "23"):
        base = {first.rstrip("23"), second.rstrip("23")}
        if "unit" in base or len(base) == 1:
            return True
    return first == second


_UNIT_NAMES = {
    "metre": "m",
    "meter": "m",
    "centimetre": "cm",
    "centimeter": "cm",
    "millimetre": "mm",
    "millimeter": "mm",
    "kilometre": "km",
    "kilometer": "km",
    "gram": "g",
    "kilogram": "kg",
    "kilo": "kg",
    "litre": "l",
    "liter": "l",
    "second": "s",
    "sec": "s",
    "minute": "min",
    "hour": "h",
    "hr": "h",
    "hrs": "h",
    "secs": "s",
    "mins": "min",
    "inch": "in",
    "inche": "in",
    "foot": "ft",
    "feet": "ft",
    "mile": "mi",
    "pound": "lb",
    "lbs": "lb",
    "cent": "cent",
    "dollars": "dollar",
    "usd": "dollar",
}


def _unit_name(unit: str) -> str:
    power = unit[-1] if unit[-1:] in "23" and unit else ""
    words = _lower(unit.rstrip("23")).rstrip(". ").split()
    if words and words[0] in ("square", "sq", "sq."):
        power, words = "2", words[1:]
    if words and words[0] in ("cubic", "cu", "cu."):
        power, words = "3", words[1:]
    name = " ".join(words)
    if len(name) > 3 and name.endswith("s") and not name.endswith("ss"):
        name = name[:-1]
    return _UNIT_NAMES.get(name, name) + power


def _suffix(text: str) -> tuple[bool, str, str]:
    """Strip at most one percent sign, degree sign or unit from the end."""
    match = _PERCENT.search(text, max(0, len(text) - MAX_UNIT))
    if match and match.start() > 0:
        return True, "", text[: match.start()]
    match = _DEGREE.search(text, max(0, len(text) - MAX_UNIT))
    if match and match.start() > 0:
        return False, "degree" + (match["scale"] or "")[:1], text[: match.start()]
    start = max(0, len(text) - MAX_UNIT)
    match = _STYLED_UNIT.search(text, start) or _PLAIN_UNIT.search(text, start)
    if match and match.start() > 0 and _BEFORE_UNIT.search(text[: match.start()]) and _is_unit(match):
        return False, _lower(match["name"].strip()) + (match["power"] or match["inside"] or ""), text[: match.start()]
    return False, "", text


def _lower(name: str) -> str:
    """A unit in lower case, but for a lone K (kelvin, or thousands) and a leading M (mega, where m is milli)."""
    return name if name == "K" or name in _MEGA else name.lower()


def _is_unit(match: re.Match[str]) -> bool:
    words = [word for word in re.split(r"[ /.-]+", match["name"].strip(" .")) if word != "per"]
    if not words or any(word.lower() in _NO_UNIT for word in words if len(word) > 1):
        return False
    if match.re is _STYLED_UNIT:
        return match["name"].strip() not in _MAGNITUDES - {"K"}
    # Without a space a single letter is a factor (5m); with one, or from two letters on, it is taken for a unit.
    return all(_UNIT_LETTERS[min(len(word), 3)](word) for word in words) and bool(match["space"] or len(words[0]) > 1)


_UNIT_LETTERS: dict[int, Callable[[str], bool]] = {
    1: lambda word: word in _LETTER_UNITS,
    2: lambda word: word.lower() in _SHORT_UNITS,
    3: lambda word: True,
}


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
