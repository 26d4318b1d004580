"""Model servers on this machine: asks the well-known loopback ports for their models.

Nothing else is contacted, no key is sent, and whatever answers there can cost neither much time nor much memory.
"""

from __future__ import annotations

import io
import json
import socket
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from typing import Any

__all__ = ["PORTS", "LocalServer", "discover"]

PORTS: Mapping[int, str] = {11434: "Ollama", 8080: "llama.cpp", 8000: "vLLM", 1234: "LM Studio"}
# Who a server says owns its models, where that tells servers on one port apart.
_OWNERS = {
    "library": "Ollama",
    "llamacpp": "llama.cpp",
    "me": "llama-cpp-python",
    "vllm": "vLLM",
    "organization_owner": "LM Studio",
    "organization-owner": "LM Studio",
}
_HOST = "127.0.0.1"
_LIMIT_BYTES = 1 << 20
_MOST_MODELS = 1000
_MOST_CHARS = 200


@dataclass(frozen=True, slots=True)
class LocalServer:
    """An OpenAI-compatible server found on loopback.

    Attributes:
        name: What it seems to be, e.g. ``Ollama``.
        base_url: URL for clients, with ``/v1``.
        models: Names of its models, those that only embed last; may be empty.
    """

    name: str
    base_url: str
    models: tuple[str, ...]


def discover(
    ports: Mapping[int, str] = PORTS, *, connect_s: float = 0.3, answer_s: float = 1.0
) -> tuple[LocalServer, ...]:
    """Find servers, all ports at once; an llm-proxy among them is passed over.

    Args:
        ports: Where to look, with what a server there is called when it doesn't say.
        connect_s: Longest wait for a connection, seconds.
        answer_s: Longest wait for one whole answer, seconds; there are at most two a port.

    Returns:
        What was found, in the order of ``ports``. Never raises: what doesn't answer like a model server isn't one.
    """
    if not ports:
        return ()

    def probe(port: int) -> LocalServer | None:
        return _probe(port, ports[port], connect_s, answer_s)

    with ThreadPoolExecutor(len(ports), thread_name_prefix="llm-proxy-discover") as pool:
        return tuple(server for server in pool.map(probe, ports) if server is not None)


def _probe(port: int, name: str, connect_s: float, answer_s: float) -> LocalServer | None:
    # Asked first: a proxy would pass the other question on to its upstream.
    _, _, ready = _get(port, "/readyz", connect_s, answer_s)
    if _is_own(ready):
        return None
    status, passed_by, listed = _get(port, "/v1/models", connect_s, answer_s)
    if status != 200 or "llm-proxy" in passed_by or not isinstance(listed, dict):
        return None
    rows = listed.get("data")
    if not isinstance(rows, list):
        return None
    owner = next((owner for owner in map(_owner, rows) if owner in _OWNERS), "")
    models = sorted(dict.fromkeys(_names(rows)), key=lambda model: "embed" in model.lower())
    return LocalServer(_OWNERS.get(owner, name), f"http://{_HOST}:{port}/v1", tuple(models))


def _is_own(ready: Any) -> bool:
    return isinstance(ready, dict) and {"status", "cache", "encoder"} <= ready.keys()


def _owner(row: Any) -> str:
    owner = row.get("owned_by") if isinstance(row, dict) else None
    return owner if isinstance(owner, str) else ""


def _names(rows: list[Any]) -> Iterator[str]:
    for row in rows[:_MOST_MODELS]:
        name = row.get("id") if isinstance(row, dict) else None
        if isinstance(name, str) and 0 < len(name) <= _MOST_CHARS and name.isprintable():
            yield name


def _get(port: int, path: str, connect_s: float, answer_s: float) -> tuple[int, str, Any]:
    """Status, ``Cache-Status`` and JSON of an answer; status 0 when there is none that can be read."""
    try:
        response = HTTPResponse(_Received(_exchange(port, path, connect_s, answer_s)))  # type: ignore[arg-type]
        response.begin()
        return response.status, response.getheader("cache-status") or "", json.loads(response.read())
    except (OSError, HTTPException, ValueError, RecursionError):
        return 0, "", None


def _exchange(port: int, path: str, connect_s: float, answer_s: float) -> bytes:
    """The bytes of an answer: not through `http.client`, whose time-out starts anew with every byte."""
    request = f"GET {path} HTTP/1.1\r\nHost: {_HOST}:{port}\r\nAccept: application/json\r\nConnection: close\r\n\r\n"
    received = bytearray()
    with socket.create_connection((_HOST, port), timeout=connect_s) as connection:
        deadline = time.monotonic() + answer_s
        connection.settimeout(answer_s)
        connection.sendall(request.encode())
        while len(received) <= _LIMIT_BYTES:
            connection.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                chunk = connection.recv(1 << 16)
            except TimeoutError:
                break  # a server that doesn't close: what came may be all there is
            if not chunk or time.monotonic() > deadline:
                received += chunk
                break
            received += chunk
    return bytes(received[:_LIMIT_BYTES])


class _Received:
    """Bytes in the place of a socket, for the standard library's parser of responses."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, _mode: str) -> io.BytesIO:
        return io.BytesIO(self._data)
