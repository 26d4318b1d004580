from __future__ import annotations

import gzip
import json

import pytest

from llm_proxy.wire.failure import Said, error_in_event, said_in

ERROR = {"error": {"message": "Too LONG", "type": "Bad", "code": "Context_Length_Exceeded"}}
SAID = Said("context_length_exceeded", "bad", "too long")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (ERROR, SAID),
        (ERROR["error"], SAID),
        ({"error": {**ERROR["error"], "innererror": {"code": "Inner"}}}, SAID._replace(code="inner")),
        ({"error": {**ERROR["error"], "innererror": {}}}, SAID),
        ({"error": "Just Words"}, Said(message="just words")),
        ({"error": {"code": 7, "message": ["x"]}}, Said(code="7")),
        ({"error": []}, Said()),
        ([], Said()),
        (None, Said()),
    ],
)
def test_what_a_body_says(body: object, expected: Said) -> None:
    assert said_in([], json.dumps(body).encode()) == expected


@pytest.mark.parametrize("body", [b"", b"<html>", b"\xff", b"[" * 100_000])
def test_what_can_not_be_read_says_nothing(body: bytes) -> None:
    assert said_in([], body) == Said()


def test_a_coded_body() -> None:
    raw = gzip.compress(json.dumps(ERROR).encode())
    assert said_in([("content-encoding", "gzip")], raw) == SAID
    assert said_in([("content-encoding", "gzip")], b"no gzip") == Said()
    assert said_in([("content-encoding", "unheard-of")], raw) == Said()


@pytest.mark.parametrize(
    ("piece", "expected"),
    [
        (b"data: " + json.dumps(ERROR).encode() + b"\n\n", SAID),
        (b"event: error\ndata: {}\n\n", Said()),
        (b'data: {"choices": [{"delta": {"content": "\\"error\\""}}]}\n\n', None),
        (b'data: {"error": null}\n\n', None),
        (b'data: "error"\n\n', None),
        (b'data: {"error": tru', None),
        (b'data: {"error": oops}\n\n', None),
        (b"data: {}\n\n", None),
    ],
)
def test_an_error_in_the_place_of_the_first_event(piece: bytes, expected: Said | None) -> None:
    assert error_in_event(piece) == expected
