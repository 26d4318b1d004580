"""Bodies that come slowly, never end, or come all at once: bounded in time and memory, and others go on."""

from __future__ import annotations

import asyncio
import json
import socket
import time

import pytest

from llm_proxy.faces._asgi_io import Caller, Refused
from llm_proxy.faces._bodies import Unfinished
from tests.faces.asgi_kit import RawUpstream, chunked, completion, http, proxied, raw_response
from tests.faces.test_connections import received

CHAT = b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\n"
BODY = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}]}).encode()
WHOLE = CHAT + b"content-length: %d\r\n\r\n" % len(BODY) + BODY


def served(**server):
    """A proxy with these limits, before a backend that answers."""
    return proxied(UPSTREAM.url, server=server)


@pytest.fixture(scope="module", autouse=True)
def upstream():
    global UPSTREAM
    with RawUpstream(lambda request: request.send(raw_response(completion()))) as UPSTREAM:
        yield


def drip(connection: socket.socket, piece: bytes, *, for_s: float, every_s: float = 0.05) -> None:
    """Send a piece now and then, until the other side has closed or the time is over."""
    deadline = time.monotonic() + for_s
    while time.monotonic() < deadline:
        try:
            connection.sendall(piece)
        except OSError:
            return
        time.sleep(every_s)


def feeding(*pieces: bytes, pause_s: float = 0.0):
    """ASGI's receive for a body in these pieces, the last of which is not its end."""
    left = list(pieces)

    async def receive():
        await asyncio.sleep(pause_s if left else 60)
        return {"type": "http.request", "body": left.pop(0) if left else b"", "more_body": True}

    return receive


class TestTime:
    def test_a_body_that_drips_is_a_408(self):
        with served(body_total_s=0.4) as proxy, socket.create_connection(("127.0.0.1", proxy.port)) as caller:
            caller.sendall(CHAT + b"content-length: 1000\r\n\r\n")
            began_s = time.monotonic()
            drip(caller, b"x", for_s=5)
            assert time.monotonic() - began_s < 3
            answer = received(caller)
            assert not answer or answer.startswith(b"HTTP/1.1 408 ")
            assert http(proxy.port, WHOLE)[0] == 200

    def test_it_says_why(self):
        with served(body_total_s=0.3) as proxy:
            data = CHAT + b"content-length: 1000\r\n\r\n" + b"x"
            status, headers, body = http(proxy.port, data, until_closed=True)
            assert (status, headers["connection"]) == (408, "close")
            assert "did not come in whole within 0.3 s" in json.loads(body)["error"]["message"]

    def test_chunks_that_drip_are_a_408_as_well(self):
        with served(body_total_s=0.3) as proxy, socket.create_connection(("127.0.0.1", proxy.port)) as caller:
            caller.sendall(CHAT + b"transfer-encoding: chunked\r\n\r\n")
            drip(caller, chunked(b"x", is_end=False), for_s=5)
            assert http(proxy.port, WHOLE)[0] == 200

    def test_what_is_passed_on_has_longer_the_more_of_it_came(self):
        async def taken(size: int) -> int:
            caller = Caller(feeding(*[b"x" * size] * 10, pause_s=0.02), most_s=0.05)
            count = 0
            async for piece in caller.chunks():
                count += len(piece)
                if count == 10 * size:
                    break
            return count

        assert asyncio.run(taken(1024)) == 10240
        with pytest.raises(Refused, match="was waited for") as caught:
            asyncio.run(taken(1))
        assert (caught.value.status, caught.value.must_close) == (408, True)

    def test_what_follows_a_refusal_does_not_hold_the_connection(self):
        with (
            served(body_total_s=0.3, max_body_bytes=100) as proxy,
            socket.create_connection(("127.0.0.1", proxy.port)) as caller,
        ):
            caller.sendall(CHAT + b"content-length: 100000\r\n\r\n")
            assert caller.recv(65536).startswith(b"HTTP/1.1 413 ")
            began_s = time.monotonic()
            drip(caller, b"x", for_s=5)
            assert time.monotonic() - began_s < 3


class TestMemory:
    def test_who_began_first_gives_way(self):
        async def story():
            unfinished = Unfinished(1000)
            callers = [
                Caller(feeding(b"x" * 300, b"x" * 90, pause_s=0.01 * place), unfinished=unfinished)
                for place in range(1, 5)
            ]
            reading = [asyncio.ensure_future(one.body(limit_bytes=5000)) for one in callers]
            done, waiting = await asyncio.wait(reading, timeout=0.3)
            held = unfinished.held_bytes
            for task in waiting:
                task.cancel()
            await asyncio.wait(waiting)
            return [task in done for task in reading], [task.exception() for task in done], held, unfinished.held_bytes

        are_over, errors, held, left = asyncio.run(story())
        assert are_over == [True, True, False, False]
        assert all(isinstance(error, Refused) and error.code == "too_many_unfinished" for error in errors)
        assert all((error.status, error.must_close) == (503, True) for error in errors)
        assert (held, left) == (780, 0)

    def test_one_alone_may_be_too_large(self):
        async def story():
            await Caller(feeding(b"x" * 600, b"x" * 600), unfinished=Unfinished(1000)).body(limit_bytes=5000)

        with pytest.raises(Refused, match="half sent"):
            asyncio.run(story())

    def test_what_comes_at_once_does_not_count(self):
        async def receive():
            return {"type": "http.request", "body": b"x" * 5000, "more_body": False}

        unfinished = Unfinished(1000)
        assert len(asyncio.run(_body_of(receive, unfinished))) == 5000
        assert unfinished.held_bytes == 0

    def test_too_large_is_seen_in_the_middle_too(self):
        async def story():
            await Caller(feeding(b"x" * 60, b"x" * 60)).body(limit_bytes=100)

        with pytest.raises(Refused, match="larger than 100 bytes"):
            asyncio.run(story())

    def test_many_that_never_end_leave_room_for_others(self):
        size = 200_000
        with served(max_unfinished_bytes=4 * size) as proxy:
            held = [socket.create_connection(("127.0.0.1", proxy.port)) for _ in range(12)]
            try:
                for connection in held:
                    connection.sendall(CHAT + b"content-length: 999999\r\n\r\n" + b"x" * size)
                    deadline = time.monotonic() + 5
                    while proxy.app._unfinished.held_bytes % size and time.monotonic() < deadline:
                        time.sleep(0.01)
                large = json.dumps({"model": "m", "messages": [{"role": "user", "content": "y" * 300_000}]}).encode()
                assert http(proxy.port, CHAT + b"content-length: %d\r\n\r\n" % len(large) + large)[0] == 200
                assert proxy.app._unfinished.held_bytes <= 4 * size
                assert received(held[0]).startswith(b"HTTP/1.1 503 ")
            finally:
                for connection in held:
                    connection.close()


async def _body_of(receive, unfinished):
    return await Caller(receive, unfinished=unfinished).body(limit_bytes=10_000)
