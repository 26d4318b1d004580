"""Puts together what limits calls: the queues of backends and the budgets, at one gate."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from .backends.cold import ColdStarts
from .engine.gate import Gate
from .route.foresight import Foresight

if TYPE_CHECKING:
    from pathlib import Path

    from .backends.budget import Budget
    from .backends.prices import Prices
    from .backends.queue import Queue
    from .config import Config
    from .engine.outgoing import Dispatcher
    from .engine.ports import Clock
    from .engine.settle import Settler
    from .observe.events import Troubles
    from .route.costs import CostEstimator

__all__ = ["BUDGET_NAME", "Parts", "budget_file", "budget_for", "gate_for", "keys_file"]

BUDGET_NAME = "budget.sqlite3"


class Parts(Protocol):
    """What limits share with the other parts; see `llm_proxy.runtime.Runtime`."""

    config: Config
    clock: Clock
    troubles: Troubles
    prices: Prices
    costs: CostEstimator


def budget_file(config: Config) -> Path | None:
    """Where the budgets of a configuration are kept; None where nothing is kept on disk."""
    return config.cache.directory / BUDGET_NAME if config.cache.store == "disk" else None


def keys_file(config: Config) -> Path | None:
    """Where issued keys are kept: beside the cache's directory, which may be emptied; None where nothing is on disk."""
    if config.server.keys_file is not None:
        return config.server.keys_file
    directory = config.cache.directory
    return directory.with_name(f"{directory.name}-keys.json") if config.cache.store == "disk" else None


def budget_for(config: Config, parts: Parts, later: Callable[[Callable[[], Any]], object]) -> Budget | None:
    """The budgets of a configuration and of the keys that it issues; None where there are none."""
    if not config.budget.limits and keys_file(config) is None:
        return None
    from .backends.budget import Budget

    troubles = parts.troubles
    return Budget(
        budget_file(config),
        config.budget.limits,
        time=parts.clock.time,
        later=later,
        note=lambda exc: troubles.note("budget", exc),
    )


def gate_for(
    parts: Parts, dispatcher: Dispatcher, settler: Settler, later: Callable[[Callable[[], Any]], object]
) -> Gate:
    """The gate of a configuration among its other parts.

    Args:
        parts: What it shares with others.
        dispatcher: Makes requests for other candidates.
        settler: Is told which backend has a call.
        later: Has a function called some time soon, elsewhere.
    """
    config = parts.config
    budget = budget_for(config, parts, later)
    return Gate(
        config,
        dispatcher=dispatcher,
        settler=settler,
        lines=_lines(config, parts.clock),
        purse=budget if config.budget.limits else None,
        own_purse=budget,
        cold=ColdStarts(config.backends),
        prices=parts.prices,
        foresight=Foresight(parts.costs, config.backends),
        clock=parts.clock,
        troubles=parts.troubles,
    )


def _lines(config: Config, clock: Clock) -> dict[str, Queue]:
    """The queues of a configuration, by the names of their backends."""
    limited = {name: backend for name, backend in config.backends.items() if backend.concurrency is not None}
    if not limited:
        return {}
    from .backends.queue import Queue

    return {
        name: Queue(
            slots=backend.concurrency or 1,
            bound_s=backend.queue_wait_s,
            length=backend.queue_length,
            monotonic=clock.monotonic,
        )
        for name, backend in limited.items()
    }
