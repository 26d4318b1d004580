"""What the cache's verbs give back: frozen values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from llm_proxy.errors import CacheError

    from .entry import Entry
    from .near import Near
    from .weighed import Weighed

__all__ = ["CheckReport", "Lookup", "Merged", "Refused", "Stats"]

Merged = Literal["stored", "older", "expired", "too-large", "refused"]
"""What became of an entry of elsewhere: a newer one, or the same, is there already (older); it is worth less than what
would go for it (refused)."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A neighbour that was not served.

    Attributes:
        key: Its key.
        similarity: Cosine of its vector and the question's, in [-1, 1].
        reason: What `llm_proxy.cache.guard.agree` found to differ, or "similarity", "age", "scope", "encoder",
            "context", "evidence", "repeated" or "explored".
    """

    key: str
    similarity: float
    reason: str


@dataclass(frozen=True, slots=True)
class Lookup:
    """What a search for an equivalent question came to.

    Attributes:
        entry: The entry that may be served, or None.
        similarity: Its cosine similarity to the question, in [-1, 1]; of the nearest refused one where there is no
            entry, 0 where there is no neighbour at all.
        refused: Neighbours that were nearer and not served; the last may be the first below the threshold.
        doubted: Where there is no entry, the nearest one that its evidence, or chance, keeps from being served: to
            compare with.
        weighed: What was decided on the entry, or on the one that is doubted.
        damage: What is wrong with the evidence of a refused entry where it can't be read, or None.
        near: Where there is no entry, neighbours of the same scope that may be of other use, nearest first.
    """

    entry: Entry | None = None
    similarity: float = 0.0
    refused: tuple[Refused, ...] = ()
    doubted: Entry | None = None
    weighed: Weighed | None = None
    damage: CacheError | None = None
    near: tuple[Near, ...] = ()

    @property
    def refusal(self) -> str:
        """Why the nearest neighbour was not served, or empty."""
        return self.refused[0].reason if self.refused and self.entry is None else ""


@dataclass(frozen=True, slots=True)
class Stats:
    """The cache at one moment, as this process knows it; counts are of this process's life.

    Attributes:
        entries: Entries.
        vectors: Entries that can be found by meaning.
        scopes: Scopes with vectors.
        used_bytes: Bytes of the budget that are taken.
        budget_bytes: Most bytes that entries may take.
        max_entries: Most entries.
        store_bytes: Bytes of the store itself, free space inside it included.
        encoder: Name of the encoder of the vectors; empty while there are none.
        evicted: Entries given up for the budget.
        expired: Entries met after their time.
        corrupt: Entries whose record was damaged, and rows of another make.
        problems: Sentences on what does not work, e.g. a missing package.
    """

    entries: int
    vectors: int
    scopes: int
    used_bytes: int
    budget_bytes: int
    max_entries: int
    store_bytes: int
    encoder: str
    evicted: int
    expired: int
    corrupt: int
    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What `Cache.check` found.

    Attributes:
        entries: Records read.
        damaged: Records that cannot be read.
        findings: A sentence each; of a repair, what was found before it.
        is_repaired: Whether a second look after the repair found nothing.
    """

    entries: int
    damaged: int
    findings: tuple[str, ...]
    is_repaired: bool = False

    @property
    def is_clean(self) -> bool:
        """Whether nothing was found."""
        return not self.findings
