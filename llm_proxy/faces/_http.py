"""The httpx family of a request: httpx2 for openai 3 and later, httpx for openai 2; the two share no classes."""

from __future__ import annotations

import sys
from contextlib import suppress
from copy import copy
from functools import lru_cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from llm_proxy.errors import MissingDependencyError

if TYPE_CHECKING:
    import httpx2 as httpx

__all__ = ["alone", "byte_streams", "family_name", "httpx", "module_of", "renew"]

_OTHER = {"httpx2": "httpx", "httpx": "httpx2"}
_inherited: list[Any] = []
"""What a child has of its parent's connections: it must not close them."""


def family_name() -> str:
    """Name of the family that the installed openai package is built on.

    Raises:
        MissingDependencyError: openai is not installed.
    """
    try:
        major = int(version("openai").partition(".")[0])
    except PackageNotFoundError as exc:
        raise MissingDependencyError("openai is not installed: pip install openai") from exc
    return "httpx2" if major >= 3 else "httpx"


def module_of(value: object) -> Any:
    """The family's module that a request, client or transport belongs to; the installed openai's when it is neither."""
    other = None if _is_of(httpx, value) else sys.modules.get(_OTHER[httpx.__name__])
    return other if other is not None and _is_of(other, value) else httpx


def _is_of(module: Any, value: object) -> bool:
    return isinstance(value, (module.Request, module.Client, module.AsyncClient))


@lru_cache(maxsize=len(_OTHER))
def byte_streams(module: Any) -> tuple[Any, Any]:
    """The sync and the async byte stream of a family, each made from an iterator and a closing function.

    The openai client reads a stream up to its terminal event; its async form then iterates the stream again to
    drain it. Both get the one iterator, so that nothing is read, or settled, twice.
    """

    class Chunks(module.SyncByteStream):  # type: ignore[misc]
        def __init__(self, iterator: Any, close: Any) -> None:
            self._iterator, self._close = iterator, close

        def __iter__(self) -> Any:
            return self._iterator

        def close(self) -> None:
            self._close()

    class AsyncChunks(module.AsyncByteStream):  # type: ignore[misc]
        def __init__(self, iterator: Any, aclose: Any) -> None:
            self._iterator, self._aclose = iterator, aclose

        def __aiter__(self) -> Any:
            return self._iterator

        async def aclose(self) -> None:
            await self._aclose()

    return Chunks, AsyncChunks


def alone(response: Any) -> Any:
    """The same response, whose connection is closed at its end where more bytes came than it has.

    The family keeps such bytes and would read them as the answer to the next request on that connection, which may be
    somebody else's. What comes later, it notices by itself. Mutates the response, where it is one of HTTP/1.1.
    """
    state = _state_of(getattr(response, "stream", None))
    if state is not None:
        module = httpx if isinstance(response, httpx.Response) else sys.modules[_OTHER[httpx.__name__]]
        side = isinstance(response.stream, module.AsyncByteStream)
        response.stream = _last_streams(module)[side](response.stream, state)
    return response


def renew(transport: Any) -> None:
    """Have a transport of a family's own begin in a child without connections; any other is left as it is.

    Parent and children would write into the same connections, and read each other's answers. Responses that are under
    way keep the old pool. By private names, as in `_state_of`: `tests/faces/test_forked_clients.py` fails where a
    version has others. Mutates the transport.
    """
    pool = getattr(transport, "_pool", None)
    lock = getattr(pool, "_optional_thread_lock", None)
    if lock is None or not hasattr(pool, "_connections") or not hasattr(pool, "_requests"):
        return
    fresh: Any = copy(pool)
    fresh._connections, fresh._requests, fresh._optional_thread_lock = [], [], type(lock)()
    transport._pool = fresh
    _inherited.append(pool)


def _state_of(stream: Any) -> Any:
    """What reads HTTP/1.1 (`h11.Connection`) behind a stream of the family's own transport; None for another.

    By private names: the families tell nobody what came behind an answer. `tests/faces/test_left_over.py` fails where a
    version of theirs has others.
    """
    pooled = getattr(getattr(stream, "_httpcore_stream", None), "_stream", None)
    return getattr(getattr(pooled, "_connection", None), "_h11_state", None)


def _refuse_more(state: Any) -> None:
    if state.trailing_data[0]:
        state.send_failed()  # a connection in this state is not used again


@lru_cache(maxsize=len(_OTHER))
def _last_streams(module: Any) -> tuple[Any, Any]:
    """The sync and the async stream of a family that look for more when they are closed."""

    class Last(module.SyncByteStream):  # type: ignore[misc]
        def __init__(self, stream: Any, state: Any) -> None:
            self._stream, self._state = stream, state

        def __iter__(self) -> Any:
            return iter(self._stream)

        def close(self) -> None:
            _refuse_more(self._state)
            self._stream.close()

    class AsyncLast(module.AsyncByteStream):  # type: ignore[misc]
        def __init__(self, stream: Any, state: Any) -> None:
            self._stream, self._state = stream, state

        def __aiter__(self) -> Any:
            return aiter(self._stream)

        async def aclose(self) -> None:
            _refuse_more(self._state)
            await self._stream.aclose()

    return Last, AsyncLast


if not TYPE_CHECKING:
    httpx = import_module(family_name())
    # The price library, loaded in a background thread, imports httpx2. Where openai is built on httpx, it looks for
    # the other family among the loaded modules at each new client and fails on one that is half imported: load it now.
    with suppress(ImportError):
        import_module("httpx2")
