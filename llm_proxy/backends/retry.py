"""Whether a call that got no answer is sent again, to whom, and when. Pure; the clock and chance are the caller's.

::

    cause      of a status, an error body or an exception      none: the request's own fault, handed on at once
    next       a fallback for this cause that was not asked yet         at once
               else the first backend that may be asked again           after a pause
               else nobody: what the first backend said last is handed on
    pause      as long as the backend asked for, else 0.5 s, 1 s, 2 s ... 8 s, less up to a quarter by chance

Never more than `attempts.most` requests, and none that would begin after the caller's time-out.

Sources: which statuses are sent again, and the pauses, as in the openai package; RFC 9110 section 10.2.3
(``Retry-After``); OpenAI's API reference, "Rate limits" (``x-ratelimit-*``).
"""

from __future__ import annotations

import email.utils
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from llm_proxy.errors import LimitReached

if TYPE_CHECKING:
    from llm_proxy.types import Head, HeaderList

__all__ = ["Attempt", "Cause", "Failure", "Tries", "asked_wait_s", "failed", "failed_by", "pause_s"]

Cause = Literal["rate_limit", "context_length", "content_policy", "outage", "timeout", ""]

_FIRST_PAUSE_S, _LONGEST_PAUSE_S, _JITTER = 0.5, 8.0, 0.25
_LONGEST_ASKED_S = 24 * 3600.0
_AGAIN = frozenset({408, 409, 429})
_TOO_LONG = ("context_length_exceeded", "exceed_context_size_error", "string_above_max_length")
_TOO_LONG_SAID = ("maximum context length", "context window", "context size", "prompt is too long", "input is too long")
_UNWANTED = ("content_filter", "content_policy_violation", "responsibleaipolicyviolation", "content_moderation")
_NO_MONEY = ("insufficient_quota", "billing_hard_limit_reached", "insufficient_credits")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|h|m|s)")
_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
# The HTTP libraries share no classes with each other, nor with us: their names say what happened.
_TIMED_OUT = frozenset({"TimeoutException", "BackendTimeout", "TimeoutError"})
_NOT_SENT = frozenset({"ConnectError", "ConnectTimeout", "ConnectionRefusedError", "PoolTimeout"})
_TRANSPORT = frozenset({"TransportError", "BackendError", "OSError", *_TIMED_OUT})


@dataclass(frozen=True, slots=True)
class Failure:
    """Why one request brought no answer.

    Attributes:
        brought: What it brought instead, to be handed on where nobody answers.
        cause: Whom another backend may help; empty where it is the request's own fault.
        may_repeat: Whether the same backend may be asked again.
        status: HTTP status; 0 where none came.
        wait_s: How long the backend asked to be left alone, seconds; None where it said nothing.
        is_refused: Whether there was no connection, so that it never had the request.
        loading_s: For how long it is asked again since it loads its model, seconds; 0 where it does not.
    """

    brought: Head | Exception
    cause: Cause
    may_repeat: bool
    status: int = 0
    wait_s: float | None = None
    is_refused: bool = False
    loading_s: float = 0.0

    @property
    def words(self) -> str:
        """The failure in a word."""
        if self.status:
            return "error" if self.status == 200 else str(self.status)
        if isinstance(self.brought, LimitReached):
            return self.brought.word
        return "refused" if self.is_refused else "timeout" if self.cause == "timeout" else "broken"


def failed(head: Head, *, code: str = "", kind: str = "", message: str = "", now_s: float = 0.0) -> Failure:
    """What a refusal means.

    Args:
        head: Status and headers, and the body that is handed on where nobody else answers.
        code: What its body says, in lower case: name of the error,
        kind: class of the error,
        message: text of it.
        now_s: Unix time, for a ``Retry-After`` that is a date.
    """
    status = head.status
    cause = _cause(status, code=code, kind=kind, message=message)
    said = head.header("x-should-retry").strip().lower()
    has_no_money = cause == "rate_limit" and (status == 402 or code in _NO_MONEY or kind in _NO_MONEY)
    is_usual = status in _AGAIN or status >= 500 or status == 200
    is_usual = is_usual and cause not in ("context_length", "content_policy") and not has_no_money
    may_repeat = said == "true" or (said != "false" and is_usual)
    return Failure(head, cause, may_repeat, status, asked_wait_s(head.headers, now_s))


def _cause(status: int, *, code: str, kind: str, message: str) -> Cause:
    """Of a status below 400 it is an error that came as an answer."""
    names = (code, kind)
    if any(name in _TOO_LONG for name in names) or (
        status in (400, 413, 422) and any(words in message for words in _TOO_LONG_SAID)
    ):
        return "context_length"
    if any(name in _UNWANTED for name in names):
        return "content_policy"
    if status in (402, 429) or code in _NO_MONEY:
        return "rate_limit"
    if status in (408, 504):
        return "timeout"
    return "outage" if status == 409 or status >= 500 or status < 400 else ""


def failed_by(error: Exception) -> Failure | None:
    """What an exception means; None for one that no HTTP library raises because of an upstream."""
    kinds = {kind.__name__ for one in (error, error.__cause__) for kind in type(one).__mro__}
    if not kinds & _TRANSPORT:
        return None
    is_late = bool(kinds & _TIMED_OUT)
    return Failure(error, "timeout" if is_late else "outage", True, is_refused=bool(kinds & _NOT_SENT))


