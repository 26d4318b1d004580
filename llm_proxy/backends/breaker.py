"""A breaker for each pair of backend and model: whom to leave alone, on a sliding window of what became of calls.

::

    closed ──── opens by a rule below ────> open ──── it has rested ────> half-open ── one call probes it
      ^                                      ^ ^                              │
      └────────── one answer ────────────────┘ └──────── it fails ────────────┤
      └─────────────────────────────────────────────────────── it answers ────┘

It opens after three failures in a row, none more than 30 seconds after the first, and rests for 30 seconds after the
last; or when half of the last ten calls or more, within 30 seconds, have failed. Where there is no connection to be
had, it opens at once for 2 seconds, twice as long each time that is found again, up to 30; and where the backend itself
said how long it wants to be left alone, for that long, up to 60. One answer closes it.

An open breaker refuses nothing by itself: who chooses passes such a candidate over while another can take the call.

Known to this process alone, and forgotten with it.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field

__all__ = ["Breakers"]

IN_A_ROW = 3
WITHIN_S = REST_S = 30.0
_AT_LEAST, _KEPT = 10, 20
_REFUSED_S = 2.0
_LONGEST_ASKED_S = 60.0
_MOST = 1024  # any model may be named in a call


@dataclass(slots=True)
class _State:
    """What is known of one candidate; times are monotonic, seconds.

    Attributes:
        calls: When the last calls ended, and whether they failed; oldest first.
        until_s: Until when it rests; None while the breaker is closed.
        rest_s: For how long it rested last, where there was no connection.
        probe_s: Until when others wait for what a probing call finds; 0 where there is none.
    """

    calls: deque[tuple[float, bool]] = field(default_factory=lambda: deque(maxlen=_KEPT))
    until_s: float | None = None
    rest_s: float = 0.0
    probe_s: float = 0.0


class Breakers:
    """The breakers of all candidates; thread-safe, O(1), bounded memory, no I/O.

    Args:
        monotonic: Clock, seconds.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._states: OrderedDict[tuple[str, str], _State] = OrderedDict()
        # Reentrant: the garbage collector may end a dropped call at any place, and that call comes here.
        self._lock = threading.RLock()

    def __len__(self) -> int:
        return len(self._states)

    def resting_s(self, pair: tuple[str, str]) -> float:
        """For how much longer a candidate should be passed over, seconds; 0 where it is well, or may be probed."""
        if not self._states:  # as a rule
            return 0.0
        state = self._states.get(pair)
        if state is None or state.until_s is None:
            return 0.0
        return max(0.0, max(state.until_s, state.probe_s) - self._monotonic())

    def began(self, pair: tuple[str, str]) -> None:
        """A call is sent: the first one after a rest is the probe."""
        if not self._states:
            return
        with self._lock:
            state, now_s = self._states.get(pair), self._monotonic()
            if state is not None and state.until_s is not None and max(state.until_s, state.probe_s) <= now_s:
                state.probe_s = now_s + REST_S

    def answered(self, pair: tuple[str, str]) -> None:
        """A call was answered: an open breaker closes."""
        if not self._states:
            return
        with self._lock:
            state = self._states.get(pair)
            if state is None:
                return
            state.calls.append((self._monotonic(), False))
            if state.until_s is not None or not any(is_failure for _, is_failure in state.calls):
                del self._states[pair]

    def let_go(self, pair: tuple[str, str]) -> None:
        """A call ended that says nothing of the candidate: the next one may probe it."""
        if not self._states:
            return
        with self._lock:
            state = self._states.get(pair)
            if state is not None:
                state.probe_s = 0.0

    def failed(self, pair: tuple[str, str], *, is_refused: bool = False, asked_s: float = 0.0) -> None:
        """A call failed.

        Args:
            pair: Backend and model.
            is_refused: There was no connection.
            asked_s: How long the backend asked to be left alone, seconds; 0 where it said nothing.
        """
        with self._lock:
            state = self._states.setdefault(pair, _State())
            self._states.move_to_end(pair)
            now_s = self._monotonic()
            state.probe_s = 0.0
            state.calls.append((now_s, True))
            rest_s = _refused_s(state, now_s) if is_refused else _rest_s(state, now_s)
            rest_s = max(rest_s, min(asked_s, _LONGEST_ASKED_S))
            if rest_s:
                state.until_s = max(state.until_s or 0.0, now_s + rest_s)
            if len(self._states) > _MOST:
                self._states.popitem(last=False)


def _refused_s(state: _State, now_s: float) -> float:
    """How long to rest where there is no connection; calls that were under way meanwhile find nothing new."""
    if state.until_s is not None and now_s < state.until_s:
        return 0.0
    state.rest_s = min(REST_S, state.rest_s * 2 or _REFUSED_S)
    return state.rest_s


def _rest_s(state: _State, now_s: float) -> float:
    recent = [is_failure for at_s, is_failure in state.calls if now_s - at_s <= WITHIN_S]
    is_row = len(recent) >= IN_A_ROW and all(recent[-IN_A_ROW:])
    is_half = len(recent) >= _AT_LEAST and sum(recent) * 2 >= len(recent)
    return REST_S if state.until_s is not None or is_row or is_half else 0.0
