r"""Answers made by rule, with scores that follow from how they were made and from Python's own arithmetic.

No grader of the package is asked: two powers are equal when their Fractions are, two intervals when their ends are, an
answer in another dress when it was made from the same value. `cases()` gives (kind, type, gold, answer, score,
choices).
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator
from fractions import Fraction

Case = tuple[str, str, str, str, float, tuple[str, ...]]


def cases() -> list[Case]:
    """All variants; equal at every call."""
    made = [tiny_values, sides_of_equations, labelled_work, plain_functions, units, conditions, choices, labels]
    made += [equation_pairs, order_of_solutions, written_forms]
    return [case for number, make in enumerate(made) for case in make(random.Random(number))]


def tiny_values(draw: random.Random) -> Iterator[Case]:
    """Powers far below what a float holds: equal exactly when Python's Fractions are."""
    wraps = ["{}", "({},1)", "(0,{})", r"\{{1,{}\}}", "[0,{}]", "-{}"]
    for number in range(90):
        base, exponent = draw.choice([2, 3, 4, 5, 7, 9, 10]), draw.randint(30, 250)
        top = draw.randint(1, 9)
        value = Fraction(top, base**exponent)
        other_base = base * base if number % 3 == 0 else base
        other_exponent = exponent // 2 if number % 3 == 0 else exponent + draw.choice([0, 0, 1, -1, 10])
        other_top = top if number % 4 else draw.randint(1, 9)
        other = Fraction(other_top, other_base**other_exponent)
        gold = rf"\frac{{{top}}}{{{base}^{{{exponent}}}}}"
        answer = (
            rf"{other_top} \cdot {other_base}^{{-{other_exponent}}}"
            if number % 2
            else rf"\frac{{{other_top}}}{{{other_base}^{{{other_exponent}}}}}"
        )
        wrap = wraps[number % len(wraps)]
        if gold != answer:
            yield "K1", "math", wrap.format(gold), wrap.format(answer), float(value == other), ()
    for number in range(20):
        # A root and the same root a little off: by construction never equal.
        root, off = draw.choice([2, 3, 5, 7]), draw.randint(40, 90)
        answer = rf"\sqrt{{{root}}}+\frac{{1}}{{10^{{{off}}}}}"
        yield "K1", "math", rf"\sqrt{{{root}}}-\frac{{1}}{{3^{{{off + number}}}}}", answer, 0.0, ()


def sides_of_equations(draw: random.Random) -> Iterator[Case]:
    """The right side answers an equation when the left one is a name alone."""
    said = [
        "xy",
        "x+y",
        "2x",
        "x^2",
        "|x|",
        "x-3",
        "3a",
        "ab",
        r"\frac{x}{2}",
        "x^2+y^2",
        "|x-1|",
        "a+b+c",
        "xyz",
        "AB^2",
        r"\sqrt{x}",
        "x(x+1)",
    ]
    named = ["x", "n", "a_1", "a_{12}", r"\theta", "AB", r"\angle A", "f(x)", r"|AB|", r"\overline{AB}", "S_{10}", "V"]
    for left in said:
        for _ in range(2):
            value = draw.randint(2, 99)
            yield "K2", "math", f"{left}={value}", f"{value}", 0.0, ()
    for left in named:
        for _ in range(2):
            value = draw.randint(2, 99)
            yield "K2", "math", f"{left}={value}", f"{value}", 1.0, ()
            yield "K2", "math", f"{left}={value}", f"{value + 1}", 0.0, ()
    yield "K2", "math", "x+y=5, xy=6", "5, 6", 0.0, ()
    yield "K2", "math", "y=2x+3", "2x+3", 1.0, ()


def labelled_work(draw: random.Random) -> Iterator[Case]:
    """With a label on both sides, work left undone stays undone."""
    for label in ["x", "n", "AB", r"\theta", "a_1", "S"]:
        left, right = draw.randint(2, 9), draw.randint(2, 9)
        value, root, factorial = left * right + left, draw.randint(2, 12), draw.randint(3, 6)
        work = {
            rf"{left}\cdot {right}+{left}": value,
            rf"\sqrt{{{root**2}}}": root,
            f"{factorial}!": math.factorial(factorial),
            rf"\sqrt{{{3 * root}^2+{4 * root}^2}}": 5 * root,
            rf"\frac{{{value * left}}}{{{left}}}": value,
            rf"\log_2 {2**left}": left,
        }
        for written, number in work.items():
            undone = not written.startswith(r"\frac")
            yield "K3", "math", f"{label}={number}", f"{label}={written}", float(not undone), ()
            yield "K3", "math", f"{label}={number}", f"{label}={number}", 1.0, ()
            yield "K3", "math", f"({number}, 1)", f"({written}, 1)", float(not undone), ()
        yield "K3", "math", f"{label}={value}", f"{label}+{left}={value + left}", 0.0, ()
        yield "K3", "math", f"{label}={value}", f"z={value}", 0.0, ()
        yield "K3", "math", f"{label}={value}", f"{label}={left}+{value - left}={value}", 1.0, ()


