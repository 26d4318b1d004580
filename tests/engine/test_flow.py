"""Steps `Engine.answer` through every path: look at the effect, send its outcome."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from llm_proxy.engine.effects import Board, Compute, Forward, Late, Launch
from llm_proxy.engine.ports import Live, Ready
from llm_proxy.errors import CacheCorruptError, CacheError, LLMProxyError
from llm_proxy.testing import FakeEncoder
from tests.engine.flow_kit import TEXT, Course, stored
from tests.fakes import Found, Rig, entry, head, request


@pytest.fixture
def rig() -> Rig:
    return Rig()


class TestBypass:
    def test_is_forwarded_as_it_came(self, rig: Rig) -> None:
        course = Course(rig, request(control="no-store"))
        effect = course.expect(Forward)
        assert (effect.outgoing.url, effect.outgoing.headers, effect.outgoing.body) == ("", (), course.call.raw)
        answered = head(status=418)
        course.send(answered)
        assert course.answer == Live(answered, course.answer.outcome)
        assert course.answer.outcome.cache_status == 'llm-proxy; fwd=bypass; detail="no-store"'
        assert (rig.event.http_status, rig.event.error, rig.event.outcome.status) == (418, "", "bypass")
        assert rig.cache.searches == []

    def test_without_a_cache(self) -> None:
        course = Course(Rig(cache=None), request())
        course.expect(Forward)
        course.send(head())
        assert course.answer.outcome.detail == "disabled"

    def test_only_if_cached_is_never_forwarded(self, rig: Rig) -> None:
        course = Course(rig, request(control="no-store, only-if-cached"))
        assert (course.answer.status, course.answer.outcome.detail) == (504, "no-store")

    def test_a_failing_request_is_booked_and_raised(self, rig: Rig) -> None:
        course = Course(rig, request(temperature=2))
        with pytest.raises(OSError, match="refused"):
            course.throw(OSError("refused"))
        assert (rig.event.http_status, rig.event.error, rig.event.outcome.detail) == (0, "OSError", "temperature")

    def test_what_has_no_key_is_forwarded(self, rig: Rig) -> None:
        call = request()
        course = Course(rig, replace(call, body={**call.body, "seed": float("inf")}))
        course.expect(Forward)
        course.send(head())
        assert course.answer.outcome.cache_status == 'llm-proxy; fwd=bypass; detail="trouble"'
        assert rig.troubles.counts == {"engine": 1}


class TestExactHit:
    def test_plain(self, rig: Rig) -> None:
        call = request()
        found = stored(rig, call)
        answer = Course(rig, call).answer
        assert (answer.status, answer.body) == (200, found.completion)
        assert dict(answer.headers) == {
            "content-type": "application/json",
            "cache-status": 'llm-proxy; hit; detail="exact"',
            "age": "60",
            "x-llm-proxy-saved-usd": "0.25000000",
        }
        assert (answer.outcome.key, answer.outcome.similarity, answer.outcome.model) == (found.key, 1.0, "gpt-4o-mini")
        assert rig.cache.hits == [found.key]
        assert (rig.event.outcome, rig.event.latency_s, rig.event.saved_s) == (answer.outcome, 0.0, 2.0)

    def test_streamed(self, rig: Rig) -> None:
        stored(rig, request())
        answer = Course(rig, request(stream=True)).answer
        assert dict(answer.headers)["content-type"] == TEXT
        assert answer.body.endswith(b"data: [DONE]\n\n")
        assert rig.event.is_stream

    @pytest.mark.parametrize(
        ("fields", "options"),
        [
            ({"expires_s": Rig().clock.time()}, {}),
            ({}, {"control": "max-age=59"}),
            ({"has_usage": False}, {}),
            ({"has_usage": False}, {"stream": True, "stream_options": {"include_usage": True}}),
        ],
        ids=["expired", "too old", "no usage", "no usage in the stream"],
    )
    def test_what_may_not_be_served_is_a_miss(self, rig: Rig, fields: Any, options: Any) -> None:
        stored(rig, request(), **fields)
        Course(rig, request(**options)).expect(Board)

    @pytest.mark.parametrize(
        ("fields", "options"),
        [({"expires_s": Rig().clock.time() + 1}, {"control": "max-age=60"}), ({"has_usage": False}, {"stream": True})],
        ids=["just young enough", "usage not asked for"],
    )
    def test_what_may_just_be_served(self, rig: Rig, fields: Any, options: Any) -> None:
        stored(rig, request(), **fields)
        assert Course(rig, request(**options)).answer.outcome.kind == "exact"

    def test_a_count_that_fails_is_no_trouble_for_the_caller(self, rig: Rig) -> None:
        stored(rig, request())
        rig.cache.failing = {"hit"}
        assert Course(rig, request()).answer.status == 200
        assert rig.troubles.counts == {"cache": 1}

    @pytest.mark.parametrize("broken", ["get", "replay"])
    def test_an_entry_that_cannot_be_read_is_asked_for_again_and_replaced(self, rig: Rig, broken: str) -> None:
        call = request(stream=True)
        stored(rig, call, completion=b"[]")
        rig.cache.failing = {broken}
        course = Course(rig, call)
        course.board()
        course.search()
        course.launch(head(content_type=TEXT))
        assert course.answer.outcome.cache_status == 'llm-proxy; fwd=miss; detail="trouble"'
        assert course.answer.flight.ticket.recorder is not None
        assert rig.troubles.counts == {"cache": 1}


class TestControls:
    def test_no_cache_asks_alone_and_replaces(self, rig: Rig) -> None:
        stored(rig, request())
        course = Course(rig, request(control="no-cache"))
        course.board(is_shareable=False)
        course.launch(head())
        assert (course.answer.flight.state, course.answer.outcome.status) == ("open", "miss")

    def test_only_if_cached_finds_an_exact_answer(self, rig: Rig) -> None:
        stored(rig, request())
        assert Course(rig, request(control="only-if-cached")).answer.outcome.kind == "exact"

    def test_only_if_cached_finds_an_equivalent_one(self, rig: Rig) -> None:
        rig.cache.found = Found(entry(), 0.98)
        course = Course(rig, request(control="only-if-cached"))
        course.search()
        assert course.answer.outcome.kind == "semantic"

    def test_only_if_cached_says_so_when_there_is_none(self, rig: Rig) -> None:
        course = Course(rig, request(control="only-if-cached"))
        course.search()
        answer = course.answer
        assert (answer.status, dict(answer.headers)["x-should-retry"]) == (504, "false")
        assert json.loads(answer.body)["error"]["code"] == "not_cached"
        assert (rig.event.http_status, rig.event.outcome.status, rig.event.outcome.detail) == (
            504,
            "refused",
            "not-cached",
        )

    def test_only_if_cached_is_booked_for_one_reason_whatever_was_near(self, rig: Rig) -> None:
        rig.cache.found = Found(refusal="similarity", similarity=0.117)
        course = Course(rig, request(control="only-if-cached"))
        course.search()
        assert dict(course.answer.headers)["cache-status"].endswith('detail="refused=similarity; similarity=0.117"')
        assert rig.event.outcome.detail == "not-cached"


class TestSemantic:
    @pytest.mark.parametrize(
        ("slowest_s", "is_quick", "turn_s"), [(0.025, True, 0.25), (0.026, False, 0.25), (float("inf"), False, 0.0)]
    )
    def test_an_encoder_that_was_never_slow_is_quick(
        self, rig: Rig, slowest_s: float, is_quick: bool, turn_s: float
    ) -> None:
        rig.encoder.slowest_s = slowest_s
        course = Course(rig, request())
        course.board()
        effect = course.expect(Compute)
        assert (effect.limit_s, effect.is_quick, effect.turn_s) == (rig.config.encoder.wait_s, is_quick, turn_s)

    def test_whether_it_is_quick_depends_on_the_text(self, rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(rig.encoder, "slowest_s", 3.0)
        monkeypatch.setattr(rig.encoder, "may_take_s", lambda *texts: 0.001 * sum(map(len, texts)))
        for text, is_quick in (("x" * 25, True), ("x" * 26, False)):
            course = Course(rig, request(text))
            course.board()
            effect = course.expect(Compute)
            assert (effect.is_quick, effect.turn_s) == (is_quick, 0.25)

    def test_earlier_turns_count_in_both_wordings(self, monkeypatch: pytest.MonkeyPatch) -> None:
        rig, asked = Rig(sections={"cache": {"context": "similar"}}), list[tuple[str, ...]]()
        monkeypatch.setattr(rig.encoder, "may_take_s", lambda *texts: asked.append(texts) or 0.0)
        said = [{"role": "user", "content": text} for text in ("first", "then")]
        course = Course(rig, request(messages=[said[0], {"role": "assistant", "content": "yes"}, said[1]]))
        course.board()
        course.expect(Compute)
        assert asked == [("then", "first", "first")]

    def test_hit(self, rig: Rig) -> None:
        course = Course(rig, request())
        flight = course.board()
        rig.cache.found = Found(entry(), 0.971)
        course.expect(Compute)
        course.search()
        answer = course.answer
        assert isinstance(answer, Ready)
        assert (
            dict(answer.headers)["cache-status"] == 'llm-proxy; hit; detail="semantic; similarity=0.971; p_wrong=0.002"'
        )
        assert (flight.state, flight.is_left, flight.ticket.outcome) == ("finished", True, answer.outcome)
        assert (rig.event.outcome.kind, len(rig.events)) == ("semantic", 1)

    def test_a_vector_that_stands_for_a_part_searches_where_the_rest_is_equal(self) -> None:
        rig = Rig(encoder=FakeEncoder(window_chars=5))
        for text in ("hello world", "hello there", "other world"):
            course = Course(rig, request(text))
            course.board()
            course.search()
        (one, _), (two, _), (three, _) = rig.cache.searches
        assert one == three
        assert one != two

    @pytest.mark.parametrize(
        ("found", "why"),
        [(Found(), "uri-miss"), (Found(entry(has_usage=False), 0.99), "miss")],
        ids=["none", "not servable"],
    )
    def test_miss(self, rig: Rig, found: Found, why: str) -> None:
        course = Course(rig, request())
        course.board()
        rig.cache.found = found
        course.search()
        course.expect(Launch)
        course.launch(head())
        assert course.answer.outcome.cache_status == f"llm-proxy; fwd={why}"

    def test_a_refused_neighbour_is_named(self, rig: Rig) -> None:
        course = Course(rig, request())
        course.board()
        rig.cache.found = Found(None, 0.96, "numbers")
        course.search()
        course.launch(head())
        assert course.answer.outcome.detail == "refused=numbers; similarity=0.960"

    @pytest.mark.parametrize(("late", "detail", "counted"), [(Late(), "late", 1), (Late(is_begun=False), "busy", 0)])
    def test_a_late_encoder_is_a_miss(self, late: Late, detail: str, counted: int) -> None:
        class Counting(FakeEncoder):
            late = 0

            def note_timeout(self) -> None:
                self.late += 1

        rig = Rig(encoder=Counting())
        course = Course(rig, request())
        course.board()
        course.throw(late)
        course.launch(head())
        assert (course.answer.outcome.detail, rig.encoder.late) == (f"encoder-{detail}", counted)
        assert rig.troubles.counts == {}

    def test_evidence_that_cannot_be_read_is_counted(self) -> None:
        rig = Rig()
        rig.cache.found = Found(None, 0.97, "evidence", damage=CacheCorruptError("cut"))
        course = Course(rig, request())
        course.board()
        course.search()
        course.launch(head())
        assert course.answer.outcome.detail == "refused=evidence; similarity=0.970"
        assert rig.troubles.counts == {"evidence": 1}

    def test_a_failing_encoder_is_a_miss(self) -> None:
        rig = Rig(encoder=FakeEncoder(error=LLMProxyError("no model")))
        course = Course(rig, request())
        course.board()
        course.search()
        course.launch(head())
        assert (course.answer.outcome.detail, course.answer.flight.state) == ("encoder-failed", "open")
        assert rig.troubles.counts == {"encoder": 1}

    @pytest.mark.parametrize("encoder", [None, "open"])
    def test_without_an_encoder_nothing_is_searched(self, encoder: Any) -> None:
        if encoder == "open":
            encoder = FakeEncoder()
            encoder.is_open = True
        course = Course(Rig(encoder=encoder), request())
        course.board()
        course.expect(Launch)

    def test_what_has_no_text_is_not_searched(self, rig: Rig) -> None:
        course = Course(rig, request(n=2))
        course.board()
        course.expect(Launch)

    def test_a_failing_search_does_not_end_the_flight(self, rig: Rig) -> None:
        course = Course(rig, request())
        flight = course.board()
        rig.cache.failing = {"nearest"}
        course.throw(CacheError("index"))
        course.launch(head())
        assert (course.answer.outcome.detail, course.answer.flight) == ("trouble", flight)
        assert rig.troubles.counts == {"cache": 1}


def test_the_state_of_the_cache(rig: Rig) -> None:
    assert rig.engine.cache_state == "ok"
    rig.cache.state = "failing"
    assert rig.engine.cache_state == "failing"
    assert Rig(cache=None).engine.cache_state is None


def test_answers_of_one_kind_have_one_key_and_of_two_have_two(rig: Rig) -> None:
    def key(**options: Any) -> str:
        course = Course(rig, request(**options))
        found: str = course.expect(Board).ticket.fingerprint.key
        return found

    assert key() == key(stream=True)
    assert len({key(), key(model="other"), key(endpoint="https://other.test/v1/chat/completions")}) == 3
