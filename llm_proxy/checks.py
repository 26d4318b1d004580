"""Puts together what sends calls again and checks answers; finds the hit that somebody takes back."""

from __future__ import annotations

import random
import threading
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from .cache.judge import ModelJudge, judge_named, normalised
from .engine.allowance import Allowance
from .engine.attempts import Attempts
from .engine.chains import Chains, servers_of
from .engine.shadow import Checker
from .errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from .cache.base import AnswerCache
    from .config import Config
    from .encode.lazy import LazyEncoder
    from .engine.cascade import Cascade
    from .engine.gate import Gate
    from .engine.outgoing import Dispatcher
    from .engine.ports import Clock, Homes, Pricer, QuestionEncoder, Quoter, Scorer, Sends
    from .engine.settle import Settler
    from .observe.events import CheckEvent, Troubles
    from .observe.ledger import Ledger
    from .route.scorer import AnswerScorer, LazyScorer
    from .types import Outcome

__all__ = ["LEDGER_NAME", "attempts_for", "cascade_for", "chains_for", "checker_for", "hit_named", "scorer_for"]

LEDGER_NAME = "ledger.sqlite3"


class Parts(Protocol):
    """What sending shares with the other parts; see `llm_proxy.runtime.Runtime`."""

    config: Config
    clock: Clock
    troubles: Troubles


def checker_for(
    config: Config,
    *,
    cache: AnswerCache | None,
    dispatcher: Dispatcher,
    settler: Settler,
    encoder: QuestionEncoder | None,
    prices: Pricer,
    clock: Clock,
    troubles: Troubles,
    ledger: Ledger | None,
) -> Checker:
    """The checker of a configuration among its other parts; without a ledger it books nothing."""
    settings = config.cache
    judge = judge_named(settings.judge, None if encoder is None else encoder.encode)

    def spent_since(at_s: float) -> float:
        from .observe.verdicts import check_spending

        return 0.0 if ledger is None else check_spending(settings.directory / LEDGER_NAME, since_s=at_s)

    def book(event: CheckEvent) -> None:
        if ledger is not None:
            ledger(event)

    return Checker(
        settings,
        cache=cache,
        dispatcher=dispatcher,
        settler=settler,
        judge=judge,
        asker=judge if isinstance(judge, ModelJudge) else None,
        allowance=Allowance(settings.check_usd_per_day, clock=clock, spent_since=spent_since, lock=threading.Lock()),
        prices=prices,
        clock=clock,
        troubles=troubles,
        book=book,
        chance=random.Random().random,  # not the program's own sequence, which it may have seeded
    )


def scorer_for(config: Config, encoder: LazyEncoder | None, troubles: Troubles) -> LazyScorer | None:
    """What scores answers in a configuration, loaded with the first one; None where nobody would ask it.

    A correction in the cache's directory is used, see `llm_proxy.route.adapt`; one that is damaged is noted and left.
    """
    is_asked = any(route.cascade for route in config.routes.values())
    if not is_asked and not any(backend.race_with for backend in config.backends.values()):
        return None
    from .route.adapt import OWN_NAME, Adaptation
    from .route.scorer import AnswerScorer, LazyScorer

    def load() -> AnswerScorer:
        own = config.cache.directory / OWN_NAME
        try:
            return AnswerScorer(own=Adaptation.load(own) if config.cache.store == "disk" and own.is_file() else None)
        except ConfigError as exc:
            troubles.note("cascade", exc)
            return AnswerScorer()

    return LazyScorer(encoder, load)


def cascade_for(
    config: Config,
    dispatcher: Dispatcher,
    settler: Settler,
    clock: Clock,
    *,
    gate: Gate,
    scorer: Scorer | None,
    troubles: Troubles,
) -> Cascade | None:
    """The cascade of a configuration among its other parts; None where no route has one."""
    if scorer is None or not any(route.cascade for route in config.routes.values()):
        return None
    from .engine.cascade import Cascade
    from .route.second import SecondOpinion

    return Cascade(
        config,
        dispatcher=dispatcher,
        settler=settler,
        gate=gate,
        scorer=scorer,
        opinion=SecondOpinion(normalised),
        clock=clock,
        troubles=troubles,
    )


def attempts_for(
    config: Config,
    dispatcher: Dispatcher,
    settler: Settler,
    clock: Clock,
    troubles: Troubles,
    *,
    gate: Gate,
    prices: Quoter,
) -> Sends:
    """What sends the calls of a configuration: with what near misses tell, again, and elsewhere, as is needed."""
    # Not the program's own random sequence, which it may have seeded.
    chance = random.Random().random
    attempts = Attempts(
        config, dispatcher=dispatcher, settler=settler, gate=gate, clock=clock, troubles=troubles, chance=chance
    )
    if not config.uses_near_misses:
        return attempts
    from .engine.near import NearMisses
    from .engine.nearby import Nearby

    return NearMisses(
        config,
        attempts=attempts,
        nearby=Nearby(config, dispatcher=dispatcher, settler=settler, gate=gate, clock=clock, troubles=troubles),
        dispatcher=dispatcher,
        settler=settler,
        prices=prices,
        clock=clock,
        troubles=troubles,
    )


def chains_for(parts: Parts, sends: Sends, settler: Settler, later: Callable[[Callable[[], Any]], object]) -> Chains:
    """What sends calls, those that go on from a response to who keeps it.

    Args:
        parts: What it shares with others.
        sends: Sends calls to whom they are meant for.
        settler: Books what is refused.
        later: Has a function called some time soon, elsewhere.
    """
    config = parts.config
    homes: Homes | None = None
    address: Callable[[str], str] = str
    if len(servers_of(config, [(name, "") for name in config.backends])) > 1:
        homes, address = _homes(parts)
    return Chains(config, sends, homes=homes, address_of=address, later=later, settler=settler, troubles=parts.troubles)


def _homes(parts: Parts) -> tuple[Homes, Callable[[str], str]]:
    from .route.homes import HOMES_NAME, FileHomes, MemoryHomes, address_of

    cache, clock = parts.config.cache, parts.clock
    if cache.store != "disk":
        return MemoryHomes(time=clock.time), address_of
    note = partial(parts.troubles.note, "responses")
    path = cache.directory / HOMES_NAME
    return FileHomes(path, time=clock.time, note=note, monotonic=clock.monotonic), address_of


def hit_named(config: Config, hit_id: str, ledger: Ledger | None = None) -> Outcome:
    """The semantic hit of an ``x-llm-proxy-id``, as the ledger knows it; what waits in this one is written first.

    Raises:
        CacheError: The ledger has no such hit, or several.
    """
    from .observe.verdicts import served_hit

    if ledger is not None:
        ledger.drain()
    return served_hit(config.cache.directory / LEDGER_NAME, hit_id)
