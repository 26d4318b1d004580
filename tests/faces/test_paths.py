"""Paths that only look like others: no spelling of the proxy's own paths gets past the engine."""

from __future__ import annotations

import json

import pytest

from llm_proxy.faces._asgi_io import Refused
from llm_proxy.faces.paths import refuse_other_spelling
from tests.faces.asgi_kit import RawUpstream, http, proxied, raw_response

BODY = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}]}).encode()
TRICKS = [
    "/v1//chat/completions",
    "//v1/chat/completions",
    "/v1/./chat/completions",
    "/v1/x/../chat/completions",
    "/v1/chat/completions/",
    "/v1/chat/completions//",
    "/v1/chat/%63ompletions",
    "/v1/chat/%2563ompletions",
    "/v1%2fchat%2Fcompletions",
    "/v1/chat%5ccompletions",
    "/v1\\chat\\completions",
    "/v1/%2e/chat/completions",
    "/v1/chat/completions;x=1",
    "/v1;a/chat;b/completions",
    "/V1/Chat/Completions",
    "/v1/chat/completions%00",
    "/v1/chat/completions%20",
    "/v1/chat/completions%0a",
    "/chat/completions",
    "/completions/",
    "/v1//responses",
    "/v1/embeddings/",
    "/embeddings",
    "/v1//models",
    "//healthz",
    "/healthz/",
    "/Metrics",
    "//llm-proxy/undo",
    "/LLM-PROXY/feedback",
]


@pytest.mark.parametrize("path", TRICKS)
def test_another_spelling_is_refused_and_not_passed_on(path: str) -> None:
    with (
        RawUpstream(lambda request: request.send(raw_response(b"{}"))) as upstream,
        proxied(upstream.url) as proxy,
    ):
        head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: {len(BODY)}\r\n\r\n".encode()
        status, _, body = http(proxy.port, head + BODY)
        assert status == 404
        error = json.loads(body)["error"]
        assert error["code"] == "not_found"
        assert "is meant" in error["message"]
        assert upstream.requests == []


def test_the_dashboards_paths_are_its_own_however_they_are_encoded() -> None:
    with (
        RawUpstream(lambda request: request.send(raw_response(b"{}"))) as upstream,
        proxied(upstream.url) as proxy,
    ):
        head = b"POST /llm%2Dproxy/undo HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 2\r\n\r\n{}"
        assert http(proxy.port, head)[0] == 403, "without the header of the page"
        assert upstream.requests == []


@pytest.mark.parametrize(
    "path",
    [
        "/v1/chat/completions",
        "/v1/models",
        "/v1/models/org%2Fname",
        "/v1/models/Gpt-4o",
        "/v1/files/a%2Fb%20c",
        "/v1/completions",
        "/v1/chat/completions/cc-1/messages",
        "/v1/audio//speech",
        "/llm-proxy/calls/%31-2",
        "/api/chat",
        "/v1/Responses2",
        "/v1/",
        "//evil.example/v1",
        "/",
        "",
        "/%",
        "/%ff%fe",
        "/..",
    ],
)
def test_all_else_is_left_alone(path: str) -> None:
    refuse_other_spelling(path)


def test_what_is_encoded_again_and_again_ends() -> None:
    path = "/v1/chat/completions/"
    for _ in range(3):
        path = "".join(f"%{ord(letter):02x}" for letter in path)
    with pytest.raises(Refused, match="is meant"):
        refuse_other_spelling(path)
    for _ in range(3):
        path = path.replace("%", "%25")
    refuse_other_spelling(path)
