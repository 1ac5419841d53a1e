r"""Verify a multiple-choice answer: the letter, the option's text, or both when they agree."""

from __future__ import annotations

import re

from infimmr_jax.rewards.math.equality import numbers_equal
from infimmr_jax.rewards.math.latex import tidy
from infimmr_jax.rewards.math.numbers import parse_number
from infimmr_jax.rewards.math.words import solid
from infimmr_jax.rewards.text import fold, unwrap
from infimmr_jax.rewards.verdict import Options, Verdict, compared, refused

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

# What may stand before the letter, in the languages of common test sets.
_LEAD = re.compile(
    r"^(?:so,?\s+|thus,?\s+|therefore,?\s+|hence,?\s+)?(?:the\s+)?(?:correct\s+|final\s+|right\s+|best\s+)*"
    r"(?:answer|option|choice)\s*(?:is|:|=)?\s*:?\s*(?:option\s+|choice\s+)?"
    r"|^(?:故|因此|所以)?(?:正确)?(?:答案|选项|选择|应选|选)(?:应该)?(?:是|为|选)?\s*[::]?\s*(?:选项)?"
    r"|^(?:die\s+|la\s+|le\s+|el\s+)?(?:(?:richtige|korrekte|bonne|respuesta\s+correcta|correcta)\s+)?"
    r"(?:antwort|lösung|réponse|respuesta|opción|option|risposta|resposta|opção|ответ|вариант|정답|答え)(?:은|는|は)?"
    r"\s*(?:ist|est|es|é|è|:)?\s*:?\s*",
    re.IGNORECASE,
)
_TAIL = re.compile(
    r"\s*(?:\s+is\s+(?:the\s+)?(?:correct|right|best)(?:\s+(?:answer|option|choice))?|选项|项|이다|입니다|です)\s*[.。]?$",
    re.IGNORECASE,
)
_ALONE = re.compile(r"^[\[(]?\s*([A-Za-z])\s*[\])]?\s*[.:)]?$")
# The letter in brackets or with a sign behind it, or a capital with its text behind it: (b) 15 cm, B: 15 cm, B (15 cm).
_LABELLED = re.compile(
    r"^(?:\(\s*([A-Za-z])\s*\)|\[\s*([A-Za-z])\s*\]|([A-Z])\s*[.:),;=-]|([A-Z])(?=[\s(]))\s*(\S.*)$", re.DOTALL
)
_INNER = re.compile(r"\\(?:text|mathrm|mathbf|textbf|textit|mathit|textrm)\s*\{([^{}]*)\}")


def clean_option(text: str) -> str:
    """An option or answer without wrappers, LaTeX text commands, case and spacing."""
    return " ".join(unwrap(_INNER.sub(r"\1", unwrap(fold(text)))).split()).casefold()


def letter_of(text: str, choices: tuple[str, ...] = ()) -> tuple[str | None, str]:
    """The letter an answer names and the rule that found it; (None, why) when it names none or contradicts itself."""
    cleaned = " ".join(unwrap(_INNER.sub(r"\1", unwrap(fold(text)))).split())
    cleaned = unwrap(_LEAD.sub("", cleaned))
    cleaned = unwrap(_TAIL.sub("", cleaned)) if not _option_letters(cleaned, choices) else cleaned
    alone = _ALONE.match(cleaned)
    if alone and (not choices or LETTERS.index(alone[1].upper()) < len(choices)):
        return alone[1].upper(), "letter"
    named = _option_letters(cleaned, choices)
    labelled = _LABELLED.match(cleaned)
    if labelled:
        letter = (labelled[1] or labelled[2] or labelled[3] or labelled[4]).upper()
        if not choices:
            return None, "text behind the letter, and no options to compare it with"
        behind = _option_letters(labelled[5], choices) or _option_letters(_unbracketed(labelled[5]), choices)
        if "-" in cleaned[: labelled.start(5)]:
            negative = _option_letters(f"-{labelled[5]}", choices)
            if negative and negative != behind:
                return None, "a dash that may be a minus"
        if LETTERS.index(letter) < len(choices) and letter in behind:
            if named and named != [letter]:
                return None, "a letter with its text, which is another option's text as well"
            return letter, "letter with its text"
        if not named or not labelled[4]:
            return None, "letter and text disagree"
    if len(named) == 1:
        return named[0], "option text"
    return None, "no option named" if not named else "several options have this text"


def _unbracketed(text: str) -> str:
    """`(15 cm)` as `15 cm`, `- 15 cm` as `15 cm`."""
    text = text.strip()
    return text[1:-1].strip() if text.startswith("(") and text.endswith(")") else text


def _option_letters(text: str, choices: tuple[str, ...]) -> list[str]:
    exact = [LETTERS[i] for i, choice in enumerate(choices) if clean_option(choice) == clean_option(text)]
    if exact:
        return exact
    number = parse_number(text)
    found = []
    for i, choice in enumerate(choices):
        option = parse_number(choice)
        if solid(tidy(choice)) == solid(tidy(text)) or (number and option and numbers_equal(option, number)):
            found.append(LETTERS[i])
    return found


def verify_choice(gold: str, answer: str, options: Options = Options()) -> Verdict:  # noqa: B008 - frozen
    """Whether an answer names the gold option (a letter); `options.choices` are the option texts in letter order."""
    gold_letter, _ = letter_of(gold, options.choices)
    if gold_letter is None:
        return Verdict(0.0, "bad_gold", "unparsable gold")
    letter, rule = letter_of(answer, options.choices)
    if letter is None:
        return refused(rule)
    return compared(float(letter == gold_letter), f"{rule}: {letter}")
