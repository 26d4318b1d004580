"""A permit is given back once, whatever becomes of its request, with the tokens that it took."""

from __future__ import annotations

from typing import Any

import pytest

from llm_proxy.engine.permit import Permit
from llm_proxy.types import Usage
from tests.fakes import body_of, completion, events_of, head

TEXT = "text/event-stream"
NOTHING = Usage()


class Given:
    """A permit, and what it was given back with."""

    def __init__(self, limit_bytes: int = 1 << 20) -> None:
        self.back: list[Usage | None] = []
        self.permit = Permit(self.back.append, prompt_tokens=7, limit_bytes=limit_bytes)


@pytest.fixture
def given() -> Given:
    return Given()


def test_a_whole_answer_says_what_it_took(given: Given) -> None:
    body = body_of(completion())
    given.permit.opened(head())
    given.permit.passed(body[:40])
    given.permit.passed(body[40:])
    assert given.back == [], "there might be more"
    given.permit.ended()
    assert given.back == [Usage(10, 5)]
    given.permit.ended()
    given.permit.dropped()
    given.permit.passed(b"more")
    del given.permit
    assert len(given.back) == 1


def test_an_announced_length_is_an_end(given: Given) -> None:
    body = body_of(completion())
    given.permit.opened(head(content_length=str(len(body))))
    given.permit.passed(body)
    assert given.back == [Usage(10, 5)]


def test_a_stream_is_over_with_its_last_event(given: Given) -> None:
    given.permit.opened(head(content_type=TEXT))
    for event in events_of("a" * 21, "b"):
        given.permit.passed(event)
    assert given.back == [Usage(7, 6)], "22 characters, as it does not say how many tokens"


def test_tool_calls_count_by_their_length(given: Given) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "x" * 40}}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    value: dict[str, Any] = completion()
    value["choices"][0]["message"] = message
    del value["usage"]
    given.permit.opened(head())
    given.permit.passed(body_of(value))
    given.permit.ended()
    assert given.back == [Usage(7, 10)]


def test_a_stream_that_is_left_took_what_came(given: Given) -> None:
    given.permit.opened(head(content_type=TEXT))
    for event in events_of("a", "b", "c")[:2]:
        given.permit.passed(event)
    given.permit.dropped()
    assert given.back == [Usage(7, 2)]


@pytest.mark.parametrize("content_type", ["application/json", "text/plain"])
def test_of_other_answers_nobody_knows(given: Given, content_type: str) -> None:
    given.permit.opened(head(content_type=content_type))
    given.permit.passed(b'{"cut')
    given.permit.dropped()
    assert given.back == [None]


def test_one_that_is_damaged_or_too_long(given: Given) -> None:
    given.permit.opened(head())
    given.permit.passed(b"no JSON")
    given.permit.ended()
    assert given.back == [None]
    long = Given(limit_bytes=10)
    long.permit.opened(head())
    long.permit.passed(body_of(completion()))
    long.permit.ended()
    assert long.back == [None]


def test_errors_cost_nothing(given: Given) -> None:
    given.permit.opened(head(status=429))
    given.permit.passed(b"{}")
    given.permit.ended()
    assert given.back == [NOTHING]


def test_what_was_never_answered_costs_nothing(given: Given) -> None:
    given.permit.dropped()
    assert given.back == [NOTHING]


def test_one_that_nobody_holds_is_given_back(given: Given) -> None:
    given.permit.opened(head(content_type=TEXT))
    del given.permit
    assert given.back == [None]
