"""Embeddings on the wire: what a request must have, and what may be stored of an answer."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llm_proxy.errors import WireError
from llm_proxy.types import ChatRequest
from llm_proxy.wire.apis import parse_call, replay_as
from llm_proxy.wire.embeddings import rejection
from tests.apis_kit import embeddings


def asked(given: Any, **fields: Any) -> ChatRequest:
    return parse_call(json.dumps({"model": "m", "input": given, **fields}).encode(), api="embeddings", headers={})


@pytest.mark.parametrize("given", [None, "", [], 7, {"a": 1}])
def test_without_an_input_it_is_no_request(given: Any) -> None:
    with pytest.raises(WireError, match="'input' is"):
        asked(given)


def test_without_a_model_it_is_no_request() -> None:
    with pytest.raises(WireError, match="'model' is absent"):
        parse_call(b'{"input": "x"}', api="embeddings", headers={})


@pytest.mark.parametrize(
    ("given", "texts"), [("one", ["one"]), (["one", "two"], ["one", "two"]), ([1, 2], []), ([[1], [2]], [])]
)
def test_texts_are_measured_as_messages(given: Any, texts: list[str]) -> None:
    assert [message["content"] for message in asked(given).messages] == texts


@pytest.mark.parametrize("given", ["one", ["one", "two"], [1, 2, 3], [[1], [2]]])
@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_a_vector_for_each_text_may_be_stored(given: Any, encoding: str) -> None:
    texts = given if isinstance(given, list) and not isinstance(given[0], int) else ["one"]
    answer = embeddings({"model": "m", "input": texts, "encoding_format": encoding})
    assert rejection(answer, {"model": "m", "input": given}) == ""


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ({"error": {"message": "x"}}, "error"),
        ({"data": None}, "no-data"),
        ({"data": []}, "no-data"),
        ({"data": [{"embedding": [1.0]}, {"embedding": [1.0]}]}, "no-data"),
        ({"data": [7]}, "malformed"),
        ({"data": [{"embedding": []}]}, "malformed"),
        ({"data": [{"embedding": None}]}, "malformed"),
    ],
)
def test_nothing_else_may(answer: dict[str, Any], reason: str) -> None:
    assert rejection(answer, {"model": "m", "input": "one"}) == reason


def test_an_answer_is_served_as_it_came() -> None:
    assert replay_as(b'{"data": [ ]}', asked("one")) == ("application/json", b'{"data": [ ]}')
