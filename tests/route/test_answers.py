"""What an answer shows of itself."""

from __future__ import annotations

import math
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_proxy.route.answers import FEATURES, MOST_CHARS, features, final_of
from llm_proxy.route.base import Reply

QUESTION = "A train goes 12 miles an hour for 5 hours. How far?\nA. 50 miles\nB. 60 miles\nC. 17 miles"


def shown(answer: str, question: str = QUESTION, **more: Any) -> dict[str, float]:
    return dict(zip(FEATURES, features(question, Reply(answer, **more)), strict=True))


def test_each_has_one_name() -> None:
    assert len(set(FEATURES)) == len(FEATURES)


def test_a_picked_option_that_the_reasoning_speaks_for() -> None:
    found = shown("We have 12 * 5 = 60. So it goes 60 miles. The answer is (B).")
    wanted = {"is_letter": 1, "is_option": 1, "options": 3, "picked_place": 1, "picked_share": 1, "picked_named": 1}
    wanted |= {
        "picked_number_last": 1,
        "other_number_last": 0,
        "picked_number_off": 0,
        "picked_rank": 0,
        "others_named": 0,
    }
    wanted |= {"options_of_numbers": 1, "picked_number_there": 1, "sums_wrong_share": 0, "last_sum_wrong": 0}
    assert {name: found[name] for name in wanted} == wanted


def test_one_that_it_speaks_against() -> None:
    found = shown("We have 12 * 5 = 70. So it goes 60 miles. The answer is (C).")
    assert (found["picked_number_last"], found["other_number_last"], found["others_named"]) == (0, 1, 1)
    assert found["picked_margin"] < 0 < found["picked_number_off"]
    assert found["last_sum_wrong"] == 1


@pytest.mark.parametrize("answer", ["The answer is (Z).", "I can not say.", "", "The answer is 60."])
def test_no_option_was_picked(answer: str) -> None:
    found = shown(answer)
    assert math.isnan(found["picked_share"])
    assert found["is_option"] == 0


def test_options_without_numbers_or_words() -> None:
    found = shown("It is red. The answer is A.", "Which?\nA. red\nB. ?\nC. blue")
    assert (found["picked_named"], found["options_of_numbers"]) == (1, 0)
    assert math.isnan(found["picked_number_off"])


@pytest.mark.parametrize(
    ("answer", "final"),
    [
        ('Here:\n```json\n{"reasoning": "2 + 2", "answer": "4.0"}\n```', "4"),
        ('{"answer": 1,234}', "1"),
        (r"So \boxed{\frac{1}{2}}.", "frac{1}{2}"),
        ("Therefore, the answer is: **$1,234.50**.", "1234.5"),
        ("The final answer is (b)", "b"),
        ("Result: 9999999999999999999999", "1e+22"),
        ("It depends.", ""),
        ("", ""),
    ],
)
def test_what_it_comes_to(answer: str, final: str) -> None:
    assert final_of(answer) == final


def test_the_form_of_the_end() -> None:
    assert [shown(text)["final_form"] for text in ('{"answer": "4"}', r"\boxed{4}", "The answer is 4", "4")] == [
        3,
        2,
        1,
        0,
    ]
    assert [shown(text)["is_object"] for text in ('{"a": 1}', '```\n{"a": 1}\n```', "{", "[1]", "{" * 9999)] == [
        1,
        1,
        0,
        0,
        0,
    ]


def test_a_number_in_the_end() -> None:
    found = shown("First 60. Then -2.50.\nThe answer is -2.5")
    wanted = {"final_is_number": 1, "final_is_whole": 0, "final_decimals": 1, "final_is_negative": 1}
    wanted |= {"final_is_last_number": 1, "final_times_reasoned": 1}
    assert {name: found[name] for name in wanted} == wanted
    assert shown('{"answer": ' + "9" * 400 + "}")["final_is_number"] == 0


def test_doubt_and_repetition() -> None:
    sure, unsure = (
        shown("It is 60 miles."),
        shown("Perhaps. I'm sorry, I cannot determine it. Wait, that is a mistake."),
    )
    for name in ("hedges", "refusals", "corrections"):
        assert sure[name] == 0 < unsure[name]
    again = shown("over and over again\n" * 40)
    assert again["line_repeats"] > 0.9
    assert again["word_repeats"] > 0.9
    assert again["compression"] < 0.2
    assert math.isnan(sure["compression"])


def test_what_is_given_beside_it() -> None:
    bare = shown("x")
    for name in ("is_cut", "logprob_mean", "logprob_min", "p_good"):
        assert math.isnan(bare[name])
    found = shown("x", finish_reason="length", logprobs=(-1.0, -3.0, -math.inf), p_good=0.25)
    assert (found["is_cut"], found["logprob_mean"], found["logprob_min"], found["p_good"]) == (1, -2, -3, 0.25)
    assert shown("x", finish_reason="stop")["is_cut"] == 0


@given(st.text(max_size=400), st.text(max_size=400))
@settings(max_examples=200)
def test_any_text_gives_numbers(question: str, answer: str) -> None:
    found = features(question, Reply(answer))
    assert len(found) == len(FEATURES)
    assert not any(map(math.isinf, found))


@pytest.mark.parametrize(
    "text",
    [
        *("1 " * 500_000, "A. x\n" * 200_000, "{" * 1_000_000, '"answer": "' * 90_000, r"\boxed{" * 140_000),
        *("the answer is " * 70_000, "=1+1" * 250_000, "a" * 1_000_000, " " * 1_000_000, "\ud800" * 9_000),
        *("```{" * 250_000, "1,000," * 160_000, "5 ab" * 250_000),
    ],
)
def test_a_text_of_a_megabyte_takes_no_longer(text: str) -> None:
    started_s = time.perf_counter()
    found = features(text, Reply(text))
    assert time.perf_counter() - started_s < 1.0
    assert not any(map(math.isinf, found))


def test_of_long_texts_both_ends_are_looked_at() -> None:
    found = shown("x" * (2 * MOST_CHARS) + "\nThe answer is 4")
    assert found["final_form"] == 1
    assert found["chars"] == pytest.approx(math.log1p(MOST_CHARS + 1))


@pytest.mark.parametrize(
    "text", ["\n" * 16_000, " \n" * 8_000, "```{ " * 4_000, ("\n" * 19 + "a") * 800, "\t" * 16_000]
)
def test_runs_of_blanks_take_no_time(text: str) -> None:
    """A model that loops on line feeds, or a caller who sends them, must not keep the process busy."""
    started_s = time.perf_counter()
    features("q", Reply(text))
    features(text, Reply("x"))
    assert time.perf_counter() - started_s < 1.0
