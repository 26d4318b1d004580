"""Strangers, garbage and other tenants: the right status, nothing leaked, and later calls are fine."""

from __future__ import annotations

import json
import socket
import threading
import time

import pytest

from llm_proxy.faces._http import httpx
from llm_proxy.faces.keys import add
from llm_proxy.holders import Holder
from tests.faces.asgi_kit import http
from tests.faces.garbage import SECRET, asked, attack, guarded, rounds

CHAT = "/v1/chat/completions"
QUESTION = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def test_garbage_is_refused_and_harms_nobody(tmp_path):
    """The same with 10,000 of them: make test-garbage."""
    with guarded(tmp_path) as (proxy, key, upstream):
        found = attack(proxy, rounds(7, 400))
        assert found.wrong == []
        assert sum(found.statuses.values()) == 400
        assert {400, 401, 405, 431} <= set(found.statuses) <= {0, 200, 400, 401, 404, 405, 408, 413, 431}
        assert asked(proxy, key) == SECRET
        assert len(upstream.requests) == 1, "a hit, and nothing of the garbage came through"
        assert proxy.runtime.troubles.counts == {}


def test_garbage_is_the_same_for_the_same_seed():
    assert list(rounds(3, 50)) == list(rounds(3, 50)) != list(rounds(4, 50))


def test_the_key_of_another_tenant_sees_nothing(tmp_path):
    with guarded(tmp_path) as (proxy, _, upstream):
        other, _ = add(tmp_path / "keys.json", Holder("", "other", "other"), now_s=1.0)
        proxy.app.admission.book.refresh(is_due=True)
        headers = {"authorization": f"Bearer {other}"}
        only = {**headers, "cache-control": "only-if-cached"}
        response = httpx.post(proxy.url + CHAT, json=QUESTION, headers=only)
        assert (response.status_code, SECRET in response.text) == (504, False)
        for more in ({"openai-organization": "victim"}, {"x-llm-proxy-tenant": "victim"}, {"cookie": "tenant=victim"}):
            assert httpx.post(proxy.url + CHAT, json=QUESTION, headers={**only, **more}).status_code == 504
        for path in ("/llm-proxy/calls", "/llm-proxy/summary", "/llm-proxy/events", "/metrics"):
            response = httpx.get(proxy.url + path, headers=headers)
            assert (response.status_code, SECRET in response.text) == (403, False)
        undo = {**headers, "x-llm-proxy-dashboard": "1"}
        assert httpx.post(proxy.url + "/llm-proxy/undo", json={"id": "x"}, headers=undo).status_code == 403
        assert len(upstream.requests) == 1


@pytest.mark.parametrize("presented", ["{key}x", "{half}", " ", "lp-", "{id}", "{sha256}", "{key},{key}", "Bearer"])
def test_nearly_a_key_is_none(tmp_path, presented):
    with guarded(tmp_path) as (proxy, key, _):
        record = json.loads((tmp_path / "keys.json").read_text())["keys"][0]
        words = {"key": key, "half": key[:20], "id": record["id"], "sha256": record["sha256"]}
        head = (
            f"GET /v1/models HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {presented.format(**words)}\r\n\r\n"
        )
        status, _, body = http(proxy.port, head.encode())
        assert status == 401
        assert key.encode() not in body


def test_many_that_send_slowly_leave_room_for_others(tmp_path):
    """Slowloris: heads and bodies by drops, on as many connections as the proxy takes."""
    with guarded(tmp_path) as (proxy, key, _):
        is_over = threading.Event()
        heads = [
            b"GET /v1/models HTTP/1.1\r\nhost: a\r\n",
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 999\r\n\r\n",
            b"",
        ]
        ended = []

        def drip(place: int) -> None:
            with socket.create_connection(("127.0.0.1", proxy.port), timeout=10) as connection:
                try:
                    connection.sendall(heads[place % len(heads)])
                    while not is_over.is_set():
                        connection.sendall(b"x")
                        time.sleep(0.05)
                except OSError:
                    ended.append(place)

        slow = [threading.Thread(target=drip, args=(place,)) for place in range(60)]
        for one in slow:
            one.start()
        try:
            assert [asked(proxy, key) for _ in range(10)] == [SECRET] * 10
            deadline = time.monotonic() + 20
            while len(ended) < len(slow) and time.monotonic() < deadline:
                time.sleep(0.05)
            assert len(ended) == len(slow), "all of them were sent away"
        finally:
            is_over.set()
            for one in slow:
                one.join()
        assert asked(proxy, key) == SECRET
