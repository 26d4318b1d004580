from __future__ import annotations

import gzip
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion

from llm_proxy.wire.recorder import Recorder, recorder_for

JSON = dict[str, Any]
TRANSCRIPTS = Path(__file__).parent / "transcripts"
GOOD = sorted(path.stem for path in TRANSCRIPTS.glob("*.json"))
FAILED = {
    "fails_error_event": "error",
    "fails_named_error": "error",
    "fails_cut": "truncated",
    "fails_cut_after_finish": "truncated",
    "fails_not_json": "damaged",
}
STREAM = [("content-type", "text/event-stream; charset=utf-8")]
PLAIN = [("content-type", "application/json")]
ANSWER = b'{ "id": "c1",\n "choices": [{"message": {"role": "assistant", "content": "\\u00e9"}}] }\n'


def stream_of(name: str) -> bytes:
    return (TRANSCRIPTS / f"{name}.sse").read_bytes()


def expected_of(name: str) -> JSON:
    value = json.loads((TRANSCRIPTS / f"{name}.json").read_bytes())
    assert isinstance(value, dict)
    return value


def recorder(headers: list[tuple[str, str]], limit_bytes: int = 1 << 20) -> Recorder:
    found = recorder_for(headers, limit_bytes=limit_bytes)
    assert found is not None
    return found


def feed(found: Recorder, data: bytes, cuts: list[int]) -> int:
    """Feed the data cut at these places, and its end; returns how often the recording became complete."""
    edges = [0, *sorted(cuts), len(data)]
    times = sum(found.feed(data[start:end]) for start, end in pairwise(edges))
    return times + found.end() + found.end()


def cuts_of(data: bytes) -> st.SearchStrategy[list[int]]:
    return st.lists(st.integers(0, len(data)), max_size=10)


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("name", GOOD)
@given(data=st.data())
def test_transcripts(name: str, line_end: bytes, data: st.DataObject) -> None:
    stream = stream_of(name).replace(b"\n", line_end)
    found = recorder(STREAM)
    assert feed(found, stream, data.draw(cuts_of(stream))) == 1
    assert (found.is_stream, found.is_complete, found.is_overflowed, found.reason) == (True, True, False, "")
    assert found.bytes_seen == len(stream)
    assert found.completion() == expected_of(name)
    assert list(found.completion() or ()) == list(expected_of(name))
    raw = found.raw_completion()
    assert raw is not None
    assert json.loads(raw) == expected_of(name)
    ChatCompletion.model_validate_json(raw)


@pytest.mark.parametrize("name", FAILED)
@given(data=st.data())
def test_transcripts_of_failures(name: str, data: st.DataObject) -> None:
    stream = stream_of(name)
    found = recorder(STREAM)
    assert feed(found, stream, data.draw(cuts_of(stream))) == 0
    assert (found.reason, found.is_complete) == (FAILED[name], False)
    assert (found.completion(), found.raw_completion()) == (None, None)


@pytest.mark.parametrize("name", GOOD)
def test_complete_with_the_terminal_event_and_not_before(name: str) -> None:
    stream = stream_of(name)
    found = recorder(STREAM)
    seen = [found.feed(stream[at : at + 1]) for at in range(len(stream))]
    is_done_sent = stream.endswith(b"[DONE]\n\n")
    assert seen == [False] * (len(stream) - 1) + [is_done_sent]
    assert found.end() is not is_done_sent
    assert found.feed(b'data: {"error": {}}\n\n') is False
    assert found.is_complete


@pytest.mark.parametrize("ending", [b"data: [DONE]\n", b"data: [DONE]", b"data:[DONE]\r"])
def test_a_last_event_without_blank_line(ending: bytes) -> None:
    stream = stream_of("openai_text").removesuffix(b"data: [DONE]\n\n")
    found = recorder(STREAM)
    assert not found.feed(stream + ending)
    assert found.end()


