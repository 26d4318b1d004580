from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.errors import WireError
from llm_proxy.wire.sse import ServerSentEvent, SSEDecoder, encode_event

Event = ServerSentEvent


def decode(*chunks: bytes, flush: bool = True) -> list[ServerSentEvent]:
    decoder = SSEDecoder()
    events = [event for chunk in chunks for event in decoder.feed(chunk)]
    return events + (decoder.flush() if flush else [])


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"", []),
        (b"data: a\n\n", [Event("a")]),
        (b"data:a\n\ndata:  b\n\n", [Event("a"), Event(" b")]),
        (b"data: a\ndata: b\n\n", [Event("a\nb")]),
        (b"data: a\rdata: b\r\rdata: c\r\n\r\n", [Event("a\nb"), Event("c")]),
        (b"data\n\ndata\ndata\n\ndata:", [Event(""), Event("\n")]),
        (b"event: x\ndata: a\n\ndata: b\n\n", [Event("a", "x"), Event("b")]),
        (b"event: x\n\ndata: b\n\n", [Event("b")]),
        (b"id: 7\ndata: a\n\ndata: b\n\nid:\ndata: c\n\n", [Event("a", "", "7"), Event("b", "", "7"), Event("c")]),
        (b"id: 7\0\ndata: a\n\n", [Event("a")]),
        (b": comment\n\n:\n\nretry: 5\nunknown: x\nDATA: y\ndata: a\n: mid\ndata: b\n\n", [Event("a\nb")]),
        (b"\xef\xbb\xbfdata: a\n\n\xef\xbb\xbfdata: b\n\n", [Event("a")]),
        (b"\n\n\r\n\r\rdata: a\n\n", [Event("a")]),
        (b"data: \xc3\xa9\xe2\x80\xa8\xc2\x85\n\n", [Event("é\u2028\x85")]),
        (b"data: a\n\ndata: lost", [Event("a")]),
        (b"data: a\n\ndata: lost\n", [Event("a")]),
        (b"data: a\n\ndata: [DONE]\n", [Event("a"), Event("[DONE]")]),
        (b"data: a\n\ndata: [DONE]", [Event("a"), Event("[DONE]")]),
        (b"data: a\ndata: [DONE]\n", []),
    ],
)
def test_streams_of_events(stream: bytes, events: list[ServerSentEvent]) -> None:
    assert decode(stream) == events
    assert decode(*(stream[at : at + 1] for at in range(len(stream)))) == events


def test_a_crlf_may_be_split() -> None:
    assert decode(b"data: a\r", b"\ndata: b\r", b"", b"\n\r", b"\n", flush=False) == [Event("a\nb")]
    assert decode(b"data: a\r", b"data: b\r", b"\r", flush=False) == [Event("a\nb")]


def test_damage_is_replaced_and_flagged() -> None:
    decoder = SSEDecoder()
    assert decoder.feed(b"data: ok\n\n") == [Event("ok")]
    assert not decoder.is_damaged
    assert decoder.feed(b"data: \xff\n\n") == [Event("\ufffd")]
    assert decoder.is_damaged


def test_an_event_without_end_is_bounded() -> None:
    for chunk, times in ((b"x" * 10, 10), (b"data: x\n", 14), (b"data:x\n", 16)):
        decoder = SSEDecoder(limit_bytes=100)
        for _ in range(times):
            decoder.feed(chunk)
        with pytest.raises(WireError, match="larger than 100 bytes"):
            decoder.feed(chunk)
        assert decoder.is_idle
    decoder = SSEDecoder(limit_bytes=100)
    assert len([event for _ in range(50) for event in decoder.feed(b"data: 0123456789\n\n")]) == 50


def test_idle_means_that_nothing_is_held() -> None:
    decoder = SSEDecoder()
    seen = []
    for chunk in (b"", b"da", b"ta: x\n", b"\n"):
        decoder.feed(chunk)
        seen.append(decoder.is_idle)
    assert seen == [True, False, False, True]


@pytest.mark.parametrize(
    ("data", "name", "encoded"),
    [
        ("a", "", b"data: a\n\n"),
        (b'{"a":1}', "error", b'event: error\ndata: {"a":1}\n\n'),
        ("a\nb\r\nc\rd", "", b"data: a\ndata: b\ndata: c\ndata: d\n\n"),
        ("", "", b"data: \n\n"),
        ("é\u2028", "é", "event: é\ndata: é\u2028\n\n".encode()),
    ],
)
def test_encoding(data: str | bytes, name: str, encoded: bytes) -> None:
    assert encode_event(data, name) == encoded


@pytest.mark.parametrize(("data", "name"), [("\ud800", ""), ("a", "\ud800"), ("a", "x\ny"), ("a", "x\r")])
def test_what_no_event_can_carry(data: str, name: str) -> None:
    with pytest.raises(WireError):
        encode_event(data, name)


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r"))
NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n"), max_size=10)


@given(st.lists(st.tuples(TEXTS, NAMES), max_size=6), st.sampled_from([b"\n", b"\r", b"\r\n"]), st.data())
def test_any_split_gives_the_same_events(events: list[tuple[str, str]], line_end: bytes, data: st.DataObject) -> None:
    stream = b"".join(encode_event(text, name) for text, name in events).replace(b"\n", line_end)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    pieces = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert decode(*pieces) == [Event(text, name) for text, name in events]


@given(st.lists(st.binary(max_size=20), max_size=10))
def test_any_bytes_are_taken(chunks: list[bytes]) -> None:
    assert decode(*chunks) == decode(b"".join(chunks))
