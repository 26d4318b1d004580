"""One typed event a call: what every log line, statistic and metric is made from. No prompts, no keys."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from llm_proxy.types import CHAT, Outcome, Usage
from llm_proxy.values import value

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "NAME_CHARS",
    "CallEvent",
    "CheckEvent",
    "GradeEvent",
    "GradeSource",
    "HitEvent",
    "RoutedEvent",
    "Sink",
    "Troubles",
]

NAME_CHARS = 200
"""Of a model's name in an event: callers and upstreams may send megabytes, and events wait for the disk."""

logger = logging.getLogger("llm_proxy")


@value
class CallEvent:
    """One finished call. A model's name is cut to `NAME_CHARS` when it is made, for all who are told of it.

    Attributes:
        at_s: Unix time of arrival.
        outcome: What was done.
        latency_s: From arrival to the terminal event, >= 0.
        saved_s: Time that a hit did not take: the latency of the answer it replays less its own, >= 0.
        http_status: Status the caller got; 0 when no answer came.
        usage: Token counts, where the answer has them.
        is_stream: Whether the caller asked for a stream.
        error: Why the call did not end as it should; empty when it did. ``aborted``: its callers left.
            ``body-error``, ``body-damaged``, ``body-truncated``: what came as an answer was an error, could not be
            read, or ended too early. ``incomplete``: the body ended, and nothing more is known. ``cancelled``:
            somebody cancelled the task that read it. Else the name of the exception that broke the call off, e.g.
            ``ReadTimeout``, or ``Interrupted`` for the callers who shared an answer with the one who was interrupted.
        requested: Model, route or alias that the caller named; empty when none.
        caller: Who asked, as eight hexadecimal digits of the SHA-256 of the key; empty without one.
        traceparent: Header of the request by that name (W3C Trace Context); empty without one.
        question: The user's last text, where `observe.prompts` allows it, cut to 2,000 characters; else empty.
        api: Which API, one of `llm_proxy.types.API_PATHS`.
    """

    at_s: float
    outcome: Outcome
    latency_s: float
    saved_s: float = 0.0
    http_status: int = 200
    usage: Usage | None = None
    is_stream: bool = False
    error: str = ""
    requested: str = ""
    caller: str = ""
    traceparent: str = ""
    question: str = ""
    api: str = CHAT

    def __post_init__(self) -> None:
        """Keep no long name."""
        if len(self.outcome.model) > NAME_CHARS:
            outcome = self.outcome.with_changes(model=self.outcome.model[:NAME_CHARS])
            object.__setattr__(self, "outcome", outcome)


@dataclass(frozen=True, slots=True)
class CheckEvent:
    """One comparison of an entry's answer with the one that a question got upstream.

    Attributes:
        at_s: Unix time.
        source: ``shadow``: a hit that was also asked upstream, drawn by chance; ``undo``: a hit that somebody took
            back; ``explore``: a question that was asked upstream, by evidence or chance or for doubt, not served.
        key: Exact key of the entry.
        asked: Exact key of the question.
        scope: Where the entry was found.
        route: Route that decided; empty when the model was named.
        model: Model whose answer was, or would have been, served.
        similarity: Cosine of question and entry, in [-1, 1].
        p_wrong: What was said of the hit; see `llm_proxy.types.Outcome`.
        is_same: Whether the answers said the same; None without a verdict.
        cost_usd: Money that asking and comparing took, where it is known.
    """

    at_s: float
    source: Literal["shadow", "undo", "explore"]
    key: str
    asked: str
    scope: str
    route: str
    model: str
    similarity: float
    p_wrong: float | None = None
    is_same: bool | None = None
    cost_usd: float | None = None

    def __post_init__(self) -> None:
        """Keep no long name."""
        if len(self.model) > NAME_CHARS:
            object.__setattr__(self, "model", self.model[:NAME_CHARS])


@dataclass(frozen=True, slots=True)
class RoutedEvent:
    """One call that a route decided, for the log of outcomes. The question itself is written only where that is set.

    Attributes:
        at_s: Unix time of arrival.
        call_id: ``x-llm-proxy-id`` of its answer.
        owner: Who may give feedback, as a hash that says nothing without the id.
        route: Which route.
        candidates: ``BACKEND/MODEL`` names, weakest first.
        backend: Who answered.
        model: Which of its models.
        question: The user's last text.
        encoder: Identity of the encoder of ``vector``; empty without one.
        vector: Shape ``(dim,)``, float32, unit norm; None where the question was not encoded yet.
        layers: Shape ``(k,)``, float32; None where the encoder shows none.
        usage: Token counts, where the answer has them.
        cost_usd: What the call cost, dollars, where that is known.
    """

    at_s: float
    call_id: str
    owner: str
    route: str
    candidates: tuple[str, ...]
    backend: str
    model: str
    question: str
    encoder: str = ""
    vector: NDArray[np.float32] | None = None
    layers: NDArray[np.float32] | None = None
    usage: Usage | None = None
    cost_usd: float | None = None


@dataclass(frozen=True, slots=True)
class HitEvent:
    """One semantic hit, so that who got it can take it back: Unix time, id and owner; see `RoutedEvent`."""

    at_s: float
    call_id: str
    owner: str


GradeSource = Literal["feedback", "comparison", "judge", "agreement", "score"]
"""Who says so: a person or program that used the answer; a comparison of two models' answers; of a cascade, its judging
model, a second cheap model, or the scorer."""


@dataclass(frozen=True, slots=True)
class GradeEvent:
    """How good a model's answer to a routed call was.

    Attributes:
        at_s: Unix time.
        call_id: Of the call.
        route: Of the call.
        backend: Whose answer.
        model: Which model's.
        source: Who says so.
        score: In [0, 1]; None where nobody can tell.
        completion_tokens: Length of that answer, where known.
        cost_usd: What that answer cost, dollars, where known.
        spent_usd: What finding out took, dollars: it counts against the day's.
    """

    at_s: float
    call_id: str
    route: str
    backend: str
    model: str
    source: GradeSource
    score: float | None
    completion_tokens: int | None = None
    cost_usd: float | None = None
    spent_usd: float = 0.0


class Sink(Protocol):
    """Takes events; must be fast, thread-safe and must not raise."""

    def __call__(self, event: CallEvent, /) -> None:
        """Take one event."""


class Troubles:
    """Counts what went wrong inside llm-proxy and logs each kind once; thread-safe."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        # Reentrant: the garbage collector may end a dropped call, which has troubles of its own, at any place.
        self._lock = threading.RLock()

    def note(self, kind: str, error: BaseException, *, count: int = 1) -> None:
        """Count troubles of a kind, e.g. ``cache``; the first of its kind is logged as a warning.

        Args:
            kind: The part that is in trouble.
            error: What it raised.
            count: How many things were lost by it, > 0.
        """
        with self._lock:
            is_first = kind not in self.counts
            self.counts[kind] += count
        if is_first:
            logger.warning(
                "llm-proxy: %s is in trouble, calls go on without it (%s: %s)",
                kind,
                type(error).__name__,
                error,
            )
