"""Sums in texts: which are found, and whether they are right."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.route.sums import sums_in


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("12 miles/day * 5 days/week = 60 miles/week", [True]),
        ("8 * 80 kg = 720 kg", [False]),
        ("50% of 36 = 18", [True]),
        ("25% = 0.25, so 1 + 25% = 1.25", [True, True]),
        (r"\frac{10 \times 9 \times 8}{3 \times 2 \times 1} = 120$.", [True]),
        (r"\(2^{3}\) = 8 and 2^3 = 8", [True]),
        ("40,000 + 1,000 = 41,000", [True]),
        ("$12 - $5 = $8", [False]),
        ("54 / 8 = 6.75 packs", [True]),
        ("1 / 3 = 0.33", [True]),
        ("1 / 3 = 0.3", [True]),
        ("1 / 3 = 0.4", [False]),
        ("2 ** 3 ≈ 8.05", [True]),
        ("-2 + 5 = 3", []),
        ("(-2) + 5 = 3", [True]),
        ("(1 + 2) * 3 = 9 = 3 * 3", [True, True]),
        ("7 · 6 = 42; 7 \N{MINUS SIGN} 6 = 1; 8 ÷ 2 = 3", [True, True, False]),
    ],
)
def test_sums_of_numbers(text: str, right: list[bool]) -> None:
    assert [found.is_right for found in sums_in(text)] == right


@pytest.mark.parametrize(
    "text",
    [
        *(
            "2x + 18 = 20",
            "3x = 5",
            "f(3) + 4 = 7",
            "2 + 3 = 5x",
            "x + 3 + 4 = 7",
            "a_1 + 2 = 3",
            "4 = 4",
            "n! = 3 * 2",
        ),
        *("9 != 3 * 4", "9 <= 3 * 4", "1 / 0 = 3", "2 ^ 999 = 3", "(-8) ^ 0.5 = 2", "10 ^ 60 ^ 60 = 1", "1 + = 2"),
        *("((((((((((((((1)))))))))))))) + 1 = 2", "(1 + 2 = 3", "1 + 2) = 3", "", "=", "1 + 1 =", "1..2 + 3 = 4"),
        *("3 + 4 = ()", "3 + 4 = -", "9" * 200 + " * " + "9" * 200 + " = 1"),
    ],
)
def test_what_is_none_is_passed_over(text: str) -> None:
    assert sums_in(text) == []


def test_no_more_than_64() -> None:
    assert len(sums_in("1 + 1 = 2, " * 200)) == 64


@given(st.text(alphabet="0123456789+-*/^()=., x$%\\{}frac", max_size=200))
def test_any_text_is_read(text: str) -> None:
    sums_in(text)


@pytest.mark.parametrize("text", ["1 + " * 5000 + "= 2", "= " * 9000, "(" * 16000 + "=", "9" * 16000 + "=" + "9" * 99])
def test_long_texts_take_no_longer(text: str) -> None:
    started_s = time.perf_counter()
    sums_in(text)
    assert time.perf_counter() - started_s < 1.0
