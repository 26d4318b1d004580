"""Cheap features of a question's text, for heads: what the vector of an encoder does not keep.

Length, digits, marks of mathematics and code, the form of a choice among options, how the question begins. They are
counts and shares in logarithms or between 0 and 1, so that a linear model can use them as they are.
"""

from __future__ import annotations

import re
import string
from math import log1p

__all__ = ["FEATURES", "MOST_CHARS", "text_features"]

MOST_CHARS = 8_000
"""Only so much of a text is looked at, so that one of a megabyte takes no longer than a long one; its length counts."""

_WORDS = (
    "what", "which", "who", "when", "where", "why", "how", "can", "is", "are", "do", "does", "if", "not", "except",
    "following", "best", "find", "write", "explain", "list", "calculate", "determine", "prove", "output",
)  # fmt: skip
_BEGINNINGS = ("what", "which", "who", "how", "why", "a", "the", "if", "find", "you", "write", "in", "let")
_COUNTED = {
    "newlines": "\n",
    "sentences": ".",
    "questions": "?",
    "commas": ",",
    "quotes": "\"'`",
    "backslashes": "\\",
    "dollars": "$",
    "equals": "=",
    "operators": "+-*/^<>%",
    "brackets": "()[]{}",
    "underscores": "_",
    "colons": ":;",
}
_SHARES = {"digits": string.digits, "capitals": string.ascii_uppercase}

FEATURES: tuple[str, ...] = (
    "chars",
    "stem chars",
    "words",
    "chars a word",
    "different words",
    "words a sentence",
    "numbers",
    "longest number",
    "options",
    "code",
    "not ascii",
    *_COUNTED,
    *_SHARES,
    *(f"has {word}" for word in _WORDS),
    *(f"begins with {word}" for word in _BEGINNINGS),
)
"""Names of what `text_features` gives, in its order."""

_COUNTED_BYTES = [marks.encode() for marks in _COUNTED.values()]
_SHARES_BYTES = [marks.encode() for marks in _SHARES.values()]
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_FIRST_OPTIONS = ("A. ", "A) ", "A: ")
_OPTION = re.compile(r"^\(?[A-J][.):] ", re.MULTILINE)
_CODE = ("```", "def ", "[PYTHON]", "#include", "SELECT ", "function ")
_TO_SPACE = {code: " " for code in range(128) if not chr(code).isalpha()}


def text_features(text: str) -> tuple[float, ...]:
    """The features of one text, in some tens of microseconds.

    Args:
        text: A question; any text, the empty one as well.

    Returns:
        As many finite numbers as `FEATURES` has names, each between 0 and about 20.
    """
    size, text = len(text), text[:MOST_CHARS]
    words = text.lower().translate(_TO_SPACE).split()
    different, count = set(words), len(words) + 1
    raw = text.encode("utf-8", "surrogatepass")  # no byte of a longer character is an ASCII one
    counted = [len(raw) - len(raw.translate(None, marks)) for marks in _COUNTED_BYTES]
    shares = [(len(raw) - len(raw.translate(None, marks))) / (len(text) + 1) for marks in _SHARES_BYTES]
    # Regular expressions look at every character: only where there is something to find.
    numbers = _NUMBER.findall(text) if shares[0] else []
    options = _OPTION.search(text) if any(mark in text for mark in _FIRST_OPTIONS) else None
    stem = len(text) if options is None else options.start()
    return (
        log1p(size),
        log1p(stem),
        log1p(count),
        sum(map(len, words)) / count,
        len(different) / count,
        log1p(count / (text.count(".") + text.count("?") + 1)),
        log1p(len(numbers)),
        log1p(max(map(len, numbers), default=0)),
        0.0 if options is None else log1p(len(_OPTION.findall(text))),
        float(any(mark in text for mark in _CODE)),
        0.0 if text.isascii() else log1p(sum(character > "\x7f" for character in text)),
        *map(log1p, counted),
        *shares,
        *[float(word in different) for word in _WORDS],
        *[float(bool(words) and words[0] == word) for word in _BEGINNINGS],
    )
