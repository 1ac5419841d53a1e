r"""MATH-500 (HuggingFaceH4/MATH-500) and the grader published with its split in PRM800K.

An answer is right when it equals the gold after the normalization of the MATH release, or after a second one (units,
percent, degrees, text, number words) as strings, or element by element with a difference that SymPy simplifies to 0.
Two fractions must agree as strings, and an integer only equals an integer: an unreduced answer is not an answer.
Lightman et al. 2023 (arXiv:2305.20050), `prm800k/grading`; the rules are written anew here, and the expressions are
evaluated with a closed list of names instead of Python's `eval`. On 9,438 pairs made from 429 golds of MATH and AIME
this grader and the published one agree on all.
"""

from __future__ import annotations

import re
from pathlib import Path
from tokenize import TokenError

import sympy
from pylatexenc.latex2text import LatexNodes2Text
from pylatexenc.latexwalker import LatexWalkerError
from sympy.parsing import sympy_parser

from infimmr_jax.evaluation.answers import stated_answer
from infimmr_jax.evaluation.items import Benchmark, Grade, Item
from infimmr_jax.evaluation.sources import find_files, read_rows, unique_ids
from infimmr_jax.names import JsonObject

_UNITS = (
    *("degree", "cm", "centimeter", "meter", "mile", "foot", "feet", "inch", "yard"),
    *("second", "minute", "hour", "day", "week", "month", "year"),
)
_NUMBER_WORDS = {"million": "*10^6", "billion": "*10^9", "trillion": "*10^12"}
_UNICODE = {"√": "sqrt", "π": "pi", "∞": "inf", "∪": "U", "·": "*", "×": "*"}
_TEXT = re.compile(r"^\\text\{(.+?)\}$")
_NAMES: JsonObject = {"sqrt": sympy.sqrt, "pi": sympy.pi, "ln": sympy.log, "factorial": sympy.factorial}
_NAMES |= {name: getattr(sympy, name) for name in ("Integer", "Float", "Rational", "Number", "Symbol", "Function")}
_TRANSFORMATIONS = (
    *sympy_parser.standard_transformations,
    sympy_parser.implicit_multiplication_application,
)
INSTRUCTION = r"Please reason step by step, and put your final answer within \boxed{}."


def read(path: Path) -> list[Item]:
    """Read `test.jsonl`, a JSON list (`problem`, `answer`), or the hub's parquet."""
    (file,) = find_files(path, ["test.jsonl", "test*.parquet", "math500.json", "math.json"], "MATH-500")[:1]
    items = []
    for number, row in enumerate(read_rows(file, ["problem", "answer"]), start=1):
        groups = {key: str(row[key]) for key in ("subject", "level") if row.get(key) is not None}
        items.append(
            Item(
                id=str(row.get("unique_id") or f"row-{number}"),
                prompt=f"{row['problem']}\n\n{INSTRUCTION}",
                question=row["problem"],
                answer=str(row["answer"]),
                answer_type="math",
                gold={"answer": str(row["answer"])},
                groups=dict(groups),
            )
        )
    unique_ids([item.id for item in items], file)
    return items


def grade(gold: JsonObject, text: str) -> Grade:
    """Grade the last box (or announced answer) of a response."""
    extracted = stated_answer(text)
    if not extracted:
        return Grade(False, None, "no boxed or announced answer")
    return Grade(equal(extracted, gold["answer"]), extracted)


def equal(answer: str, gold: str) -> bool:
    """Is a given answer right, by the published grader's rules?"""
    if normalize_math(answer) == normalize_math(gold):
        return True
    gold_text, answer_text = normalize_loosely(gold), normalize_loosely(answer)
    if gold_text == answer_text:
        return True
    if not answer_text:
        return False
    golds, answers = _elements(gold_text), _elements(answer_text)
    brackets_differ = gold_text[:1] != answer_text[:1] or gold_text[-1:] != answer_text[-1:]
    if len(golds) != len(answers) or (len(golds) > 1 and brackets_differ):
        return False
    return all(_element_equal(left, right) for left, right in zip(golds, answers, strict=True))


def normalize_math(answer: str) -> str:
    r"""The normalization of the MATH release: spacing, units in `\text{ }`, `\frac12`, `\sqrt3`, `a/b`, `k = `."""
    text = answer.strip()
    match = _TEXT.search(text)
    text = match[1].strip() if match else text
    original = text
    text = text.replace("\n", "").replace("\\!", "").replace("\\\\", "\\")
    text = text.replace("tfrac", "frac").replace("dfrac", "frac")
    for dropped in ("\\left", "\\right", "^{\\circ}", "^\\circ", "\\$"):
        text = text.replace(dropped, "")
    if text.count("\\text{ ") > 1:
        return original
    text = text.partition("\\text{ ")[0].replace("\\%", "")
    text = text.replace(" .", " 0.").replace("{.", "{0.")
    if not text:
        return text
    text = f"0{text}" if text[0] == "." else text
    left, equals, right = text.partition("=")
    if equals and "=" not in right and len(left) <= 2:
        text = right
    text = re.sub(r"\\sqrt([^{])", r"\\sqrt{\1}", text).replace(" ", "")
    text = re.sub(r"\\frac([^{])(.)", _braced_fraction, text)
    if text == "0.5":
        return "\\frac{1}{2}"
    return re.sub(r"^(0|-?[1-9]\d*)/(0|-?[1-9]\d*)$", r"\\frac{\1}{\2}", text)


