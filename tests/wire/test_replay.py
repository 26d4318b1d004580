from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import openai
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from llm_proxy.errors import WireError
from llm_proxy.types import ChatRequest
from llm_proxy.wire.chat import parse_request
from llm_proxy.wire.recorder import recorder_for
from llm_proxy.wire.replay import MAX_PIECES, replay

JSON = dict[str, Any]
TRANSCRIPTS = Path(__file__).parent / "transcripts"
GOOD = {path.stem: path.read_bytes() for path in sorted(TRANSCRIPTS.glob("*.json"))}
# The family that the installed openai package is built on.
httpx = importlib.import_module("httpx2" if int(openai.__version__.partition(".")[0]) >= 3 else "httpx")


def request(*, stream: bool = True, usage: bool = True) -> ChatRequest:
    fields = {"stream": stream, **({"stream_options": {"include_usage": usage}} if stream else {})}
    raw = json.dumps({"model": "m", "messages": [{"role": "user", "content": "x"}], **fields}).encode()
    return parse_request(raw, headers={})


def chunks_of(body: bytes) -> list[JSON]:
    *events, done, rest = body.decode().split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    return [json.loads(event.removeprefix("data: ")) for event in events]


def recorded(body: bytes, cuts: list[int]) -> JSON | None:
    recorder = recorder_for([("content-type", "text/event-stream")], limit_bytes=1 << 20)
    assert recorder is not None
    edges = [0, *sorted(cuts), len(body)]
    assert sum(recorder.feed(body[start:end]) for start, end in pairwise(edges)) == 1
    return recorder.completion()


def completion(**message: Any) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": "stop"}
    return json.dumps({"id": "c", "choices": [choice]}).encode()


def test_a_plain_request_gets_the_stored_bytes_unread() -> None:
    assert replay(b"anything", request(stream=False)) == ("application/json", b"anything")


def test_what_a_stream_looks_like() -> None:
    stored = {
        "id": "c1",
        "object": "chat.completion",
        "created": 5,
        "model": "m-1",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hé", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
                "content_filter_results": {},
            }
        ],
        "usage": {"prompt_tokens": 1},
        "system_fingerprint": "fp",
    }
    top = {
        "id": "c1",
        "object": "chat.completion.chunk",
        "created": 5,
        "model": "m-1",
        "system_fingerprint": "fp",
    }

    def chunk(delta: JSON, finish_reason: str | None = None, **more: Any) -> JSON:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason, **more}
        return {**top, "choices": [choice], "usage": None}

    expected = [
        chunk({"role": "assistant", "content": "", "refusal": None}),
        chunk({"content": "Hé"}),
        chunk({}, "stop", content_filter_results={}),
        {**top, "choices": [], "usage": {"prompt_tokens": 1}},
    ]
    content_type, body = replay(json.dumps(stored).encode(), request())
    assert content_type == "text/event-stream; charset=utf-8"
    assert json.dumps(chunks_of(body)) == json.dumps(expected)  # the order of the fields too
    assert "é".encode() in body
    without = chunks_of(replay(json.dumps(stored).encode(), request(usage=False)).body)
    assert without == [{name: value for name, value in row.items() if name != "usage"} for row in expected[:-1]]
    del stored["usage"]
    assert chunks_of(replay(json.dumps(stored).encode(), request()).body) == expected[:-1]


def test_a_tool_call_begins_with_its_name_and_empty_arguments() -> None:
    arguments = json.dumps({"text": "word " * 20})
    call = {"id": "t", "type": "function", "function": {"name": "f", "arguments": arguments}, "extra": {"s": 1}}
    odd = {"id": "u", "index": 0, "type": "custom", "custom": {"name": "g", "input": "x"}}
    chunks = chunks_of(replay(completion(content=None, tool_calls=[call, odd]), request(usage=False)).body)
    first, opened, *pieces, last, _ = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert first == {"role": "assistant", "content": None}
    assert opened == {
        "tool_calls": [{"index": 0, **call, "function": {"name": "f", "arguments": ""}}],
    }
    assert len(pieces) > 1
    assert "".join(piece["tool_calls"][0]["function"]["arguments"] for piece in pieces) == arguments
    assert all(list(piece["tool_calls"][0]) == ["index", "function"] for piece in pieces)
    assert last == {"tool_calls": [{**odd, "index": 1}]}


@pytest.mark.parametrize("text", ["a", "word " * 400, "x" * 1000, "日本語" * 700, " " * 3000, "a b" * 16])
def test_text_is_split_into_few_pieces(text: str) -> None:
    chunks = chunks_of(replay(completion(content=text), request(usage=False)).body)
    pieces = [chunk["choices"][0]["delta"]["content"] for chunk in chunks[1:-1]]
    assert "".join(pieces) == text
    assert all(pieces)
    assert len(pieces) <= MAX_PIECES
    if text.startswith("word"):
        assert all(piece.startswith(" word") for piece in pieces[1:])


