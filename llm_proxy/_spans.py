"""Where a value stands in the text of a JSON object, so that it can be replaced and no other byte touched."""

from __future__ import annotations

import json
import re

__all__ = ["span_of_model"]

_WHITESPACE = re.compile(r"[ \t\n\r]*")
_READ = json.JSONDecoder().raw_decode


def span_of_model(text: str) -> tuple[int, int]:
    """Where the value of the key ``model`` begins and ends in a JSON object; each key is there once."""

    def after_space(at: int) -> int:
        return _WHITESPACE.match(text, at).end()  # type: ignore[union-attr]  # it matches nothing, too

    at = after_space(0)
    while True:
        name, at = _READ(text, after_space(at + 1))
        start = after_space(after_space(at) + 1)
        _, end = _READ(text, start)
        if name == "model":
            return start, end
        at = after_space(end)
