"""Answers that are confirmed bit by bit: the text is that of plain decoding, whatever the draft and the tokenizers."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks._knowing import FORM, Knowing, words
from llm_proxy.draft.confirmed import Confirmed, Step
from llm_proxy.draft.template import prompt_for
from llm_proxy.types import Usage
from llm_proxy.wire.scored import Scored, Token, read_echo

ANSWER = "one two three four five six seven eight nine ten."
PROMPT = prompt_for([{"role": "user", "content": "Count."}], FORM) or ""


def letters(text: str) -> list[str]:
    """Another tokenizer: three characters a token."""
    return [text[at : at + 3] for at in range(0, len(text), 3)]


def asked(model: Knowing, text: str, most: int = 1) -> Scored:
    body = {"model": "m", "prompt": PROMPT + text, "max_tokens": most, "echo": True}
    found = read_echo(json.dumps(model.complete(body)).encode(), PROMPT + text)
    assert found is not None
    return found


def decoded(target: Knowing, drafter: Knowing, confirmed: Confirmed, length: int = 3) -> Confirmed:
    """Steps until the answer is over."""
    is_alone = False
    for _ in range(200):
        draft = "" if is_alone else "".join(drafter.next_tokens("Count.", confirmed.text, length))
        left = confirmed.left_tokens
        most = 1 if draft else min(4, left or 4)
        step = confirmed.take(asked(target, confirmed.text + draft, most), draft)
        is_alone = step.new < 1
        if confirmed.finish:
            return confirmed
    raise AssertionError("it does not end")


@pytest.mark.parametrize("split", [words, letters])
@pytest.mark.parametrize("acceptance", [0.0, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("length", [1, 3, 8])
def test_the_answer_is_that_of_the_target(split: object, acceptance: float, length: int) -> None:
    target = Knowing({"Count.": ANSWER})
    drafter = Knowing({"Count.": ANSWER}, split=split, acceptance=acceptance)  # type: ignore[arg-type]
    found = decoded(target, drafter, Confirmed(), length)
    assert (found.text, found.finish, found.tokens) == (ANSWER, "stop", len(words(ANSWER)))
    assert found.prompt_tokens == len(words(PROMPT))


@given(
    most=st.none() | st.integers(1, 14),
    stops=st.lists(st.sampled_from([" four", "o t", "ine", "x", "ten.", "e f", "one"]), max_size=3),
    seed=st.integers(0, 20),
    length=st.integers(1, 6),
)
def test_stops_and_limits_are_those_of_plain_decoding(
    most: int | None, stops: list[str], seed: int, length: int
) -> None:
    target = Knowing({"Count.": ANSWER})
    drafter = Knowing({"Count.": ANSWER}, acceptance=0.6, seed=seed)
    body = {"model": "m", "messages": [{"role": "user", "content": "Count."}], "max_tokens": most, "stop": stops}
    plain = target.chat(body)
    found = decoded(target, drafter, Confirmed(stops=stops, most_tokens=most), length)
    choice = plain["choices"][0]
    assert (found.text, found.finish) == (choice["message"]["content"], choice["finish_reason"])
    assert found.tokens == plain["usage"]["completion_tokens"]


def test_what_may_be_the_beginning_of_a_stop_text_is_not_ready() -> None:
    confirmed = Confirmed(stops=[" threefold", "o four"])
    confirmed.take(asked(Knowing({"Count.": ANSWER}), "", 3), "")
    assert (confirmed.text, confirmed.ready) == ("one two three", "one two")
    confirmed.take(asked(Knowing({"Count.": ANSWER}), confirmed.text, 1), "")
    assert confirmed.ready == confirmed.text


def scored(given: list[Token], said: list[str], text: str, *, is_end: bool = False) -> Scored:
    tokens = (*given, *(Token(token) for token in said))
    return Scored(tokens, len(said), text, is_end, Usage(len(given), len(said)))


TOP = Token("a", True)
MOON = [Token("Good", True), Token(" ", True), Token(""), Token(""), Token(" night", True)]


class TestPartsOfCharacters:
    def test_a_draft_is_read_up_to_them(self) -> None:
        confirmed = Confirmed()
        step = confirmed.take(scored([TOP], ["Good"], "Good"), "")
        assert step == Step(1)
        assert confirmed.take(scored([TOP, *MOON], ["."], "."), " \U0001f319 night") == Step()
        assert confirmed.take(scored([TOP, *MOON[:2]], ["x"], "x"), " ") == Step(2, 1)
        assert confirmed.text == "Good x"

    def test_a_token_before_them_may_hide_one(self) -> None:
        confirmed = Confirmed()
        confirmed.take(scored([TOP], ["Good"], "Good"), "")
        drafted = [Token("!", True), *MOON[1:]]
        assert confirmed.take(scored([TOP, MOON[0], *drafted], ["."], "."), "! \U0001f319 night") == Step(1, 1)
        assert confirmed.text == "Good!"

    def test_what_the_target_chose_is_taken_up_to_the_last_whole_one(self) -> None:
        confirmed = Confirmed()
        confirmed.take(scored([TOP], ["Good", " ", "", "", " n", ""], "Good \U0001f319 n"), "")
        assert confirmed.text == "Good \U0001f319 n"
        assert confirmed.tokens == 5

    def test_at_the_end_all_is_taken(self) -> None:
        confirmed = Confirmed()
        confirmed.take(scored([TOP], ["Hi", " ", "", ""], "Hi \U0001f319", is_end=True), "")
        assert (confirmed.text, confirmed.finish, confirmed.tokens) == ("Hi \U0001f319", "stop", 4)

    def test_at_the_limit_too(self) -> None:
        confirmed = Confirmed(most_tokens=4)
        confirmed.take(scored([TOP], ["Hi", " ", "", ""], "Hi \U0001f319"), "")
        assert (confirmed.text, confirmed.finish) == ("Hi \U0001f319", "length")

    def test_a_server_that_ends_a_character_beyond_the_limit_is_followed(self) -> None:
        confirmed = Confirmed(most_tokens=4)
        confirmed.take(scored([TOP], ["Hi", " ", "", "", "", ""], "Hi \U0001f319"), "")
        assert (confirmed.text, confirmed.finish, confirmed.tokens) == ("Hi \U0001f319", "length", 6)

    def test_nothing_but_parts_brings_nothing(self) -> None:
        confirmed = Confirmed()
        assert confirmed.take(scored([TOP], ["", ""], ""), "") == Step()

    def test_what_comes_after_a_stop_text_does_not_count(self) -> None:
        confirmed = Confirmed(stops=["is"])
        confirmed.take(scored([TOP], ["Bogot", "", "", " is", " the", " c"], "Bogotá is the c"), "")
        assert (confirmed.text, confirmed.finish, confirmed.tokens) == ("Bogotá ", "stop", 4)

    def test_a_stop_text_among_them(self) -> None:
        confirmed = Confirmed(stops=["\U0001f319"])
        confirmed.take(scored([TOP], ["Hi", " ", "", ""], "Hi \U0001f319", is_end=True), "")
        assert (confirmed.text, confirmed.finish) == ("Hi ", "stop")


class TestWhatDoesNotFit:
    def test_tokens_that_the_text_does_not_bring_back(self) -> None:
        confirmed = Confirmed()
        confirmed.take(scored([TOP], ["un", "til"], "until"), "")
        assert confirmed.take(scored([TOP, Token("until", True)], ["."], "."), "") == Step()
        assert confirmed.text == "until"

    def test_a_last_token_that_was_another_of_the_same_text_is_given_up(self) -> None:
        confirmed = Confirmed()
        confirmed.take(scored([TOP], ["Hi", " "], "Hi "), "")
        assert confirmed.take(scored([TOP, Token("Hi", True), Token(" ")], ["x"], "x"), "") == Step(-1)
        assert (confirmed.text, confirmed.tokens) == ("Hi", 1)
        assert confirmed.take(scored([TOP, Token("Hi", True)], [" ", "", "", "."], " \U0001f319."), "") == Step(4)
        assert confirmed.text == "Hi \U0001f319."

    def test_a_draft_that_flows_into_the_prompt(self) -> None:
        confirmed = Confirmed()
        assert confirmed.take(scored([Token("a"), Token(":x", True)], ["."], "."), "x") == Step()
        assert confirmed.take(scored([Token("x", True)], ["."], "."), "xx") == Step()

    def test_a_draft_that_ends_inside_a_token_was_not_wrong(self) -> None:
        confirmed = Confirmed()
        drafted = [Token("The", True), Token(" cap", top=" capital")]
        assert confirmed.take(scored([TOP, *drafted], ["."], "."), "The cap") == Step(2, 1, 0)
        assert confirmed.text == "The capital"

    def test_a_wrong_token_whose_right_one_is_not_told(self) -> None:
        confirmed = Confirmed()
        assert confirmed.take(scored([TOP, Token("The", True), Token(" x")], ["."], "."), "The x") == Step(1, 1, 1)
        assert confirmed.text == "The"

    def test_an_end_that_is_a_token_counts_and_is_no_text(self) -> None:
        confirmed = Confirmed()
        confirmed.take(scored([TOP], ["Hi", "</s>"], "Hi", is_end=True), "")
        assert (confirmed.text, confirmed.finish, confirmed.tokens) == ("Hi", "stop", 2)

    def test_what_comes_after_the_end_inside_a_draft_is_not_taken(self) -> None:
        confirmed = Confirmed(stops=["b"])
        tokens = [Token("a", True), Token("b", True), Token("c", True)]
        assert confirmed.take(scored([TOP, *tokens], ["d"], "d"), "abc") == Step(2, 2)
        assert (confirmed.text, confirmed.finish) == ("a", "stop")


def test_drafts_at_random_never_change_the_answer() -> None:
    rng = random.Random(3)
    pieces = ["one", " two", "un", "til", " é", " \U0001f319", " x", ".", "\n"]
    for _ in range(50):
        answer = "".join(rng.choices(pieces, k=rng.randint(1, 20))).strip() or "x"
        target = Knowing({"Count.": answer})
        drafter = Knowing({"Count.": answer}, split=letters, acceptance=rng.random(), seed=rng.randint(0, 99))
        assert decoded(target, drafter, Confirmed(), rng.randint(1, 5)).text == answer
