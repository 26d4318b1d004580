"""The httpx family of a request: httpx2 for openai 3 and later, httpx for openai 2; the two share no classes."""

from __future__ import annotations

import sys
from contextlib import suppress
from functools import lru_cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from llm_proxy.errors import MissingDependencyError

if TYPE_CHECKING:
    import httpx2 as httpx

__all__ = ["byte_streams", "family_name", "httpx", "module_of"]

_OTHER = {"httpx2": "httpx", "httpx": "httpx2"}


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


if not TYPE_CHECKING:
    httpx = import_module(family_name())
    # The price library, loaded in a background thread, imports httpx2. Where openai is built on httpx, it looks for
    # the other family among the loaded modules at each new client and fails on one that is half imported: load it now.
    with suppress(ImportError):
        import_module("httpx2")
