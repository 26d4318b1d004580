"""What `llm-proxy cache show` makes of the answers of each API."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llm_proxy.faces.cli._entries import answer_of
from tests.apis_kit import CALL, TEXT, embeddings, response, text_completion
from tests.fakes import completion, entry


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (completion("hello"), "hello"),
        (response({"model": "thinks"}), TEXT),
        (response({"model": "calls"}), json.dumps([CALL])),
        (text_completion({"model": "m", "prompt": "One"}, 1), " and on"),
        (embeddings({"model": "m", "input": ["one", "two"]}), "2 embeddings"),
    ],
)
def test_what_the_model_said_is_shown(answer: dict[str, Any], said: str) -> None:
    assert answer_of(entry(completion=json.dumps(answer).encode())) == (answer, said)


@pytest.mark.parametrize("raw", [b"{", b"{}", b'{"output": [7]}', b'{"choices": [{}]}', b'{"data": 7}', b"7"])
def test_damage_is_told(raw: bytes) -> None:
    assert answer_of(entry(completion=raw)) == (None, "")