def plain_functions(draw: random.Random) -> Iterator[Case]:
    """Functions without their backslash: the same function of the same argument, or another one."""
    latex = {"sin": r"\sin", "cos": r"\cos", "tan": r"\tan", "ln": r"\ln", "arctan": r"\arctan", "arcsin": r"\arcsin"}
    for (name, command), (argument, other) in itertools.product(
        latex.items(), [("2x", "3x"), ("x", "2x"), ("x+1", "x+2")]
    ):
        yield "K4", "math", rf"{command}({argument})", f"{name}({argument})", 1.0, ()
        yield "K4", "math", rf"{command}({argument})", f"{name}({other})", 0.0, ()
    for name, other in itertools.permutations(["sin", "cos", "tan"], 2):
        yield "K4", "math", rf"\{name}\theta", f"{name} θ", 1.0, ()
        yield "K4", "math", rf"\{name}\theta", f"{other} θ", 0.0, ()
    for _ in range(12):
        first, second = draw.randint(2, 9), draw.randint(2, 9)
        third = draw.choice([first + second, first * second])
        yield "K4", "math", f"ln {first} + ln {second}", f"ln {third}", float(third == first * second), ()
        yield "K4", "math", rf"\ln {first * second + 1}", f"ln({first * second + 1})", 1.0, ()
        yield "K4", "math", f"e^{{{first}}}", f"exp({second})", float(first == second), ()
        yield "K4", "math", rf"\log_{{{first}}} {second * 11}", f"log_{first}({second * 11})", 1.0, ()
        yield "K4", "math", rf"\arctan\frac{{1}}{{{first}}}", f"arctan(1/{second})", float(first == second), ()


def units(draw: random.Random) -> Iterator[Case]:
    """A unit may stand behind the number in any dress; a number word or an unknown word may not."""
    dresses = [
        "{} {}",
        "{}({})",
        r"{}\text{{ {}}}",
        r"{}\,\mathrm{{{}}}",
        r"{}\textnormal{{ {}}}",
        r"{}\,(\text{{{}}})",
    ]
    known = ["cm", "km", "kg", "miles", "hours", "degrees", "dollars", "meters"]
    for unit, dress in itertools.product(known, dresses):
        number = draw.randint(2, 500)
        yield "K5", "math", f"{number}", dress.format(number, unit), 1.0, ()
        if unit == "cm":
            yield "K5", "math", f"{number}", dress.format(number + 1, unit), 0.0, ()
            yield "K5", "math", dress.format(number, unit), f"{number}", 1.0, ()
            yield "K5", "math", dress.format(number, unit), f"{number} km", 0.0, ()
    for word in [
        "厘米",
        "米",
        "个",
        "元",
        "平方厘米",
        "度",
        "岁",
        "Stunden",
        "mètres",
        "метров",
        "см",
        "euros",
        "Tage",
    ]:
        number = draw.randint(2, 500)
        yield "K5", "math", f"{number}", f"{number}{'' if ord(word[0]) > 0x3000 else ' '}{word}", 1.0, ()
    numerals = [
        "thousand",
        "eighths",
        "fifteen",
        "quadrillion",
        "hundredths",
        "sixteenths",
        "seventy",
        "dozen",
        "百",
        "万",
        "septillion",
        "nineteen",
    ]
    strange = ["错", "foo", "wrongs", "blah", "三"]
    for word, dress in itertools.product([*numerals, *strange], [r"{}\text{{ {}}}", "{} {}", r"{}\text{{ ({})}}"]):
        number = draw.randint(2, 500)
        yield "K5", "math", f"{number}", dress.format(number, word), 0.0, ()
    for sign in ["$", "€", "£", r"\$"]:
        number = draw.randint(2, 500)
        yield "K5", "math", f"{number}", f"{sign}{number}", 1.0, ()
        yield "K5", "math", f"{number}", f"{number}{sign}", 1.0, ()
    for word in ["percent", "pct", "percentage", "%", r"\%", r"\text{ percent}"]:
        number = draw.randint(2, 99)
        yield "K5", "math", rf"{number}\%", f"{number} {word}", 1.0, ()
        yield "K5", "math", rf"{number}\%", f"{number + 1} {word}", 0.0, ()
    for power in (2, 3):
        number = draw.randint(2, 99)
        yield "K5", "math", f"{number}", f"{number}m^{power}", 1.0, ()
        yield "K5", "math", f"{number}m^{power}", f"{number}", 0.0, ()


