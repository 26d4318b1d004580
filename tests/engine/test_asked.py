"""What events say of who asked: names that tell keys apart and give none away."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from llm_proxy.engine.asked import asked_by, caller_name
from llm_proxy.types import ChatRequest

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def request(**headers: str) -> ChatRequest:
    body = {"model": "auto", "messages": [{"role": "user", "content": "what is my secret? " * 200}]}
    return ChatRequest(body=body, raw=b"", headers={name.replace("_", "-"): value for name, value in headers.items()})


def test_a_key_has_a_name():
    named = asked_by(request(authorization="Bearer sk-one"), keeps_questions=False)["caller"]
    assert named == hashlib.sha256(b"sk-one").hexdigest()[:8]
    assert asked_by(request(x_api_key="sk-one"), keeps_questions=False)["caller"] == named
    assert asked_by(request(authorization="Bearer sk-two"), keeps_questions=False)["caller"] != named


def test_nobody_has_none():
    assert asked_by(request(), keeps_questions=False)["caller"] == ""


def test_any_header_has_one():
    assert len(caller_name("k\xe9y \ud800")) == 8


@pytest.mark.parametrize("keeps_questions", [True, False])
def test_questions_only_where_they_may_be_kept(keeps_questions: bool):
    found = asked_by(request(), keeps_questions=keeps_questions)["question"]
    assert len(found) == (2_000 if keeps_questions else 0)


def test_the_rest():
    found = asked_by(request(traceparent=TRACE), keeps_questions=False)
    assert (found["requested"], found["traceparent"], found["api"]) == ("auto", TRACE, "chat")
    assert asked_by(replace(request(), api="embeddings"), keeps_questions=False)["api"] == "embeddings"
