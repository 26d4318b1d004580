"""Completions of before chat on the wire: what may be stored, and that plain and streamed answers are the same one."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llm_proxy.errors import WireError
from llm_proxy.types import ChatRequest
from llm_proxy.wire.apis import parse_call, recorder_for, replay_as
from llm_proxy.wire.completions import TextChunks, rejection
from tests.apis_kit import events_of, sse, text_chunks, text_completion

STREAM = [("content-type", "text/event-stream")]
LOGPROBS = {"tokens": ["One ", "and"], "token_logprobs": [None, -0.5], "top_logprobs": None, "text_offset": [0, 4]}


def asked(**fields: Any) -> ChatRequest:
    body = {"model": "m", "prompt": "One", **fields}
    return parse_call(json.dumps(body).encode(), api="completions", headers={})


def recorded(*pieces: bytes) -> tuple[str, Any]:
    recorder = recorder_for(STREAM, limit_bytes=1 << 20, api="completions")
    assert recorder is not None
    for piece in pieces:
        recorder.feed(piece)
    recorder.end()
    return recorder.reason, recorder.completion()


def whole(**fields: Any) -> dict[str, Any]:
    return text_completion({"model": "m", "prompt": "One", **fields}, 1)


@pytest.mark.parametrize(
    ("fields", "texts"),
    [
        ({"prompt": "One"}, ["One"]),
        ({"prompt": ["One", "Two"]}, ["One", "Two"]),
        ({"prompt": [1, 2]}, []),
        ({"prompt": None}, []),
    ],
)
def test_prompts_are_measured_as_messages(fields: dict[str, Any], texts: list[str]) -> None:
    assert [message["content"] for message in asked(**fields).messages] == texts


@pytest.mark.parametrize(
    ("fields", "words"), [({"model": ""}, "'model' is ''"), ({"prompt": 7}, "'prompt' is 7"), ({"prompt": {}}, "empty")]
)
def test_a_body_of_wrong_types_is_none(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(WireError, match=words):
        asked(**fields)


@pytest.mark.parametrize("fields", [{}, {"n": 2}, {"prompt": ["One", "Two"], "n": 2}, {"echo": True}])
@pytest.mark.parametrize("has_usage", [False, True])
def test_a_stream_is_put_together_to_the_plain_answer(fields: dict[str, Any], *, has_usage: bool) -> None:
    plain = whole(**fields)
    pieces = [sse(chunk) for chunk in text_chunks(plain, has_usage=has_usage)]
    expected = plain if has_usage else {name: value for name, value in plain.items() if name != "usage"}
    assert recorded(*pieces, b"data: [DONE]\n\n") == ("", expected)
    assert recorded(*pieces) == ("", expected)  # it ended without [DONE], after every choice had its reason


def test_a_stream_that_breaks_off_is_cut() -> None:
    pieces = [sse(chunk) for chunk in text_chunks(whole(), has_usage=False)]
    assert recorded(*pieces[:-1]) == ("truncated", None)


def test_log_probabilities_grow_with_the_text() -> None:
    chunks = TextChunks()
    first = {"tokens": ["One "], "token_logprobs": [None], "top_logprobs": None, "text_offset": [0]}
    second = {"tokens": ["and"], "token_logprobs": [-0.5], "top_logprobs": None, "text_offset": [4]}
    chunks.add({"id": "c", "model": "", "choices": [{"index": 0, "text": "One ", "logprobs": first}]})
    chunks.add({"id": "c", "model": "m", "choices": [{"index": 0, "text": "and", "logprobs": second}]})
    chunks.add({"id": "", "choices": [{"text": None, "finish_reason": "stop", "prompt_logprobs": {"a": 1}}]})
    choice = {"index": 0, "text": "One and", "logprobs": LOGPROBS, "finish_reason": "stop", "prompt_logprobs": {"a": 1}}
    assert chunks.completion() == {"id": "c", "model": "m", "choices": [choice]}


def test_an_index_that_is_no_number_is_damage() -> None:
    assert recorded(b'data: {"choices": [{"index": "0", "text": "x"}]}\n\n') == ("damaged", None)


@pytest.mark.parametrize(
    ("body", "answer", "reason"),
    [
        ({}, whole(), ""),
        ({"n": 2}, whole(n=2), ""),
        ({"n": 2}, whole(), "no-choices"),
        ({"prompt": ["a", "b"]}, whole(), "no-choices"),
        ({"prompt": [[1], [2]]}, whole(prompt=["a", "b"]), ""),
        ({"prompt": [1, 2]}, whole(), ""),
        ({"prompt": []}, whole(), ""),
        ({}, {"error": {"message": "x"}}, "error"),
        ({}, {"choices": "x"}, "no-choices"),
        ({}, {"choices": ["x"]}, "malformed"),
        ({}, {"choices": [{"text": None, "finish_reason": "stop"}]}, "malformed"),
        ({}, {"choices": [{"text": " ", "finish_reason": "stop"}]}, "empty"),
        ({}, {"choices": [{"text": "x", "finish_reason": "length"}]}, "finish-length"),
        ({}, {"choices": [{"text": "x", "finish_reason": "content_filter"}]}, "finish-content-filter"),
        ({}, {"choices": [{"text": "x", "finish_reason": None}]}, "finish-unknown"),
        ({"echo": True, "max_tokens": 0}, {"choices": [{"text": "x", "finish_reason": "length"}]}, ""),
        ({"echo": True, "max_tokens": 1}, {"choices": [{"text": "x", "finish_reason": "length"}]}, "finish-length"),
    ],
)
def test_what_may_be_stored(body: dict[str, Any], answer: dict[str, Any], reason: str) -> None:
    assert rejection(answer, {"model": "m", "prompt": "One", **body}) == reason


@pytest.mark.parametrize("has_usage", [False, True])
@pytest.mark.parametrize("fields", [{}, {"prompt": ["One", "Two"], "n": 2}])
def test_a_replayed_stream_is_read_back(fields: dict[str, Any], *, has_usage: bool) -> None:
    options = {"stream_options": {"include_usage": True}} if has_usage else {}
    plain = whole(**fields)
    answer = replay_as(json.dumps(plain).encode(), asked(stream=True, **options, **fields))
    expected = plain if has_usage else {name: value for name, value in plain.items() if name != "usage"}
    assert answer.body.endswith(b"data: [DONE]\n\n")
    assert recorded(answer.body) == ("", expected)
    assert ("usage" in events_of(answer.body)[0]) is has_usage


def test_log_probabilities_are_replayed_with_their_text() -> None:
    choice = {"text": "One and", "index": 0, "logprobs": LOGPROBS, "finish_reason": "stop"}
    plain = {"id": "c", "object": "text_completion", "created": 1, "model": "m", "choices": [choice]}
    answer = replay_as(json.dumps(plain).encode(), asked(stream=True, stream_options={"include_usage": True}))
    first, last = (chunk["choices"][0] for chunk in events_of(answer.body))
    assert (first["text"], first["logprobs"], last["text"], last["finish_reason"]) == ("One and", LOGPROBS, "", "stop")
    assert recorded(answer.body) == ("", plain)


def test_a_plain_answer_is_the_stored_one() -> None:
    assert replay_as(b'{"choices": [ ]}', asked()) == ("application/json", b'{"choices": [ ]}')


def test_damage_is_told() -> None:
    with pytest.raises(WireError, match="can't be streamed"):
        replay_as(b'{"choices": [{}]}', asked(stream=True))
