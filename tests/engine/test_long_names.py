"""A model's name is as long as its caller pleases: upstream gets all of it, and what is kept of a call a part."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llm_proxy.config import load
from llm_proxy.engine.call import said_of
from llm_proxy.observe.events import NAME_CHARS, CallEvent, CheckEvent
from llm_proxy.observe.history import History
from llm_proxy.runtime import Runtime
from llm_proxy.types import ChatRequest, Outcome
from tests.drive_kit import plain
from tests.engine.attempts_kit import Attempting, proxied
from tests.engine.attempts_kit import rig as attempting
from tests.engine.flow_kit import Course
from tests.fakes import Rig, body_of, completion, request
from tests.observe.events_kit import NOW_S, miss

LONG = "m" * 300_000


def ask(model: str, **fields: Any) -> ChatRequest:
    return request("hi", model=model, **fields)


class TestEvents:
    def test_keep_the_beginning(self) -> None:
        event = miss(model=LONG)
        assert event.outcome == miss(model=LONG[:NAME_CHARS]).outcome
        assert replace(event, outcome=Outcome("miss", model=LONG)).outcome.model == LONG[:NAME_CHARS]

    def test_of_checks_too(self) -> None:
        check = CheckEvent(NOW_S, "shadow", "k", "a", "s", "auto", LONG, 0.9)
        assert check.model == LONG[:NAME_CHARS]

    def test_others_are_as_they_came(self) -> None:
        outcome = Outcome("miss", model="m" * NAME_CHARS)
        assert CallEvent(NOW_S, outcome, 1.0).outcome is outcome


class TestCalls:
    @pytest.fixture
    def taken(self) -> list[CallEvent]:
        return []

    @pytest.fixture
    def runtime(self, tmp_path: Path, taken: list[CallEvent]) -> Any:
        made = Runtime(load(cache={"directory": tmp_path, "semantic": False}, observe={"log": "json"}))
        made.add_sink(taken.append)
        yield made
        made.close()

    def test_all_who_are_told_hold_little(self, runtime: Any, taken: list[CallEvent]) -> None:
        sent = []

        def send(outgoing: Any) -> Any:
            sent.append(json.loads(outgoing.body or call.raw)["model"])
            return plain(body_of(completion(model=LONG)))

        for control in ("", "no-store", ""):
            call = ask(LONG, control=control)
            served = runtime.driver.serve(runtime.engine.answer(call), send)
            assert served.status == 200
            assert served.body or list(served.rest)
        assert sent == [LONG, LONG], "and one hit"
        assert [event.outcome.status for event in taken] == ["miss", "bypass", "hit"]
        assert all(len(repr(event)) < 2_000 for event in taken)

    def test_two_that_differ_late_are_two_models(self) -> None:
        rig = Rig({"cache": {"semantic": False}}, encoder=None)
        courses = [Course(rig, ask(LONG + end)) for end in "ab"]
        keys = {course.board().ticket.fingerprint.key for course in courses}
        assert len(keys) == 2

    def test_what_was_tried_fits_into_a_header(self) -> None:
        made = Attempting(attempting({"retries": 1, "fallbacks": ["spare"]}), proxied(f"main/{LONG}"))
        made.refuses(503)
        outcome = made.flight.ticket.outcome
        assert outcome.attempts.startswith("main/mmm")
        assert outcome.attempts.endswith("mmm 503")
        assert len(dict(outcome.headers)["x-llm-proxy-attempts"]) < 300
        assert json.loads(made.forwarded().body)["model"] == LONG


def test_attempts_that_are_short_are_said_as_they_are() -> None:
    assert said_of(("a/m 503", "b/m")) == "a/m 503, b/m"
    assert said_of(()) == ""


def test_many_names_within_a_minute_are_few_rows() -> None:
    history = History(None, now=lambda: NOW_S)
    for number in range(1_000):
        history(miss(model=f"m{number}"))
    (sums,) = history._fresh.values()
    assert len(sums.mix) <= 128
    assert sums.miss == sum(part.calls for part in sums.mix.values()) == 1_000
