"""What a scope's vectors are kept in: `Flat` while they are few, `Lists` (lists.py) when they are many."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Protocol

from .shelf import Shelf, libraries

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

    from .lock import SharedLock

__all__ = ["Flat", "Places", "Scope", "Shelves"]

_SHARED_LISTS = 1024
_PRIVATE_FROM = 128  # vectors above which a scope has a shelf of its own, whose memory is freed with it


class Places:
    """Where each vector lies, by its number: the list of its scope, and its place there."""

    def __init__(self) -> None:
        _, self._np = libraries()
        self.lists, self.offsets = array("i"), array("i")

    def put(self, ids: NDArray[np.int64], place: int, first: int) -> None:
        """Note that vectors lie one after the other in a list, from ``first`` on."""
        if len(ids) == 1:
            number = int(ids[0])
            self.lists[number], self.offsets[number] = place, first
            return
        np = self._np
        np.frombuffer(self.lists, np.intc)[ids] = place
        np.frombuffer(self.offsets, np.intc)[ids] = np.arange(first, first + len(ids), dtype=np.intc)

    def reserve(self, number: int) -> None:
        """See to it that there is room for a number, and for some after it: growing one by one would copy often."""
        if number >= len(self.lists):
            room = array("i", bytes(4 * max(64, len(self.lists) // 8)))
            self.lists.extend(room)
            self.offsets.extend(room)


class Scope(Protocol):
    """The vectors of one scope, by number. One thread changes it at a time; searches hold ``lock`` for reading."""

    name: str
    lock: SharedLock

    def __len__(self) -> int:
        """How many vectors there are."""

    def append(self, number: int, row: NDArray[np.float32]) -> None:
        """Take in a vector, shape ``(dim,)``."""

    def drop(self, number: int) -> None:
        """Take a vector out."""

    def search(self, query: NDArray[np.float32], k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The ``k`` nearest, best first, as similarities and numbers; fewer where it has fewer."""

    def rows(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """All numbers and vectors, as they are kept."""


class Shelves:
    """Lists for small scopes, many to a shelf.

    Args:
        dim: Length of every vector.
    """

    def __init__(self, dim: int) -> None:
        _, self.np = libraries()
        self.dim = dim
        self.probe = self.np.zeros(1, self.np.int64)
        self._free: list[tuple[Shelf, int]] = []

    def take(self) -> tuple[Shelf, int]:
        """An empty list on a shared shelf."""
        if not self._free:
            shelf = Shelf(self.dim, "QT_fp16", lists=_SHARED_LISTS, probes=1)
            self._free = [(shelf, place) for place in reversed(range(_SHARED_LISTS))]
        return self._free.pop()

    def give_back(self, shelf: Shelf, place: int) -> None:
        """Empty a list for another scope; the only list of a private shelf goes with it."""
        if shelf.lists > 1:
            shelf.clear(place)
            self._free.append((shelf, place))


class Flat:
    """One list in half precision: a search compares with every vector.

    Args:
        name: The scope.
        lock: For `append` and `drop` to hold, and for searches.
        shelves: Where it gets its list.
        places: Where its vectors are noted.
    """

    __slots__ = ("_list", "_places", "_shelf", "_shelves", "lock", "name")

    def __init__(self, name: str, lock: SharedLock, shelves: Shelves, places: Places) -> None:
        self.name, self.lock = name, lock
        self._shelves, self._places = shelves, places
        self._shelf, self._list = shelves.take()

    def __len__(self) -> int:
        return self._shelf.size(self._list)

    def append(self, number: int, row: NDArray[np.float32]) -> None:
        """Take in a vector; rounded here, since FAISS's own conversion rounds differently from version to version."""
        np = self._shelves.np
        self.extend(np.array([number], np.int64), row[None].astype(np.float16))

    def extend(self, ids: NDArray[np.int64], rows: NDArray[np.float16]) -> None:
        """Take in vectors, shape ``(n, dim)``."""
        np = self._shelves.np
        with self.lock.writing():
            first = len(self)
            if self._shelf.lists > 1 and first + len(ids) > _PRIVATE_FROM:
                self._move()
            self._shelf.append(self._list, ids, np.ascontiguousarray(rows).view(np.uint8))
        self._places.put(ids, self._list, first)

    def drop(self, number: int) -> None:
        """Take a vector out."""
        offset = self._places.offsets[number]
        with self.lock.writing():
            moved = self._shelf.drop(self._list, offset)
        self._places.offsets[moved] = offset

    def search(self, query: NDArray[np.float32], k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The ``k`` nearest."""
        probe = self._shelves.np.array([self._list])
        return self._shelf.search(query, probe, min(k, len(self)))

    def half_rows(self) -> NDArray[np.float16]:
        """The vectors in their own memory, shape ``(len, dim)``, in the order of `ids`; valid until it changes."""
        return self._shelf.codes(self._list).view(self._shelves.np.float16)

    def ids(self) -> NDArray[np.int64]:
        """The numbers in their own memory; valid until it changes."""
        return self._shelf.ids(self._list)

    def rows(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """All numbers and vectors."""
        yield self.ids(), self.half_rows().astype(self._shelves.np.float32)

    def leave(self) -> None:
        """Give its memory back, with ``lock`` held; it must not be used afterwards."""
        self._shelves.give_back(self._shelf, self._list)

    def _move(self) -> None:
        shelf = Shelf(self._shelves.dim, "QT_fp16", lists=1, probes=1)
        ids = self.ids().copy()
        shelf.append(0, ids, self._shelf.codes(self._list))
        self._places.put(ids, 0, 0)
        self._shelves.give_back(self._shelf, self._list)
        self._shelf, self._list = shelf, 0
