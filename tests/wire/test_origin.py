"""Streams whose chunks say that they are of more than one answer: read to the end, but nobody's to keep."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llm_proxy.wire.apis import recorder_for
from llm_proxy.wire.origin import Origin
from llm_proxy.wire.recorder import Recorder

STREAM = [("content-type", "text/event-stream")]
PLAIN = [("content-type", "application/json")]


def is_mixed(*chunks: dict[str, Any]) -> bool:
    origin = Origin()
    for chunk in chunks:
        origin.add(chunk)
    return origin.is_mixed


def ids(text: str) -> list[dict[str, Any]]:
    return [{"id": letter, "model": "m"} for letter in text]


@pytest.mark.parametrize("text", ["", "A", "AAAA", "ABC", "ABCDEFGH"])
def test_one_id_or_one_for_each_chunk_is_one_answer(text: str) -> None:
    assert not is_mixed(*ids(text))


@pytest.mark.parametrize("text", ["AB", "AABB", "ABAB", "AAAB", "ABBB", "AABC", "ABCA"])
def test_ids_that_differ_and_come_again_are_two_answers(text: str) -> None:
    assert is_mixed(*ids(text))


@pytest.mark.parametrize("chunk", [{"id": "", "model": ""}, {"id": None, "model": None}, {}, {"id": 7, "model": ["m"]}])
def test_a_chunk_that_does_not_say_counts_for_nothing(chunk: dict[str, Any]) -> None:
    assert not is_mixed(chunk, *ids("AA"), chunk)


def test_two_models_are_two_answers() -> None:
    assert is_mixed({"id": "a", "model": "m"}, {"id": "a", "model": "n"}, {"id": "a", "model": "n"})
    assert not is_mixed({"id": "a", "model": ""}, {"id": "a", "model": "m"}, {"id": "a", "model": "m"})


def test_ids_of_a_long_stream_take_no_room_without_end() -> None:
    origin = Origin()
    for number in range(5_000):
        origin.add({"id": f"chunk-{number}"})
    assert not origin.is_mixed
    assert len(origin._ids) == 256
    origin.add({"id": "chunk-7"})
    assert origin.is_mixed


def chunk(text: str, id: str, **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": {"content": text}, "text": text, "finish_reason": more.pop("finish", None)}
    return {"id": id, "model": "m", "choices": [choice], **more}


def recorded(api: str, *chunks: dict[str, Any]) -> Recorder:
    found = recorder_for(STREAM, limit_bytes=1 << 20, api=api)
    assert found is not None
    found.feed(b"".join(b"data: " + json.dumps(one).encode() + b"\n\n" for one in chunks) + b"data: [DONE]\n\n")
    return found


@pytest.mark.parametrize("api", ["chat", "completions"])
@pytest.mark.parametrize(("second", "expected"), [("a", False), ("b", True)])
def test_a_recording_knows(api: str, second: str, expected: bool) -> None:
    usage = {"prompt_tokens": 1, "completion_tokens": 2}
    found = recorded(api, chunk("one", "a"), chunk(" two", second), chunk("", "a", finish="stop", usage=usage))
    assert (found.is_complete, found.is_mixed) == (True, expected)
    completion = found.completion()
    assert completion is not None
    assert completion["usage"] == usage, "its tokens are counted even so"


@pytest.mark.parametrize(("last", "expected"), [("resp_1", False), ("resp_2", True)])
def test_responses_are_known_by_their_first_and_last_event(last: str, expected: bool) -> None:
    item = {"type": "message", "content": [{"type": "output_text", "text": "hi"}]}
    found = recorded(
        "responses",
        {"type": "response.created", "response": {"id": "resp_1", "model": "m", "output": []}},
        {"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": "hi"},
        {"type": "response.completed", "response": {"id": last, "model": "m", "output": [item]}},
    )
    assert (found.is_complete, found.is_mixed) == (True, expected)


def test_a_plain_answer_is_one() -> None:
    found = recorder_for(PLAIN, limit_bytes=1 << 20)
    assert found is not None
    found.feed(b'{"id": "a", "choices": []}')
    assert (found.end(), found.is_mixed) == (True, False)
