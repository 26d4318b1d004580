"""What the tests of the engine and its drivers share: its parts as small stand-ins, and values to send through."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from llm_proxy.backends.cold import ColdStarts
from llm_proxy.backends.prices import Prices
from llm_proxy.cache.entry import Entry
from llm_proxy.cache.evidence import Observation
from llm_proxy.cache.judge import ModelJudge, Normalised, normalised
from llm_proxy.cache.near import Near
from llm_proxy.cache.weighed import Decision, Weighed
from llm_proxy.config import Config
from llm_proxy.drafts import drafting_for
from llm_proxy.engine.allowance import Allowance
from llm_proxy.engine.asking import Asking
from llm_proxy.engine.attempts import Attempts
from llm_proxy.engine.cascade import Cascade
from llm_proxy.engine.chains import Chains
from llm_proxy.engine.flow import Engine
from llm_proxy.engine.learn import Learner, Way
from llm_proxy.engine.near import NearMisses
from llm_proxy.engine.nearby import Nearby
from llm_proxy.engine.outgoing import Dispatcher
from llm_proxy.engine.settle import Settler
from llm_proxy.engine.shadow import Checker
from llm_proxy.errors import CacheError
from llm_proxy.limits import gate_for
from llm_proxy.observe.events import CallEvent, CheckEvent, Troubles
from llm_proxy.route.costs import CostEstimator
from llm_proxy.route.homes import address_of
from llm_proxy.route.second import AsGood, SecondOpinion
from llm_proxy.route.select import Selector
from llm_proxy.testing import FakeClock, FakeEncoder
from llm_proxy.types import ChatRequest, Head
from llm_proxy.wire.chat import parse_request

__all__ = ["FakeCache", "Found", "Rig", "body_of", "completion", "entry", "events_of", "head", "request", "weighed"]

ENDPOINT = "https://api.openai.com/v1/chat/completions"


@dataclass
class Found:
    entry: Entry | None = None
    similarity: float = 0.0
    refusal: str = ""
    doubted: Entry | None = None
    weighed: Weighed | None = None
    damage: CacheError | None = None
    near: tuple[Near, ...] = ()

    def __post_init__(self) -> None:
        if self.weighed is None and self.entry is not None:
            self.weighed = weighed(self.entry.key, self.similarity)


def weighed(key: str, similarity: float, *, p_wrong: float = 0.002, ask: float = 0.0) -> Weighed:
    return Weighed(key, 0, similarity, 1.0 - p_wrong, "", Decision(ask == 0.0, p_wrong, ask, "explored" if ask else ""))


class FakeCache:
    """The cache's verbs over a dict; the neighbour is what `found` says."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.attached: dict[str, Any] = {}
        self.hits: list[str] = []
        self.observed: list[tuple[str, Observation]] = []
        self.served: list[Weighed] = []
        self.learnt: list[tuple[Weighed, str, bool]] = []
        self.searches: list[tuple[str, str]] = []
        self.found = Found()
        self.failing: set[str] = set()
        self.keeps = True
        self.is_open = True
        self.state = "ok"
        self.is_tending_due = False
        self.tended = self.timeouts = 0

    def _try(self, verb: str) -> None:
        if verb in self.failing:
            raise CacheError(f"{verb} fails")

    def get(self, key: str) -> Entry | None:
        self._try("get")
        return self.entries.get(key)

    def nearest(
        self, scope: str, text: str, vector: Any, *, encoder: str, max_age_s: float | None, turns: Any, **more: Any
    ) -> Found:
        self._try("nearest")
        self.searches.append((scope, text))
        return self.found

    def admit(self, entry: Entry) -> bool:
        self._try("admit")
        if self.keeps:
            self.entries[entry.key] = entry
        return self.keeps

    def attach(self, key: str, *, scope: str, vector: Any, encoder: str, seen_chars: int) -> bool:
        self._try("attach")
        self.attached[key] = scope, vector, encoder, seen_chars
        return True

    def note_served(self, weighed: Weighed) -> None:
        self._try("note_served")
        self.served.append(weighed)

    def learn(self, weighed: Weighed, source: str, *, is_same: bool) -> bool:
        self._try("learn")
        self.learnt.append((weighed, source, is_same))
        return weighed.key in self.entries

    def observe(self, key: str, observation: Observation) -> bool:
        self._try("observe")
        self.observed.append((key, observation))
        return key in self.entries

    def hit(self, key: str) -> bool:
        self._try("hit")
        self.hits.append(key)
        return self.is_tending_due

    def tend(self) -> None:
        self._try("tend")
        self.tended += 1

    def note_timeout(self) -> None:
        self.timeouts += 1

    def open_store(self) -> None:
        self._try("open_store")
        self.is_open = True