def conditions(draw: random.Random) -> Iterator[Case]:
    """Sets by condition, conditions and intervals: equal when ends and their kinds are."""

    def written(low: int, high: int, closed: tuple[bool, bool], form: int) -> str:
        signs = [r"\le" if end else "<" for end in closed]
        brackets = "[" if closed[0] else "(", "]" if closed[1] else ")"
        turned = "[" if closed[0] else "]", "]" if closed[1] else "["
        condition = rf"{low} {signs[0]} x {signs[1]} {high}"
        return [
            rf"\{{x|{condition}\}}",
            condition,
            f"{brackets[0]}{low}, {high}{brackets[1]}",
            rf"\{{x \mid {condition}\}}",
            rf"x \in {brackets[0]}{low}, {high}{brackets[1]}",
            rf"\{{x \in \mathbb{{R}} : {condition}\}}",
            f"{turned[0]}{low}, {high}{turned[1]}",
        ][form]

    for number in range(70):
        low = draw.randint(-9, 5)
        high, closed = low + draw.randint(1, 9), (draw.random() < 0.5, draw.random() < 0.5)
        gold = written(low, high, closed, number % 6)
        change = draw.choice(["none", "none", "low", "high", "end"])
        other = (low - (change == "low"), high + (change == "high"))
        ends = (not closed[0], closed[1]) if change == "end" else closed
        yield "K6", "math", gold, written(*other, ends, (number * 5 + 1) % 7), float(change == "none"), ()
    for number in range(16):
        end, sign = draw.randint(-9, 9), draw.choice(["<", ">", r"\le", r"\ge", r"\ne"])
        other = draw.choice([sign, sign, "<", ">"])
        answer = rf"\{{x|x {other} {end}\}}" if number % 2 else rf"x {other} {end}"
        yield "K6", "math", rf"\{{x|x{sign} {end}\}}", answer, float(sign == other), ()


def choices(draw: random.Random) -> Iterator[Case]:
    """The letter in other dress, with and without its option's text: right when letter and text are the gold's."""
    texts = ("12 cm", "15 cm", "18 cm", "21 cm")
    with_text = ["{} {}", "{} ({})", "{}, {}", "{} - {}", "{}: {}", "({}) {}", "{}. {}", "{}) {}"]
    alone = [
        "{}",
        "选{}",
        "选项{}",
        "答案是{}",
        "Antwort: {}",
        "La réponse est {}",
        "Respuesta: {}",
        "{} is the correct answer",
        "option {}",
    ]
    for gold in "ABCD":
        for dress in with_text:
            letter = draw.choice(["A", "B", "C", "D", gold])
            text = draw.choice(["ABCD".index(letter), "ABCD".index(letter), draw.randrange(4)])
            right = letter == gold and text == "ABCD".index(letter)
            yield "K7", "choice", gold, dress.format(letter, texts[text]), float(right), texts
        for dress in alone:
            letter = draw.choice(["A", "B", "C", "D", gold])
            yield "K7", "choice", gold, dress.format(letter), float(letter == gold), texts
        for several in ["(A)(B)(C)(D)", "A, B", "A or B", "A and C", "BD", "选A或B"]:
            yield "K7", "choice", gold, several, 0.0, texts


def labels(draw: random.Random) -> Iterator[Case]:
    """Names before the value say nothing about it."""
    named = [
        r"|AB|",
        r"S_{\triangle ABC}",
        "f(2)",
        "P(X=2)",
        r"\vec{a}",
        r"|\vec{a}|",
        r"\overline{AB}",
        r"\cos A",
        "f'(x)",
        r"\therefore x",
        "E(X)",
        "P(A|B)",
        r"\tan\alpha",
        "a_{10}",
        r"\text{Area}",
        r"\frac{dy}{dx}",
        r"S_{ABCD}",
        "g(f(1))",
    ]
    for label in named:
        value = Fraction(draw.randint(1, 30), draw.randint(1, 5))
        written = rf"\frac{{{value.numerator}}}{{{value.denominator}}}" if value.denominator > 1 else f"{value}"
        yield "K11", "math", written, f"{label}={written}", 1.0, ()
        yield "K11", "math", written, f"{label}={value.numerator + value.denominator}/{value.denominator}", 0.0, ()
    for first, second in [(3, 5), (1, 8), (12, 7)]:
        yield "K11", "math", f"{first}, {second}", f"(a) {first}, (b) {second}", 1.0, ()
        yield "K11", "math", f"{first}, {second}", f"(i) {first}; (ii) {second}", 1.0, ()
        yield "K11", "math", f"{first}, {second}", f"(a) {first}, (b) {second + 1}", 0.0, ()
        yield "K11", "math", f"{first}, {second}", f"(b) {first}, (a) {second}", 0.0, ()


