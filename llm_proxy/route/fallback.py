"""Who is asked instead, where a backend gave no answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from .able import abilities_of, needs_of, why_not

if TYPE_CHECKING:
    from llm_proxy.config import Config
    from llm_proxy.types import ChatRequest

    from .base import Destination

__all__ = ["fallbacks"]

Pair = tuple[str, str]


def fallbacks(
    config: Config,
    request: ChatRequest,
    destination: Destination,
    cause: str,
    *,
    natural: Sequence[Pair],
    resting_s: Callable[[str, str], float],
) -> Sequence[Pair]:
    """Who may be asked instead of a destination's backend, in turn; perhaps the one that was asked among them.

    What the route says for this cause counts first, then what it says for any, then the same of the backend. Where
    nothing is said, it is the other candidates, but not after an answer was refused for its content: that another
    model would give it is for the user to decide.

    Args:
        config: ``backends`` and ``routes`` are read.
        request: The call.
        destination: Whose backend gave no answer.
        cause: Why, see `llm_proxy.backends.retry.Cause`.
        natural: The other candidates of the route that can take it, the best first; none without a route.
        resting_s: For how long a candidate should be passed over.

    Returns:
        Pairs of backend and model that can take the request; those that rest come last.
    """
    named = _named(config, destination, cause)
    if named is None:
        if cause == "content_policy":
            return ()
        pairs = list(natural)
    else:
        pairs = [(one.partition("/")[0], one.partition("/")[2] or destination.model or request.model) for one in named]
    needs, backends = needs_of(request), config.backends
    able = [pair for pair in pairs if not why_not(needs, abilities_of(backends[pair[0]], pair[1]))]
    if cause == "context_length":
        able = [pair for pair in able if _may_hold_more(config, pair, (destination.backend, destination.model))]
    return sorted(able, key=lambda pair: resting_s(*pair) > 0)


def _named(config: Config, destination: Destination, cause: str) -> Sequence[str] | None:
    """What the settings name; None where they say nothing."""
    tables: list[Mapping[str, tuple[str, ...]]] = []
    if destination.route:
        tables.append(config.routes[destination.route].fallbacks)
    tables.append(config.backends[destination.backend].fallbacks)
    return next((table[name] for table in tables for name in (cause, "any") if name in table), None)


def _may_hold_more(config: Config, pair: Pair, other: Pair) -> bool:
    """Whether a model may take a prompt that was too long for another; unless both say how much, it may."""
    windows = [abilities_of(config.backends[backend], model).context_tokens for backend, model in (pair, other)]
    return None in windows or windows[0] > windows[1]  # type: ignore[operator]  # neither is None
