"""A cache that is left alone for a while after it failed, so that a sick disk does not cost every call a time-out."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from llm_proxy.errors import CacheCorruptError, CacheError

from .results import Lookup

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from .base import Found, State
    from .cache import Cache
    from .entry import Entry
    from .evidence import Observation, Source
    from .turns import Turns
    from .weighed import Weighed

__all__ = ["RestingCache"]

P = ParamSpec("P")
T = TypeVar("T")


class RestingCache:
    """Wraps a cache; raises its errors, then answers "nothing there" for ``rest_s`` seconds without asking it.

    Args:
        cache: The cache to ask.
        monotonic: Clock, seconds.
        rest_s: How long it is left alone after an error. A damaged record is no reason to rest.
    """

    def __init__(self, cache: Cache, *, monotonic: Callable[[], float], rest_s: float = 5.0) -> None:
        self._cache, self._monotonic, self._rest_s = cache, monotonic, rest_s
        self._rests_until = float("-inf")
        self._is_failing = False

    @property
    def is_resting(self) -> bool:
        """Whether the cache is being left alone."""
        return self._monotonic() < self._rests_until

    @property
    def is_open(self) -> bool:
        """Whether `get` answers at once: also while resting."""
        return self._cache.is_open or self.is_resting

    @property
    def state(self) -> State:
        """``failing`` from an error until a verb succeeds; else the cache's own."""
        return "failing" if self._is_failing else self._cache.state

    def open_store(self) -> None:
        """Open what is not open; without effect while resting."""
        self._tried(self._cache.open_store, None)

    def note_timeout(self) -> None:
        """Leave the cache alone for a while: it took too long to open."""
        self._rest()

    def get(self, key: str) -> Entry | None:
        """The entry under an exact key; None while resting."""
        return self._tried(self._cache.get, None, key)

    def nearest(
        self,
        scope: str,
        text: str,
        vector: NDArray[np.float32],
        *,
        encoder: str,
        max_age_s: float | None,
        turns: Turns,
        route: str = "",
        may_explore: bool = True,
    ) -> Found:
        """The nearest entry that may be served; none while resting."""
        nothing: Found = Lookup(None)
        wanted = partial(self._cache.nearest, scope, text, vector, encoder=encoder, max_age_s=max_age_s, turns=turns)
        return self._tried(partial(wanted, route=route, may_explore=may_explore), nothing)

    def admit(self, entry: Entry) -> bool:
        """Store an entry; False while resting."""
        return self._tried(lambda: self._cache.admit(entry), False)

    def attach(self, key: str, *, scope: str, vector: NDArray[np.float32], encoder: str, seen_chars: int) -> bool:
        """Give an entry its vector; False while resting."""
        return self._tried(
            lambda: self._cache.attach(key, scope=scope, vector=vector, encoder=encoder, seen_chars=seen_chars), False
        )

    def note_served(self, weighed: Weighed) -> None:
        """Take a semantic hit into account, in memory."""
        self._cache.note_served(weighed)

    def learn(self, weighed: Weighed, source: Source, *, is_same: bool) -> bool:
        """Take in a comparison.

        Raises:
            CacheError: While resting, too: what is found out is never lost without a word.
        """
        return self._insisted(partial(self._cache.learn, weighed, source, is_same=is_same))

    def observe(self, key: str, observation: Observation) -> bool:
        """Add to the evidence of an entry; see `learn`."""
        return self._insisted(partial(self._cache.observe, key, observation))

    def hit(self, key: str) -> bool:
        """Count a hit; without effect while resting. It only counts, and so says nothing about the cache's health."""
        return self._monotonic() >= self._rests_until and self._cache.hit(key)

    def tend(self) -> None:
        """Write what waits; without effect while resting."""
        self._tried(self._cache.tend, None)

    def _insisted(self, call: Callable[[], bool]) -> bool:
        if self.is_resting:
            raise CacheError("the store is left alone for some seconds after an error; try again then")
        return self._tried(call, False)

    def _tried(self, call: Callable[P, T], otherwise: T, /, *args: P.args, **kwargs: P.kwargs) -> T:
        if self._monotonic() < self._rests_until:
            return otherwise
        try:
            result = call(*args, **kwargs)
        except CacheCorruptError:
            raise
        except CacheError:
            self._rest()
            raise
        self._is_failing = False
        return result

    def _rest(self) -> None:
        self._rests_until, self._is_failing = self._monotonic() + self._rest_s, True
