"""Requests that the proxy refuses before they are calls: what is counted, what has a row, and who can't make one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from llm_proxy.faces._asgi_io import Refused
from llm_proxy.faces._http import httpx
from llm_proxy.faces._refusals import Refusals
from llm_proxy.observe.events import CallEvent
from llm_proxy.testing import FakeClock
from tests.faces.asgi_kit import Proxy, RawUpstream, proxied
from tests.faces.test_issued_callers import CHAT, QUESTION, answering, issued, post


def rows(proxy: Proxy) -> list[tuple[str, str, int, str, str]]:
    return [
        (event.outcome.status, event.outcome.detail, event.http_status, event.caller, event.api)
        for event in proxy.events
    ]


def counted(proxy: Proxy, **headers: str) -> dict[str, int]:
    text = httpx.get(f"{proxy.url}/metrics", headers=headers).text
    found = re.findall(r'^llm_proxy_refused_requests_total\{status="(\d+)"\} (\d+)$', text, re.MULTILINE)
    return {status: int(count) for status, count in found}


def test_of_an_issued_key_each_refusal_has_a_row(tmp_path: Path) -> None:
    with issued(tmp_path, server={"max_body_bytes": 1000}) as (proxy, issue, upstream):
        key, slow = issue("ann", models=("gpt-*",), may_watch=True), issue("bob", requests_per_minute=1)
        ann, bob = (proxy.app.admission.book.find(one.encode()).id for one in (key, slow))
        assert post(proxy, key).status_code == 403
        assert post(proxy, key, {"messages": 7, "model": "gpt-4o"}).status_code == 400
        assert post(proxy, key, {**QUESTION, "user": "x" * 2000}).status_code == 413
        assert [post(proxy, slow, {"model": "m", "input": "hi"}, "/v1/embeddings").status_code for _ in "ab"][1] == 429
        assert rows(proxy)[:3] == [
            ("refused", "model-not-allowed", 403, ann, "chat"),
            ("refused", "invalid-request", 400, ann, "chat"),
            ("refused", "request-too-large", 413, ann, "chat"),
        ]
        assert rows(proxy)[-1] == ("refused", "rate-limit-exceeded", 429, bob, "embeddings")
        assert len(upstream.requests) == 1
        expected = {"403": 1, "400": 1, "413": 1, "429": 1}
        assert counted(proxy, authorization=f"Bearer {key}") == expected


def test_a_stranger_makes_no_row(tmp_path: Path) -> None:
    with issued(tmp_path) as (proxy, issue, _):
        key = issue("ann", may_watch=True)
        for wrong in ("sk-wrong", "lpk-other"):
            assert post(proxy, wrong).status_code == 401
        assert httpx.post(proxy.url + CHAT, content=b"{").status_code == 401
        assert rows(proxy) == []
        assert counted(proxy, authorization=f"Bearer {key}") == {"401": 3}


def test_nor_does_a_web_page_from_elsewhere() -> None:
    with RawUpstream(answering) as upstream, proxied(upstream.url) as proxy:
        assert httpx.post(proxy.url + CHAT, json=QUESTION, headers={"origin": "https://evil.test"}).status_code == 403
        assert httpx.post(f"{proxy.url}/v1/chat/completions/", json=QUESTION).status_code == 404
        assert rows(proxy) == []
        assert httpx.post(proxy.url + CHAT, content=b"{").status_code == 400
        assert rows(proxy) == [("refused", "invalid-request", 400, "", "chat")]
        assert counted(proxy) == {"403": 1, "404": 1, "400": 1}


def test_what_is_no_call_is_only_counted(tmp_path: Path) -> None:
    with issued(tmp_path) as (proxy, issue, _):
        key = issue("ann", may_pass=False, may_watch=True)
        assert post(proxy, key, path="/v1/files").status_code == 403
        assert rows(proxy) == []
        assert counted(proxy, authorization=f"Bearer {key}") == {"403": 1}


class Parts:
    """What `Refusals` asks a runtime for."""

    def __init__(self) -> None:
        self.clock, self.events = FakeClock(), list[CallEvent]()

    def emit(self, event: CallEvent) -> None:
        self.events.append(event)


class TestBound:
    def booked(self, parts: Any, refusals: Refusals, count: int, status: int = 400) -> int:
        before = len(parts.events)
        for _ in range(count):
            refusals.book(Refused(status, "no"), "chat", {}, None)
        return len(parts.events) - before

    def test_a_minute_has_so_many_rows_and_no_more(self) -> None:
        parts: Any = Parts()
        refusals = Refusals(parts)
        assert self.booked(parts, refusals, 1000) == 60
        parts.clock.advance(60.0)
        assert self.booked(parts, refusals, 59) == 59

    @pytest.mark.parametrize(("status", "word"), [(408, "too-slow"), (415, "content-encoding"), (503, "refused")])
    def test_a_row_says_why(self, status: int, word: str) -> None:
        parts: Any = Parts()
        assert self.booked(parts, Refusals(parts), 1, status) == 1
        assert parts.events[0].outcome.detail == word

    def test_who_left_was_not_refused(self) -> None:
        parts: Any = Parts()
        refusals = Refusals(parts)
        assert self.booked(parts, refusals, 300, 499) == 0
        assert self.booked(parts, refusals, 1) == 1, "those who left take no row of another"
