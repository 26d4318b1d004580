from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.encode._text import readable, seen_chars

TEXTS = st.text(st.characters(exclude_categories=()))  # lone surrogates included


def test_a_sound_text_is_left_as_it_is() -> None:
    assert readable("naïve 🎉", 100) == ("naïve 🎉", 7)


def test_a_long_text_is_cut() -> None:
    assert readable("abcdef", 4) == ("abcd", 4)


def test_a_lone_surrogate_keeps_its_place_and_ends_what_is_sound() -> None:
    assert readable("ab\ud83dcd\udc00", 100) == ("ab?cd?", 2)


@given(TEXTS, st.integers(1, 50))
def test_any_text_becomes_unicode_of_the_same_length(text: str, most: int) -> None:
    part, sound = readable(text, most)
    assert len(part) == min(len(text), most)
    assert part.encode().decode() == part
    assert part[:sound] == text[:sound]


def test_seen_ends_with_the_last_token() -> None:
    assert seen_chars([101, 7, 8, 102], [(0, 0), (0, 3), (4, 9), (0, 0)], unknown=100) == 9


def test_seen_ends_before_the_first_unknown_token() -> None:
    assert seen_chars([101, 7, 100, 8, 100, 102], [(0, 0), (0, 3), (4, 5), (6, 7), (8, 9), (0, 0)], unknown=100) == 4


def test_nothing_is_seen_without_tokens() -> None:
    assert seen_chars([101, 102], [(0, 0), (0, 0)], unknown=None) == 0
    assert seen_chars([], [], unknown=100) == 0