def test_tokens_stay_with_their_text() -> None:
    tokens = [f" tok{number}" for number in range(50)]
    logprobs = {"content": [{"token": token, "logprob": -1.0} for token in tokens], "refusal": None}
    stored = json.loads(completion(content="".join(tokens)))
    stored["choices"][0]["logprobs"] = logprobs
    chunks = chunks_of(replay(json.dumps(stored).encode(), request(usage=False)).body)
    first, *pieces, last = [chunk["choices"][0] for chunk in chunks]
    assert first["logprobs"] == {"content": [], "refusal": None}
    assert last["logprobs"] is None
    assert 1 < len(pieces) <= MAX_PIECES
    for piece in pieces:
        assert "".join(item["token"] for item in piece["logprobs"]["content"]) == piece["delta"]["content"]


def test_tokens_that_do_not_spell_the_text_are_shared_out() -> None:
    stored = json.loads(completion(content="word " * 20))
    stored["choices"][0]["logprobs"] = {"content": [{"token": "other"}, 5, {"token": None}, {}, {"token": "x"}]}
    raw = json.dumps(stored).encode()
    first, *pieces, last = [chunk["choices"][0] for chunk in chunks_of(replay(raw, request()).body)]
    shares = [piece["logprobs"]["content"] for piece in pieces]
    assert first["logprobs"] == {"content": []}
    assert [item for share in shares for item in share] == stored["choices"][0]["logprobs"]["content"]
    assert "".join(piece["delta"]["content"] for piece in pieces) == "word " * 20
    assert last["logprobs"] is None


def test_a_lone_surrogate_is_escaped() -> None:
    stored = b'{"choices":[{"message":{"content":"\\ud800 \\ud83d\\ude00"},"finish_reason":"stop"}]}'
    body = replay(stored, request()).body
    body.decode("ascii")
    found = recorded(body, [])
    assert found is not None
    assert found["choices"][0]["message"]["content"] == "\ud800 \U0001f600"


@pytest.mark.parametrize(
    "stored",
    [
        b"",
        b"\xff",
        b"[]",
        b"5",
        b"{}",
        b'{"choices": null}',
        b'{"choices": ["a"]}',
        b'{"choices": [{}]}',
        b'{"choices": [{"message": "text"}]}',
        b'{"choices": [{"message": {}, "logprobs": 5}]}',
        b'{"choices": ' + b"[" * 100_000,
    ],
)
def test_what_is_no_completion_is_refused(stored: bytes) -> None:
    with pytest.raises(WireError, match="can't be streamed"):
        replay(stored, request())


@pytest.mark.parametrize("words", [3, 3_000], ids=["kept", "too long to keep"])
def test_the_same_bytes_make_the_same_events(words: int) -> None:
    message = {"role": "assistant", "content": "word " * words}
    completion = json.dumps({
        "id": "a", "object": "chat.completion", "model": "m", "usage": {"prompt_tokens": 1, "completion_tokens": 2},
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
    }).encode()  # fmt: skip
    with_usage, again = replay(completion, request()), replay(bytes(bytearray(completion)), request())
    assert with_usage == again
    assert chunks_of(with_usage.body)[-1]["usage"]["prompt_tokens"] == 1
    assert "usage" not in chunks_of(replay(completion, request(usage=False)).body)[-1]
    assert (with_usage.body is again.body) == (words == 3)


