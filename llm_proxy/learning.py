"""Puts together what learns from use: the log of outcomes, feedback, and the comparison of routed answers."""

from __future__ import annotations

import random
import secrets
import threading
from functools import partial
from typing import TYPE_CHECKING

from .cache.judge import judge_named, normalised
from .engine.allowance import Allowance
from .engine.asking import Asking
from .engine.fingerprint import owner_of, tenant_of
from .engine.learn import Learner, Way
from .errors import CacheError, UnknownCallError
from .observe.events import GradeEvent
from .route.base import Finished

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from .config import Config
    from .encode.lazy import LazyEncoder
    from .engine.outgoing import Dispatcher
    from .engine.ports import Clock, Pricer
    from .observe.events import Troubles
    from .observe.outcomes import OutcomeLog
    from .route.costs import CostEstimator
    from .types import ChatRequest

__all__ = ["OUTCOMES_NAME", "Feedback", "Learning", "learn_from_ledger", "outcomes_path"]

OUTCOMES_NAME = "outcomes.sqlite3"
"""File of the log of outcomes, in the cache's directory."""

_LEARN_CALLS = 20_000  # of the ledger's newest, in a tenth of a second
_BAD = 0.5  # below it, feedback takes a semantic hit back


def outcomes_path(config: Config) -> Path | None:
    """Where the log of outcomes of these settings is; None where they keep none."""
    is_kept = config.observe.outcomes and config.cache.store == "disk"
    return config.cache.directory / OUTCOMES_NAME if is_kept else None


def _outcome_log(config: Config, *, encoder: LazyEncoder | None, clock: Clock, troubles: Troubles) -> OutcomeLog | None:
    """The log of outcomes of a configuration; None where it keeps none."""
    path, settings = outcomes_path(config), config.observe
    if path is None:
        return None
    from .observe.outcomes import Kept, OutcomeLog
    from .route.features import text_features

    kept = Kept(settings.outcome_rows, settings.outcome_days, settings.outcome_bytes, settings.prompts)
    return OutcomeLog(path, kept, clock=clock, troubles=troubles, features=text_features, encoder=encoder)


class Learning:
    """What learns from use, of one configuration.

    Args:
        config: Settings.
        dispatcher: Makes requests.
        encoder: Makes the vectors; None: there is none.
        undo: Takes the semantic hit of an id back.
        prices: Tells what answers cost.
        clock: Clocks.
        troubles: Counts what goes wrong.
    """

    def __init__(
        self,
        config: Config,
        dispatcher: Dispatcher,
        encoder: LazyEncoder | None,
        undo: Callable[[str], object],
        *,
        prices: Pricer,
        clock: Clock,
        troubles: Troubles,
    ) -> None:
        self._log = _outcome_log(config, encoder=encoder, clock=clock, troubles=troubles)
        self.feedback = Feedback(self._log, tenant=config.cache.tenant, undo=undo, clock=clock, heard=dispatcher.heard)
        compared = {name: one for name, one in config.routes.items() if one.compare_share and len(one.candidates) > 1}
        self.learner = Learner(
            config,
            log=self._log,
            ways={name: _way(config, name, encoder=encoder, prices=prices, clock=clock) for name in compared},
            new_id=lambda: f"r{secrets.token_hex(12)}",  # no hit's id begins so: those are hexadecimal
            dispatcher=dispatcher,
            encoder=lambda: encoder.name if encoder is not None else "",
            clock=clock,
            troubles=troubles,
            chance=random.Random().random,  # not the program's own sequence, which it may have seeded
        )

    def close(self) -> None:
        """Write what is pending; calling it again is safe."""
        self.learner.close()
        if self._log is not None:
            self._log.close()


def _way(config: Config, name: str, *, encoder: LazyEncoder | None, prices: Pricer, clock: Clock) -> Way:
    """How the answers of a route are compared."""
    from .observe.outcome_rows import comparison_spending
    from .route.second import AsGood

    settings = config.routes[name]
    judge = judge_named(settings.compare_judge, None if encoder is None else encoder.encode)
    asker = AsGood(settings.compare_judge, normalised) if "/" in settings.compare_judge else None
    allowance = Allowance(
        settings.compare_usd_per_day,
        clock=clock,
        spent_since=partial(comparison_spending, config.cache.directory / OUTCOMES_NAME, name),
        lock=threading.Lock(),
    )
    asking = Asking(config.cache.max_entry_bytes, allowance=allowance, prices=prices, clock=clock)
    return Way(settings.compare_share, asker or judge, asker, allowance, asking)


def learn_from_ledger(costs: CostEstimator, ledger: Path, troubles: Troubles) -> None:
    """Have the estimates begin with what earlier calls have taken."""
    from .observe.totals import latest_calls

    try:
        calls = latest_calls(ledger, most=_LEARN_CALLS)
    except CacheError as exc:
        troubles.note("ledger", exc)
        return
    costs.observe_all(Finished(*call) for call in calls)


class Feedback:
    """Takes feedback on answers. Thread-safe.

    Args:
        log: Where it is kept; None: there is none.
        tenant: What separates callers, see `cache.tenant`.
        undo: Takes the semantic hit of an id back.
        clock: Clocks.
        heard: Is told of each grade, too.
    """

    def __init__(
        self,
        log: OutcomeLog | None,
        *,
        tenant: str,
        undo: Callable[[str], object],
        clock: Clock,
        heard: Callable[[GradeEvent], object] = lambda grade: None,
    ) -> None:
        self._log, self._tenant, self._undo, self._clock, self._heard = log, tenant, undo, clock, heard

    def give(self, call_id: str, good: float, caller: ChatRequest | None = None) -> None:
        """Keep how good an answer was; of one call, what comes later replaces what came before.

        A semantic hit that is said to be bad is taken back: the question gets an answer of its own the next time.

        Args:
            call_id: ``x-llm-proxy-id`` of the answer.
            good: True, false, or a score in [0, 1].
            caller: Who says so, for what separates callers: only whoever got an answer can say how good it was. None
                for the program itself, which may speak for all.

        Raises:
            UnknownCallError: The id is not known here, or is somebody else's.
            ValueError: ``good`` is no such number.
            CacheError: It can't be looked up.
        """
        if not 0 <= good <= 1:  # as is no number
            raise ValueError("good must be true, false or a number from 0 to 1")
        score = float(good)
        known = self._log.find(call_id) if self._log is not None else None
        is_theirs = known is not None and (
            caller is None or known.owner == owner_of(call_id, tenant_of(caller, self._tenant))
        )
        if self._log is None or known is None or not is_theirs:
            raise UnknownCallError(
                f"no answer with the id {call_id[:40]!r} is known here: it is in the header x-llm-proxy-id of answers "
                "that a route decided, and of semantic hits"
            )
        if not known.model:
            if score < _BAD:
                self._undo(call_id)
            return
        pair = known.backend, known.model
        grade = GradeEvent(self._clock.time(), call_id, known.route, *pair, "feedback", score)
        self._log(grade)
        self._heard(grade)
