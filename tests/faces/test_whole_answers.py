"""An answer that is there whole goes out with one write, where the server is uvicorn over httptools."""

from __future__ import annotations

import gc
import socket
from types import SimpleNamespace
from typing import Any
from weakref import ref

import pytest
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from llm_proxy.faces import _memory
from llm_proxy.faces._asgi_io import _plain_head
from llm_proxy.faces._connections import _Watched, _write_whole
from tests.faces.asgi_kit import completion, http, until
from tests.faces.test_connections import WHOLE, received, served


class Writes:
    """The transport of a connection, whose writes are noted."""

    def __init__(self, transport: Any, noted: list[bytes]) -> None:
        self._transport, self._noted = transport, noted

    def write(self, data: bytes) -> None:
        self._noted.append(bytes(data))
        self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


@pytest.fixture
def writes(monkeypatch):
    """What is written to callers, by httptools' connections."""
    noted: list[bytes] = []
    made = _Watched.connection_made

    def connection_made(self: Any, transport: Any) -> None:
        made(self, Writes(transport, noted))

    monkeypatch.setattr(_Watched, "connection_made", connection_made)
    return noted


class TestWholeAnswers:
    def test_a_hit_is_one_write(self, writes):
        with served() as (port, upstream):
            status, _, body = http(port, WHOLE)
            writes.clear()
            again = http(port, WHOLE)
        assert len(writes) == 1
        assert (again[0], again[2]) == (status, body) == (200, completion())
        assert int(again[1]["content-length"]) == len(body)
        assert "hit" in again[1]["cache-status"]
        assert again[1]["date"]
        assert "connection" not in again[1]
        assert len(upstream.requests) == 1

    def test_two_in_one_packet_get_an_answer_each(self, writes):
        with served() as (port, _):
            http(port, WHOLE)
            writes.clear()
            with socket.create_connection(("127.0.0.1", port)) as caller:
                caller.sendall(WHOLE + WHOLE)
                until(lambda: len(writes) == 2)
                caller.shutdown(socket.SHUT_WR)
                data = received(caller)
        assert data.count(b"HTTP/1.1 200 OK") == 2
        assert data == b"".join(writes)

    @pytest.mark.parametrize("asked", [b"connection: close\r\n", b""], ids=["asked", "HTTP/1.0"])
    def test_it_says_when_it_closes(self, writes, asked):
        version = b"1.1" if asked else b"1.0"
        request = WHOLE.replace(b"HTTP/1.1\r\n", b"HTTP/" + version + b"\r\n" + asked)
        with served() as (port, _):
            http(port, WHOLE)
            writes.clear()
            status, headers, body = http(port, request, until_closed=True)
        assert len(writes) == 1
        assert (status, headers["connection"], body) == (200, "close", completion())

    def test_an_answer_to_head_has_no_body(self, writes):
        with served() as (port, _), socket.create_connection(("127.0.0.1", port)) as caller:
            caller.sendall(b"HEAD /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
            data = received(caller)
        assert data.endswith(b"\r\n\r\n")
        assert data.count(b"\r\n\r\n") == 1

    def test_a_caller_who_left_gets_nothing(self):
        cycle = Cycle(disconnected=True)
        assert _write_whole(ref(cycle), 200, b"", b"body")
        assert not cycle.written

    @pytest.mark.parametrize(
        ("status", "state"),
        [
            (599, {}),
            (200, {"default_headers": [(b"server", b"s")]}),
            (200, {"response_started": True}),
            (200, {"flow": SimpleNamespace(write_paused=True)}),
        ],
        ids=["unknown status", "more headers", "begun", "paused"],
    )
    def test_what_is_left_to_the_server(self, status, state):
        cycle = Cycle(**state)
        assert not _write_whole(ref(cycle), status, b"", b"body")
        assert not cycle.written

    def test_a_request_that_is_gone_is_left_to_the_server(self):
        gone = ref(Cycle())
        gc.collect()
        assert not _write_whole(gone, 200, b"", b"body")

    @pytest.mark.parametrize("past", [b"", b"cache-control: no-store\r\n"], ids=["hits", "passed"])
    def test_requests_that_are_over_are_no_garbage(self, past):
        request = WHOLE.replace(b"HTTP/1.1\r\n", b"HTTP/1.1\r\n" + past)
        with served() as (port, _):
            http(port, request)
            gc.collect()
            gc.disable()
            try:
                for _ in range(20):
                    assert http(port, request)[0] == 200
                left = [one for one in gc.get_objects() if type(one) is RequestResponseCycle]
            finally:
                gc.enable()
        assert len(left) <= 2, "the last ones, whose connections may not be closed yet"


class Cycle(SimpleNamespace):
    """What uvicorn knows of a request, as far as it matters here."""

    def __init__(self, **changes: Any) -> None:
        self.written: list[bytes] = []
        state = {
            "transport": SimpleNamespace(write=self.written.append),
            "default_headers": [],
            "scope": {"method": "POST"},
            "response_started": False,
            "flow": SimpleNamespace(write_paused=False),
            "disconnected": False,
        }
        super().__init__(**state | changes)


class TestHeaderLines:
    def test_length_and_date_are_the_proxys(self):
        lines = _plain_head((("content-type", "text/plain"), ("content-length", "7")), 12, 0)
        assert lines == (b"content-type: text/plain\r\ncontent-length: 12\r\ndate: Thu, 01 Jan 1970 00:00:00 GMT\r\n")

    def test_a_date_that_is_there_stays(self):
        assert _plain_head((("date", "yesterday"),), 0, 0) == b"date: yesterday\r\ncontent-length: 0\r\n"

    @pytest.mark.parametrize(
        "row",
        [
            ("connection", "close"),
            ("transfer-encoding", "chunked"),
            ("x-route", "a\r\nset-cookie: b=c"),
            ("x-route", "a\x00b"),
            ("x route", "a"),
            ("x-route:", "a"),
            ("x-route\n", "a"),
        ],
    )
    def test_what_needs_the_servers_eye_goes_the_long_way(self, row):
        assert _plain_head((("content-type", "text/plain"), row), 0, 0) == b""

    def test_what_no_header_can_carry_is_replaced(self):
        assert b"x-route: ?\xe9\r\n" in _plain_head((("x-route", "\u20ac\xe9"),), 0, 0)


def test_a_server_spares_the_collector_what_stays():
    before, threshold = gc.get_freeze_count(), gc.get_threshold()
    try:
        _memory.settle()
        assert gc.get_freeze_count() > before
        assert gc.get_threshold()[0] > threshold[0]
    finally:
        gc.unfreeze()
        gc.set_threshold(*threshold)
