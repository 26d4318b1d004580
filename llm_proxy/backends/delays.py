"""How long answers take to begin, and whether one that takes longer than nearly all should get a rival.

A second request beside a slow first one cuts the tail of the delays. It is sent once the 95th percentile of what the
same model at the same backend took, plain and streamed apart, has passed; so one call in twenty would get one, and the
share of a backend's calls that do is bounded besides, for a backend that grows slow as a whole.

Source: Dean and Barroso, "The Tail at Scale", 2013, "hedged requests".
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from dataclasses import dataclass, field

from .base import MODEL_CHARS

__all__ = ["AT_LEAST", "Delays"]

AT_LEAST = 20
"""Answers that must have begun before anything is said."""

_KEPT = 200
_PERCENTILE = 0.95
_MOST = 1024  # any model may be named in a call
_HALVED_AT = 1000

Key = tuple[str, str, bool]


@dataclass(slots=True)
class _Known:
    delays_s: deque[float] = field(default_factory=lambda: deque(maxlen=_KEPT))
    p95_s: float | None = None
    calls: float = 0.0
    rivals: float = 0.0


class Delays:
    """The delays of all models; thread-safe, bounded memory, no I/O.

    Args:
        share: Largest share of calls that get a rival, in [0, 1].
    """

    def __init__(self, share: float) -> None:
        self._share = share
        self._known: OrderedDict[Key, _Known] = OrderedDict()
        self._lock = threading.Lock()

    def note(self, key: Key, delay_s: float) -> None:
        """An answer began.

        Args:
            key: Backend, model, and whether it was streamed.
            delay_s: Time since its request was sent, seconds.
        """
        key = _short(key)
        with self._lock:
            known = self._known.setdefault(key, _Known())
            self._known.move_to_end(key)
            known.delays_s.append(delay_s)
            known.p95_s = None
            if len(self._known) > _MOST:
                self._known.popitem(last=False)

    def rival_after_s(self, key: Key) -> float | None:
        """After how many seconds a call gets a rival; None for never. Counts the call."""
        with self._lock:
            known = self._known.get(_short(key))
            if known is None or len(known.delays_s) < AT_LEAST:
                return None
            known.calls += 1
            if known.calls > _HALVED_AT:
                known.calls, known.rivals = known.calls / 2, known.rivals / 2
            if known.rivals + 1 > self._share * (known.calls + AT_LEAST):
                return None
            if known.p95_s is None:
                ranked = sorted(known.delays_s)
                known.p95_s = ranked[int(_PERCENTILE * (len(ranked) - 1))]
            return known.p95_s

    def rivalled(self, key: Key) -> None:
        """A call got a rival."""
        with self._lock:
            known = self._known.get(_short(key))
            if known is not None:
                known.rivals += 1


def _short(key: Key) -> Key:
    return key[0], key[1][:MODEL_CHARS], key[2]
