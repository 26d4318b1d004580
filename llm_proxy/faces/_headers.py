"""Headers as received, as text by name: the same for every face, since a key depends on some of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING

from llm_proxy.backends.openai_compatible import HOP_BY_HOP

if TYPE_CHECKING:
    from llm_proxy.types import HeaderList

__all__ = ["decoded", "end_to_end", "merged", "read_headers"]


def decoded(rows: Iterable[tuple[bytes, bytes]]) -> HeaderList:
    """Headers as text, names in lower case, values without the space around them (RFC 9112 section 5.1)."""
    return [(name.decode("latin-1").lower(), value.decode("latin-1").strip(" \t")) for name, value in rows]


def merged(headers: HeaderList) -> dict[str, str]:
    """Headers by name; repeated ones as one list. Source: RFC 9110 section 5.3, RFC 9113 section 8.2.3."""
    values: dict[str, str] = {}
    for name, value in headers:
        glue = "; " if name == "cookie" else ", "
        values[name] = f"{values[name]}{glue}{value}" if name in values else value
    return values


def end_to_end(rows: Iterable[tuple[bytes, bytes]], *, keep_length: bool = False) -> HeaderList:
    """Headers as a proxy passes them on: names in lower case, without those that concern one connection only.

    Args:
        rows: Headers as received, in any case.
        keep_length: Leave ``content-length`` in, unless the body came in chunks.

    Source: RFC 9110 sections 7.6.1 and 10.1.1, RFC 9112 section 6.3.
    """
    return _end_to_end(decoded(rows), keep_length=keep_length)


@lru_cache(maxsize=256)
def read_headers(rows: tuple[tuple[bytes, bytes], ...]) -> tuple[Mapping[str, str], Mapping[str, str], int]:
    """All headers by name, those among them that are `end_to_end`, and bytes on the wire; nothing is to be changed.

    A client says the same with each of its calls, so that what was read is kept.
    """
    headers = decoded(rows)
    size = sum(len(name) + len(value) + _FRAME_BYTES for name, value in rows)
    return merged(headers), merged(_end_to_end(headers, keep_length=False)), size


def _end_to_end(headers: HeaderList, *, keep_length: bool) -> HeaderList:
    dropped = _DROPPED
    for name, value in headers:
        if name == "connection" and value.lower() not in _OF_THE_SERVER:
            dropped = dropped.union(token.strip().lower() for token in value.split(","))
    if keep_length and all(name != "transfer-encoding" for name, _ in headers):
        dropped = dropped - {"content-length"}
    return [row for row in headers if row[0] not in dropped]


_FRAME_BYTES = 4  # colon, space and line end
_DROPPED = HOP_BY_HOP | {"expect"}
_OF_THE_SERVER = frozenset({"close", "keep-alive"})  # options that name no further header to drop
