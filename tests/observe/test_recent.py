"""The newest calls in memory are bounded, counted on, and found by what the ledger knows of them."""

from __future__ import annotations

from llm_proxy.observe.recent import MOST_CALLS, Recent, call_id
from tests.observe.events_kit import NOW_S, miss


def test_only_the_newest_are_kept():
    recent = Recent()
    for number in range(MOST_CALLS + 5):
        recent(miss(NOW_S + number))
    number, events = recent.since(0)
    assert number == MOST_CALLS + 5
    assert [event.at_s - NOW_S for event in events] == list(range(5, MOST_CALLS + 5))


def test_who_asks_again_gets_what_is_new():
    recent = Recent()
    recent(miss(NOW_S))
    number, _ = recent.since(0)
    assert recent.since(number) == (1, [])
    recent(miss(NOW_S + 1))
    assert [event.at_s for event in recent.since(number)[1]] == [NOW_S + 1]


def test_a_call_is_found_by_its_name():
    recent = Recent(most=2)
    for number in range(3):
        recent(miss(NOW_S + number))
    assert recent.find(call_id(NOW_S + 2, 2.0)) is not None
    assert recent.find(call_id(NOW_S, 2.0)) is None
