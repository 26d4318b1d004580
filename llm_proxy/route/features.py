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

_CLASSES = {**_COUNTED, **_SHARES}  # no character is in two of them
_MARK = [bytes([number]) for number in range(len(_CLASSES))]
_TO_MARK = bytearray(256)
for _number, _characters in enumerate(_CLASSES.values()):
    for _character in _characters.encode():
        _TO_MARK[_character] = _number
_UNMARKED = bytes(code for code in range(256) if chr(code) not in "".join(_CLASSES.values()))
_SENTENCES, _QUESTIONS = list(_CLASSES).index("sentences"), list(_CLASSES).index("questions")

_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_NUMBER_BYTES = re.compile(_NUMBER.pattern.encode())
_TO_NUMBER = bytes(code if chr(code) in string.digits + ".," else 32 for code in range(256))
_OPTION = re.compile(r"\n\(?[A-J][.):] ")
_TO_SPACE = {code: " " for code in range(128) if not chr(code).isalpha()}
_TO_LOWER = bytes(ord(chr(code).lower()) if code < 128 and chr(code).isalpha() else 32 for code in range(256))

_WORD_PLACES = {word.encode(): place for place, word in enumerate(_WORDS)}
_WORDS_BYTES = frozenset(_WORD_PLACES)
_NO_BEGINNING = (0.0,) * len(_BEGINNINGS)
_BEGINNING = {
    word.encode(): tuple(float(word == other) for other in _BEGINNINGS) for word in _BEGINNINGS
}  # of a first word, what it says of all of them


def text_features(text: str) -> tuple[float, ...]:
    """The features of one text, in some ten to thirty microseconds.

    Args:
        text: A question; any text, the empty one as well.

    Returns:
        As many finite numbers as `FEATURES` has names, each between 0 and about 20.
    """
    size, text = len(text), text[:MOST_CHARS]
    raw = text.encode("utf-8", "surrogatepass")  # no byte of a longer character is an ASCII one
    is_ascii = len(raw) == len(text)
    words, letters = _ascii_words(raw) if is_ascii else _words(text)
    different, count = set(words), len(words) + 1
    # What is counted is a small part of a text: one pass keeps it, so that each count reads little.
    marks = raw.translate(_TO_MARK, _UNMARKED)
    counted = [marks.count(mark) for mark in _MARK]
    digits, capitals = counted[-2:]
    numbers, longest = _numbers(raw if is_ascii else text) if digits else (0, 0)
    stem, options = _options(text)
    has_words = [0.0] * len(_WORDS)
    for word in _WORDS_BYTES & different:
        has_words[_WORD_PLACES[word]] = 1.0
    return (
        log1p(size),
        log1p(stem),
        log1p(count),
        letters / count,
        len(different) / count,
        log1p(count / (counted[_SENTENCES] + counted[_QUESTIONS] + 1)),
        log1p(numbers),
        log1p(longest),
        log1p(options),
        1.0 if _has_code(text) else 0.0,
        0.0 if is_ascii else log1p(sum(character > "\x7f" for character in text)),
        *map(log1p, counted[:-2]),
        digits / (len(text) + 1),
        capitals / (len(text) + 1),
        *has_words,
        *(_BEGINNING.get(words[0], _NO_BEGINNING) if words else _NO_BEGINNING),
    )


def _ascii_words(raw: bytes) -> tuple[list[bytes], int]:
    """The words of a text, and the letters in them."""
    spaced = raw.translate(_TO_LOWER)
    return spaced.split(), len(spaced) - spaced.count(b" ")


def _words(text: str) -> tuple[list[bytes], int]:
    """The same, of any text: bytes tell different words apart as well as characters do."""
    words = text.lower().translate(_TO_SPACE).split()
    return [word.encode("utf-8", "surrogatepass") for word in words], sum(map(len, words))


def _numbers(text: bytes | str) -> tuple[int, int]:
    """How many numbers a text holds, and how long the longest is; bytes are of ASCII text."""
    if isinstance(text, str):
        found: list[bytes] | list[str] = _NUMBER.findall(text)
    else:  # a regular expression looks at every character: only at those that may belong to a number
        parts = text.translate(_TO_NUMBER).split()
        found = parts if b"".join(parts).isdigit() else _NUMBER_BYTES.findall(b" ".join(parts))
    return len(found), max(map(len, found), default=0)


def _options(text: str) -> tuple[int, int]:
    """How many characters precede the first of the options to choose among, and how many options there are."""
    if "A. " not in text and "A) " not in text and "A: " not in text:
        return len(text), 0
    found = [match.start() for match in _OPTION.finditer("\n" + text)]
    return (found[0], len(found)) if found else (len(text), 0)


def _has_code(text: str) -> bool:
    return (
        "```" in text
        or "def " in text
        or "[PYTHON]" in text
        or "#include" in text
        or "SELECT " in text
        or "function " in text
    )
