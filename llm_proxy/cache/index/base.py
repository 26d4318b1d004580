"""The index seam: unit vectors by key, of which the nearest of one scope are found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    import numpy as np
    from numpy.typing import NDArray

    from .codes import Codec

__all__ = ["Block", "Layout", "Neighbour", "VectorIndex", "is_unit"]

_NORM_SLACK = 0.02


def is_unit(vector: NDArray[np.float32]) -> bool:
    """Whether a vector has unit norm, up to 1 %; one with NaN has not."""
    return abs(float(vector @ vector) - 1.0) <= _NORM_SLACK


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A key and the cosine of its vector with the one searched for, off by at most the index's `similarity_error`."""

    key: str
    similarity: float


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """How a large scope is laid out; blocks that belong together share one.

    Attributes:
        codec: What the codes of its vectors and centres stand for.
        centres: Codes of the centres of its lists, shape ``(lists, dim)``, uint8.
    """

    codec: Codec
    centres: NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Vectors of one scope: all of them, or some lists of a large one.

    Attributes:
        scope: Their scope.
        keys: Keys, one a row, in the order of ``rows``.
        rows: Arrays of shape ``(n, dim)``: float16, or uint8 codes, one array a list, where there is a layout.
        layout: How the scope is laid out, or None: it is flat.
        first: Number of the first of these lists.
        finer: What the codes of one of its lists leave out, by the list's place in ``rows``: shape
            ``(n, ceil(dim / 4))``, uint8. None where there is no layout.
    """

    scope: str
    keys: Sequence[str]
    rows: Sequence[NDArray[Any]]
    layout: Layout | None = None
    first: int = 0
    finer: Callable[[int], NDArray[np.uint8]] | None = None


class VectorIndex(Protocol):
    """Unit vectors by key, searched by scope; safe for several threads."""

    @property
    def dim(self) -> int:
        """Length of every vector, > 0."""

    @property
    def scopes(self) -> int:
        """How many scopes have vectors."""

    @property
    def similarity_error(self) -> float:
        """How far a neighbour's similarity may be off, >= 0; grows with what is added."""

    def __len__(self) -> int:
        """How many vectors there are."""

    def __contains__(self, key: str) -> bool:
        """Whether a key has a vector."""

    def add(self, key: str, scope: str, vector: NDArray[np.float32]) -> None:
        """Take in a vector, or replace a key's; shape ``(dim,)``, unit norm. `CacheError` when it is not that."""

    def remove(self, key: str) -> None:
        """Forget a key, effective at once; an unknown key is passed over."""

    def search(self, scope: str, vector: NDArray[np.float32], k: int) -> list[Neighbour]:
        """The ``k`` nearest of a scope, best first; fewer where it has fewer."""

    def blocks(self) -> Iterator[Block]:
        """All vectors, for a snapshot, in the index's own memory; nothing may be added or removed meanwhile."""

    def add_block(self, block: Block) -> None:
        """Take in many vectors of a scope; keys that are known already are passed over."""

    def tend(self, limit_s: float) -> bool:
        """Do work that makes searches find more, for about so long; whether there is more of it."""

    def still(self) -> AbstractContextManager[object]:
        """A block in which no other thread changes anything, `tend` included; searches go on."""
