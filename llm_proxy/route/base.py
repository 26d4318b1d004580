"""The router seam: how strong a model does this request need?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from llm_proxy.encode.base import Encoding
    from llm_proxy.types import ChatRequest

__all__ = ["Decision", "Destination", "Router", "Score"]


@dataclass(frozen=True, slots=True)
class Score:
    """How strong a model a request needs, in [0, 1], higher means stronger; ``reason`` says why in a few words."""

    value: float
    reason: str


@dataclass(frozen=True, slots=True)
class Destination:
    """Where the name in a request's ``model`` leads.

    Attributes:
        identity: What separates its answers from other destinations' in the cache.
        route: Name of a configured route, or empty when the model was named.
        backend: Name of a configured backend; empty for the caller's own upstream, and while a route decides.
        model: Name to ask for; empty while a route decides.
    """

    identity: str
    route: str = ""
    backend: str = ""
    model: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """The backend and model that will be asked, and why."""

    backend: str
    model: str
    reason: str
    score: float


class Router(Protocol):
    """Scores requests; see `Score`."""

    def score(self, request: ChatRequest, encoding: Encoding | None) -> Score:
        """Score one request.

        Args:
            request: The call.
            encoding: Its encoded question, where the cache step made one.

        Raises:
            RouterError: It can't decide; the route's default candidate is used.
        """