def equation_pairs(draw: random.Random) -> Iterator[Case]:
    """Equations of functions that are pairwise different, in forms that are alike by construction."""
    sides = [r"x\sin x", r"x\cos x", "x^2+1", "x^2-1", "e^x", r"\ln x", r"\sqrt{x}", "2x+3", r"\frac{1}{x}", r"\tan x"]
    for first, second in itertools.combinations(sides, 2):
        yield "time", "math", f"y={first}", f"y={second}", 0.0, ()
    for side in sides:
        yield "time", "math", f"y={side}", f"y={side}", 1.0, ()
        yield "time", "math", f"y={side}", f"2y=2({side})", 1.0, ()
    for _ in range(12):
        a, b, c = (draw.randint(1, 9) for _ in range(3))
        shift, factor = draw.choice([0, 0, 1]), draw.randint(2, 5)
        answer = f"{a * factor}x+{b * factor}y={(c + shift) * factor}"
        yield "time", "math", f"{a}x+{b}y={c}", answer, float(shift == 0), ()
        yield "time", "math", f"x^2+y^2={c}", f"x^2+y^2-{c + shift}=0", float(shift == 0), ()
        yield "time", "math", f"xy={c}", rf"y=\frac{{{c + shift}}}{{x}}", float(shift == 0), ()


def order_of_solutions(draw: random.Random) -> Iterator[Case]:
    """Labels that differ say which value is whose; the same label twice leaves the order free."""
    for _ in range(8):
        first, second = draw.sample(range(2, 40), 2)
        yield "small", "math", f"x={first}, y={second}", f"y={second}, x={first}", 1.0, ()
        yield "small", "math", f"x={first}, y={second}", f"x={second}, y={first}", 0.0, ()
        yield "small", "math", f"x={first}, y={second}", f"{first}, {second}", 1.0, ()
        yield "small", "math", f"x={first}, y={second}", f"{second}, {first}", 0.0, ()
        yield "small", "math", f"{first}, {second}", f"x={second}, x={first}", 1.0, ()
        yield "small", "math", f"({first},{second})", f"({first},{second}),({first},{second})", 0.0, ()
        yield "small", "math", f"({first},1),({second},2)", f"({second},2),({first},1)", 1.0, ()


def written_forms(draw: random.Random) -> Iterator[Case]:
    """Dress that says nothing, and small signs that do."""
    for _ in range(6):
        n, m = draw.randint(2, 99), draw.randint(3, 9)
        large = draw.randint(1000, 99_999)
        grouped = f"{large:,}"
        for answer in [rf"{{\bf {n}}}", rf"\color{{red}}{{{n}}}", rf"\underline{{{n}}}", rf"\textcolor{{blue}}{{{n}}}"]:
            yield "small", "math", f"{n}", answer, 1.0, ()
        yield "small", "math", f"{large}", grouped.replace(",", r",\!"), 1.0, ()
        yield "small", "math", f"{n}-i", f"{n} - 1i", 1.0, ()
        yield "small", "math", f"{n}-i", f"{n} - 2i", 0.0, ()
        yield "small", "math", f"[{n},{n + m}[", f"[{n},{n + m})", 1.0, ()
        yield "small", "math", f"[{n},{n + m}[", f"[{n},{n + m}]", 0.0, ()
        column = rf"\begin{{pmatrix}}{n}\\{m}\end{{pmatrix}}"
        yield "small", "math", column, rf"\left(\begin{{array}}{{c}}{n}\\{m}\end{{array}}\right)", 1.0, ()
        yield "small", "math", column, rf"\left(\begin{{array}}{{c}}{m}\\{n}\end{{array}}\right)", float(n == m), ()
        residue = n % m
        yield "small", "math", rf"{residue} \pmod {m}", rf"x \equiv {residue} \pmod{{{m}}}", 1.0, ()
        yield "small", "math", rf"{residue} \pmod {m}", rf"{residue + 1} \pmod {m}", 0.0, ()
        yield "small", "math", rf"{residue} \pmod {m}", rf"{residue} \pmod{{{m + 1}}}", 0.0, ()
    for composed, decomposed in [("café", "cafe\u0301"), ("Zürich", "Zu\u0308rich"), ("año", "an\u0303o")]:
        yield "small", "string", composed, decomposed, 1.0, ()
        yield "small", "string", decomposed, composed, 1.0, ()
        yield "small", "string", composed, composed.replace("é", "e").replace("ü", "u").replace("ñ", "n"), 0.0, ()
