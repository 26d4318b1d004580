"""Which requests may be drafted for: those whose answer is text, and the only one that there is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["is_greedy", "most_tokens_of", "stops_of"]

_HARMLESS = frozenset({
    "model", "messages", "temperature", "top_p", "top_k", "seed", "stop", "max_tokens", "max_completion_tokens",
    "stream", "stream_options", "user", "metadata", "store", "service_tier",
})  # fmt: skip
_PLAIN: Mapping[str, tuple[Any, ...]] = {"n": (1,), "response_format": ({"type": "text"},)}


def is_greedy(body: Mapping[str, Any], needed: Mapping[str, float]) -> bool:
    """Whether the answer to a request is text that greedy decoding finds, token by token, and nothing else.

    Args:
        body: The request.
        needed: Fields that it must have, with these values, for its server to decode so.

    Unknown fields, and those that choose otherwise (penalties, biases, tools, formats), make it none.
    """
    is_certain = _is(body.get("temperature"), 0) or _is(body.get("top_k"), 1)
    if not is_certain or not all(_is(body.get(name), value) for name, value in needed.items()):
        return False
    others = {name: value for name, value in body.items() if name not in _HARMLESS and name not in needed}
    return all(not value or value in _PLAIN.get(name, ()) for name, value in others.items()) and _is_well_said(body)


def stops_of(body: Mapping[str, Any]) -> tuple[str, ...]:
    """Texts that end the answer; each has a character."""
    stop = body.get("stop")
    return (stop,) if isinstance(stop, str) else tuple(stop or ())


def most_tokens_of(body: Mapping[str, Any]) -> int | None:
    """Longest answer, tokens; None where the request does not say."""
    said = body.get("max_completion_tokens")
    most: int | None = body.get("max_tokens") if said is None else said
    return most


def _is(value: object, wanted: float) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value == wanted


def _is_well_said(body: Mapping[str, Any]) -> bool:
    most, stop = most_tokens_of(body), body.get("stop")
    stops = [stop] if isinstance(stop, str) else stop
    is_list = stops is None or (isinstance(stops, list) and all(isinstance(one, str) and one for one in stops))
    return is_list and (most is None or (type(most) is int and most > 0))
