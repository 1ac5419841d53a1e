"""Which words behind a number are units, and which two of them are one unit."""

from __future__ import annotations

import re

# One unit a line: its name, then other spellings (of other languages too). Plurals in -s need no entry of their own.
_TABLE = """
m metre meter mètre metro метр метра метров м 米 公尺 미터 メートル
cm centimetre centimeter centimètre centímetro zentimeter сантиметр сантиметров см 厘米 公分 센티미터 センチメートル
mm millimetre millimeter millimètre milímetro миллиметр мм 毫米 밀리미터
dm decimetre decimeter 分米
km kilometre kilometer kilomètre kilómetro километр километров км 千米 公里 킬로미터
um micrometre micrometer micron
nm nanometre nanometer
in inch inche 英寸
ft foot feet 英尺
yd yard
mi mile 英里
g gram gramme gramo gramm грамм г 克
mg milligram 毫克
kg kilogram kilogramme kilo kilogramo kilogramm килограмм кг 千克 公斤
t ton tonne tonelada тонн тонна 吨
lb lbs pound
oz ounce
l litre liter litro литр литров л 升 公升
ml millilitre milliliter мл 毫升
cl centilitre centiliter
dl decilitre deciliter
gal gallon
qt quart
pt pint
tsp teaspoon
tbsp tablespoon
s sec second seconde segundo sekunde sekunden секунд секунды с 秒 초
ms millisecond
min minute minuto minuten минут минуты мин 分钟 分 분
h hr hour heure hora stunde stunden час часа часов ч 小时 时 시간
day jour día dia tag tage tagen день дня дней 天 日 일
week semaine semana woche wochen неделя недель 周 星期 주
month mois mes mese monat monate месяц месяцев 月 个月 개월
year an ans año ano jahr jahre jahren год года лет 年 岁 년 살
century centuries
decade
dollar usd bucks 美元
cent ¢ 分钱
euro eur 欧元
pound gbp sterling
yen jpy 日元
yuan rmb cny 元 块
rupee inr rs
won 원
penny penne pence pennies
nickel
dime
ruble rubel рублей рубля руб
peso
degree deg градус градусов grad 度 도
rad radian 弧度
sr steradian
hz hertz 赫兹
khz kilohertz
mhz megahertz
ghz gigahertz
n newton 牛 牛顿
kn kilonewton
j joule 焦 焦耳
kj kilojoule
cal calorie
kcal kilocalorie
w watt 瓦 瓦特
kw kilowatt 千瓦
kwh
v volt 伏 伏特
kv kilovolt
mv millivolt
a amp ampere 安 安培
ma milliamp milliampere
ohm Ω 欧 欧姆
c coulomb
f farad
tesla
weber
pa pascal 帕
kpa kilopascal
hpa
atm atmosphere
bar
mmhg
k kelvin
mol mole 摩尔
mmol
ev
byte 字节
kb kilobyte
mb megabyte
gb gigabyte
tb terabyte
bit
acre 英亩
ha hectare 公顷
knot
mph
kph kmh
rpm
am
pm
unit
px pixel
ca carat
dB decibel
"""
_MEGA = ("MW", "MV", "MJ", "MN", "MPa", "Mg", "MA", "Mb", "MB")
# What is counted: nouns of textbook problems. Others may stand behind a number where the gold answer, the question or
# `verify.units` has them.
_COUNTED_WORDS = """
    apple animal answer angle arrangement attempt award axis baby bag baker ball balloon banana barrel basket battery
    bead bed bee bike bill bird block board boat bone book bottle bouquet bowl box boxes boy branch branches brick bus
    buses bush bushes button cake call can candle candies candy car card carrot case cat chair chicken child children
    choice chocolate circle clas class classes client coin color colour column combination computer container cookie
    corner cow crayon cup cupcake customer cycle deer desk diagonal die dice dish dishes dog doll donkey donut door dot
    dress dresses driver duck edge egg element employee error event face factor family families fish fishes flower
    folder friend frog fruit function game garden gift girl glass glasses goal goat grade grape group guest hand hat
    head heart hole home horse hot-dog house integer item jar jean job key kid kitten lamp lap leaf leaves leg
    lemon letter level line litter lollipop man marble match matches meal member men milk mistake movie muffin mug
    necklace newspaper node note notebook number object octopus onion orange order outcome outfit packet page painting
    pair pairing pants paper parrot part party parties passenger path pattern peach peaches pear pen pencil people
    permutation person persons photo pie piece pig pizza plane plant plate play player point pool possibility
    possibilities post potato potatoes poster pot present primes prize problem puppy puppies puzzle question rabbit
    rectangle region ribbon ring road rock role room root rope rose round route row run sandwich sandwiches school seat
    segment selection sequence set sheep sheet shelf shelves shell shirt shoe shot side sister size skirt slice sock
    solution song spider spoon spot square stamp star step stick sticker stone story stories student subset sweet
    sweater symbol table tangerine team teacher term test ticket tie tile time toy train triangle trip truck tree turn
    user value vase vegetable vehicle vertex vertices visitor vote walk wall watch watches watermelon way wheel win
    window woman women word worker yard zebra zero-sum
    个 只 本 支 张 条 头 匹 棵 朵 辆 次 种 名 位 人 件 颗 块钱 道 页 台 瓶 盒 箱 袋 枚 份 双 对 组 행 개 명 마리 권 штук
"""
# A number word is part of the value, and these words say something about it: none of them is a unit.
_NO_UNIT_WORDS = """hundred hundreds thousand thousands million millions billion billions trillion trillions dozen
    dozens half halves third thirds quarter quarters pi e i x y z
    n and or not to plus minus times over per point squared cubed root sqrt log ln sin cos tan mod less than more at
    least most about approximately around nearly between infinity undefined none no unknown zero one two three four
    five six seven eight nine ten eleven twelve twenty thirty forty fifty sixty seventy eighty ninety thirteen fourteen
    fifteen sixteen seventeen eighteen nineteen
    mil mio mln bn lakh crore score gross couple couples ppm ppb permille myriad
    twice thrice fewer once base factorial choose if when is negative remainder rem
    positive doubled tripled halved inverse reciprocal wrong false owed below above under percent percentage
    百 千 万 亿 十 半 分之一 백 천 만 억 тысяч тысяча тысячи миллион миллионов миллиард mille mil-millones
    hundert tausend millionen milliarden millones millón miliardi"""
