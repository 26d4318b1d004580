"""What every test gets: no network but loopback, no settings from outside, no runtime left open."""

from __future__ import annotations

import ipaddress
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

_SETTINGS = ("LLM_PROXY_", "OPENAI_", "AZURE_OPENAI_")
_PROXIES = {"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"}
_KEPT = {"LLM_PROXY_REQUIRE_LOCAL_MODEL"}  # a switch of the tests themselves


@pytest.fixture(autouse=True, scope="session")
def _loopback_only() -> Iterator[None]:
    """Fail the test that asks for another machine: a mock that patches the wrong thing lets calls out."""
    connect, connect_ex, getaddrinfo = socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo
    patch = pytest.MonkeyPatch()

    def checked(address: Any) -> None:
        host = address[0] if isinstance(address, tuple) else address
        if isinstance(host, bytes):
            host = host.decode()
        if isinstance(address, tuple) and not _is_loopback(host):
            pytest.fail(f"a test asked for {host!r}, which is not on this machine")

    def new_connect(self: socket.socket, address: Any) -> Any:
        checked(address)
        return connect(self, address)

    def new_connect_ex(self: socket.socket, address: Any) -> Any:
        checked(address)
        return connect_ex(self, address)

    def new_getaddrinfo(host: Any, *args: Any, **options: Any) -> Any:
        if host is not None:
            checked((host, 0))
        return getaddrinfo(host, *args, **options)

    patch.setattr(socket.socket, "connect", new_connect)
    patch.setattr(socket.socket, "connect_ex", new_connect_ex)
    patch.setattr(socket, "getaddrinfo", new_getaddrinfo)
    yield
    patch.undo()


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if (name.startswith(_SETTINGS) and name not in _KEPT) or name.upper() in _PROXIES:
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache-home"))


@pytest.fixture(autouse=True)
def _closed_runtimes() -> Iterator[None]:
    yield
    runtime = sys.modules.get("llm_proxy.runtime")
    if runtime is not None:
        runtime.close_all()


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """Async tests run on asyncio; those that say so run on trio as well."""
    return "asyncio"


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False
