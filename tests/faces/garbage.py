"""Requests of garbage through real sockets, the same for the same seed: ``python -m tests.faces.garbage``.

A proxy that issues keys, before a simulated provider: bytes at random, requests with bytes changed, cut or doubled,
heads of nonsense, wrong chunks, wrong keys, tricks with paths. Whatever comes, the answer is none or one of the proxy's
own errors, says nothing of the proxy's inside and nothing of what others have asked, and nothing of it reaches the
provider without a key.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import socket
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from llm_proxy.faces._http import httpx
from llm_proxy.faces.keys import add
from llm_proxy.holders import Holder
from tests.faces.asgi_kit import Proxy, RawUpstream, completion, proxied, raw_response, until

__all__ = ["Found", "attack", "guarded", "rounds"]

_AT_A_TIME = 16
SECRET = "the vault opens at noon"
_BODY = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}]}).encode()
_PATHS = (
    b"/v1/chat/completions", b"/v1//chat/completions", b"/v1/models", b"/llm-proxy/calls", b"/llm-proxy/undo",
    b"/llm-proxy/feedback", b"/metrics", b"/../../etc/passwd", b"/v1/%2e%2e/%2e%2e/secrets", b"*", b"//", b"/v1/files",
)  # fmt: skip
_METHODS = (b"GET", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"CONNECT", b"TRACE", b"PRI", b"get", b"\x00", b"G\tT")
_INSIDE = (b"Traceback", b"llm_proxy/", b"site-packages", b'File "', b"sqlite", b"uvicorn", SECRET.encode())


@dataclass
class Found:
    """What came back of all requests."""

    statuses: Counter[int] = field(default_factory=Counter)
    wrong: list[tuple[bytes, bytes]] = field(default_factory=list)


@contextmanager
def guarded(folder: Path) -> Iterator[tuple[Proxy, str, RawUpstream]]:
    """A proxy that issues keys, the key of a caller whose secret it has answered, and its provider."""
    path = folder / "keys.json"
    key, _ = add(path, Holder("", "victim", "victim"), now_s=1.0)

    def handler(request: object) -> None:
        request.send(raw_response(completion(SECRET)))  # type: ignore[attr-defined]

    server = {"keys_file": str(path), "head_s": 0.2, "body_s": 0.2, "idle_s": 1, "body_total_s": 1.0}
    with RawUpstream(handler) as upstream, proxied(upstream.url, server=server) as proxy:
        assert asked(proxy, key) == SECRET
        yield proxy, key, upstream


def asked(proxy: Proxy, key: str) -> str:
    """The answer to a proper call."""
    headers = {"authorization": f"Bearer {key}"}
    found = httpx.post(f"{proxy.url}/v1/chat/completions", content=_BODY, headers=headers, timeout=30)
    return str(found.json()["choices"][0]["message"]["content"])


def rounds(seed: int, count: int) -> Iterator[bytes]:
    """Garbage, the same for the same seed."""
    chance = random.Random(seed)
    kinds: tuple[Callable[[random.Random], bytes], ...] = (_noise, _changed, _changed, _head, _chunks, _huge)
    for _ in range(count):
        yield chance.choice(kinds)(chance)


def attack(proxy: Proxy, requests: Iterator[bytes]) -> Found:
    """Send each on a connection of its own, some at a time, and look at what comes back."""
    found = Found()
    every = list(requests)
    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        answers = pool.map(lambda request: _exchange(proxy.port, request), every)
        for request, answer in zip(every, answers, strict=True):
            status = _status(answer) if answer else 0
            found.statuses[status] += 1
            if answer and not _is_proper(status, answer):
                found.wrong.append((request, answer))
    return found


def _exchange(port: int, data: bytes) -> bytes:
    """The first answer to some bytes; empty where the connection is closed without one."""
    received = b""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        try:
            connection.sendall(data)
            while not _is_whole(received) and (piece := connection.recv(65536)):
                received += piece
        except ConnectionError:
            pass
    return received


def _is_whole(answer: bytes) -> bool:
    head, end, body = answer.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
    return bool(end) and length is not None and len(body) >= int(length[1])


def _status(answer: bytes) -> int:
    line = answer.partition(b"\r\n")[0].split(b" ")
    return int(line[1]) if len(line) > 2 and line[0] == b"HTTP/1.1" and line[1].isdigit() else -1


def _is_proper(status: int, answer: bytes) -> bool:
    """Whether an answer is one that a stranger may get."""
    if any(word in answer for word in _INSIDE):
        return False
    if status in {200, 100}:  # health, readiness, the document and the page are for all
        return b'"choices"' not in answer
    return (400 <= status < 500 or status == 503) and b'"error"' in answer


def _noise(chance: random.Random) -> bytes:
    return chance.randbytes(chance.randrange(1, 400)) + chance.choice((b"", b"\r\n\r\n"))


def _request(chance: random.Random) -> bytes:
    key = chance.choice((b"lp-wrong", b"x" * 43, b"", b"Bearer", b"\xff\xfe", b"lp-" + b"A" * 43))
    rows = [
        chance.choice((b"POST", b"GET")) + b" " + chance.choice(_PATHS) + b" HTTP/1.1",
        b"host: 127.0.0.1",
        chance.choice((b"authorization: Bearer ", b"x-api-key: ", b"api-key: ")) + key,
        b"content-length: %d" % len(_BODY),
    ]
    return b"\r\n".join(rows) + b"\r\n\r\n" + _BODY


def _changed(chance: random.Random) -> bytes:
    """A request with some of its bytes changed, cut off or doubled."""
    data = bytearray(_request(chance))
    for _ in range(chance.randrange(1, 6)):
        place = chance.randrange(len(data))
        what = chance.randrange(4)
        if what == 0:
            data[place] = chance.randrange(256)
        elif what == 1:
            del data[place : place + chance.randrange(1, 20)]
        elif what == 2:
            data[place:place] = data[place : place + chance.randrange(1, 40)]
        else:
            data[place:place] = chance.choice((b"\r\n", b"\x00", b"%00", b"/../", b"\n", b": ", b" "))
        data = data or bytearray(b"x")
    return bytes(data)


def _head(chance: random.Random) -> bytes:
    rows = [chance.choice(_METHODS) + b" " + chance.choice(_PATHS) + chance.choice((b" HTTP/1.1", b" HTTP/9", b""))]
    names = [chance.randbytes(chance.randrange(1, 8)).hex().encode() for _ in range(chance.randrange(0, 130))]
    rows += [name + b":" + chance.randbytes(5).hex().encode() for name in names]
    rows += [b"content-length: 5", b"transfer-encoding: chunked"][: chance.randrange(3)]
    return b"\r\n".join(rows) + b"\r\n\r\n"


def _chunks(chance: random.Random) -> bytes:
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ntransfer-encoding: chunked\r\n\r\n"
    sizes = (b"5", b"-1", b"ffffffffffffffffff", b"0x5", b"5;x=" + b"y" * 40, b"", b"5\n", b"z")
    return head + b"".join(chance.choice(sizes) + b"\r\nhello\r\n" for _ in range(chance.randrange(1, 5)))


def _huge(chance: random.Random) -> bytes:
    name = chance.choice((b"x-long: ", b"cookie: ", b"authorization: Bearer "))
    head = b"GET /v1/models HTTP/1.1\r\nhost: 127.0.0.1\r\n"
    return head + name + b"a" * chance.choice((70_000, 200_000)) + b"\r\n\r\n"


def main() -> int:
    """Run it; 1 where something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, guarded(Path(name)) as (proxy, key, upstream):
        found = attack(proxy, rounds(options.seed, options.requests))
        until(lambda: asked(proxy, key) == SECRET)
        troubles = dict(proxy.runtime.troubles.counts)
        print(json.dumps({"statuses": dict(found.statuses), "wrong": len(found.wrong), "troubles": troubles}))  # noqa: T201
        for request, answer in found.wrong[:5]:
            print(request[:300], "->", answer[:600])  # noqa: T201
        return int(bool(found.wrong or troubles or len(upstream.requests) != 1))


if __name__ == "__main__":
    sys.exit(main())
