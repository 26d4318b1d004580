"""What limits of backends are told of a request."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from llm_proxy.holders import Holder

__all__ = ["MODEL_CHARS", "Ask"]

MODEL_CHARS = 200
"""Of a model's name, where anything is remembered by it: callers may send megabytes. Longer ones that begin alike share
what is known of them."""


class Ask(NamedTuple):
    """What a request may take.

    Attributes:
        tenant: Who asks.
        route: Route that decided; empty when the model was named.
        backend: Where it is sent; empty for the caller's own upstream.
        usd: Dollars, >= 0.
        tokens: Of prompt and answer, >= 0.
        is_free: Whether its model is known to cost nothing.
        holder: Who holds the issued key that it came with; its budget counts beside the limits.
    """

    tenant: str
    route: str
    backend: str
    usd: float
    tokens: int
    is_free: bool
    holder: Holder | None = None