@dataclass
class FakeScorer:
    """Says of every answer the same, or raises; keeps what it was asked."""

    says: float | Exception = 0.9
    is_usable: bool = True
    asked: list[tuple[str, Any, Any]] = field(default_factory=list)

    def score(self, question: str, answer: Any, encoding: Any) -> float:
        self.asked.append((question, answer, encoding))
        if isinstance(self.says, Exception):
            raise self.says
        return self.says


@dataclass
class Rig:
    """An engine among stand-ins."""

    sections: Mapping[str, Any] = field(default_factory=dict)
    encoder: Any = field(default_factory=FakeEncoder)
    cache: Any = field(default_factory=FakeCache)
    clock: FakeClock = field(default_factory=FakeClock)
    events: list[CallEvent] = field(default_factory=list)
    troubles: Troubles = field(default_factory=Troubles)
    judge: Any = field(default_factory=Normalised)
    scorer: Any = field(default_factory=FakeScorer)
    chance: float = 0.0
    checks: list[CheckEvent] = field(default_factory=list)
    spent_usd: float = 0.0
    heads: Any = None
    """As `Selector`'s."""
    noted: list[Any] = field(default_factory=list)
    """What went to the log of outcomes."""
    keeps_outcomes: bool = True
    has_cold_starts: bool = False
    """Whether servers on this machine may have to load first."""
    homes: Any = None
    """Where responses are kept."""
    has_costs: bool = False
    """Whether the selector estimates what asking takes."""

    def __post_init__(self) -> None:
        self.config = Config(**self.sections)
        self.prices = Prices(self.config.backends)
        self.selector = Selector(
            self.config,
            costs=CostEstimator(self.prices) if self.has_costs else None,
            heads=self.heads,
            note=self.troubles.note,
            monotonic=self.clock.monotonic,
        )
        self.dispatcher = Dispatcher(
            self.config, selector=self.selector, troubles=self.troubles, encoder=self.encoder, prices=self.prices
        )
        encoder = self.encoder if self.config.cache.semantic else None
        self.settler = Settler(
            self.config.cache,
            cache=self.cache,
            encoder=encoder,
            prices=self.prices,
            clock=self.clock,
            troubles=self.troubles,
            sink=self.events.append,
            watch=self.selector.health,
        )
        self.allowance = Allowance(
            self.config.cache.check_usd_per_day,
            clock=self.clock,
            spent_since=lambda at_s: self.spent_usd,
            lock=threading.Lock(),
        )
        self.checker = Checker(
            self.config.cache,
            cache=self.cache,
            dispatcher=self.dispatcher,
            settler=self.settler,
            judge=self.judge,
            asker=self.judge if isinstance(self.judge, ModelJudge) else None,
            allowance=self.allowance,
            prices=self.prices,
            clock=self.clock,
            troubles=self.troubles,
            book=self.checks.append,
            chance=lambda: self.chance,
        )
        self.costs = CostEstimator(self.prices)
        self.gate = gate_for(self, self.dispatcher, self.settler, lambda call: call())
        if not self.has_cold_starts:
            self.gate._cold = ColdStarts({})
        self.cascade = Cascade(
            self.config,
            dispatcher=self.dispatcher,
            settler=self.settler,
            gate=self.gate,
            scorer=self.scorer,
            opinion=SecondOpinion(normalised),
            clock=self.clock,
            troubles=self.troubles,
        )
        self.learner = self._learner()
        self.attempts = Attempts(
            self.config,
            dispatcher=self.dispatcher,
            settler=self.settler,
            gate=self.gate,
            clock=self.clock,
            troubles=self.troubles,
            chance=lambda: self.chance,
        )
        self.nearby = Nearby(
            self.config,
            dispatcher=self.dispatcher,
            settler=self.settler,
            gate=self.gate,
            clock=self.clock,
            troubles=self.troubles,
        )
        self.near = NearMisses(
            self.config,
            attempts=self.attempts,
            nearby=self.nearby,
            dispatcher=self.dispatcher,
            settler=self.settler,
            prices=self.prices,
            clock=self.clock,
            troubles=self.troubles,
        )
        sends = self.near if self.config.uses_near_misses else self.attempts
        self.drafting = drafting_for(self, sends, self.dispatcher, self.settler, gate=self.gate, scorer=self.scorer)
        self.chains = Chains(
            self.config,
            self.drafting,
            homes=self.homes,
            address_of=address_of,
            later=lambda keep: keep(),
            settler=self.settler,
            troubles=self.troubles,
        )
        self.engine = Engine(
            self.config,
            cache=self.cache,
            encoder=encoder,
            dispatcher=self.dispatcher,
            settler=self.settler,
            checker=self.checker,
            cascade=self.cascade if any(route.cascade for route in self.config.routes.values()) else None,
            learner=self.learner,
            gate=self.gate,
            chains=self.chains,
            clock=self.clock,
            troubles=self.troubles,
        )

    def _learner(self) -> Learner:
        """Every route that is compared has an allowance of its own; ids are numbers."""
        self.allowances = {
            name: Allowance(
                route.compare_usd_per_day,
                clock=self.clock,
                spent_since=lambda at_s: self.spent_usd,
                lock=threading.Lock(),
            )
            for name, route in self.config.routes.items()
        }
        asker = self.judge if isinstance(self.judge, ModelJudge | AsGood) else None
        limit_bytes = self.config.cache.max_entry_bytes
        ways = {
            name: Way(
                route.compare_share,
                self.judge,
                asker,
                self.allowances[name],
                Asking(limit_bytes, allowance=self.allowances[name], prices=self.prices, clock=self.clock),
            )
            for name, route in self.config.routes.items()
            if route.compare_share
        }
        self.ids = (f"r{number}" for number in itertools.count(1))
        return Learner(
            self.config,
            log=self.noted.append if self.keeps_outcomes else None,
            ways=ways,
            new_id=lambda: next(self.ids),
            dispatcher=self.dispatcher,
            encoder=lambda: "fake",
            clock=self.clock,
            troubles=self.troubles,
            chance=lambda: self.chance,
        )

    @property
    def event(self) -> CallEvent:
        """The only event so far."""
        (event,) = self.events
        return event