def normalize_loosely(answer: str) -> str:
    """The grader's second normalization: no units, signs of money and percent, number words, spaces or capitals."""
    match = _TEXT.search(answer)
    text = match[1] if match else answer
    for dropped in ("\\%", "\\$", "$", "%"):
        text = text.replace(dropped, "")
    text = text.replace(" or ", " , ").replace(" and ", " , ")
    for word, power in _NUMBER_WORDS.items():
        text = text.replace(word, power)
    for unit in _UNITS:
        text = re.sub(rf"{unit}(es)?(s)? *(\^[0-9]+)?", "", text)
    text = re.sub(r"\^ *\\circ", "", text)
    if len(text) > 1 and text[0] == "{" and text[-1] == "}":
        text = text[1:-1]
    text = re.sub(r",\\! *", "", text)
    whole = _whole(text)
    text = whole if whole is not None else text
    if "\\" in text:
        text = _plain_text(text)
    text = re.sub(r"- *", "-", text)
    # A mixed number is a sum: 7 3/4.
    text = re.sub(r"([0-9]) +([0-9])", r"\1+\2", text)
    text = text.replace(" ", "").replace("{", "").replace("}", "").lower()
    whole = _whole(_without_thousands(text))
    return whole if whole is not None else text


def _braced_fraction(match: re.Match[str]) -> str:
    top, bottom = match.groups()
    return f"\\frac{{{top}}}{{" if bottom == "{" else f"\\frac{{{top}}}{{{bottom}}}"


def _plain_text(latex: str) -> str:
    """LaTeX as the plain text `1/2`, `sqrt3`; unchanged when it can not be read."""
    latex = latex.replace("\\tfrac", "\\frac").replace("\\dfrac", "\\frac").replace("\\frac", " \\frac")
    try:
        text = LatexNodes2Text().latex_to_text(latex)
    except (LatexWalkerError, LookupError, ValueError, TypeError, AttributeError, RecursionError):
        return latex
    for symbol, name in _UNICODE.items():
        text = text.replace(symbol, name)
    return text.strip()


def _elements(text: str) -> list[str]:
    """Elements of a tuple or interval, or the text as its only element; commas between thousands do not separate."""
    text = _without_thousands(text)
    if not text:
        return []
    inner = text[1:-1]
    if len(text) > 2 and text[0] in "()[]" and text[-1] in "()[]" and not any(sign in inner for sign in "()[]"):
        return [element.strip() for element in inner.split(",")]
    return [text]


def _element_equal(gold: str, answer: str) -> bool:
    if _is_fraction(gold) and _is_fraction(answer):
        return gold == answer
    if (_whole(_without_thousands(gold)) is None) != (_whole(_without_thousands(answer)) is None):
        return False
    return _difference_is_zero(gold, answer)


def _difference_is_zero(gold: str, answer: str) -> bool:
    difference = f"({gold})-({answer})"
    unknown = {sign for sign in difference.replace("sqrt", "").replace("frac", "") if sign.isalpha()}
    if (
        len(unknown) > 2
        or "^(" in difference
        or "^{" in difference
        or re.search(r"\^[0-9]+\^|\^[0-9][0-9]+", difference)
    ):
        return False
    # Only characters of arithmetic reach SymPy's parser, which evaluates Python expressions.
    if not re.fullmatch(r"(?:[a-z0-9+*/^()!, \-]|(?<=\d)[._](?=\d)|(?<!\w)\.(?=\d)|(?<=\d)\.(?!\w))+", difference):
        return False
    try:
        expression = sympy_parser.parse_expr(
            difference.replace("^", "**"), transformations=_TRANSFORMATIONS, global_dict=dict(_NAMES), local_dict={}
        )
        return bool(sympy.simplify(expression) == 0)
    except (SyntaxError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError, NameError, TokenError):
        # What SymPy can not read or simplify is not equal; that is the published behaviour.
        return False


def _is_fraction(text: str) -> bool:
    return re.search(r"^-?[0-9]+.?/0*[1-9][0-9]*.?$", text) is not None


def _whole(text: str) -> str | None:
    """The integer a text stands for (`3.0` too), or None."""
    try:
        value = float(text)
    except ValueError:
        return None
    return str(round(value)) if abs(value) < 1e300 and abs(value - round(value)) <= 1e-7 else None


def _without_thousands(text: str) -> str:
    before = None
    while before != text:
        before, text = text, re.sub(r"(\d),(\d\d\d)($|\D)", r"\1\2\3", text)
    return text


BENCHMARK = Benchmark(
    name="math500",
    title="MATH-500",
    read=read,
    grade=grade,
    protocol="PRM800K grader (MATH normalization, then SymPy), last box",
    group_keys=("subject", "level"),
)
