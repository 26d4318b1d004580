"""What limits of backends are told of a request."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Ask"]


class Ask(NamedTuple):
    """What a request may take.

    Attributes:
        tenant: Who asks.
        route: Route that decided; empty when the model was named.
        backend: Where it is sent; empty for the caller's own upstream.
        usd: Dollars, >= 0.
        tokens: Of prompt and answer, >= 0.
        is_free: Whether its model is known to cost nothing.
    """

    tenant: str
    route: str
    backend: str
    usd: float
    tokens: int
    is_free: bool
