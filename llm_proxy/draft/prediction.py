"""Predicted output: the answer to a question that is almost the same goes along, and what is right of it comes at once.

::

    share   = accepted tokens / answer tokens     of a moving average of such calls: about what they are sooner
    ratio   = seconds / seconds of a plain answer of about that length, likewise
    sent    share >= least and ratio <= 1.1, or too little is known; else one of 16 calls tries, then one of 32, ... 256
    account sum of extra dollars + those set aside <= max_extra_cost * sum of what the same calls cost without

A token that was predicted and not used is billed as an answer's: predictions buy time, never money. What one may add at
worst, all of it, is set aside in the account before it is sent. So the bound holds at any moment, as far as the length
of a prediction is known, and the first predictions are sent once plain calls have earned them.

What is learnt is learnt apart for each model and for near and farther questions, whose answers have less in common.

Where another model writes predictions first, each call could have one. So three plain answers are waited for, and one
of 16 calls stays plain, or nobody would know what plain answers take. The wait for the prediction is a part of
``ratio``, and what it cost is in the account.

Source: OpenAI, guide "Predicted Outputs" and API reference, ``prediction`` and ``completion_tokens_details``.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

from llm_proxy.types import CHARS_PER_TOKEN, Usage

__all__ = ["AHEAD", "Draft", "Kind", "Predictions", "draft_in", "may_be_predicted", "with_prediction"]

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

_FIRST_TRIES = 4
_FIRST_EVERY, _LAST_EVERY = 16, 256
_DECAY, _TIME_DECAY = 0.8, 0.9
_LEAST_TIMED, _MOST_RATIO = 4.0, 1.1
_BANDS = 0.9, 0.75
_LEAST_PLAIN, _PLAIN_EVERY = 3, 16
AHEAD = len(_BANDS) + 1
"""The band of predictions that another model writes for the very question."""
_MOST_KINDS = 1024
_CLOSED = frozenset({"prediction", "max_completion_tokens", "tools", "functions", "audio", "logprobs", "top_logprobs"})
_NONE: tuple[Any, ...] = (None, False, 0, [], {})
_PARTS = frozenset({"text", "image_url"})


class Draft(NamedTuple):
    """What an answer may come to: its text, not empty, and its length in tokens, > 0."""

    text: str
    tokens: int


class Kind(NamedTuple):
    """What is learnt of by itself: a backend's model, and how near the draft's question is, 0 the nearest."""

    backend: str
    model: str
    band: int

    @classmethod
    def of(cls, backend: str, model: str, similarity: float) -> Kind:
        """The kind of a call whose draft answers a question of this cosine, in [-1, 1]."""
        return cls(backend, model, sum(similarity < edge for edge in _BANDS))


def may_be_predicted(body: Mapping[str, Any]) -> bool:
    """Whether a request can be given a prediction: what it asks for goes with one, and it has none of its own.

    Neither do those whose answer would not say what was made of it: a stream without its ``usage``.

    Args:
        body: A chat-completion request.

    Source: OpenAI, guide "Predicted Outputs", limitations.
    """
    if any(body.get(name) not in _NONE for name in _CLOSED) or body.get("n") not in (None, 1):
        return False
    for name in ("presence_penalty", "frequency_penalty"):
        penalty = body.get(name)
        if penalty is not None and not (isinstance(penalty, (int, float)) and penalty <= 0):
            return False
    if body.get("modalities") not in (None, ["text"]):
        return False
    options = body.get("stream_options")
    tells_usage = isinstance(options, Mapping) and options.get("include_usage") is True
    return (tells_usage or body.get("stream") is not True) and _is_written(body.get("messages") or ())


def _is_written(messages: Sequence[Any]) -> bool:
    contents = (message.get("content") for message in messages if isinstance(message, Mapping))
    parts = (part for content in contents if isinstance(content, list) for part in content)
    return all(isinstance(part, Mapping) and part.get("type") in _PARTS for part in parts)


def draft_in(completion: bytes) -> Draft | None:
    """The text of a stored answer; None where it has none, or calls a tool.

    Args:
        completion: A ``chat.completion`` object as UTF-8 JSON.
    """
    try:
        answer = json.loads(completion)
        message = answer["choices"][0]["message"]
        text = message["content"]
        if not isinstance(text, str) or not text.strip() or message.get("tool_calls"):
            return None
        usage = answer.get("usage") or {}
        tokens = usage.get("completion_tokens")
        details = usage.get("completion_tokens_details") or {}
        if type(tokens) is int and not any(details.get(name) for name in ("reasoning_tokens", "audio_tokens")):
            return Draft(text, max(1, tokens - (details.get("rejected_prediction_tokens") or 0)))
    except (ValueError, TypeError, LookupError, AttributeError):
        return None
    return Draft(text, max(1, -(-len(text.encode(errors="surrogatepass")) // CHARS_PER_TOKEN)))


def with_prediction(body: bytes, text: str) -> bytes:
    """A request with a prediction; no other byte differs.

    Args:
        body: A JSON object with one key or more, none of them ``prediction``.
        text: What is predicted.
    """
    given = json.dumps({"type": "content", "content": text}, separators=(",", ":"))
    return b"%b,%b:%b}" % (body.rstrip()[:-1].rstrip(), b'"prediction"', given.encode())


@dataclass(slots=True)
class _Known:
    """What is known of one kind: sums that decay."""

    tries: int = 0
    calls: int = 0
    accepted: float = 0.0
    answered: float = 0.0
    ratio: float = 0.0
    timed: float = 0.0
    idle: int = 0
    every: int = _FIRST_EVERY

    def learn(self, accepted: int, answered: int, ratio: float | None) -> None:
        self.accepted = self.accepted * _DECAY + accepted
        self.answered = self.answered * _DECAY + answered
        if ratio is not None:
            self.ratio, self.timed = self.ratio * _TIME_DECAY + ratio, self.timed * _TIME_DECAY + 1.0

    def pays(self, least: float) -> bool:
        is_slower = self.timed > _LEAST_TIMED and self.ratio > _MOST_RATIO * self.timed
        return self.accepted >= least * self.answered and self.accepted > 0 and not is_slower

    def is_due(self) -> bool:
        """Whether a call tries although it does not seem to pay; rarer each time."""
        self.idle += 1
        if self.idle < self.every:
            return False
        self.idle, self.every = 0, min(2 * self.every, _LAST_EVERY)
        return True


@dataclass(slots=True)
class _Plain:
    """Seconds of plain answers of one model, by powers of two of their tokens: sums that decay."""

    sums: dict[int, tuple[float, float]] = field(default_factory=dict)
    count: int = 0

    def add(self, tokens: int, seconds: float) -> None:
        self.count += 1
        weight, total = self.sums.get(tokens.bit_length(), (0.0, 0.0))
        self.sums[tokens.bit_length()] = weight * _TIME_DECAY + 1.0, total * _TIME_DECAY + seconds

    def ratio(self, tokens: int, seconds: float) -> float | None:
        weight, total = self.sums.get(tokens.bit_length(), (0.0, 0.0))
        return seconds * weight / total if total > 0 else None


class Predictions:
    """Which calls get a prediction. Thread-safe, O(1), bounded memory, no I/O.

    Args:
        least_accepted: Least share of an answer that must be taken from its prediction, in [0, 1].
        max_extra_cost: Most that predictions may add to what the calls cost without, as a share of it, >= 0.
    """

    def __init__(self, *, least_accepted: float = 0.2, max_extra_cost: float = 0.25) -> None:
        self._least, self._max_extra_cost = least_accepted, max_extra_cost
        self._known: dict[Kind, _Known] = {}
        self._plain: dict[tuple[str, str], _Plain] = {}
        self._refusing: set[tuple[str, str]] = set()
        self._lock = threading.RLock()  # the garbage collector may end a dropped call at any place
        self.plain_usd = self.extra_usd = self.set_aside_usd = 0.0

    def begin(self, kind: Kind, most_usd: float) -> bool:
        """Whether a call gets its prediction; then what that may add to the bill is set aside until `give_back`.

        Args:
            kind: What the call is.
            most_usd: What the prediction adds if nothing of it is used, dollars, >= 0.
        """
        with self._lock:
            if (kind.backend, kind.model) in self._refusing:
                return False
            if not self._has_room(most_usd):
                return False
            known = self._of(kind)
            if known.tries >= _FIRST_TRIES and not known.pays(self._least) and not known.is_due():
                return False
            known.tries += 1
            self.set_aside_usd += most_usd
            return True

    def begin_ahead(self, kind: Kind, most_usd: float) -> bool:
        """The same for a call whose prediction is still to be written, of about so much; see `set_aside`."""
        with self._lock:
            known = self._of(kind)
            known.calls += 1
            if self._plain_of(kind).count < _LEAST_PLAIN or known.calls % _PLAIN_EVERY == 0:
                return False
            return self.begin(kind, most_usd)

    def set_aside(self, most_usd: float) -> bool:
        """Whether there is room for what a prediction adds at worst, dollars, >= 0; then that is set aside."""
        with self._lock:
            if not self._has_room(most_usd):
                return False
            self.set_aside_usd += most_usd
            return True

    def _has_room(self, most_usd: float) -> bool:
        return self.extra_usd + self.set_aside_usd + most_usd <= self._max_extra_cost * self.plain_usd

    def give_back(self, most_usd: float) -> None:
        """What was set aside for a call is free again: it is over, and what it did cost is booked."""
        with self._lock:
            self.set_aside_usd = max(0.0, self.set_aside_usd - most_usd)

    def predicted(self, kind: Kind, usage: Usage, seconds: float) -> None:
        """Learn from an answer to a call that had a prediction.

        Args:
            kind: What the call was.
            usage: What the answer says that it took.
            seconds: From the request to its end.
        """
        answered = max(1, usage.completion_tokens - usage.rejected_tokens)
        with self._lock:
            ratio = self._plain_of(kind).ratio(answered, seconds)
            known = self._of(kind)
            known.learn(min(usage.accepted_tokens, answered), answered, ratio)
            if known.pays(self._least):
                known.idle, known.every = 0, _FIRST_EVERY

    def answered(self, kind: Kind, tokens: int, seconds: float) -> None:
        """Learn what an answer of ``tokens`` >= 1 tokens to a call without a prediction has taken."""
        with self._lock:
            self._plain_of(kind).add(tokens, seconds)

    def earned(self, plain_usd: float, extra_usd: float = 0.0) -> None:
        """Book a call: what it would have cost without a prediction, and what that added, dollars, each >= 0."""
        with self._lock:
            self.plain_usd += plain_usd
            self.extra_usd += extra_usd

    def failed(self, kind: Kind) -> None:
        """Learn that a call with a prediction brought no answer: that counts as one that took nothing from it."""
        with self._lock:
            known = self._of(kind)
            known.learn(0, 1, None)
            known.accepted, known.tries = 0.0, max(known.tries, _FIRST_TRIES)

    def refuses(self, backend: str, model: str) -> None:
        """Learn that a model takes no predictions: it is given none any more."""
        with self._lock:
            if len(self._refusing) < _MOST_KINDS:
                self._refusing.add((backend, model))

    def accepted_share(self, kind: Kind) -> float:
        """The share of answers that was taken from their predictions, in [0, 1]; 0 while nothing is known."""
        with self._lock:
            known = self._of(kind)
            return known.accepted / known.answered if known.answered else 0.0

    def _of(self, kind: Kind) -> _Known:
        return _in(self._known, kind, _Known)

    def _plain_of(self, kind: Kind) -> _Plain:
        return _in(self._plain, (kind.backend, kind.model), _Plain)


def _in(table: dict[K, V], key: K, new: Callable[[], V]) -> V:
    """What a table has under a key, made where it has nothing; the oldest goes where there are too many."""
    found = table.get(key)
    if found is None:
        while len(table) >= _MOST_KINDS:
            del table[next(iter(table))]
        found = table[key] = new()
    return found
