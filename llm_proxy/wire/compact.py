"""JSON as short as it can be, also where a text holds half of a character."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

__all__ = ["Write", "compact"]

Write = Callable[[Any], str]

_WRITE: Write = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode
_WRITE_ASCII: Write = json.JSONEncoder(separators=(",", ":")).encode


def compact(text: Callable[[Write], str]) -> bytes:
    """What ``text`` makes with a function that serialises values, as UTF-8.

    A lone surrogate has no UTF-8; JSON can only carry it escaped. So ``text`` is then called again, with a function
    that escapes all that is not ASCII.

    Raises:
        RecursionError: A value is nested too deeply.
    """
    try:
        return text(_WRITE).encode()
    except UnicodeEncodeError:
        return text(_WRITE_ASCII).encode()