_NO_UNIT = frozenset(_NO_UNIT_WORDS.split())
_ORDINAL = re.compile(
    r"(?:(?:four|fif|six|seven|eigh|nin|ten|eleven|twelf|hundred|thousand|[a-z]+illion|[a-z]+teen|[a-z]+tie)ths?"
    r"|[a-z]+illions?)"
)
_SPELLINGS = {spelling.casefold(): line.split()[0] for line in _TABLE.strip().splitlines() for spelling in line.split()}
_COUNTED = frozenset(_COUNTED_WORDS.split())
_LETTER_UNITS = frozenset("mstghlLVWJNKA")
_JOINTS = re.compile(r"[ /.*·-]+|\\cdot\s*")
_POWER = re.compile(r"[23]$")


def is_number_word(word: str) -> bool:
    """Whether a word behind a number belongs to its value (`thousand`, `eighths`) or talks about it (`not`, `less`)."""
    lower = word.casefold()
    return lower in _NO_UNIT or _ORDINAL.fullmatch(lower) is not None


def is_unit_word(word: str) -> bool:
    """Whether a single word is a unit of measurement, or a noun of textbook problems (`cm`, `metres`, `apples`)."""
    if len(word) == 1 and word.isascii():
        return word in _LETTER_UNITS
    bare = _POWER.sub("", word).removeprefix("平方").removeprefix("立方")
    return bare in _MEGA or _singular(bare.casefold()) in _SPELLINGS or _is_counted(bare.casefold())


def is_known(unit: str) -> bool:
    """Whether every word of a unit is one, as in `km/h` and `square metres`, or the last is counted (`red apples`)."""
    words = unit_words(unit)
    if len(words) > 1 and _is_counted(words[-1].casefold()):
        return True  # 12 red apples
    return bool(words) and all(is_unit_word(word) or word in ("degreeC", "degreeF") for word in words)


def unit_words(unit: str) -> list[str]:
    """The words of a unit without powers and without `per`, `square`, `cubic`."""
    words = [_POWER.sub("", word) for word in _JOINTS.split(unit) if word]
    return [word for word in words if word.casefold() not in ("per", "square", "sq", "cubic", "cu", "pro", "")]


def same_unit(first: str, second: str) -> bool:
    """Whether two unit names are one unit; a bare "unit" agrees with every unit of the same power."""
    first, second = unit_name(first), unit_name(second)
    if first[-1:] == second[-1:] or not (first[-1:] in "23" or second[-1:] in "23"):
        base = {first.rstrip("23"), second.rstrip("23")}
        if "unit" in base or len(base) == 1:
            return True
    return first == second


def unit_fits(gold: str, answer: str, units: tuple[str, ...] | None = None, nouns: tuple[str, ...] = ()) -> bool:
    """Whether an answer may carry its unit: that of the gold answer, or, where the gold has none, a known one.

    `units` are the only ones allowed besides the gold's own (None: all that are known); `nouns` are words of the
    question, which may be counted. Without a unit in the answer there is nothing to object to.
    """
    if not answer or (gold and same_unit(gold, answer)):
        return True
    if units is not None:
        return not gold and any(same_unit(unit, answer) for unit in units)
    if gold or answer == "K":  # thousands, as likely as kelvin
        return False
    words = unit_words(answer)
    return is_known(answer) or (bool(words) and all(word.casefold() in nouns or is_known(word) for word in words))


def unit_name(unit: str) -> str:
    """One name for all spellings of a unit: `square centimetres` is `cm2`, `dogs` is `dog`."""
    power = unit[-1] if unit[-1:] in "23" and unit else ""
    words = unit.rstrip("23").rstrip(". ")
    words_left = (words if words in ("K", *_MEGA) else words.casefold()).split()
    if words_left and words_left[0] in ("square", "sq", "sq."):
        power, words_left = "2", words_left[1:]
    if words_left and words_left[0] in ("cubic", "cu", "cu."):
        power, words_left = "3", words_left[1:]
    name = " ".join(words_left)
    for prefix, digit in (("平方", "2"), ("立方", "3")):
        if name.startswith(prefix):
            name, power = name.removeprefix(prefix), digit
    if name in ("K", *_MEGA):
        return name + power
    return _SPELLINGS.get(_singular(name), _singular(name)) + power


def _singular(name: str) -> str:
    if name in _SPELLINGS:
        return name
    if len(name) > 2 and name.endswith("s") and name[:-1] in _SPELLINGS:
        return name[:-1]
    if len(name) > 3 and name.endswith("s") and not name.endswith("ss"):
        return name[:-1]
    return name


def _is_counted(word: str) -> bool:
    return word in _COUNTED or (word.endswith("s") and word[:-1] in _COUNTED)
