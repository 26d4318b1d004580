"""Do the sums in a text add up? Equations between numbers are found, worked out and compared.

An answer that reasons with numbers shows its work: ``12 * 5 = 60``. A side that can be worked out is one of numbers,
``+ - * / ^``, brackets and percentages, with units beside them; whatever holds a variable is passed over.
"""

from __future__ import annotations

import math
import re
from itertools import pairwise
from typing import NamedTuple

__all__ = ["Sum", "sums_in"]

_MOST_SUMS = 64
_MOST_CHARS = 120  # of one side: what is longer is no sum that a person would write
_MOST_DEPTH = 12
_MOST_EXPONENT = 64.0
_OPERATORS = frozenset("+-*/^<>")  # before a side they belong to a variable

_SYMBOLS: dict[int, str] = {
    0xD7: "*",
    0xB7: "*",
    0x22C5: "*",
    0xF7: "/",
    0x2212: "-",
    0x2013: "-",
    0x2248: "=",
    0x24: " ",
}
_MOST_BLANKS = 20
_BLANKS = re.compile(r"\s{21,}")
_COMMANDS = (
    (re.compile(r"\\(?:times|cdot)\b"), "*"),
    (re.compile(r"\\div\b"), "/"),
    (re.compile(r"\\approx\b|(?<![<>=!])==?"), "="),
    (re.compile(r"\\[dt]?frac\s*\{([^{}]{1,40})\}\s*\{([^{}]{1,40})\}"), r"((\1)/(\2))"),
    (re.compile(r"\\(?:text|mathrm)\s*\{[^{}]{0,40}\}|\\(?:left|right|,|;|!|quad|[()\[\]])"), " "),
    (re.compile(r"(?<=\d),(?=\d{3}(?!\d))|\\(?=[$%])"), ""),
    (re.compile(r"(\d)\s*%\s*(?:of\b)?(?=\s*\d)"), r"\1/100*"),
    (re.compile(r"(\d)\s*%"), r"\1/100"),
    (re.compile(r"\*\*"), "^"),
)
_UNITS = re.compile(r"(?<=[\d)])(?: ?[A-Za-z]{2,12}(?:/[A-Za-z]{1,12})?){1,3}(?= *(?:[-+*=)]|/ *[\d(]))")
_LEFT = re.compile(r"(?<![\w.}^)])[(\d][\d.()+\-*/^ ]*$")
_RIGHT = re.compile(r"\s*(-?[\d.()+\-*/^ ]+)")
_TOKEN = re.compile(r"\s*(\d+(?:\.\d+)?|\.\d+|[-+*/^()])")


class Sum(NamedTuple):
    """One equation: what its two sides come to, and whether that is the same as far as it is written out."""

    left: float
    right: float
    is_right: bool


def calm(text: str) -> str:
    """A text with no more than twenty blanks in a row: longer runs say nothing, and would take long to search."""
    return _BLANKS.sub(lambda run: run[0][:_MOST_BLANKS], text)


def sums_in(text: str) -> list[Sum]:
    """The equations between numbers in a text, in its order, 64 at most; linear in its length."""
    text = calm(text).translate(_SYMBOLS)
    for pattern, plain in _COMMANDS:
        text = pattern.sub(plain, text)
    sides = _UNITS.sub(" ", text).split("=")
    found: list[Sum] = []
    for before, after in pairwise(sides):
        known = _sum(before[-_MOST_CHARS:], after[:_MOST_CHARS])
        if known is not None:
            found.append(known)
        if len(found) == _MOST_SUMS:
            break
    return found


def _sum(before: str, after: str) -> Sum | None:
    one, other = _LEFT.search(before.rstrip()), _RIGHT.match(after)
    if one is None or other is None or before[: one.start()].rstrip()[-1:] in _OPERATORS:
        return None
    beyond = after[other.end() : other.end() + 1]
    if beyond and (beyond.isalpha() or beyond in "\\{_!") and not other[1].endswith(" "):
        return None  # a factor of a variable
    left, right = one[0].strip(), other[1].strip(" .")
    if not re.search(r"[\d)]\s*[-+*/^]", left + "|" + right):
        return None
    try:
        worth, said = _Reader(left).value(), _Reader(right).value()
    except (ValueError, ArithmeticError):
        return None
    _, _, decimals = right.partition(".")
    slack = 0.5 * 10.0 ** -len(decimals) if "." in right else 1e-6
    return Sum(worth, said, abs(worth - said) <= max(1.01 * slack, 0.01 * abs(worth)))


class _Reader:
    """Works out one side: a reader of sums, products, powers, signs and brackets, by recursive descent."""

    def __init__(self, text: str) -> None:
        self._tokens = _tokens(text)
        self._place = 0
        self._depth = 0

    def value(self) -> float:
        """The number it comes to; ValueError or ArithmeticError where it is none."""
        found = self._added()
        if self._place != len(self._tokens) or not math.isfinite(found):
            raise ValueError
        return found

    def _next(self, among: str) -> str:
        token = self._tokens[self._place] if self._place < len(self._tokens) else ""
        if token and token in among:
            self._place += 1
            return token
        return ""

    def _added(self) -> float:
        total = self._multiplied()
        while sign := self._next("+-"):
            part = self._multiplied()
            total = total + part if sign == "+" else total - part
        return total

    def _multiplied(self) -> float:
        total = self._powered()
        while sign := self._next("*/"):
            part = self._powered()
            total = total * part if sign == "*" else total / part
        return total

    def _powered(self) -> float:
        if self._next("-"):
            return -self._powered()
        base = self._single()
        if not self._next("^"):
            return base
        exponent = self._powered()
        if abs(exponent) > _MOST_EXPONENT or (base < 0 and not exponent.is_integer()):
            raise ValueError
        return float(base**exponent)

    def _single(self) -> float:
        if self._next("("):
            self._depth += 1
            if self._depth > _MOST_DEPTH:
                raise ValueError
            inside = self._added()
            if not self._next(")"):
                raise ValueError
            self._depth -= 1
            return inside
        if self._place == len(self._tokens):
            raise ValueError
        self._place += 1
        return float(self._tokens[self._place - 1])


def _tokens(text: str) -> list[str]:
    found, place = [], 0
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None:
            raise ValueError
        found.append(match[1])
        place = match.end()
    return found