@pytest.mark.parametrize(
    ("stream", "reason"),
    [
        (b"", "truncated"),
        (b"data: 5\n\n", "damaged"),
        (b"data: \n\n", "damaged"),
        (b"data: <html>\n\n", "damaged"),
        (b'data: {"choices": 5}\n\n', "damaged"),
        (b'data: {"choices": [], "x": "\xff"}\n\n', "damaged"),
        (b'data: {"x": ' + b"[" * 100_000 + b"\n\n", "damaged"),
        (b'data: {"error": "x"}\n\ndata: [DONE]\n\n', "error"),
    ],
)
def test_bad_streams(stream: bytes, reason: str) -> None:
    found = recorder(STREAM)
    assert feed(found, stream, []) == 0
    assert found.reason == reason


def test_a_stream_nested_too_deeply_to_be_written_is_damaged() -> None:
    depth = 600  # the reader of JSON takes it; walking it takes more stack than there is
    chunk = b'{"choices":[{"delta":{"x":' + b'{"y":' * depth + b"1" + b"}" * depth + b"}}]}"
    found = recorder(STREAM)
    assert feed(found, b"data: " + chunk + b"\n\ndata: [DONE]\n\n", []) == 0
    assert (found.reason, found.completion()) == ("damaged", None)


def test_lone_surrogates_survive() -> None:
    found = recorder(STREAM)
    assert found.feed(b'data: {"choices":[{"delta":{"content":"\\ud800x"}}]}\n\ndata: [DONE]\n\n')
    raw = found.raw_completion()
    assert raw is not None
    assert json.loads(raw)["choices"][0]["message"]["content"] == "\ud800x"
    assert json.loads(raw) == found.completion()


@given(cuts_of(ANSWER))
def test_a_plain_body_is_kept_as_it_came(cuts: list[int]) -> None:
    found = recorder(PLAIN)
    assert feed(found, ANSWER, cuts) == 1
    assert (found.is_stream, found.raw_completion(), found.completion()) == (False, ANSWER, json.loads(ANSWER))


def test_content_length_says_when_a_plain_body_is_complete() -> None:
    found = recorder([*PLAIN, ("content-length", str(len(ANSWER)))])
    assert not found.feed(ANSWER[:-1])
    assert found.feed(ANSWER[-1:])
    assert not found.end()
    assert found.raw_completion() == ANSWER


def test_a_compressed_plain_body() -> None:
    packed = gzip.compress(ANSWER)
    headers = [*PLAIN, ("content-encoding", "gzip")]
    for length in ([], [("content-length", str(len(packed)))]):
        found = recorder(headers + length)
        assert feed(found, packed, [3]) == 1
        assert found.raw_completion() == ANSWER
    found = recorder([*headers, ("content-length", str(len(packed) - 1))])
    assert feed(found, packed[:-1], []) == 0
    assert found.reason == "truncated"


@pytest.mark.parametrize("lie", [1, -1])
def test_a_content_length_that_lies(lie: int) -> None:
    found = recorder([*PLAIN, ("content-length", str(len(ANSWER) + lie))])
    assert not found.feed(ANSWER)
    assert not found.end()
    assert found.reason == "truncated"


@pytest.mark.parametrize("lengths", [["x"], ["-5"], ["5", "6"], ["9" * 5000]])
def test_a_content_length_that_says_nothing(lengths: list[str]) -> None:
    found = recorder(PLAIN + [("content-length", length) for length in lengths])
    assert feed(found, ANSWER, []) == 1


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "damaged"),
        (b"[]", "damaged"),
        (b"<html>", "damaged"),
        (b'{"a": "\xff"}', "damaged"),
        (b'{"a": 1', "damaged"),
        (b"[" * 100_000, "damaged"),
        (b'{"error": {"message": "as 200"}}', "error"),
    ],
)
def test_bad_plain_bodies(body: bytes, reason: str) -> None:
    found = recorder(PLAIN)
    assert feed(found, body, []) == 0
    assert (found.reason, found.completion(), found.raw_completion()) == (reason, None, None)


