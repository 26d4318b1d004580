"""Steps `Settler.settle` through every path, and checks what is booked."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from llm_proxy.encode.base import Encoding
from llm_proxy.engine.effects import Background, Compute
from llm_proxy.engine.fingerprint import narrowed
from llm_proxy.engine.flights import Ticket
from llm_proxy.engine.ports import Live, as_shared
from llm_proxy.errors import CacheError, LLMProxyError
from llm_proxy.route.base import Expected, Finished
from llm_proxy.testing import FakeEncoder
from llm_proxy.types import Fingerprint, Head, Outcome, Usage
from llm_proxy.wire.recorder import recorder_for
from tests.fakes import Rig, body_of, completion, head, request

JSON_HEAD = (("content-type", "application/json"),)
PRICES = {"gpt-4o-mini": {"input_usd_per_mtok": 100.0, "output_usd_per_mtok": 1000.0}}
OWN = {"backends": {"own": {"base_url": "https://own.test/v1", "prices": PRICES}}}


def ticket_for(rig: Rig, value: Any, *, text: str | None = "hi", headers: Any = JSON_HEAD, **fields: Any) -> Ticket:
    """A ticket whose answer has just come in whole."""
    ticket = Ticket(
        request(text or "hi", **fields),
        Fingerprint("k" * 64, "s" * 64, text),
        Outcome("miss", backend="own" if "own" in rig.config.backends else "", model="asked"),
        rig.clock.monotonic(),
        rig.settler.settle,
        rig.settler.lost,
    )
    ticket.recorder, ticket.head_headers = recorder_for(headers, limit_bytes=1 << 20), headers
    raw = value if isinstance(value, bytes) else body_of(value)
    assert ticket.recorder is not None
    ticket.recorder.feed(raw)
    ticket.recorder.end()
    rig.clock.advance(3)
    return ticket


def settled(rig: Rig, ticket: Ticket) -> list[Any]:
    """Run the settlement and do what it asks for; returns the effects."""
    effects, flow, result = [], rig.settler.settle(ticket), None
    try:
        while True:
            effect = flow.send(result)
            effects.append(effect)
            result = effect.call()
    except StopIteration:
        return effects


def encoded(rig: Rig, ticket: Ticket, text: str = "hi") -> Ticket:
    ticket.encoding = rig.encoder.encode(text)
    return ticket


def test_an_answer_is_stored_with_all_that_is_known_of_it() -> None:
    rig = Rig(OWN)
    ticket = encoded(rig, ticket_for(rig, completion("hello")))
    effects = settled(rig, ticket)
    assert [type(effect) for effect in effects] == [Compute]
    assert effects[0].limit_s is None
    stored = rig.cache.entries["k" * 64]
    assert ticket.entry is stored
    assert (stored.scope, stored.text, json.loads(stored.completion)) == ("s" * 64, "hi", completion("hello"))
    assert (stored.created_s, stored.expires_s, stored.latency_s) == (rig.clock.time(), None, 3.0)
    assert (stored.model, stored.backend, stored.has_usage) == ("gpt-4o-mini", "own", True)
    assert stored.cost_usd == pytest.approx((10 * 100 + 5 * 1000) / 1e6)
    assert (stored.encoder, stored.vector is ticket.encoding.vector) == (rig.encoder.name, True)
    assert stored.seen_chars == len(stored.text)
    event = rig.event
    assert (event.outcome.is_stored, event.outcome.cost_usd) == (True, stored.cost_usd)
    assert event.usage == Usage(10, 5)
    assert (event.latency_s, event.http_status, event.error, event.outcome.model) == (3.0, 200, "", "gpt-4o-mini")


def test_once_only() -> None:
    rig = Rig()
    ticket = ticket_for(rig, completion())
    settled(rig, ticket)
    assert settled(rig, ticket) == []
    rig.settler.lost(ticket, "aborted")
    assert (len(rig.events), ticket.error) == (1, "")


def test_lost_once_only() -> None:
    rig = Rig()
    ticket = ticket_for(rig, completion())
    ticket.recorder = None
    rig.settler.lost(ticket, "aborted")
    rig.settler.lost(ticket, "again")
    assert settled(rig, ticket) == []
    assert (rig.event.error, rig.event.outcome.is_stored, ticket.error) == ("aborted", False, "aborted")
    assert rig.cache.entries == {}


@pytest.mark.parametrize(
    ("recorded", "reason", "error", "detail"),
    [
        ("unfinished", "aborted", "aborted", ""),
        ("unfinished", "ReadTimeout", "ReadTimeout", ""),
        ("error", "aborted", "body-error", ""),
        ("error", "ReadTimeout", "ReadTimeout", ""),
        ("damaged", "incomplete", "body-damaged", ""),
        ("truncated", "incomplete", "body-truncated", ""),
        ("too-large", "aborted", "", "too-large"),
        ("too-large", "incomplete", "", "too-large"),
        ("too-large", "ReadTimeout", "ReadTimeout", ""),
    ],
)
def test_what_is_lost_is_booked_with_the_best_known_reason(recorded: str, reason: str, error: str, detail: str) -> None:
    rig = Rig()
    ticket = ticket_for(rig, completion())
    ticket.recorder = SimpleNamespace(reason=recorded)
    rig.settler.lost(ticket, reason)
    assert (rig.event.error, rig.event.outcome.detail, rig.event.outcome.is_stored) == (error, detail, False)


@pytest.mark.parametrize(
    ("value", "fields", "detail"),
    [
        (completion(finish="length"), {}, "finish-length"),
        (completion(""), {}, "empty"),
        (completion(), {"n": 2}, "no-choices"),
        ({"error": {"message": "overloaded"}}, {}, "incomplete"),
        (b"{", {}, "incomplete"),
    ],
)
def test_what_is_not_admitted_is_booked_with_the_reason(value: Any, fields: Any, detail: str) -> None:
    rig = Rig()
    ticket = ticket_for(rig, value, **fields)
    assert settled(rig, ticket) == []
    assert (rig.event.outcome.is_stored, rig.event.outcome.detail, ticket.entry) == (False, detail, None)
    assert rig.cache.entries == {}


def test_a_stream_of_two_answers_is_paid_for_and_not_stored() -> None:
    rig = Rig()
    usage = {"prompt_tokens": 10, "completion_tokens": 5}
    parts = [("a", "one", None), ("b", " two", None), ("a", "", "stop")]
    chunks = [
        {"id": id, "choices": [{"delta": {"content": text}, "finish_reason": end}], "usage": usage if end else None}
        for id, text, end in parts
    ]
    raw = b"".join(b"data: " + body_of(chunk) + b"\n\n" for chunk in chunks) + b"data: [DONE]\n\n"
    ticket = ticket_for(rig, raw, headers=(("content-type", "text/event-stream"),))
    assert settled(rig, ticket) == []
    assert (rig.event.outcome.is_stored, rig.event.outcome.detail, rig.event.error) == (False, "mixed", "")
    assert rig.event.usage == Usage(10, 5)
    assert rig.cache.entries == {}


def test_what_was_said_before_is_not_overwritten() -> None:
    rig = Rig()
    ticket = ticket_for(rig, completion(""))
    ticket.outcome = ticket.outcome.with_changes(detail="encoder-late")
    settled(rig, ticket)
    assert rig.event.outcome.detail == "encoder-late"


def test_without_a_recorder_there_is_nothing_to_store() -> None:
    rig = Rig()
    ticket = ticket_for(rig, completion())
    ticket.recorder = None
    assert settled(rig, ticket) == []
    assert (rig.event.outcome.detail, rig.event.usage) == ("incomplete", None)


@pytest.mark.parametrize("reason", ["no-store", "not worth it"])
def test_not_stored_but_there_for_those_who_wait(reason: str) -> None:
    rig = Rig()
    headers = (*JSON_HEAD, ("cache-control", "private, no-store")) if reason == "no-store" else JSON_HEAD
    rig.cache.keeps = reason == "no-store"
    ticket = ticket_for(rig, completion(), headers=headers)
    settled(rig, ticket)
    assert (rig.event.outcome.is_stored, rig.cache.entries) == (False, {})
    assert rig.event.outcome.detail == ("no-store" if reason == "no-store" else "")
    assert ticket.entry is not None


def test_an_upstreams_no_store_may_be_set_aside() -> None:
    rig = Rig({"cache": {"obey_no_store": False}})
    settled(rig, ticket_for(rig, completion(), headers=(*JSON_HEAD, ("cache-control", "no-store"))))
    assert rig.event.outcome.is_stored is True


def test_without_a_cache() -> None:
    rig = Rig(cache=None)
    assert settled(rig, ticket_for(rig, completion())) == []
    assert rig.event.outcome.is_stored is None


def test_a_failing_store_costs_the_caller_nothing() -> None:
    rig = Rig()
    rig.cache.failing = {"admit"}
    ticket = ticket_for(rig, completion())
    flow = rig.settler.settle(ticket)
    with pytest.raises(CacheError):
        next(flow).call()
    with pytest.raises(StopIteration):
        flow.throw(CacheError("disk full"))
    assert (rig.event.outcome.is_stored, rig.event.outcome.detail) == (False, "trouble")
    assert rig.event.usage == Usage(10, 5)
    assert rig.troubles.counts == {"cache": 1}


def test_it_is_booked_when_the_last_caller_leaves_while_the_store_writes() -> None:
    rig = Rig()
    flow = rig.settler.settle(ticket_for(rig, completion()))
    next(flow)
    flow.close()
    assert (rig.event.outcome.is_stored, rig.event.usage) == (None, Usage(10, 5))


class TestVectors:
    def test_a_late_vector_is_attached_in_the_background(self) -> None:
        rig = Rig(encoder=FakeEncoder(window_chars=5))
        effects = settled(rig, ticket_for(rig, completion(), text="hello world"))
        assert [type(effect) for effect in effects] == [Compute, Background]
        scope, vector, encoder, seen_chars = rig.cache.attached["k" * 64]
        assert (scope, encoder, seen_chars) == (narrowed("s" * 64, "hello world", 5), rig.encoder.name, 5)
        assert vector.shape == (64,)
        assert rig.cache.entries["k" * 64].encoder == ""

    @pytest.mark.parametrize("failing", ["encoder", "cache"])
    def test_a_failing_attachment_is_counted(self, failing: str) -> None:
        rig = Rig(encoder=FakeEncoder(error=LLMProxyError("no model") if failing == "encoder" else None))
        rig.cache.failing = {"attach"}
        settled(rig, ticket_for(rig, completion()))
        assert rig.troubles.counts == {"encoder": 1}
        assert rig.cache.attached == {}

    def test_a_long_text_is_stored_where_its_rest_is_equal(self) -> None:
        rig = Rig(encoder=FakeEncoder(window_chars=5))
        ticket = encoded(rig, ticket_for(rig, completion(), text="hello world"), "hello world")
        settled(rig, ticket)
        assert rig.cache.entries["k" * 64].scope == narrowed("s" * 64, "hello world", 5)

    @pytest.mark.parametrize("why", ["no text", "tool call", "no encoder", "not stored"])
    def test_none_is_needed(self, why: str) -> None:
        rig = Rig(encoder=None if why == "no encoder" else FakeEncoder())
        rig.cache.keeps = why != "not stored"
        value = completion()
        if why == "tool call":
            value["choices"][0]["message"]["tool_calls"] = [{"id": "t", "function": {"name": "f", "arguments": "{}"}}]
        ticket = ticket_for(rig, value, text=None if why == "no text" else "hi")
        if why == "tool call":
            encoded(rig, ticket)
        assert [type(effect) for effect in settled(rig, ticket)] == [Compute]
        entry = ticket.entry
        assert entry is not None
        assert entry.text == ("" if why in ("no text", "tool call") else "hi")
        assert (entry.vector, entry.encoder) == (None, "")

    def test_a_vector_whose_encoder_went_away_has_no_name(self) -> None:
        rig = Rig(encoder=None)
        ticket = ticket_for(rig, completion())
        ticket.encoding = Encoding(vector=FakeEncoder().encode("hi").vector, seen_chars=2)
        settled(rig, ticket)
        assert rig.cache.entries["k" * 64].encoder == ""


class TestEntries:
    def test_they_expire(self) -> None:
        rig = Rig({"cache": {"ttl_s": 60}})
        ticket = ticket_for(rig, completion())
        settled(rig, ticket)
        assert rig.cache.entries["k" * 64].expires_s == rig.clock.time() + 60

    def test_counts_that_the_upstream_does_not_give_are_estimated(self) -> None:
        rig = Rig(OWN)
        value = completion("x" * 400)
        del value["usage"]
        ticket = ticket_for(rig, value)
        settled(rig, ticket)
        stored = rig.cache.entries["k" * 64]
        expected = len(ticket.request.raw) // 4 * 100 + 100 * 1000  # of the answer its text
        assert stored.cost_usd == pytest.approx(expected / 1e6)
        assert (stored.has_usage, rig.event.usage) == (True, None), "a plain answer has none, whoever asks"

    @pytest.mark.parametrize("is_stored", [True, False])
    def test_whether_or_not_it_is_stored(self, is_stored: bool) -> None:
        rig = Rig(OWN)
        value = completion("x" * 400, finish="stop" if is_stored else "length")
        del value["usage"]
        ticket = ticket_for(rig, value)
        settled(rig, ticket)
        expected = len(ticket.request.raw) // 4 * 100 + 100 * 1000
        assert rig.event.outcome.is_stored is is_stored
        assert rig.event.outcome.cost_usd == pytest.approx(expected / 1e6)

    @pytest.mark.parametrize(
        ("usage", "counts"),
        [
            ({"prompt_tokens": 3, "completion_tokens": -1}, (3, 10)),
            ({"prompt_tokens": 2.5, "completion_tokens": 4}, (None, 4)),
        ],
    )
    def test_a_count_that_is_broken_is_estimated_and_the_other_kept(
        self, usage: dict[str, Any], counts: tuple[int | None, int]
    ) -> None:
        rig = Rig(OWN)
        ticket = ticket_for(rig, completion("x" * 40, model="gpt-4o-mini", usage=usage))
        settled(rig, ticket)
        prompt = len(ticket.request.raw) // 4 if counts[0] is None else counts[0]
        assert prompt > 0
        usd = (prompt * 100 + counts[1] * 1000) / 1e6
        assert rig.event.usage == Usage(prompt, counts[1])
        assert rig.event.outcome.cost_usd == pytest.approx(usd)
        assert rig.cache.entries["k" * 64].cost_usd == pytest.approx(usd)

    def test_a_stream_has_counts_only_where_they_were_asked_for(self) -> None:
        value = completion()
        del value["usage"]
        for options, has_usage in (({}, False), ({"stream_options": {"include_usage": True}}, True)):
            rig = Rig()
            settled(rig, ticket_for(rig, value, stream=True, **options))
            assert rig.cache.entries["k" * 64].has_usage is has_usage

    @pytest.mark.parametrize("model", [None, "", 7, "absent"])
    def test_the_model_is_what_the_upstream_says_or_what_was_asked(self, model: Any) -> None:
        rig = Rig()
        value = completion(model=model)
        if model == "absent":
            del value["model"]
        settled(rig, ticket_for(rig, value))
        assert rig.event.outcome.model == "asked"

    def test_waiting_is_worth_what_the_backend_says(self) -> None:
        own = {"base_url": "https://own.test/v1", "prices": PRICES, "usd_per_second": 0.5}
        rig = Rig({"backends": {"own": own}})
        settled(rig, ticket_for(rig, completion()))
        stored = rig.cache.entries["k" * 64]
        assert (stored.latency_s, stored.wait_usd) == (3.0, 1.5)
        assert (stored.worth_usd, rig.event.outcome.cost_usd) == (stored.cost_usd + 1.5, stored.cost_usd)

    def test_the_price_of_the_model_that_was_asked_counts_for_its_snapshot(self) -> None:
        prices = {"asked": {"input_usd_per_mtok": 7.0, "output_usd_per_mtok": 0.0}}
        rig = Rig({"backends": {"own": {"base_url": "https://own.test/v1", "prices": prices}}})
        settled(rig, ticket_for(rig, completion(model="asked-2024-07-18")))
        assert rig.event.outcome.cost_usd == pytest.approx(10 * 7 / 1e6)
        assert rig.event.outcome.model == "asked-2024-07-18"

    def test_a_price_that_is_not_known_counts_as_nothing(self) -> None:
        rig = Rig()
        settled(rig, ticket_for(rig, completion(model="unheard-of-model")))
        assert rig.cache.entries["k" * 64].cost_usd == 0.0


class Appraiser:
    def __init__(self, expected: Expected | None) -> None:
        self.expected = expected
        self.observed: list[Finished] = []
        self.asked: list[Any] = []

    def observe(self, call: Finished) -> None:
        self.observed.append(call)

    def again(self, *what: Any) -> Expected | None:
        self.asked.append(what)
        return self.expected


class TestWorth:
    def rig(self, expected: Expected | None) -> tuple[Rig, Appraiser]:
        rig, appraiser = Rig(OWN), Appraiser(expected)
        rig.settler._appraiser = appraiser
        return rig, appraiser

    def test_an_entry_is_worth_what_asking_again_would_cost_and_the_books_hold_what_it_did(self) -> None:
        rig, appraiser = self.rig(Expected(0.0001, 0.002))
        ticket = encoded(rig, ticket_for(rig, completion()))
        ticket.rivals = (("own", "asked"), ("own", "other"))
        settled(rig, ticket)
        stored = rig.cache.entries["k" * 64]
        assert (stored.cost_usd, stored.wait_usd, stored.latency_s) == (0.0001, 0.002, 3.0)
        assert rig.event.outcome.cost_usd == pytest.approx((10 * 100 + 5 * 1000) / 1e6)
        assert rig.event.outcome.model == "gpt-4o-mini"
        call = Finished("own", "asked", 10, 5, 3.0)
        assert appraiser.asked == [(call, rig.event.outcome.cost_usd, ticket.rivals)]
        assert appraiser.observed == [call]

    def test_where_that_is_not_known_it_is_what_it_cost(self) -> None:
        rig, _ = self.rig(None)
        settled(rig, ticket_for(rig, completion()))
        stored = rig.cache.entries["k" * 64]
        assert stored.cost_usd == rig.event.outcome.cost_usd == pytest.approx(0.006)

    def test_an_answer_that_is_not_stored_teaches_too(self) -> None:
        rig, appraiser = self.rig(None)
        settled(rig, ticket_for(rig, completion(finish="length")))
        assert (rig.cache.entries, appraiser.observed) == ({}, [Finished("own", "asked", 10, 5, 3.0)])

    def test_one_without_counts_does_not(self) -> None:
        rig, appraiser = self.rig(None)
        value = completion()
        del value["usage"]
        settled(rig, ticket_for(rig, value))
        settled(rig, ticket_for(rig, b"{"))
        assert appraiser.observed == []
        assert len(appraiser.asked) == 1


class TestBooks:
    def test_nobody_need_watch(self) -> None:
        rig = Rig()
        rig.settler._watch = None
        rig.settler.sent(Outcome("miss"), rig)
        rig.settler.passed(request(), Outcome("miss"), 0.0, status=500, sent=rig)
        settled(rig, ticket_for(rig, completion()))
        assert [event.http_status for event in rig.events] == [500, 200]

    def test_passed(self) -> None:
        rig = Rig()
        rig.clock.advance(1)
        rig.settler.passed(
            request(stream=True), Outcome("bypass"), rig.clock.monotonic() - 1, status=0, error="ReadError"
        )
        event = rig.event
        assert (event.latency_s, event.http_status, event.error, event.is_stream) == (1, 0, "ReadError", True)

    def test_sharing_costs_nothing(self) -> None:
        assert as_shared(Outcome("miss", cost_usd=0.5)) == Outcome("miss", cost_usd=0.0, saved_usd=0.5, is_shared=True)
        assert as_shared(Outcome("miss")).saved_usd == 0.0

    def test_an_answer_without_a_flight_is_what_it_was(self) -> None:
        live = Live(Head(200, (), ()), Outcome("bypass"))
        assert live.outcome == Outcome("bypass")
        assert head().header("content-type") == "application/json"

    def test_a_hit_without_a_cache(self) -> None:
        rig = Rig(cache=None)
        ticket = ticket_for(Rig(), completion())
        other = Rig()
        settled(other, ticket_for(other, completion()))
        rig.settler.hit(ticket.request, other.cache.entries["k" * 64], Outcome("hit", "exact"), rig.clock.monotonic())
        assert (rig.event.outcome.kind, rig.event.saved_s) == ("exact", 3.0)
