"""Answers made of text that came bit by bit, read as any client reads them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llm_proxy.types import Usage
from llm_proxy.wire.drafted import STREAM_HEADERS, Frame, Remainder
from llm_proxy.wire.recorder import recorder_for

FRAME = Frame("chatcmpl-1", "m", 7, has_usage=True)
OTHER = {"id": "other", "object": "chat.completion.chunk", "created": 9, "model": "other"}


def recorded(body: bytes) -> Any:
    recorder = recorder_for(STREAM_HEADERS, limit_bytes=1 << 20)
    assert recorder is not None
    assert recorder.feed(body)
    return recorder.completion()


def event(delta: dict[str, Any], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return b"data: " + json.dumps({**OTHER, "choices": [choice]}).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"


class TestFrame:
    def test_a_stream_says_what_the_whole_says(self) -> None:
        usage = Usage(3, 2)
        stream = FRAME.chunks("Hel", is_first=True) + FRAME.chunks("lo \ud83d") + FRAME.end("stop", usage)
        whole = json.loads(FRAME.whole("Hello \ud83d", "stop", usage))
        found = recorded(stream)
        assert found["choices"][0]["message"]["content"] == whole["choices"][0]["message"]["content"]
        for name in ("id", "model", "created", "usage"):
            assert found[name] == whole[name]
        assert found["choices"][0]["finish_reason"] == "stop"

    def test_token_counts_only_where_they_were_asked_for(self) -> None:
        assert b"usage" in FRAME.end("stop", Usage(3, 2))
        assert b"usage" not in FRAME._replace(has_usage=False).end("stop", Usage(3, 2))

    def test_no_text_makes_no_event(self) -> None:
        assert FRAME.chunks("") == b""


class TestRemainder:
    def feed(self, sent: str, *pieces: bytes) -> tuple[Remainder, bytes]:
        remainder = Remainder(FRAME, sent)
        return remainder, b"".join(remainder.feed(piece) for piece in pieces)

    def test_what_was_handed_on_is_cut_off(self) -> None:
        usage = json.dumps({**OTHER, "choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4}}).encode()
        remainder, rest = self.feed(
            "one two",
            event({"role": "assistant", "content": ""}),
            event({"content": "one "}),
            event({"content": "two three"}),
            event({}, "stop"),
            b"data: " + usage + b"\n\n",
            DONE,
        )
        found = recorded(FRAME.chunks("one two", is_first=True) + rest)
        assert found["choices"][0]["message"] == {"role": "assistant", "content": "one two three"}
        assert (found["id"], found["model"], found["usage"]["completion_tokens"]) == ("chatcmpl-1", "m", 4)
        assert remainder.is_done
        assert not remainder.is_broken

    @pytest.mark.parametrize(
        "piece",
        [
            event({"content": "two"}),
            event({}, "stop"),
            b"data: {}\n\n",
            b"data: [1]\n\n",
            b"data: x\n\n",
            b'data: {"error": {"message": "no"}}\n\n',
            b"data: " + b"[" * 100_000 + b"\n\n",
        ],
    )
    def test_another_answer_is_broken(self, piece: bytes) -> None:
        remainder, rest = self.feed("one", event({"content": "on"}), piece, event({"content": "one"}))
        assert remainder.is_broken
        assert not remainder.is_done
        assert rest == b""

    def test_nothing_is_read_after_the_end(self) -> None:
        remainder, rest = self.feed("", DONE + event({"content": "more"}))
        assert (rest, remainder.is_done) == (DONE, True)
