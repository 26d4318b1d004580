"""What holds of the guard for any text, and what it costs."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.cache.guard.compare import agree

_VOCABULARY = (
    "how do i you can what is are the a my your which not don't of in for to from when if turn on off cats run running "
    "3 5 two US Paris x python between and or me some there that please it safe eating"
)
WORDS = st.sampled_from(_VOCABULARY.split())
SENTENCES = st.lists(WORDS, min_size=1, max_size=9).map(" ".join)
SOUP = st.text(alphabet="ab1-.,' \"`\n$%()/:!?+=oneTWO\u00b2\u0663\u00bd\ud800\u5929")
OPERATORS = st.sampled_from(["<", ">", "=", "+", "*", "^", "~", "|", "\xb1", "\u2192", "&&", "<=", "\u2260"])


@given(text=st.text() | SOUP | SENTENCES)
def test_any_text_agrees_with_itself(text: str) -> None:
    assert agree(text, text) == ""
    assert agree(text, f" {text} ") == ""


@given(one=SENTENCES | SOUP, other=SENTENCES | SOUP)
def test_any_two_texts_can_be_compared_either_way(one: str, other: str) -> None:
    assert agree(one, other) == agree(other, one)


@given(words=st.lists(WORDS, min_size=1, max_size=9), at=st.integers(0, 9), operator=OPERATORS)
def test_a_further_operator_differs(words: list[str], at: int, operator: str) -> None:
    assert agree(" ".join(words), " ".join([*words[:at], operator, *words[at:]])) != ""


@given(words=st.lists(WORDS, min_size=1, max_size=9), at=st.integers(0, 9), number=st.integers(100, 10**6))
def test_a_further_number_differs(words: list[str], at: int, number: int) -> None:
    assert agree(" ".join(words), " ".join([*words[:at], str(number), *words[at:]])) != ""


@given(words=st.lists(WORDS, min_size=1, max_size=9), at=st.integers(0, 9), word=st.from_regex("[qz][bcdfg]{3,9}"))
def test_a_further_word_that_nobody_knows_differs(words: list[str], at: int, word: str) -> None:
    assert agree(" ".join(words), " ".join([*words[:at], word.strip(), *words[at:]])) != ""


@given(text=SENTENCES, material=st.text(alphabet="ab: \n", min_size=1), other=st.text(alphabet="ab: \n", min_size=1))
def test_material_is_compared_to_the_letter(text: str, material: str, other: str) -> None:
    one, another = f"{text} word: x{material}x", f"{text} word: x{other}x"
    assert (agree(one, another) == "") == (material == other)


LONG = {
    "words": "lorem ipsum dolor ",
    "quotes": '"',
    "ticks": "`",
    "fences": "``` ",
    "apostrophes": " 'a",
    "curly": "\u201c",
    "digits": "1",
    "commas": "1,",
    "dotted": "1.2-",
    "hyphens": "a-",
    "slashes": "ab/",
    "ones": "one ",
    "hundreds": "hundred ",
    "ways": "x to ",
    "froms": "from x to y ",
    "capitals": "Aa ",
    "signs": "+-+-",
    "ands": "two hundred and ",
    "parentheses": "(a ",
    "money": "$1 ",
    "acronyms": "a.b.",
    "pleases": "please ",
    "thanks": "thanks ",
    "spaces": "a      ",
    "blanks": " ",
    "somes": "of some ",
    "nots": "not ",
}


def judged_s(piece: str, chars: int) -> float:
    text = piece * (chars // len(piece))
    started_s = time.thread_time()
    agree("z " + text, text + " z")
    agree(text, text.replace("a", "b") + "y")
    return time.thread_time() - started_s


@pytest.mark.parametrize("piece", LONG.values(), ids=LONG.keys())
def test_long_texts_take_no_long_time(piece: str) -> None:
    # By growth, which no busy machine changes: four times the text in four times the time, not in sixteen times.
    assert judged_s(piece, 48_000) < max(0.5, 9 * judged_s(piece, 12_000))


def test_long_texts_of_many_words_take_no_long_time() -> None:
    one = " ".join(f"{chr(97 + n % 26)}{chr(97 + n // 26 % 26)}{chr(97 + n // 676)}q" for n in range(15_000))
    started_s = time.thread_time()
    assert agree(one, one.replace("q", "z")) == "words"
    assert time.thread_time() - started_s < 10.0  # comparing each word with each would take minutes
