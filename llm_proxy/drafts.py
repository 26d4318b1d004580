"""Puts together what sends calls with drafts; what nobody has asked for is not imported."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from .config import Config
    from .engine.gate import Gate
    from .engine.outgoing import Dispatcher
    from .engine.ports import Clock, Scorer, Sends
    from .engine.settle import Settler
    from .observe.events import Troubles
    from .route.select import Selector

__all__ = ["Parts", "drafting_for"]


class Parts(Protocol):
    """What drafting shares with the other parts; see `llm_proxy.runtime.Runtime`."""

    config: Config
    clock: Clock
    troubles: Troubles
    selector: Selector


def drafting_for(
    parts: Parts, sends: Sends, dispatcher: Dispatcher, settler: Settler, *, gate: Gate, scorer: Scorer | None
) -> Sends:
    """What sends the calls of a configuration; what was given where no backend has drafts, or a rival.

    Args:
        parts: What it shares with others.
        sends: Sends calls without drafts.
        dispatcher: Makes the requests.
        settler: Books what became of them.
        gate: Where each request waits until it may be sent.
        scorer: Says how likely an answer is right; None: no backend has a rival.
    """
    config = parts.config
    if any(backend.draft_with for backend in config.backends.values()):
        sends = _drafting(parts, sends, dispatcher, settler, gate)
    if scorer is None or not any(backend.race_with for backend in config.backends.values()):
        return sends
    from .engine.racing import Racing

    return Racing(
        config,
        sends,
        dispatcher=dispatcher,
        settler=settler,
        gate=gate,
        scorer=scorer,
        clock=parts.clock,
        troubles=parts.troubles,
    )


def _drafting(parts: Parts, sends: Sends, dispatcher: Dispatcher, settler: Settler, gate: Gate) -> Sends:
    from .draft.goodput import Goodput
    from .draft.load import Load
    from .engine.drafting import Drafting

    config = parts.config
    return Drafting(
        config,
        sends,
        dispatcher=dispatcher,
        settler=settler,
        gate=gate,
        goodput=Goodput(most=config.draft.max_length, max_extra_cost=config.draft.max_extra_cost),
        load=Load(parts.selector.health.under_way),
        clock=parts.clock,
        troubles=parts.troubles,
    )
