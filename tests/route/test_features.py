"""Text features: as many as their names, finite, quick, and each moved by what it is named for."""

from __future__ import annotations

import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.route.features import FEATURES, MOST_CHARS, text_features


def value(name: str, text: str) -> float:
    return text_features(text)[FEATURES.index(name)]


class TestTextFeatures:
    @given(st.text())
    def test_any_text(self, text: str) -> None:
        found = text_features(text)
        assert len(found) == len(FEATURES)
        assert all(math.isfinite(one) and 0 <= one <= 25 for one in found)

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
