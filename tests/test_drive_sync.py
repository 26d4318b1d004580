"""The sync driver: bodies to their end, work with a time limit, and flows that are closed whatever happens."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from llm_proxy.drive import Driver, _within
from llm_proxy.engine.effects import Background, Compute, Flow, Forward, Late
from llm_proxy.testing import FakeEncoder
from llm_proxy.types import Outgoing
from tests.drive_kit import (
    PIECES,
    PLAIN,
    SLOW_S,
    Body,
    Together,
    aboard,
    nothing_is_left_running,
    plain,
    rest_of,
    streamed,
    sync,
    until,
)
from tests.fakes import body_of, completion, events_of, head, request

_nothing_is_left_running = pytest.fixture(autouse=True)(nothing_is_left_running)


class TestBodies:
    @pytest.mark.parametrize("is_stream", [True, False])
    def test_an_answer_too_large_to_keep_is_passed_on(self, is_stream: bool) -> None:
        text = "x" * 400
        steps = events_of(*[text] * 9) if is_stream else [body_of(completion(text))[start::2] for start in (0, 1)]
        steps = steps if is_stream else [b'{"a":"' + b"x" * 200, b"x" * 200, b'"}']
        answered = streamed(*steps) if is_stream else plain(*steps)
        with sync(answered, streamed, sections={"cache": {"max_entry_bytes": 100}}) as it:
            served, other = it.serve(request(stream=is_stream)), None
            if not is_stream:
                assert served.body == steps[0]
            got = [*([served.body] if served.body else []), next(served.rest), *served.rest]
            assert (got, other) == (steps, None)
            assert (it.rig.cache.entries, it.rig.event.outcome.detail) == ({}, "too-large")
            served.close()

    def test_what_overflows_is_not_kept_and_not_joined(self) -> None:
        steps = events_of(*["x" * 400] * 9)
        with sync(streamed(*steps), streamed, sections={"cache": {"max_entry_bytes": 100}}) as it:
            one, two = it.serve(request(stream=True)), it.serve(request(stream=True))
            (flight,) = it.flights._table.values()
            for _ in range(6):
                next(one.rest)
            assert flight.is_overflowed
            assert len(flight._chunks) == 6
            third = it.serve(request(stream=True))
            assert rest_of(third) == b"".join(PIECES)
            for _ in range(6):
                next(two.rest)
            assert flight._chunks == []
            assert b"".join(one.rest) == b"".join(two.rest) == b"".join(steps[6:])

    def test_a_plain_follower_of_what_overflows_reads_on(self) -> None:
        steps = [b'{"a":"' + b"x" * 200, b"x" * 200, b'"}']
        gate = threading.Semaphore(0)
        with sync(plain(*steps, gate=gate), sections={"cache": {"max_entry_bytes": 100}}) as it:
            calls = Together(*[lambda: it.read(request())] * 2)
            until(lambda: aboard(it.flights) == 2)
            gate.release(9)
            assert [body for _, body in calls.results()] == [b"".join(steps)] * 2

    def test_settled_once_although_more_is_read_after_the_end(self) -> None:
        with sync(streamed(*PIECES, b": bye\n\n")) as it:
            served = it.serve(request(stream=True))
            got = [next(served.rest) for _ in PIECES]
            assert (len(it.rig.events), len(it.rig.cache.entries), len(it.flights)) == (1, 1, 0)
            assert [*got, *served.rest] == [*PIECES, b": bye\n\n"]
            served.close()
            assert len(it.rig.events) == 1

    def test_a_client_that_stops_at_the_end_has_its_answer_stored(self) -> None:
        answered = streamed()
        with sync(answered) as it:
            served = it.serve(request(stream=True))
            for _ in PIECES:
                next(served.rest)
            served.close()
            assert (len(it.rig.cache.entries), it.rig.event.error, answered.body.closes) == (1, "", 1)

    def test_a_stream_without_its_end_is_not_stored(self) -> None:
        with sync(streamed(*PIECES[:2])) as it:
            assert it.read(request(stream=True))[1] == b"".join(PIECES[:2])
            assert (it.rig.cache.entries, it.rig.event.error) == ({}, "body-truncated")

    @pytest.mark.parametrize("content_type", ["Text/Event-Stream", "application/json", "application/x-ndjson"])
    def test_a_stream_is_handed_on_as_it_comes_whatever_its_type(self, content_type: str) -> None:
        answered = head(Body(PIECES), content_type=content_type)
        with sync(answered) as it:
            served = it.serve(request(stream=True))
            assert (served.body, answered.body.pulls) == (b"", 0)
            assert rest_of(served) == b"".join(PIECES)

    def test_a_stream_to_who_asked_for_none_is_handed_on_as_it_comes(self) -> None:
        answered = head(Body(PIECES), content_type="TEXT/event-stream; charset=utf-8")
        with sync(answered) as it:
            served = it.serve(request())
            assert answered.body.pulls == 0
            assert rest_of(served) == b"".join(PIECES)

    def test_a_broken_body_to_who_asked_for_a_stream_raises_while_it_is_read(self) -> None:
        with sync(plain(b"{", ConnectionError("cut"))) as it:
            served = it.serve(request(stream=True))
            assert next(served.rest) == b"{"
            with pytest.raises(ConnectionError):
                next(served.rest)
            assert len(it.upstream.calls) == 1

    def test_a_plain_body_without_a_length_ends_with_the_body(self) -> None:
        with sync(plain()) as it:
            served, body = it.read(request())
            assert (served.outcome.is_stored, body, served.rest) == (True, PLAIN[0], None)


class TestDriving:
    def test_a_late_encoder_is_not_waited_for(self) -> None:
        class Slow(FakeEncoder):
            go = threading.Event()

            def encode(self, text: str) -> Any:
                assert self.go.wait(SLOW_S)
                return super().encode(text)

        with sync(plain(), encoder=Slow(), sections={"encoder": {"wait_s": 0.01}}) as it:
            served, _ = it.read(request())
            assert served.outcome.detail == "encoder-late"
            assert it.rig.cache.entries[served.outcome.key].vector is None
            Slow.go.set()
            until(lambda: it.rig.cache.attached)

    def test_the_wait_for_a_turn_is_not_part_of_the_limit(self) -> None:
        go = threading.Event()

        def flow(turn_s: float) -> Flow[str]:
            try:
                return (yield Compute(lambda: "found", 0.05, turn_s=turn_s))
            except Late as late:
                return "late" if late.is_begun else "busy"

        with sync() as it, ThreadPoolExecutor(1) as pool, ThreadPoolExecutor(1) as caller:
            driver = Driver(it.flights, lambda: pool)
            pool.submit(go.wait, SLOW_S)
            assert driver.run(flow(0.0)) == "late"
            assert driver.run(flow(0.02)) == "busy"
            waits = caller.submit(driver.run, flow(SLOW_S))
            time.sleep(0.1)  # twice the limit
            go.set()
            assert waits.result(SLOW_S) == "found"

    def test_quick_work_is_done_by_the_caller_itself(self) -> None:
        def flow(limit_s: float | None, *, is_quick: bool) -> Flow[int]:
            found: int = yield Compute(threading.get_ident, limit_s, is_quick)
            return found

        me = threading.get_ident()
        with sync() as it:
            assert it.driver.run(flow(None, is_quick=False)) == me
            assert it.driver.run(flow(1.0, is_quick=True)) == me
            assert it.driver.run(flow(1.0, is_quick=False)) != me

    def test_what_comes_at_the_last_moment_counts(self) -> None:
        class Tardy(Future[int]):
            def result(self, timeout: float | None = None) -> int:
                if timeout is not None:
                    self.set_result(7)
                    raise TimeoutError
                return super().result(timeout)

        assert _within(Tardy(), 0.01) == 7

    def test_a_time_out_of_the_work_itself_is_its_own(self) -> None:
        def work() -> None:
            raise TimeoutError("inside")

        def flow() -> Flow[None]:
            yield Compute(work, 1.0)

        with sync() as it, pytest.raises(TimeoutError, match="inside"):
            it.driver.run(flow())

    def test_background_work_is_done(self) -> None:
        done: list[int] = []

        def flow() -> Flow[str]:
            yield Background(lambda: done.append(1))
            return "result"

        with sync() as it:
            assert it.driver.run(flow()) == "result"
            until(lambda: done)

    def test_a_flow_is_closed_whatever_happens(self) -> None:
        closed: list[str] = []

        def flow() -> Flow[None]:
            try:
                yield Compute(lambda: 1 / 0)
            finally:
                closed.append("yes")

        with sync() as it, pytest.raises(ZeroDivisionError):
            it.driver.run(flow())
        assert closed == ["yes"]

    def test_a_flow_that_forwards_needs_a_way_to(self) -> None:
        def flow() -> Flow[Any]:
            yield Forward(Outgoing("", (), b""))

        with sync() as it:
            with pytest.raises(RuntimeError, match="no way to send one was given"):
                it.driver.run(flow())
            with pytest.raises(RuntimeError, match="no way to send one was given"):
                it.driver.run(it.rig.engine.answer(request()))

    def test_what_is_not_recorded_passes(self) -> None:
        answered = head(Body([b"no"]), status=500)
        with sync(answered) as it:
            served = it.serve(request())
            assert (served.status, served.rest, served.outcome.status) == (500, answered.body, "miss")
            served.close()
            assert answered.body.closes == 1

    def test_hits_are_ready(self) -> None:
        with sync(plain()) as it:
            it.read(request())
            served = it.serve(request())
            assert (served.status, served.body, served.rest, served.close) == (200, PLAIN[0], None, None)
