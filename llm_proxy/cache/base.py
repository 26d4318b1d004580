"""The cache seam: what the engine asks of a cache."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from .entry import Entry

__all__ = ["AnswerCache", "Found"]


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


class AnswerCache(Protocol):
    """See `llm_proxy.cache.cache.Cache`. Every verb may raise `CacheError`."""

    def get(self, key: str) -> Entry | None:
        """The entry under an exact key, unless expired."""

    def nearest(
        self, scope: str, text: str, vector: NDArray[np.float32], *, encoder: str, max_age_s: float | None
    ) -> Found:
        """The nearest entry of a scope that may be served for ``text``."""

    def admit(self, entry: Entry) -> bool:
        """Store an entry if it is worth its place; whether it was stored."""

    def attach(self, key: str, *, scope: str, vector: NDArray[np.float32], encoder: str, seen_chars: int) -> bool:
        """Give a stored entry the vector that was not ready in time; whether it is still there."""

    def hit(self, key: str) -> None:
        """Count a hit."""