def asked_wait_s(headers: HeaderList, now_s: float) -> float | None:
    """How long an answer asks to be waited before the next request, seconds >= 0; None where it says nothing.

    Args:
        headers: Response headers, names in lower case.
        now_s: Unix time.
    """
    said = dict(headers)
    wait_s = _number(said.get("retry-after-ms"), 0.001)
    if wait_s is None:
        wait_s = _number(said.get("retry-after"), 1.0)
    if wait_s is None and "retry-after" in said:
        wait_s = _until(said["retry-after"], now_s)
    return _reset_s(said) if wait_s is None else wait_s


def _number(text: str | None, unit_s: float) -> float | None:
    try:
        value = float(text or "") * unit_s
    except ValueError:
        return None
    return min(value, _LONGEST_ASKED_S) if value >= 0 else None


def _until(date: str, now_s: float) -> float | None:
    try:
        return max(0.0, email.utils.parsedate_to_datetime(date).timestamp() - now_s)
    except (ValueError, TypeError, OverflowError):
        return None


def _reset_s(said: Mapping[str, str]) -> float | None:
    """When that limit is renewed which is used up; of several the last."""
    waits = []
    for name, value in said.items():
        if name.startswith("x-ratelimit-reset-"):
            left = said.get(f"x-ratelimit-remaining-{name.removeprefix('x-ratelimit-reset-')}")
            parts = _DURATION.findall(value)
            if left == "0" and parts:
                waits.append(sum(float(number) * _UNITS_S[unit] for number, unit in parts))
    return max(waits, default=_number(said.get("ratelimit-reset"), 1.0))


def pause_s(earlier: int, chance: float) -> float:
    """The pause before a backend is asked again that said nothing of how long to wait, seconds.

    Args:
        earlier: How often it was asked again before, >= 0.
        chance: A random number in [0, 1), so that many callers do not come back together.
    """
    return min(_FIRST_PAUSE_S * 2.0 ** min(earlier, 16), _LONGEST_PAUSE_S) * (1 - _JITTER * chance)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One request to send: to whom, and after how many seconds."""

    backend: str
    model: str
    wait_s: float = 0.0


class Tries:
    """The requests of one call: what was sent, what came of it, and what is to be done next.

    Args:
        most: Most requests, >= 1.
        retries: How often each backend is asked again, by name.
        longest_wait_s: Longest pause, seconds.
        deadline_s: Monotonic time after which nothing is sent; inf for none.
        before: How often its caller has sent the same call before.
    """

    def __init__(
        self, most: int, retries: Mapping[str, int], *, longest_wait_s: float, deadline_s: float, before: int = 0
    ) -> None:
        self._most, self._before, self._retries = most, before, retries
        self._longest_wait_s, self._deadline_s = longest_wait_s, deadline_s
        self._failures: dict[tuple[str, str], Failure] = {}
        self._ended_s: dict[tuple[str, str], float] = {}
        self._again: Counter[tuple[str, str]] = Counter()
        self._sent = 1
        self._is_spent = False

    @property
    def first(self) -> tuple[str, str]:
        """Who was asked first, pair of backend and model; there must have been a failure."""
        return next(iter(self._failures))

    @property
    def said_first(self) -> Failure:
        """What the first backend said last: what is handed on where nobody answers."""
        return self._failures[self.first]

    @property
    def is_used_up(self) -> bool:
        """Whether the caller should not send the call once more: each time of its own would be as many requests."""
        return self._is_spent or (self._sent > 1 and self._sent * (self._before + 1) >= self._most)

    def note(self, pair: tuple[str, str], failure: Failure, now_s: float) -> None:
        """Take in the failure of a request that ended at this monotonic time."""
        self._failures[pair], self._ended_s[pair] = failure, now_s

    def next(self, fallbacks: Sequence[tuple[str, str]], now_s: float, chance: float) -> Attempt | None:
        """What to send after a failure.

        Args:
            fallbacks: Who may be asked instead, the best first; who was asked already is passed over.
            now_s: Monotonic time.
            chance: A random number in [0, 1).

        Returns:
            The next request; None where what the first backend said is to be handed on.
        """
        attempt = next((Attempt(*pair) for pair in fallbacks if pair not in self._failures), None)
        attempt = attempt or self._repeated(now_s, chance)
        if attempt is None or now_s + attempt.wait_s >= self._deadline_s:
            return None
        if self._sent + self._before >= self._most:
            self._is_spent = True
            return None
        self._sent += 1
        self._again[attempt.backend, attempt.model] += (attempt.backend, attempt.model) in self._failures
        return attempt

    def _repeated(self, now_s: float, chance: float) -> Attempt | None:
        """Who may be asked again soonest; of equals, who was asked first."""
        attempts = []
        for pair, failure in self._failures.items():
            again = self._again[pair]
            if not failure.may_repeat:
                continue
            if again >= self._retries.get(pair[0], 0):
                self._is_spent = self._is_spent or again > 0
                continue
            wanted_s = pause_s(again, chance) if failure.wait_s is None else failure.wait_s
            if wanted_s <= self._longest_wait_s:
                attempts.append(Attempt(*pair, max(0.0, self._ended_s[pair] + wanted_s - now_s)))
        return min(attempts, key=lambda attempt: attempt.wait_s, default=None)
