"""Examples from near misses: similar questions with answers of a stronger model, put before a weak model's question.

::

    retrieve   near misses that a stronger candidate of the route answered, nearest first
    select     gain   = mean outcome with examples - mean outcome without, of the same group of calls
               keep the j-th of n while   gain * w(j) * worth > tokens(j) * price,   w(j) = 2^-j / (2^-1 + .. + 2^-n)
    explore    two of three calls have examples until both sides have six outcomes; then one of 16 does the other thing,
               but no caller is denied what helps: only requests that compare models beside a call are

``worth`` is what a good answer is worth, dollars, and ``price`` that of a prompt token. Help falls from example to
example: each is taken to give half as much as the one before. So the threshold, the tokens that an example may have for
what it gives, moves with the outcomes. A gain of 0.05 is asked for in any case. Outcomes are sums that decay.

A group is a model, a scope (the system message, earlier turns and parameters, and so mostly the kind of work) and how
near the nearest example is.

Source: Yu et al., "IC-Cache", arXiv 2501.12689, sections 4.1 and 4.2 (two stages, threshold by feedback), in our form.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

__all__ = ["Asked", "Example", "Group", "Helpfulness", "with_examples"]

_LEAST_OUTCOMES = 6
_DECAY = 0.97
_LEAST_GAIN = 0.05
_PLAIN_EVERY, _OTHER_EVERY = 3, 16
_BANDS = 0.9, 0.75
_MOST_GROUPS, _MOST_CALLS = 1024, 4096
_SPACE = " \t\n\r"
_READ = json.JSONDecoder().raw_decode


class Example(NamedTuple):
    """A question that was answered well.

    Attributes:
        question: What was asked.
        answer: What it was answered.
        tokens: About the length of both, > 0.
    """

    question: str
    answer: str
    tokens: float


class Group(NamedTuple):
    """What is learnt of by itself; ``band`` says how near the nearest example is, 0 the nearest."""

    backend: str
    model: str
    scope: str
    band: int

    @classmethod
    def of(cls, backend: str, model: str, scope: str, similarity: float) -> Group:
        """The group of a call whose nearest example is of this cosine, in [-1, 1]."""
        return cls(backend, model, scope, sum(similarity < edge for edge in _BANDS))


class Asked(NamedTuple):
    """A call and the model that was asked: a call may ask several."""

    call_id: str
    backend: str
    model: str


@dataclass(slots=True)
class _Side:
    """Outcomes of the calls with examples, or of those without: sums that decay."""

    outcomes: int = 0
    weight: float = 0.0
    total: float = 0.0

    def learn(self, score: float) -> None:
        self.outcomes += 1
        self.weight = self.weight * _DECAY + 1.0
        self.total = self.total * _DECAY + score

    @property
    def mean(self) -> float:
        """Drawn to a half, as far as little is known."""
        return (self.total + 0.5) / (self.weight + 1.0)


@dataclass(slots=True)
class _Known:
    with_: _Side = field(default_factory=_Side)
    without: _Side = field(default_factory=_Side)
    calls: int = 0

    @property
    def gain(self) -> float | None:
        if min(self.with_.outcomes, self.without.outcomes) < _LEAST_OUTCOMES:
            return None
        return self.with_.mean - self.without.mean


class Helpfulness:
    """Learns what examples help, and keeps those that pay. Thread-safe, bounded memory, no I/O."""

    def __init__(self) -> None:
        self._known: dict[Group, _Known] = {}
        self._asked: OrderedDict[Asked, tuple[Group, bool]] = OrderedDict()
        self._lock = threading.RLock()

    def gain(self, group: Group) -> float | None:
        """How much better answers with examples are, in [-1, 1]; None while too little is known."""
        with self._lock:
            known = self._known.get(group)
            return None if known is None else known.gain

    def expected(self, group: Group) -> float | None:
        """Mean outcome with examples, in [0, 1], where they are known to help; else None."""
        with self._lock:
            known = self._known.get(group)
            gain = None if known is None else known.gain
            return None if known is None or gain is None or gain < _LEAST_GAIN else known.with_.mean

    def select(
        self,
        group: Group,
        examples: Sequence[Example],
        *,
        worth_usd: float,
        usd_per_token: float,
        is_served: bool = True,
    ) -> list[Example]:
        """Those that a call gets, and counts the call.

        Args:
            group: What the call is.
            examples: What was retrieved, nearest first.
            worth_usd: What a good answer is worth, dollars, >= 0.
            usd_per_token: Price of a prompt token, dollars, >= 0.
            is_served: Whether a caller gets the answer; else it is asked for to compare.
        """
        with self._lock:
            known = self._of(group)
            known.calls += 1
            gain = known.gain
            if gain is None:
                return list(examples) if known.calls % _PLAIN_EVERY else []
            kept = _paying(examples, gain, worth_usd, usd_per_token)
            if known.calls % _OTHER_EVERY or (kept and is_served):
                return kept
            return [] if kept else list(examples)

    def learn(self, group: Group, score: float, *, has_examples: bool) -> None:
        """Take in how good an answer was, in [0, 1], that had examples, or had none of those that it might have had."""
        with self._lock:
            known = self._of(group)
            (known.with_ if has_examples else known.without).learn(score)

    def asked(self, call: Asked, group: Group, *, has_examples: bool) -> None:
        """Remember a call until its outcome is `heard`, or many later ones were asked."""
        with self._lock:
            self._asked[call] = group, has_examples
            while len(self._asked) > _MOST_CALLS:
                self._asked.popitem(last=False)

    def forget(self, call: Asked) -> None:
        """Learn nothing of a call after all; an unknown one is passed over."""
        with self._lock:
            self._asked.pop(call, None)

    def heard(self, call: Asked, score: float) -> None:
        """Take in how good the answer to a remembered call was, in [0, 1]; an unknown one is passed over."""
        with self._lock:
            known = self._asked.get(call)
            if known is not None:
                self.learn(known[0], score, has_examples=known[1])

    def _of(self, group: Group) -> _Known:
        known = self._known.get(group)
        if known is None:
            while len(self._known) >= _MOST_GROUPS:
                del self._known[next(iter(self._known))]
            known = self._known[group] = _Known()
        return known


def _paying(examples: Sequence[Example], gain: float, worth_usd: float, usd_per_token: float) -> list[Example]:
    """The first ones whose predicted help is worth more than their tokens cost."""
    if gain < _LEAST_GAIN:
        return []
    whole = 1.0 - 0.5 ** len(examples)
    kept: list[Example] = []
    for place, example in enumerate(examples, 1):
        if gain * 0.5**place / whole * worth_usd < example.tokens * usd_per_token:
            break
        kept.append(example)
    return kept


def with_examples(body: bytes, examples: Sequence[Example]) -> bytes:
    """A request with examples before its last message, the farthest first; no other byte differs.

    Args:
        body: A chat request as UTF-8 JSON, with one message or more.
        examples: Nearest first.

    Raises:
        ValueError: It is no such request.
    """
    text = body.decode()
    at = _last_message(text)
    turns = [
        {"role": role, "content": content}
        for example in reversed(examples)
        for role, content in (("user", example.question), ("assistant", example.answer))
    ]
    given = "".join(json.dumps(turn, separators=(",", ":")) + "," for turn in turns)
    return f"{text[:at]}{given}{text[at:]}".encode()


def _last_message(text: str) -> int:
    """Where the last message of a request begins."""
    at = _after_space(text, 0)
    while text[at : at + 1] in ("{", ","):
        name, at = _READ(text, _after_space(text, at + 1))
        at = _after_space(text, _after_space(text, at) + 1)
        if name == "messages" and text[at : at + 1] == "[":
            return _last_item(text, at)
        _, at = _READ(text, at)
        at = _after_space(text, at)
    raise ValueError("the request has no list of messages")


def _last_item(text: str, at: int) -> int:
    start = -1
    while text[at : at + 1] in ("[", ","):
        start = _after_space(text, at + 1)
        _, at = _READ(text, start)
        at = _after_space(text, at)
    return start


def _after_space(text: str, at: int) -> int:
    while text[at : at + 1] in tuple(_SPACE):
        at += 1
    return at
