"""Threads that ask the same share an answer, and no one of them depends on another."""

from __future__ import annotations

import gc
import threading
from typing import Any

import pytest

from llm_proxy.testing import FakeEncoder
from tests.drive_kit import (
    PIECES,
    PLAIN,
    SLOW_S,
    SSE,
    Together,
    aboard,
    nothing_is_left_running,
    plain,
    rest_of,
    streamed,
    sync,
    until,
)
from tests.fakes import FakeCache, Found, entry, head, request

_nothing_is_left_running = pytest.fixture(autouse=True)(nothing_is_left_running)


class TestSharing:
    @pytest.mark.parametrize("is_stream", [True, False])
    def test_identical_calls_are_one_upstream(self, is_stream: bool) -> None:
        with sync(streamed() if is_stream else plain()) as it:
            it.upstream.open.clear()
            calls = Together(*[lambda: it.read(request(stream=is_stream))] * 8)
            until(lambda: aboard(it.flights) == 8)
            it.upstream.open.set()
            results = calls.results()
            assert {body for _, body in results} == {b"".join(PIECES if is_stream else PLAIN)}
            assert len(it.upstream.calls) == 1
            assert sorted(served.outcome.is_shared for served, _ in results) == [False] + [True] * 7
            assert (len(it.rig.cache.entries), len(it.rig.events)) == (1, 8)
            assert [event.error for event in it.rig.events] == [""] * 8
            assert {event.outcome.is_stored for event in it.rig.events} == {True}

    @pytest.mark.parametrize("is_stream", [True, False])
    def test_the_body_is_closed_at_its_end(self, is_stream: bool) -> None:
        answered = streamed() if is_stream else plain()
        with sync(answered) as it:
            it.read(request(stream=is_stream))
            assert answered.body.closes >= 1, "else its connection is never free again"

    def test_who_leaves_does_not_harm_the_others(self) -> None:
        gate = threading.Semaphore(1)
        with sync(streamed(gate=gate)) as it:
            leader, follower = it.serve(request(stream=True)), it.serve(request(stream=True))
            assert next(leader.rest) == PIECES[0]
            leader.close()
            assert list(leader.rest) == []
            gate.release(9)
            assert rest_of(follower) == b"".join(PIECES)
            assert len(it.rig.cache.entries) == 1
            assert [(event.error, event.outcome.is_shared) for event in it.rig.events] == [("", False), ("", True)]

    def test_when_all_leave_the_call_is_called_off(self) -> None:
        answered = streamed()
        with sync(answered) as it:
            one, two = it.serve(request(stream=True)), it.serve(request(stream=True))
            next(one.rest)
            one.close()
            assert answered.body.closes == 0
            two.close()
            two.close()
            assert answered.body.closes == 1
            assert it.rig.cache.entries == {}
            assert [(event.error, event.outcome.is_stored) for event in it.rig.events] == [
                ("aborted", False if not event.outcome.is_shared else event.outcome.is_stored)
                for event in it.rig.events
            ]
            assert len(it.flights) == 0

    def test_a_body_that_cannot_be_closed_is_left(self) -> None:
        with sync(head(iter(PIECES), content_type=SSE)) as it:
            it.serve(request(stream=True)).close()
            assert it.rig.event.error == "aborted"

    def test_trouble_is_not_shared(self) -> None:
        with sync(OSError("refused"), plain) as it:
            it.upstream.open.clear()
            it.upstream.meet = threading.Barrier(3)  # those who go on do so at the same time
            calls = Together(*[lambda: it.read(request())] * 4)
            until(lambda: aboard(it.flights) == 4)
            it.upstream.open.set()
            results = calls.results()
            assert sum(isinstance(result, OSError) for result in results) == 1
            assert len(it.upstream.calls) == 4
            assert sorted(event.error for event in it.rig.events) == ["", "", "", "OSError"]

    def test_a_plain_answer_that_breaks_off_fails_one_caller(self) -> None:
        gate = threading.Semaphore(0)
        with sync(plain(PLAIN[0][:9], OSError("reset"), gate=gate), plain) as it:
            calls = Together(*[lambda: it.read(request())] * 3)
            until(lambda: aboard(it.flights) == 3)
            gate.release(9)
            results = calls.results()
            assert sum(isinstance(result, OSError) for result in results) == 1
            assert len(it.upstream.calls) in (2, 3), "or the third finds what the second stored"

    def test_a_stream_that_breaks_off_does_so_for_all(self) -> None:
        error = OSError("reset")
        answered = streamed(PIECES[0], error)
        with sync(answered) as it:
            readers = [it.serve(request(stream=True)).rest for _ in range(2)]
            for reader in readers:
                assert next(reader) == PIECES[0]
                with pytest.raises(OSError, match="reset"):
                    next(reader)
                assert list(reader) == []
            assert (it.rig.cache.entries, answered.body.closes) == ({}, 1)
            assert [event.error for event in it.rig.events] == ["OSError"] * 2

    def test_another_form_waits_for_the_entry(self) -> None:
        gate = threading.Semaphore(0)
        call = {"stream_options": {"include_usage": True}}
        with sync(streamed(gate=gate)) as it:
            leader = it.serve(request(stream=True, **call))
            calls = Together(*[lambda: it.read(request())] * 2)
            until(lambda: aboard(it.flights) == 3)
            gate.release(9)
            results = calls.results()
            assert {served.outcome.cache_status for served, _ in results} == {'llm-proxy; hit; detail="exact"'}
            assert b"one two three" in results[0][1]
            assert rest_of(leader) == b"".join(PIECES)
            assert len(it.upstream.calls) == 1

    def test_a_slow_reader_blocks_nobody(self) -> None:
        with sync(streamed()) as it:
            slow, fast = it.serve(request(stream=True)), it.serve(request(stream=True))
            assert next(slow.rest) == PIECES[0]
            assert rest_of(fast) == b"".join(PIECES)
            assert b"".join(slow.rest) == b"".join(PIECES[1:])

    def test_who_waits_gets_its_chunk_while_another_pulls_on(self) -> None:
        gate = threading.Semaphore(0)
        answered = streamed(gate=gate)
        with sync(answered) as it:
            eager, other = it.serve(request(stream=True)), it.serve(request(stream=True))
            calls = Together(lambda: rest_of(eager), lambda: next(other.rest))
            until(lambda: answered.body.pulls == 1)
            gate.release()
            assert calls.futures[1].result(SLOW_S) == PIECES[0]
            until(lambda: answered.body.pulls == 2)
            gate.release(9)
            assert calls.results()[0] == b"".join(PIECES)
            assert rest_of(other) == b"".join(PIECES[1:])

    def test_waiting_has_an_end(self) -> None:
        with sync(plain) as it:
            it.upstream.open.clear()
            calls = Together(*[lambda: it.read(request(timeout_s=0.02))] * 2)
            until(lambda: len(it.upstream.calls) == 2)
            it.upstream.open.set()
            assert [served.outcome.is_shared for served, _ in calls.results()] == [False, False]

    def test_only_the_equally_patient_share(self) -> None:
        with sync(streamed) as it:
            patient, hasty = it.serve(request(stream=True)), it.serve(request(stream=True, timeout_s=1))
            assert rest_of(patient) == rest_of(hasty)
            assert len(it.upstream.calls) == 2

    def test_a_miss_that_looked_too_early_looks_again(self) -> None:
        class Early(FakeCache):
            looks = 0

            def get(self, key: str) -> Any:
                self.looks += 1
                return None if self.looks in (1, 2) else super().get(key)

        with sync(plain(), cache=Early()) as it:
            it.read(request())
            assert it.read(request())[0].outcome.kind == "exact"
            assert (it.rig.cache.looks, len(it.upstream.calls)) == (3, 1)

    def test_the_memory_of_landings_is_short(self) -> None:
        with sync(plain) as it:
            for number in range(1030):
                it.read(request(str(number)))
            assert len(it.flights._landed) == 1024

    def test_an_answer_that_is_dropped_unread_holds_up_nobody(self) -> None:
        with sync(streamed) as it:
            served = it.serve(request(stream=True))
            del served
            gc.collect()
            assert it.read(request(stream=True))[1] == b"".join(PIECES)
            assert len(it.upstream.calls) == 2

    @pytest.mark.parametrize("is_early", [True, False])
    def test_an_interrupted_thread_does_not_take_the_others_along(self, is_early: bool) -> None:
        answers = [KeyboardInterrupt()] if is_early else [streamed(PIECES[0], KeyboardInterrupt())]
        with sync(*answers, streamed) as it:
            it.upstream.open.clear()
            calls = Together(*[lambda: it.read(request(stream=True))] * 2)
            until(lambda: aboard(it.flights) == 2)
            it.upstream.open.set()
            results = calls.results()
            assert sum(isinstance(result, KeyboardInterrupt) for result in results) == 1
            other = next(result for result in results if not isinstance(result, KeyboardInterrupt))
            if isinstance(other, Exception):
                assert isinstance(other, ConnectionAbortedError), "cut, and visibly so"
            else:
                assert other[1] == b"".join(PIECES)
            assert len(it.flights) == 0

    def test_a_reader_may_be_closed_from_another_thread(self) -> None:
        gate = threading.Semaphore(0)
        answered = streamed(gate=gate)
        with sync(answered) as it:
            served = it.serve(request(stream=True))
            calls = Together(lambda: list(served.rest))
            until(lambda: answered.body.pulls == 1)
            served.close()
            assert answered.body.closes == 1
            gate.release(9)
            assert calls.results()[0] in ([], [PIECES[0]])
            assert it.rig.event.error == "aborted"

    def test_a_thread_that_waits_for_another_ends_when_both_readers_are_closed(self) -> None:
        gate = threading.Semaphore(0)
        answered = streamed(gate=gate)
        with sync(answered) as it:
            readers = [it.serve(request(stream=True)) for _ in range(2)]
            calls = Together(*[lambda served=served: list(served.rest) for served in readers])
            until(lambda: answered.body.pulls == 1)
            for served in readers:
                served.close()
            until(lambda: any(future.done() for future in calls.futures))
            gate.release(9)
            assert [] in calls.results()

    def test_followers_of_a_leader_who_finds_the_answer(self) -> None:
        class Slow(FakeEncoder):
            go = threading.Event()

            def encode(self, text: str) -> Any:
                assert self.go.wait(SLOW_S)
                return super().encode(text)

        with sync(encoder=Slow(), sections={"encoder": {"wait_s": 5}}) as it:
            it.rig.cache.found = Found(entry(), 0.99)
            calls = Together(*[lambda: it.read(request())] * 3)
            until(lambda: aboard(it.flights) == 3)
            Slow.go.set()
            assert {served.outcome.kind for served, _ in calls.results()} == {"semantic"}
            assert len(it.rig.encoder.texts) == 1
