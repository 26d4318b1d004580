"""Text features: as many as their names, finite, quick, and each moved by what it is named for."""

from __future__ import annotations

import math
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.route import features
from llm_proxy.route.features import FEATURES, MOST_CHARS, text_features

_PARTS = [
    *"AaBJjz.,:;)( \n\t\r\x0b\x1c\x85\u2028\xa0ßİéЖ٣12345 0?!\"'`$=\\+-_[]{}\ud800🎉中",
    *("what", "is ", " in ", "A. ", "\nB) ", "\n(C: ", "def ", "```", "1,2", "3..4", ",5,", "\u017f", "\u212a"),
]  # fmt: skip
TEXTS = st.lists(st.sampled_from(_PARTS), max_size=60).map("".join)


def plainly(text: str) -> tuple[float, ...]:
    """The features as their names say them, one after the other: what heads were trained on."""
    size, text = len(text), text[:MOST_CHARS]
    words = re.findall(r"\S+", "".join(one if one > "\x7f" or one.isalpha() else " " for one in text.lower()))
    count = len(words) + 1
    share = [sum(map(text.count, marks)) / (len(text) + 1) for marks in features._SHARES.values()]
    numbers = re.findall(r"\d+(?:[.,]\d+)*", text) if share[0] else []
    options = list(re.finditer(r"^\(?[A-J][.):] ", text, re.MULTILINE))
    if not any(mark in text for mark in ("A. ", "A) ", "A: ")):
        options = []
    return (
        math.log1p(size),
        math.log1p(options[0].start() if options else len(text)),
        math.log1p(count),
        sum(map(len, words)) / count,
        len(set(words)) / count,
        math.log1p(count / (text.count(".") + text.count("?") + 1)),
        math.log1p(len(numbers)),
        math.log1p(max(map(len, numbers), default=0)),
        math.log1p(len(options)),
        float(any(code in text for code in ("```", "def ", "[PYTHON]", "#include", "SELECT ", "function "))),
        math.log1p(sum(one > "\x7f" for one in text)),
        *(math.log1p(sum(map(text.count, marks))) for marks in features._COUNTED.values()),
        *share,
        *(float(word in words) for word in features._WORDS),
        *(float(words[:1] == [word]) for word in features._BEGINNINGS),
    )


def value(name: str, text: str) -> float:
    return text_features(text)[FEATURES.index(name)]


class TestTextFeatures:
    @given(st.text())
    def test_any_text(self, text: str) -> None:
        found = text_features(text)
        assert len(found) == len(FEATURES)
        assert all(math.isfinite(one) and 0 <= one <= 25 for one in found)

    @given(TEXTS)
    def test_they_are_what_their_names_say_to_the_last_bit(self, text: str) -> None:
        assert text_features(text) == plainly(text)
        ascii_only = text.encode("ascii", "ignore").decode()
        assert text_features(ascii_only) == plainly(ascii_only)

    def test_no_character_is_counted_twice(self) -> None:
        marks = "".join(features._CLASSES.values())
        assert len(set(marks)) == len(marks)
        assert marks.isascii()

    def test_names_are_different(self) -> None:
        assert len(set(FEATURES)) == len(FEATURES)

    @pytest.mark.parametrize(
        ("name", "plain", "marked"),
        [
            ("chars", "short", "short but longer"),
            ("words", "one", "one two three"),
            ("chars a word", "a b", "antidisestablishmentarianism b"),
            ("numbers", "one two", "1 two 3.5"),
            ("longest number", "7", "7000000"),
            ("options", "Which?\nthis\nthat", "Which?\nA. this\nB. that"),
            ("code", "print it", "def f(): pass"),
            ("not ascii", "Gruesse", "Grüße"),
            ("newlines", "a b", "a\nb"),
            ("questions", "a", "a?"),
            ("quotes", "a", "'a'"),
            ("backslashes", "frac", "\\frac"),
            ("dollars", "x", "$x$"),
            ("equals", "x", "x = 2"),
            ("operators", "x y", "x + y"),
            ("brackets", "f x", "f(x)"),
            ("underscores", "a", "a_b"),
            ("colons", "a", "a: b"),
            ("digits", "abc", "a1c"),
            ("capitals", "abc", "aBC"),
            ("has not", "it is", "it is not"),
            ("begins with how", "why so", "how so"),
        ],
    )
    def test_each_sees_what_it_is_named_for(self, name: str, plain: str, marked: str) -> None:
        assert value(name, marked) > value(name, plain)

    def test_the_stem_ends_where_the_options_begin(self) -> None:
        stem = "Which of these is red?\n"
        assert value("stem chars", stem + "A. a rose\nB. grass") == pytest.approx(math.log1p(len(stem)))

    def test_a_megabyte_takes_no_longer_than_a_long_prompt(self) -> None:
        text = "What is 1 + 1? " * 70_000
        assert text_features(text)[1:] == text_features(text[:MOST_CHARS])[1:], "but for the length"
        started_s = time.perf_counter()
        text_features(text)
        assert time.perf_counter() - started_s < 0.1
