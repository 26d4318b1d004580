"""A permit is given back once, whatever becomes of its request, with the tokens that it took."""

from __future__ import annotations

from typing import Any

import pytest

from llm_proxy.engine.permit import Permit
from llm_proxy.types import CHAT, Usage
from tests.fakes import body_of, completion, events_of, head

TEXT = "text/event-stream"
NOTHING = Usage()


class Given:
    """A permit, and what it was given back with."""

    def __init__(self, limit_bytes: int = 1 << 20, api: str = CHAT) -> None:
        self.back: list[Usage | None] = []
        self.model: str | None = None
        self.permit = Permit(self.over, prompt_tokens=7, limit_bytes=limit_bytes, api=api)

    def over(self, usage: Usage | None, model: str) -> None:
        self.back.append(usage)
        self.model = model


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


@pytest.mark.parametrize(
    ("usage", "back"),
    [
        ({"prompt_tokens": 10, "completion_tokens": -5}, Usage(10, 10)),
        ({"prompt_tokens": "ten", "completion_tokens": 5}, Usage(7, 5)),
        ({"prompt_tokens": 0, "completion_tokens": 0}, NOTHING),
        ({"prompt_tokens": None, "completion_tokens": 1 << 60}, Usage(7, 10)),
    ],
)
def test_a_broken_count_is_estimated_and_the_other_kept(given: Given, usage: dict[str, Any], back: Usage) -> None:
    given.permit.opened(head())
    given.permit.passed(body_of(completion("x" * 40, usage=usage)))
    given.permit.ended()
    assert given.back == [back]


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


SAID = {"type": "message", "content": [{"type": "output_text", "text": "x" * 40}]}
CALLED = {"type": "function_call", "name": "f", "arguments": "x" * 40}


@pytest.mark.parametrize(
    ("api", "answer", "tokens"),
    [
        ("completions", {"choices": [{"index": 0, "text": "x" * 40, "finish_reason": "stop"}]}, 10),
        ("responses", {"status": "completed", "output": [SAID, CALLED], "usage": None}, 20),
        ("responses", {"status": "queued", "output": [], "usage": None}, None),
    ],
    ids=["text", "response", "background"],
)
def test_answers_of_other_apis_that_do_not_say_it(api: str, answer: dict[str, Any], tokens: int | None) -> None:
    given = Given(api=api)
    given.permit.opened(head())
    given.permit.passed(body_of(answer))
    given.permit.ended()
    assert given.back == [None if tokens is None else Usage(7, tokens)], "None: as much as was set aside"


def test_a_text_that_is_streamed_counts_by_its_length() -> None:
    given = Given(api="completions")
    given.permit.opened(head(content_type=TEXT))
    for finish in (None, "stop"):
        chunk = {"choices": [{"index": 0, "text": "x" * 20, "logprobs": None, "finish_reason": finish}]}
        given.permit.passed(b"data: " + body_of(chunk) + b"\n\n")
    given.permit.passed(b"data: [DONE]\n\n")
    assert given.back == [Usage(7, 10)]


@pytest.mark.parametrize(("model", "told"), [("m-2024", "m-2024"), (5, ""), (None, "")])
def test_who_answered_is_told(given: Given, model: Any, told: str) -> None:
    given.permit.opened(head())
    given.permit.passed(body_of({**completion(), "model": model}))
    given.permit.ended()
    assert (given.back, given.model) == ([Usage(10, 5)], told)


@pytest.mark.parametrize("choices", [5, ["x"], [{"message": "x"}], [{"message": {"tool_calls": [1, {"function": 2}]}}]])
def test_an_answer_in_no_known_form_breaks_nothing(given: Given, choices: Any) -> None:
    given.permit.opened(head())
    given.permit.passed(body_of({"choices": choices}))
    given.permit.ended()
    assert given.back == [Usage(7, 0)]


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
