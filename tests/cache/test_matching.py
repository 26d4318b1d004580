"""Which neighbour may be served, where it depends on what was said before the question."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from llm_proxy.cache.entry import decode_entry, encode_entry, fields_of
from llm_proxy.cache.turns import MOST_REWORDED, NO_TURNS, Turns
from llm_proxy.encode.base import Encoding
from llm_proxy.errors import CacheCorruptError, CacheError

from .helpers import entry_of, find, new_cache

FIRST = "What should I wear in Oslo?"
REWORDED = "what should I wear in Oslo"
OTHER = "What should I wear in Rome?"


def encoder(near: float = 1.0, seen: int = 1_000) -> Callable[[str], Encoding]:
    """An encoder for which all texts are so near to ``FIRST``, and that reads so many characters."""

    def encode(text: str) -> Encoding:
        x = 1.0 if text == FIRST else near
        return Encoding(np.array([x, np.sqrt(1 - x * x)], np.float32), min(seen, len(text)))

    return encode


def outcome(stored: tuple[str, ...], asked: tuple[str, ...], encode: Callable[[str], Any] | None = None) -> str:
    """Why an entry is refused whose last question is the same; empty: it is served."""
    cache = new_cache()
    entry = entry_of("a", turns=stored)
    cache.admit(entry)
    found = find(cache, entry, turns=Turns(asked, encode or encoder()))
    assert (found.entry is None) == bool(found.refusal)
    return str(found.refusal)


@pytest.mark.parametrize(
    ("stored", "asked", "expected"),
    [
        ((), (), ""),
        ((FIRST,), (FIRST,), ""),
        ((FIRST,), (REWORDED,), ""),
        ((FIRST, "And then?"), (REWORDED, "and then"), ""),
        ((FIRST,), (OTHER,), "context"),
        ((FIRST, "And then?"), (FIRST, "And before?"), "context"),
        ((FIRST,), (), "context"),
        ((), (FIRST,), "context"),
        ((FIRST,), (FIRST, FIRST), "context"),
        ((FIRST, OTHER), (OTHER, FIRST), "context"),
    ],
)
def test_each_turn_counts(stored: tuple[str, ...], asked: tuple[str, ...], expected: str) -> None:
    assert outcome(stored, asked) == expected


def test_a_turn_that_is_far_is_another() -> None:
    assert outcome((FIRST,), (REWORDED,), encoder(near=0.96)) == ""
    assert outcome((FIRST,), (REWORDED,), encoder(near=0.9)) == "context"


def test_a_turn_that_was_read_in_part_must_be_the_same() -> None:
    assert outcome((FIRST,), (REWORDED,), encoder(seen=10)) == "context"
    assert outcome((FIRST,), (FIRST,), encoder(seen=10)) == ""


def test_an_encoder_in_trouble_serves_nothing() -> None:
    def fail(text: str) -> Encoding:
        raise CacheError("no")

    assert outcome((FIRST,), (REWORDED,), fail) == "context"
    assert outcome((FIRST,), (FIRST,), fail) == "", "nothing is encoded for the same words"


def test_only_so_many_are_encoded() -> None:
    turns = [f"Tell me about number {number}." for number in range(MOST_REWORDED + 1)]
    lower = [turn.lower() for turn in turns]
    assert outcome(tuple(turns), (*lower[:-1], turns[-1])) == ""
    assert outcome(tuple(turns), tuple(lower)) == "context"


def test_without_an_encoder_there_is_nothing_to_reword() -> None:
    assert NO_TURNS.reworded(()) == []
    with pytest.raises(CacheError, match="no encoder"):
        NO_TURNS.encode("x")


class TestRecords:
    def test_turns_are_kept(self) -> None:
        entry = entry_of("a", turns=(FIRST, ""))
        assert decode_entry(encode_entry(entry)).turns == (FIRST, "")
        assert fields_of(entry)["turns"] == [FIRST, ""]

    @pytest.mark.parametrize("turns", [[1], [None], "text", {"a": 1}])
    def test_other_turns_are_damage(self, turns: Any) -> None:
        from llm_proxy.cache.entry import checked_fields

        fields = fields_of(entry_of("a"))
        assert checked_fields(fields)["turns"] == ()
        with pytest.raises(CacheCorruptError, match="turn"):
            checked_fields({**fields, "turns": turns})

    def test_records_of_before_have_none(self) -> None:
        from llm_proxy.cache.entry import checked_fields

        fields = fields_of(entry_of("a"))
        del fields["turns"]
        assert checked_fields(fields)["turns"] == ()
