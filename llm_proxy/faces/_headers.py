"""Headers as received, as text by name: the same for every face, since a key depends on some of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llm_proxy.types import HeaderList

__all__ = ["decoded", "merged"]


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