@pytest.mark.parametrize("encoding", ["gzip", "br", "zstd", "deflate"])
def test_bytes_that_are_not_of_their_coding(encoding: str) -> None:
    found = recorder([*STREAM, ("content-encoding", encoding)])
    assert feed(found, b"<html>not compressed</html>" * 20, []) == 0
    assert found.reason == "damaged"


def test_a_compressed_stream() -> None:
    packed = gzip.compress(stream_of("openai_text"))
    found = recorder([*STREAM, ("content-encoding", "gzip")])
    assert feed(found, packed, list(range(len(packed)))) == 1
    assert found.completion() == expected_of("openai_text")
    packed = gzip.compress(stream_of("no_done"))
    found = recorder([*STREAM, ("content-encoding", "gzip")])
    assert feed(found, packed[:-4], []) == 0
    assert found.reason == "truncated"


def test_what_is_too_large_is_given_up() -> None:
    stream, raw = stream_of("openai_text"), len(json.dumps(expected_of("openai_text"), separators=(",", ":")))
    for limit_bytes, is_complete in [(raw, True), (300, False), (20, False)]:
        found = recorder(STREAM, limit_bytes)
        assert feed(found, stream, [500]) == is_complete
        assert found.is_overflowed is not is_complete
        assert (found.completion() is None) is not is_complete
    plain = recorder(PLAIN, len(ANSWER) - 1)
    assert feed(plain, ANSWER, [5]) == 0
    assert (plain.reason, plain.bytes_seen) == ("too-large", len(ANSWER))
    assert feed(recorder(PLAIN, len(ANSWER)), ANSWER, [5]) == 1


def test_a_bomb_is_given_up() -> None:
    found = recorder([*PLAIN, ("content-encoding", "gzip")])
    assert feed(found, gzip.compress(bytes(32 << 20)), []) == 0
    assert found.is_overflowed


@pytest.mark.parametrize(
    ("headers", "kind"),
    [
        ([], None),
        ([("content-type", "text/html")], None),
        ([("content-type", "application/json"), ("content-type", "text/html")], None),
        ([("content-type", "application/json"), ("content-type", "application/json")], False),
        ([("content-type", "Application/JSON ; charset=utf-8")], False),
        ([("content-type", "application/vnd.x+json")], False),
        ([("content-type", "TEXT/Event-Stream")], True),
        ([*STREAM, ("content-encoding", "gzip"), ("content-encoding", "identity")], True),
        ([*STREAM, ("content-encoding", "gzip"), ("content-encoding", "rot13")], None),
    ],
)
def test_which_bodies_are_recorded(headers: list[tuple[str, str]], kind: bool | None) -> None:
    found = recorder_for(headers, limit_bytes=10)
    assert (None if found is None else found.is_stream) == kind


@given(st.sampled_from([STREAM, PLAIN, [*PLAIN, ("content-encoding", "gzip")]]), st.lists(st.binary(), max_size=5))
def test_no_bytes_raise(headers: list[tuple[str, str]], chunks: list[bytes]) -> None:
    found = recorder(headers)
    for chunk in chunks:
        found.feed(chunk)
    found.end()
    assert found.is_complete is (found.completion() is not None)


FIELDS = [
    "choices", "delta", "index", "tool_calls", "logprobs", "function", "name", "id", "usage", "finish_reason",
    "arguments",
]  # fmt: skip
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=4),
)


@given(VALUES)
def test_no_values_raise(value: object) -> None:
    for chunk in (value, {"choices": [value, value]}, {"choices": [{"delta": value}, {"delta": value}]}):
        found = recorder(STREAM)
        feed(found, b"data: " + json.dumps(chunk).encode() + b"\n\ndata: [DONE]\n\n", [])
        assert found.reason in {"", "damaged", "error"}
