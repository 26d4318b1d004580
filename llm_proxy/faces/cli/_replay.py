"""Cached answers of weak models, asked again of the strongest candidate of their route and replaced.

An entry does not keep its request: it is asked again where a request is known that has its key, one of a log, or the
bare question to a route.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, BinaryIO

from llm_proxy.errors import ConfigError, WireError

from ._warm import Caller

if TYPE_CHECKING:
    from llm_proxy.cache.entry import Entry
    from llm_proxy.config import Config
    from llm_proxy.draft.replay import Weak
    from llm_proxy.runtime import Runtime
    from llm_proxy.types import Usage

__all__ = ["Ask", "Replay", "Replayed", "Terms"]

_LIMIT_S = 120.0
_MOST_OVER = 4  # an answer is given so many times the tokens of the one before
_LEAST_TOKENS = 256
_MESSAGE_TOKENS = 16  # of a message's frame
_OWN = ("stream", "stream_options", "store", "metadata", "max_tokens", "max_completion_tokens")


@dataclass(frozen=True, slots=True)
class Terms:
    """On which terms answers are asked again.

    Attributes:
        budget_usd: Most dollars that may be spent.
        horizon_s: For how long ahead answers are thought to be of use.
        worth_usd: What a good answer is worth, where the route does not say it; None: such routes are left alone.
        rise: How much better the strongest candidate's answers are, where outcomes do not say it; None likewise.
    """

    budget_usd: float
    horizon_s: float
    worth_usd: float | None = None
    rise: float | None = None


@dataclass(frozen=True, slots=True)
class Ask:
    """One entry to be asked again, with a request that has its key."""

    weak: Weak
    entry: Entry
    body: Mapping[str, Any]
    target: str


@dataclass(slots=True)
class Replayed:
    """What became of a replay.

    Attributes:
        weak: Entries that a weaker candidate answered, and whose request is known.
        unknown: Such entries whose request is not known.
        planned: How many were worth it.
        planned_usd: What they were expected to cost.
        asked: How many were asked.
        replaced: How many have a new answer.
        same: Of these, how many that says the same.
        failed: Asked ones that brought no answer that may be stored.
        left: Planned ones that were not asked, for want of money or time.
        spent_usd: What it took.
    """

    weak: int = 0
    unknown: int = 0
    planned: int = 0
    planned_usd: float = 0.0
    asked: int = 0
    replaced: int = 0
    same: int = 0
    failed: int = 0
    left: int = 0
    spent_usd: float = 0.0


@dataclass(slots=True)
class _Made:
    """One request: when, how it ended, and what it took; dollars where the name says so."""

    at_s: float
    began_s: float
    status: int = 0
    usage: Usage | None = None
    error: str = ""
    usd: float = 0.0


class Replay:
    """Plans and asks.

    Args:
        config: Settings.
        caller: Who makes the calls: part of the keys.
        terms: On which terms.
        count: Is kept up to date.

    Raises:
        ConfigError: The calls are told apart by their key, and there is none; or no route has two candidates.
    """

    def __init__(self, config: Config, caller: Caller, terms: Terms, count: Replayed) -> None:
        from llm_proxy.backends.openai_compatible import credentials_of
        from llm_proxy.config import load
        from llm_proxy.runtime import Runtime

        if not any(len(route.candidates) > 1 for route in config.routes.values()):
            raise ConfigError("no route has a weaker and a stronger candidate: configure [routes.NAME]")
        if config.cache.tenant == "api_key" and not credentials_of(caller.headers):
            raise ConfigError(
                "answers are kept apart by API key: name the variable of the key that the calls are made with "
                "(--tenant-key-env), or set cache.tenant"
            )
        self._config, self._caller, self._terms, self._count = config, caller, terms, count
        self._runtime: Runtime = Runtime(load(config, observe={"outcomes": False}))
        self._runtime.prices.warm()
        if self._runtime.cache is None:
            raise ConfigError("the cache is switched off: set cache.enabled")
        self._cache = self._runtime.cache
        self._cache.open()

    def close(self) -> None:
        """Write what is pending."""
        self._runtime.close()

    def plan(self, entries: Iterable[tuple[Entry, int]], logs: Iterable[BinaryIO]) -> list[Ask]:
        """What is worth asking again, the best first.

        Args:
            entries: With their hits.
            logs: Lines of JSON with a ``request`` each.
        """
        from llm_proxy.draft.replay import planned

        known = {key: body for body in _requests(logs) if (key := self._key_of(body))}
        found: dict[str, Ask] = {}
        for entry, hits in entries:
            ask = self._ask(entry, hits, known)
            if ask is not None:
                found[entry.key] = ask
        chosen = planned([ask.weak for ask in found.values()], self._terms.budget_usd)
        self._count.weak, self._count.planned = len(found), len(chosen)
        self._count.planned_usd = sum(one.cost_usd for one in chosen)
        return [found[one.key] for one in chosen]

    def run(self, asks: Iterable[Ask]) -> Iterator[int]:
        """Ask one after the other; yields how many are done, after each. Ends where the money does.

        What an answer may cost at most is known before it is asked for: its length is bounded by what is left.
        """
        from llm_proxy.faces._http import httpx

        with httpx.Client(timeout=_LIMIT_S) as client:
            for number, ask in enumerate(asks, 1):
                tokens = self._room(ask)
                if tokens < 1:
                    self._count.left += 1
                    yield number
                    continue
                self._answered(ask, self._sent(client, ask, tokens))
                yield number

    # -- what is worth it ------------------------------------------------------------------------------------------

    def _ask(self, entry: Entry, hits: int, known: Mapping[str, Mapping[str, Any]]) -> Ask | None:
        from llm_proxy.draft.replay import Weak, expected_uses

        if not entry.text:
            return None
        body = known.get(entry.key) or next(
            (bare for name in self._config.routes if self._key_of(bare := _bare(name, entry.text)) == entry.key), None
        )
        weaker = any(self._is_weak(entry, name) for name in self._config.routes)
        if body is None:
            self._count.unknown += weaker
            return None
        route = self._runtime.selector.resolve(self._request(body)).route
        if not self._is_weak(entry, route):
            return None
        terms = self._figures(entry, route)
        target = self._config.routes[route].candidates[-1]
        usd = self._expected_usd(entry, body, target)
        if terms is None or usd is None:
            return None
        uses = expected_uses(hits, entry.age_s(time.time()), self._terms.horizon_s)
        return Ask(Weak(entry.key, uses, terms[0], usd, terms[1]), entry, body, target)

    def _is_weak(self, entry: Entry, route: str) -> bool:
        from llm_proxy.engine.exemplars import place_of

        settings = self._config.routes.get(route)
        return settings is not None and 0 <= place_of(settings.candidates, entry) < len(settings.candidates) - 1

    def _figures(self, entry: Entry, route: str) -> tuple[float, float] | None:
        """How much better the strongest candidate is, and what a good answer is worth; None where nobody says."""
        settings = self._config.routes[route]
        worth_usd = settings.usd_per_good_answer or self._terms.worth_usd
        rise = self._rise(entry, route)
        return None if worth_usd is None or rise is None else (rise, worth_usd)

    def _rise(self, entry: Entry, route: str) -> float | None:
        from llm_proxy.engine.exemplars import place_of

        candidates = self._config.routes[route].candidates
        marks = _marks(self._config, route)
        pair = candidates[place_of(candidates, entry)]
        if pair in marks and candidates[-1] in marks:
            return marks[candidates[-1]] - marks[pair]
        return self._terms.rise

    def _expected_usd(self, entry: Entry, body: Mapping[str, Any], target: str) -> float | None:
        from llm_proxy.types import Usage

        tokens = _answer_tokens(entry)
        return self._usd(Usage(_prompt_tokens(body) // 3, tokens), target)

    def _usd(self, usage: Usage, target: str) -> float | None:
        backend, _, model = target.partition("/")
        return self._runtime.prices.cost_usd(usage, model=model, backend=backend)

    # -- asking ----------------------------------------------------------------------------------------------------

    def _room(self, ask: Ask) -> int:
        """How many tokens an answer may have: no more than are paid for, 0 where not even the prompt is."""
        from llm_proxy.types import Usage

        left_usd = self._terms.budget_usd - self._count.spent_usd
        prompt_tokens = _prompt_tokens(ask.body)
        prompt = self._usd(Usage(prompt_tokens, 0), ask.target) or 0.0
        token = ((self._usd(Usage(prompt_tokens, 1_000_000), ask.target) or 0.0) - prompt) / 1e6
        most = max(_LEAST_TOKENS, _MOST_OVER * _answer_tokens(ask.entry))
        if prompt > left_usd:
            return 0
        return most if token <= 0 else min(most, int((left_usd - prompt) / token))

    def _sent(self, client: Any, ask: Ask, tokens: int) -> Any:
        """The answer, or None; what it took is counted, and the most that it may have where that is not said."""
        from llm_proxy.faces._http import httpx
        from llm_proxy.types import Usage
        from llm_proxy.wire.chat import usage_of

        self._count.asked += 1
        worst, made = Usage(_prompt_tokens(ask.body), tokens), _Made(time.time(), time.perf_counter())
        answer, usage = None, None
        try:
            response = client.post(**self._request_for(ask, tokens))
            made.status = response.status_code
            answer = response.json() if made.status == 200 else None
            if isinstance(answer, dict):
                made.usage = usage_of(answer, prompt_tokens=worst.prompt_tokens)
                usage = made.usage or worst
        except (httpx.TimeoutException, httpx.RemoteProtocolError, httpx.ReadError, ValueError) as exc:
            usage, made.error = worst, type(exc).__name__  # it may have been answered, and billed
        except httpx.HTTPError as exc:
            made.error = type(exc).__name__
        made.usd = (self._usd(usage, ask.target) or 0.0) if usage is not None else 0.0
        self._count.spent_usd += made.usd
        self._book(ask, made)
        return answer if isinstance(answer, dict) else None

    def _request_for(self, ask: Ask, tokens: int) -> dict[str, Any]:
        backend, _, model = ask.target.partition("/")
        settings = self._config.backends[backend]
        key = settings.key()
        body = {name: value for name, value in ask.body.items() if name not in _OWN}
        return {
            "url": f"{settings.base_url}/chat/completions",
            "headers": {"authorization": f"Bearer {key}"} if key else {},
            "json": body | {"model": model, "max_tokens": tokens},
        }

    def _book(self, ask: Ask, made: _Made) -> None:
        """Have the ledger know of a request: a call that the cache was not asked for."""
        from llm_proxy.observe.events import CallEvent
        from llm_proxy.types import Outcome

        ledger = self._runtime.ledger
        if ledger is None:
            return
        backend, _, model = ask.target.partition("/")
        route = self._runtime.selector.resolve(self._request(ask.body)).route
        outcome = Outcome("bypass", detail="replay", backend=backend, model=model, route=route, cost_usd=made.usd)
        ledger(
            CallEvent(
                at_s=made.at_s,
                outcome=outcome,
                latency_s=time.perf_counter() - made.began_s,
                http_status=made.status,
                usage=made.usage,
                error=made.error,
            )
        )

    def _answered(self, ask: Ask, answer: Any) -> None:
        from llm_proxy.cache.judge import Normalised
        from llm_proxy.engine.admission import is_tool_call, rejection
        from llm_proxy.engine.asking import says

        if answer is None or rejection(answer) or is_tool_call(answer):
            self._count.failed += 1
            return
        before, after = says(json.loads(ask.entry.completion)), says(answer)
        backend, _, model = ask.target.partition("/")
        now_s, ttl_s = time.time(), self._config.cache.ttl_s
        fresh = replace(
            ask.entry,
            completion=json.dumps(answer, separators=(",", ":")).encode(),
            created_s=now_s,
            expires_s=None if ttl_s is None else now_s + ttl_s,
            model=answer.get("model") or model,
            backend=backend,
            has_usage=True,
        )
        if not self._cache.admit(fresh):
            self._count.failed += 1
            return
        self._count.replaced += 1
        if before is not None and after is not None and Normalised().compare(before, after):
            self._count.same += 1

    # -- keys ------------------------------------------------------------------------------------------------------

    def _request(self, body: Mapping[str, Any]) -> Any:
        from llm_proxy.wire.chat import parse_request

        raw = json.dumps(body).encode()
        return parse_request(raw, headers=dict(self._caller.headers), endpoint=self._caller.endpoint(self._config))

    def _key_of(self, body: Mapping[str, Any]) -> str:
        """The key that a request's answer has; empty where it has none."""
        from llm_proxy.engine.fingerprint import fingerprint
        from llm_proxy.types import Bypass

        try:
            request = self._request(body)
        except (WireError, ValueError, RecursionError):
            return ""
        identity = self._runtime.selector.resolve(request).identity
        found = fingerprint(request, destination=identity, settings=self._config.cache)
        return "" if isinstance(found, Bypass) else found.key


