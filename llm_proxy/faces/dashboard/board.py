"""What the dashboard shows, gathered from the ledger, the newest calls, and the parts of the runtime."""

from __future__ import annotations

import json
import math
import threading
from typing import TYPE_CHECKING, Any

from llm_proxy import __version__
from llm_proxy.cache.evidence import interval
from llm_proxy.errors import CacheError, LLMProxyError
from llm_proxy.observe.history import RANGES, History
from llm_proxy.observe.recent import Recent
from llm_proxy.observe.tail import Feed
from llm_proxy.sinks import ledger_path, may_show_questions
from llm_proxy.wire.chat import parse_request

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from llm_proxy.encode.base import Encoding
    from llm_proxy.faces.keys import KeyBook
    from llm_proxy.holders import Holder
    from llm_proxy.observe.events import CallEvent
    from llm_proxy.observe.history import Range
    from llm_proxy.runtime import Runtime
    from llm_proxy.types import ChatRequest

__all__ = ["Board", "encoder_state"]

_FRESH_S = 1.0  # how long an answer is given again
_CACHE_FRESH_S = 5.0  # the same of the cache's figures, which look at every entry


class Board:
    """Gathers figures; thread-safe. Its verbs read files: call them on a worker thread.

    Args:
        runtime: What serves the calls; told to hand its events on.
        book: The keys that are issued.
    """

    def __init__(self, runtime: Runtime, book: KeyBook) -> None:
        self._runtime, self._clock, self._book = runtime, runtime.clock, book
        path = ledger_path(runtime.config)
        self.history = History(path, now=self._clock.time)
        self.recent = Recent()
        self.feed = Feed(self.recent, path)
        # Nobody is to read what holders of other keys have asked.
        self._may_show = may_show_questions(runtime.config) and len(runtime.config.server.keys) < 2
        self._started_s = self._clock.monotonic()
        self._answers: dict[str, tuple[float, Any]] = {}
        self._lock = threading.Lock()
        runtime.add_sink(self.recent)
        runtime.add_sink(self.history)

    @property
    def shows_questions(self) -> bool:
        """Whether what was asked is shown: not to holders of issued keys, for it may be another tenant's."""
        return self._may_show and not self._book.is_managed

    def refresh(self) -> None:
        """Take in what is new; a ledger that can't be read is one trouble, and what is known is shown."""
        for part in (self.feed, self.history):
            try:
                part.refresh()
            except CacheError as exc:
                self._runtime.troubles.note("dashboard", exc)

    def calls(self, number: int = 0) -> tuple[int, Sequence[Mapping[str, Any]]]:
        """See `llm_proxy.observe.tail.Feed.since`; questions are there where they may be shown.

        Of an issued key each row has the name and the tenant as well.
        """
        number, rows = self.feed.since(number)
        holders = self._book.named()
        return number, [self._named(row, holders) for row in rows]

    def summary(self, name: Range) -> Mapping[str, Any]:
        """All figures of a range, at most a second old: see ``docs/dashboard.md``."""
        found: Mapping[str, Any] = self._kept(f"summary {name}", _FRESH_S, lambda: self._summary(name))
        return found

    def detail(self, name: str) -> Mapping[str, Any] | None:
        """A call with what explains it; None when it is no longer among the newest."""
        row = self.feed.row(name)
        if row is None:
            return None
        event = self.recent.find(name)
        found: dict[str, Any] = {**self._named(row, self._book.named()), "shows_questions": self.shows_questions}
        if event is None or not self.shows_questions:
            return found
        return {**found, "matched": self._matched(event), **self._explained(event)}

    def undo(self, name: str) -> bool:
        """Take the hit of a call back; whether its entry is still there.

        Raises:
            CacheError: The call is not known any more, or the evidence can't be written.
            ValueError: It is no semantic hit.
        """
        row, event = self.feed.row(name), self.recent.find(name)
        if row is None:
            raise CacheError(
                "this call is no longer among the newest; llm-proxy cache rm --hit takes it back by its id"
            )
        if not row["hit_id"]:
            raise ValueError("only a semantic hit can be taken back")
        is_there = self._runtime.undo(event.outcome if event is not None else row["hit_id"])
        self.feed.take_back(row["pair"])
        return is_there

    def _named(self, row: Mapping[str, Any], holders: Mapping[str, Holder]) -> dict[str, Any]:
        """A row with who asked, by name; without the question, once there are keys whose holders may not read it."""
        holder = holders.get(row["caller"])
        question = row["question"] if self.shows_questions else ""
        names = {"key": holder.name, "tenant": holder.tenant} if holder is not None else {"key": "", "tenant": ""}
        return {**row, **names, "question": question}

    # -- parts ---------------------------------------------------------------------------------------------------

    def _kept(self, name: str, fresh_s: float, make: Callable[[], Any]) -> Any:
        now_s = self._clock.monotonic()
        with self._lock:
            made_s, answer = self._answers.get(name, (-math.inf, None))
        if now_s - made_s < fresh_s:
            return answer
        answer = make()
        with self._lock:
            self._answers[name] = (now_s, answer)
        return answer

    def _summary(self, name: Range) -> dict[str, Any]:
        config, runtime = self._runtime.config, self._runtime
        view = self.history.view(name)
        return {
            **view,
            "now_s": self._clock.time(),
            "version": __version__,
            "uptime_s": self._clock.monotonic() - self._started_s,
            "ranges": list(RANGES),
            "sums": self.history.sums(),
            "verified": _verified(view["totals"]),
            "verified_all": _verified(self.history.total().numbers()),
            "cache": self._kept("cache", _CACHE_FRESH_S, self._cache),
            "encoder": "off" if runtime.encoder is None else encoder_state(runtime.encoder),
            "troubles": dict(runtime.troubles.counts),
            "flights": len(runtime.flights),
            "settings": {
                "ledger": ledger_path(config) is not None,
                "prompts": self.shows_questions,
                "check_share": config.cache.check_share,
                "max_error_rate": config.cache.max_error_rate,
                "routes": list(config.routes),
                "backends": list(config.backends),
            },
        }

    def _cache(self) -> dict[str, Any] | None:
        cache, settings = self._runtime.cache, self._runtime.config.cache
        if cache is None:
            return None
        found: dict[str, Any] = {"state": cache.state, "store": settings.store, "policy": settings.policy}
        if not cache.is_open:
            return found
        try:
            stats = cache.stats()
            worth = cache.fill()
        except LLMProxyError as exc:
            self._runtime.troubles.note("dashboard", exc)
            return found
        names = ("entries", "vectors", "used_bytes", "budget_bytes", "max_entries", "store_bytes", "evicted", "expired")
        return {
            **found,
            **{name: getattr(stats, name) for name in names},
            "problems": list(stats.problems),
            "worth": [[None if math.isinf(edge) else edge, entries, held] for edge, entries, held in worth],
        }

    def _matched(self, event: CallEvent) -> str | None:
        """The question whose answer was served, or None."""
        cache, outcome = self._runtime.cache, event.outcome
        if cache is None or outcome.status != "hit":
            return None
        try:
            entry = cache.get(outcome.key)
        except CacheError:
            return None
        return None if entry is None else entry.text

    def _explained(self, event: CallEvent) -> dict[str, Any]:
        """What the route would do for this question alone as things are now, for every candidate."""
        route, selector = event.outcome.route, self._runtime.selector
        if not route or not event.question:
            return {}
        body = {"model": route, "messages": [{"role": "user", "content": event.question}]}
        try:
            request = parse_request(json.dumps(body).encode(), headers={}, endpoint="")
            found = selector.explain(request, selector.resolve(request), self._encoded(request, route))
        except (LLMProxyError, KeyError) as exc:
            return {"trouble": str(exc)}
        return {"explanation": found.as_data()}

    def _encoded(self, request: ChatRequest, route: str) -> Encoding | None:
        encoder = self._runtime.encoder
        wants = encoder is not None and self._runtime.selector.wants_vector(route)
        return encoder.encode(request.question) if encoder is not None and wants else None


def encoder_state(encoder: Any) -> str:
    """How the encoder is: ``ok``, ``failed`` or ``loading``."""
    if encoder.is_ready:
        return "ok"
    return "failed" if encoder.failure else "loading"


def _verified(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """Served, checked and wrong semantic hits, with the rate and its 95 % interval by Clopper and Pearson."""
    found = {name: numbers[name] for name in ("served", "checked", "wrong", "unclear", "undone", "check_usd")}
    if not found["checked"]:
        return {**found, "rate": None, "low95": None, "high95": None}
    low, high = interval(found["wrong"], found["checked"])
    return {**found, "rate": found["wrong"] / found["checked"], "low95": low, "high95": high}