def request(
    text: str = "hi", *, control: str = "", endpoint: str = ENDPOINT, timeout_s: float | None = None, **fields: Any
) -> ChatRequest:
    """A call with one user message, or what ``fields`` say."""
    body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": text}], **fields}
    headers = {"authorization": "Bearer k", **({"cache-control": control} if control else {})}
    return parse_request(json.dumps(body).encode(), headers=headers, endpoint=endpoint, timeout_s=timeout_s)


def completion(text: str | None = "hello", *, finish: str = "stop", **fields: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": finish}
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    value = {"id": "c1", "object": "chat.completion", "created": 1, "model": "gpt-4o-mini", "choices": [choice]}
    return {**value, "usage": usage, **fields}


def body_of(value: Any) -> bytes:
    return json.dumps(value).encode()


def events_of(*pieces: str, is_done: bool = True, finish: str | None = "stop") -> list[bytes]:
    """A stream of these pieces of text."""
    deltas = [({"content": piece}, None) for piece in pieces] + ([({}, finish)] if finish else [])
    rows = [
        {
            "id": "c1",
            "object": "chat.completion.chunk",
            "created": 1,
            "model": "gpt-4o-mini",
            "choices": [{"index": 0, "delta": delta, "finish_reason": reason}],
        }
        for delta, reason in deltas
    ]
    return [b"data: %s\n\n" % body_of(row) for row in rows] + ([b"data: [DONE]\n\n"] if is_done else [])


def entry(key: str = "k" * 64, **fields: Any) -> Entry:
    values: dict[str, Any] = {
        "scope": "s" * 64,
        "text": "hi",
        "completion": body_of(completion()),
        "created_s": FakeClock().time() - 60,
        "model": "gpt-4o-mini",
        "cost_usd": 0.25,
        "latency_s": 2.0,
        "has_usage": True,
    }
    return Entry(key=key, **{**values, **fields})


def head(body: Any = (), *, status: int = 200, content_type: str = "application/json", **headers: str) -> Head:
    rows = [("content-type", content_type), *((name.replace("_", "-"), value) for name, value in headers.items())]
    return Head(status, rows, body)