TEXT = st.text(st.characters(exclude_categories=()), max_size=120)  # lone surrogates included
SCALAR = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXT
VALUE = st.recursive(
    SCALAR,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
UNKNOWN = st.dictionaries(st.text(max_size=6).map("x_".__add__), VALUE, max_size=2)
TOKENS = st.none() | st.lists(st.fixed_dictionaries({"token": TEXT, "logprob": st.integers()}), max_size=40)


def mixed(base: st.SearchStrategy[JSON]) -> st.SearchStrategy[JSON]:
    return st.tuples(base, UNKNOWN).map(lambda pair: {**pair[0], **pair[1]})


CALL = mixed(
    st.fixed_dictionaries(
        {"function": st.fixed_dictionaries({"name": TEXT, "arguments": TEXT | VALUE})},
        optional={"id": st.text(max_size=3), "type": st.just("function")},
    )
)
MESSAGE = mixed(
    st.fixed_dictionaries(
        {"role": st.just("assistant"), "content": st.none() | TEXT | st.lists(VALUE, max_size=2)},
        optional={
            "refusal": st.none() | TEXT,
            "reasoning_content": st.none() | TEXT,
            "reasoning": st.none() | TEXT,
            "reasoning_details": st.lists(mixed(st.just({"index": 0, "type": "t"})), max_size=3),
            "tool_calls": st.none() | st.lists(CALL, max_size=3),
            "function_call": st.none() | st.fixed_dictionaries({"name": TEXT, "arguments": TEXT}),
            "audio": VALUE,
        },
    )
)
LOGPROBS = st.none() | mixed(st.fixed_dictionaries({}, optional={"content": TOKENS, "refusal": TOKENS}))
CHOICE = mixed(
    st.fixed_dictionaries(
        {"message": MESSAGE, "finish_reason": st.sampled_from(["stop", "length", "tool_calls", None])},
        optional={"logprobs": LOGPROBS},
    )
)
COMPLETION = mixed(
    st.fixed_dictionaries(
        {
            "choices": st.lists(CHOICE, min_size=1, max_size=3).map(
                lambda choices: [{"index": index, **choice} for index, choice in enumerate(choices)]
            ),
            "object": st.just("chat.completion"),
        },
        optional={
            "id": TEXT,
            "created": st.integers(0, 2**40),
            "model": TEXT,
            "usage": st.just({"prompt_tokens": 3, "total_tokens": 3}),
        },
    )
)


@given(COMPLETION, st.booleans(), st.data())
def test_a_replay_is_recorded_as_what_it_came_from(stored: JSON, usage: bool, data: st.DataObject) -> None:
    raw = json.dumps(stored).encode()
    body = replay(raw, request(usage=usage)).body
    expected = json.loads(raw)
    if not usage:
        expected.pop("usage", None)
    cuts = data.draw(st.lists(st.integers(0, len(body)), max_size=8))
    assert recorded(body, cuts) == expected
    assert recorded(body.replace(b"\n", b"\r\n"), cuts) == expected


@given(VALUE)
@example({"choices": [{"message": {"tool_calls": [5], "function_call": {}, "content": 5}, "delta": {"a": 1}}]})
def test_no_value_raises_anything_else(value: Any) -> None:
    for stored in (value, {"choices": [value]}, {"choices": [{"message": value, "logprobs": value}]}):
        try:
            body = replay(json.dumps(stored).encode(), request()).body
        except WireError:
            continue
        assert body.endswith(b"data: [DONE]\n\n")


# -- through the real client -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize("usage", [True, False])
def test_the_chunks_are_of_the_types_of_openai(name: str, usage: bool) -> None:
    for chunk in chunks_of(replay(GOOD[name], request(usage=usage)).body):
        ChatCompletionChunk.model_validate(chunk)


def client_for(content_type: str, body: bytes) -> openai.OpenAI:
    def in_pieces() -> Iterator[bytes]:
        for start in range(0, len(body), 100):
            yield body[start : start + 100]

    def answer(_: Any) -> Any:
        return httpx.Response(200, headers={"content-type": content_type}, content=in_pieces())

    http_client = httpx.Client(transport=httpx.MockTransport(answer))
    return openai.OpenAI(api_key="k", base_url="http://upstream/v1", http_client=http_client, max_retries=0)


@pytest.mark.parametrize("name", GOOD)
def test_the_client_reads_a_plain_replay(name: str) -> None:
    replayed = replay(GOOD[name], request(stream=False))
    with client_for(*replayed) as client:
        answer = client.chat.completions.create(model="m", messages=[{"role": "user", "content": "x"}])
    assert answer == ChatCompletion.model_validate_json(GOOD[name])


@pytest.mark.parametrize("name", GOOD)
def test_the_client_reads_a_streamed_replay(name: str) -> None:
    with client_for(*replay(GOOD[name], request())) as client:
        chunks = list(
            client.chat.completions.create(
                model="m",
                messages=[{"role": "user", "content": "x"}],
                stream=True,
                stream_options={"include_usage": True},
            )
        )
    stored = json.loads(GOOD[name])
    for choice in stored["choices"]:
        parts = [part for chunk in chunks for part in chunk.choices if part.index == choice["index"]]
        assert "".join(part.delta.content or "" for part in parts) == (choice["message"]["content"] or "")
        assert parts[-1].finish_reason == choice["finish_reason"]
    last_usage = chunks[-1].usage
    assert (last_usage is not None) == ("usage" in stored)


@pytest.mark.parametrize("name", ["openai_tools", "openai_refusal", "openai_logprobs", "openai_two_choices"])
def test_the_accumulating_helper_of_the_client_gets_the_same(name: str) -> None:
    with (
        client_for(*replay(GOOD[name], request())) as client,
        client.chat.completions.stream(model="m", messages=[{"role": "user", "content": "x"}]) as stream,
    ):
        final = stream.get_final_completion()
    expected = ChatCompletion.model_validate_json(GOOD[name])
    for got, choice in zip(final.choices, expected.choices, strict=True):
        assert (got.message.content or None) == choice.message.content
        assert (got.message.refusal or None) == choice.message.refusal
        assert got.finish_reason == choice.finish_reason
        assert got.logprobs == choice.logprobs
        assert [call.function.arguments for call in got.message.tool_calls or []] == [
            call.function.arguments for call in choice.message.tool_calls or [] if call.type == "function"
        ]
