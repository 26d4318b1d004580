"""The cache seam: what the engine asks of a cache."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from llm_proxy.errors import CacheError

    from .entry import Entry
    from .evidence import Observation, Source
    from .near import Near
    from .turns import Turns
    from .weighed import Weighed

__all__ = ["AnswerCache", "Attachable", "Found", "State"]

State = Literal["ok", "opening", "failing"]


class Found(Protocol):
    """What a search for an equivalent question came to."""

    @property
    def entry(self) -> Entry | None:
        """The entry that may be served, or None."""

    @property
    def similarity(self) -> float:
        """Its cosine similarity to the question, in [-1, 1]; of the nearest refused one when there is no entry."""

    @property
    def refusal(self) -> str:
        """Why the nearest entry was not served, or empty."""

    @property
    def damage(self) -> CacheError | None:
        """What is wrong with evidence that can't be read, or None."""

    @property
    def doubted(self) -> Entry | None:
        """The nearest entry that its evidence, or chance, keeps from being served, or None."""

    @property
    def weighed(self) -> Weighed | None:
        """What was decided on the entry, or on the one that is doubted."""

    @property
    def near(self) -> tuple[Near, ...]:
        """Neighbours that are not served, of the same scope, nearest first; none where there is an entry."""


class Attachable(Protocol):
    """Entries that can be given a vector."""

    def attach(self, key: str, *, scope: str, vector: NDArray[np.float32], encoder: str, seen_chars: int) -> bool:
        """Give a stored entry the vector that was not ready in time; whether it is still there."""


class AnswerCache(Attachable, Protocol):
    """See `llm_proxy.cache.resting.RestingCache` and `llm_proxy.cache.cache.Cache`. Every verb may raise `CacheError`.

    `hit` only counts, and `get` reads a row or two where ``is_open``; all else may wait for a disk or another process.
    """

    @property
    def is_open(self) -> bool:
        """Whether `get` answers at once."""

    @property
    def state(self) -> State:
        """How it is."""

    def open_store(self) -> None:
        """Open what is not open."""

    def note_timeout(self) -> None:
        """Take note that it took too long to open, so that the next callers need not wait for it."""

    def get(self, key: str) -> Entry | None:
        """The entry under an exact key, unless expired."""

    def nearest(
        self,
        scope: str,
        text: str,
        vector: NDArray[np.float32],
        *,
        encoder: str,
        max_age_s: float | None,
        turns: Turns,
        route: str,
        may_explore: bool,
    ) -> Found:
        """The nearest entry of a scope that may be served for ``text``."""

    def admit(self, entry: Entry) -> bool:
        """Store an entry if it is worth its place; whether it was stored."""

    def note_served(self, weighed: Weighed) -> None:
        """Take a semantic hit into the account of its route."""

    def learn(self, weighed: Weighed, source: Source, *, is_same: bool) -> bool:
        """Take in a comparison with what a question itself was answered; whether the entry is still there."""

    def observe(self, key: str, observation: Observation) -> bool:
        """Add to the evidence of an entry; whether the entry is still there."""

    def hit(self, key: str) -> bool:
        """Count a hit; whether `tend` is due."""

    def tend(self) -> None:
        """Write what waits to be written."""