def _bare(route: str, text: str) -> dict[str, Any]:
    return {"model": route, "messages": [{"role": "user", "content": text}]}


def _requests(logs: Iterable[BinaryIO]) -> Iterator[dict[str, Any]]:
    from llm_proxy.cache.transfer import lines_of

    for log in logs:
        for _, line, _ in lines_of(log):
            try:
                row = json.loads(line or b"")
            except (ValueError, RecursionError):
                continue
            body = row.get("request", row.get("body")) if isinstance(row, dict) else None
            if isinstance(body, dict):
                yield body


def _prompt_tokens(body: Mapping[str, Any]) -> int:
    """No fewer than a prompt has: a token is a byte or more."""
    raw = json.dumps(body, ensure_ascii=False).encode("utf-8", "surrogatepass")
    return len(raw) + _MESSAGE_TOKENS * len(body.get("messages") or ())


def _answer_tokens(entry: Entry) -> int:
    from llm_proxy.draft.prediction import draft_in

    draft = draft_in(entry.completion)
    return draft.tokens if draft is not None else 1


def _marks(config: Config, route: str) -> dict[str, float]:
    """Mean scores of a route's candidates, as outcomes have them; none where nothing was logged."""
    from llm_proxy.learning import outcomes_path
    from llm_proxy.observe.outcome_rows import standings

    path = outcomes_path(config)
    sums: dict[str, tuple[int, float]] = {}
    for row in standings(path, route=route) if path is not None else ():
        if row.source != "score":  # what the scorer of a cascade thinks is no outcome
            count, total = sums.get(f"{row.backend}/{row.model}", (0, 0.0))
            sums[f"{row.backend}/{row.model}"] = count + row.count, total + row.count * row.mean_score
    return {name: total / count for name, (count, total) in sums.items() if count}
