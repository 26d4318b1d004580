"""The neighbours of a vector inside one scope, by FAISS.

Each scope has lists of its own, so a search never sees another scope's vectors. Up to 8,192 vectors a scope is one
list in half precision (flat.py), above that many lists of one byte a dimension (lists.py): what was
measured to choose that is in docs/vector-index.md.

Vectors have numbers, which are used again. Keys are kept once, as 32 bytes where they are a fingerprint's 64 digits.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from llm_proxy.errors import CacheError

from .base import Block, Layout, Neighbour, is_unit
from .codes import finer_bytes, learn
from .finer import Finer
from .flat import Flat, Places, Shelves
from .keys import compact, packed, unpacked
from .lists import Lists
from .lock import SharedLock
from .shelf import libraries

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager

    import numpy as np
    from numpy.typing import NDArray

    from .keys import Packed

__all__ = ["FaissIndex"]

FLAT_MOST = 8_192  # vectors of a scope in half precision; a search of that many takes half a millisecond
FLAT_AGAIN = 2_048  # vectors to which a larger scope must shrink to become flat again
_HALF_ERROR = 0.001  # of a similarity in half precision
_LOCKS = 64


class FaissIndex:
    """Scopes of FAISS lists; searches run side by side, and changes wait for each other.

    The longest that was measured, on a busy machine: 0.1 s for an addition that cuts a list of thousands, some 20 ms
    for a search that waits until a change is written. Mostly it is milliseconds and microseconds.

    Args:
        dim: Length of every vector, > 0.

    Raises:
        MissingDependencyError: faiss or numpy is not installed.
    """

    def __init__(self, dim: int) -> None:
        _, self._np = libraries()
        self._dim = dim
        self._changing = threading.Lock()  # one thread changes the index at a time,
        self._locks = [SharedLock() for _ in range(_LOCKS)]  # and keeps searches out only where it writes
        self._shelves, self._places, self._finer = Shelves(dim), Places(), Finer(finer_bytes(dim))
        self._scopes: dict[str, Flat | Lists] = {}
        self._numbers: dict[Packed, int] = {}
        self._keys: list[Packed] = []
        self._homes: list[Flat | Lists | None] = []
        self._free: list[int] = []
        self._error = _HALF_ERROR

    @property
    def dim(self) -> int:
        """Length of every vector."""
        return self._dim

    @property
    def scopes(self) -> int:
        """How many scopes have vectors."""
        return len(self._scopes)

    @property
    def similarity_error(self) -> float:
        """How far a neighbour's similarity may be off: half precision, or the worst of all vectors of one byte."""
        return self._error

    def __len__(self) -> int:
        return len(self._numbers)

    def __contains__(self, key: str) -> bool:
        return packed(key) in self._numbers

    def add(self, key: str, scope: str, vector: NDArray[np.float32]) -> None:
        """Take in a vector, or replace a key's.

        Raises:
            CacheError: The vector has another length or is not of unit norm.
        """
        row, kept = self._checked(vector), packed(key)
        with self._changing:
            self._remove(kept)
            self._append(scope, kept, row)

    def remove(self, key: str) -> None:
        """Forget a key, effective at once; an unknown key is passed over."""
        with self._changing:
            self._remove(packed(key))

    def search(self, scope: str, vector: NDArray[np.float32], k: int) -> list[Neighbour]:
        """The ``k`` nearest of a scope, best first; fewer where it has fewer.

        Raises:
            CacheError: The vector has another length or is not of unit norm.
        """
        query = self._checked(vector)
        with self._lock(scope).reading():
            found = self._scopes.get(scope)
            if found is None or not len(found):
                return []
            similarities, numbers = found.search(query, k)
            keys = [self._keys[number] for number in numbers.tolist()]
        return [Neighbour(unpacked(key), cosine) for key, cosine in zip(keys, similarities.tolist(), strict=True)]

    def blocks(self) -> Iterator[Block]:
        """All vectors, scope by scope; nothing may be added or removed meanwhile."""
        for scope in self._scopes.values():
            if isinstance(scope, Flat):
                yield Block(scope.name, self._keys_of([scope.ids()]), [scope.half_rows()])
                continue
            lists = range(scope.count)
            keys = self._keys_of([scope.list_ids(place) for place in lists])
            layout, codes = Layout(scope.codec, scope.centres()), [scope.list_codes(place) for place in lists]
            yield Block(scope.name, keys, codes, layout, finer=scope.list_finer)

    def add_block(self, block: Block) -> None:
        """Take in many vectors of a scope; keys that are known already are passed over.

        Raises:
            CacheError: The vectors have another length, or are not as many as the keys.
        """
        self._check(block)
        keys = [packed(key) for key in block.keys]
        with self._changing:
            self._prepare(block)
            start = 0
            for at, rows in enumerate(block.rows):
                self._take_in(block, at, keys[start : start + len(rows)])
                start += len(rows)
            scope = self._scopes[block.scope]
            if not len(scope):  # all keys were known
                self._put(scope, None)

    def tend(self, limit_s: float) -> bool:
        """Go through lists of large scopes that others have been cut beside, for about ``limit_s`` seconds.

        Additions see to most of it by themselves. Searches go on meanwhile; changes wait for one list at a time.

        Returns:
            Whether there is more to do.
        """
        until_s = time.monotonic() + limit_s
        for scope in list(self._scopes.values()):
            while isinstance(scope, Lists) and time.monotonic() < until_s:
                with self._changing:
                    if self._scopes.get(scope.name) is not scope or not scope.tend():
                        break
        return any(isinstance(scope, Lists) and scope.is_stale for scope in list(self._scopes.values()))

    def still(self) -> AbstractContextManager[object]:
        """A block in which no other thread changes anything, `tend` included; searches go on."""
        return self._changing

    # -- parts, with `_changing` held ----------------------------------------------------------------------------

    def _append(self, name: str, key: Packed, row: NDArray[np.float32]) -> None:
        scope = self._scopes.get(name) or self._new_flat(name)
        number = self._number(key, scope)
        scope.append(number, row)
        if isinstance(scope, Lists):
            self._error = max(self._error, scope.codec.error)
        elif len(scope) > FLAT_MOST:
            self._enlarge(scope)

    def _remove(self, key: Packed) -> None:
        number = self._numbers.pop(key, None)
        scope = None if number is None else self._homes[number]
        if number is None or scope is None:
            return
        scope.drop(number)
        self._homes[number] = None
        self._keys[number] = ""
        self._free.append(number)
        if not len(scope):
            self._put(scope, None)
        elif isinstance(scope, Lists) and len(scope) < FLAT_AGAIN and not scope.missing:
            self._reduce(scope)

    def _number(self, key: Packed, scope: Flat | Lists) -> int:
        if self._free:
            number = self._free.pop()
            self._keys[number], self._homes[number] = key, scope
        else:
            number = len(self._keys)
            self._places.reserve(number)
            self._keys.append(key)
            self._homes.append(scope)
        self._numbers[key] = number
        return number

    def _put(self, old: Flat | Lists, new: Flat | Lists | None) -> None:
        """Let another take the place of a scope, or none."""
        with old.lock.writing():
            if new is None:
                del self._scopes[old.name]
            else:
                self._scopes[old.name] = new
            if isinstance(old, Flat):
                old.leave()

    def _new_flat(self, name: str) -> Flat:
        scope = Flat(name, self._lock(name), self._shelves, self._places)
        self._scopes[name] = scope
        return scope

    def _enlarge(self, flat: Flat) -> None:
        """Turn a flat scope into lists, built beside it: one list at first, which additions cut one by one."""
        ids, rows = next(flat.rows())
        codec = learn(rows)
        scope = Lists(flat.name, flat.lock, codec, self._places, self._finer)
        scope.add_list(codec.encode_centres(rows.mean(axis=0)[None])[0])
        scope.extend(0, ids, *codec.encode(rows))
        self._move(ids.tolist(), scope)
        self._error = max(self._error, codec.error)
        self._put(flat, scope)

    def _reduce(self, lists: Lists) -> None:
        scope = Flat(lists.name, SharedLock(), self._shelves, self._places)
        with lists.lock.writing():  # a search of lists reads the places that this writes
            for ids, rows in lists.rows():
                scope.extend(ids, rows.astype(self._np.float16))
                self._move(ids.tolist(), scope)
            self._scopes[lists.name] = scope
        scope.lock = lists.lock

    def _move(self, numbers: list[int], scope: Flat | Lists) -> None:
        for number in numbers:
            self._homes[number] = scope

    def _prepare(self, block: Block) -> None:
        """See to it that the scope of a block is there, laid out as it says where it was not large already."""
        scope = self._scopes.get(block.scope)
        if isinstance(scope, Lists):
            return
        if block.layout is None:
            if scope is None:
                self._new_flat(block.scope)
            return
        lists = Lists(block.scope, self._lock(block.scope), block.layout.codec, self._places, self._finer)
        for centre in block.layout.centres:
            lists.add_list(centre)
        lists.missing = lists.count
        if scope is None:
            self._scopes[block.scope] = lists
        else:
            self._carry_over(scope, lists)
        self._error = max(self._error, lists.codec.error)

    def _carry_over(self, flat: Flat, lists: Lists) -> None:
        ids, rows = next(flat.rows())
        for number, row in zip(ids.tolist(), rows, strict=True):
            lists.append(number, row)
        self._move(ids.tolist(), lists)
        self._put(flat, lists)

    def _take_in(self, block: Block, at: int, keys: Sequence[Packed]) -> None:
        scope, rows, np = self._scopes[block.scope], block.rows[at], self._np
        fresh = [row for row, key in enumerate(keys) if key not in self._numbers]
        if len(fresh) < len(keys):
            keys, rows = [keys[row] for row in fresh], rows[fresh]
        ids = np.array([self._number(key, scope) for key in keys], np.int64)
        if block.layout is None or block.finer is None:
            self._take_in_half(scope, ids, rows)
            return
        codec, finer = block.layout.codec, block.finer(at)[fresh]
        assert isinstance(scope, Lists), "a layout makes its scope large"
        if scope.codec is codec:
            scope.extend(block.first + at, ids, np.ascontiguousarray(rows), finer)
            scope.missing -= 1
            return
        for number, row in zip(ids.tolist(), codec.decode_finely(rows, finer), strict=True):
            scope.append(number, row)  # it has grown large by itself meanwhile

    def _take_in_half(self, scope: Flat | Lists, ids: NDArray[np.int64], rows: NDArray[np.float16]) -> None:
        if isinstance(scope, Lists):
            for number, row in zip(ids.tolist(), rows.astype(self._np.float32), strict=True):
                scope.append(number, row)
            return
        scope.extend(ids, rows)
        if len(scope) > FLAT_MOST:
            self._enlarge(scope)

    # -- parts that need no lock ---------------------------------------------------------------------------------

    def _lock(self, scope: str) -> SharedLock:
        return self._locks[hash(scope) % _LOCKS]

    def _keys_of(self, lists: Sequence[NDArray[np.int64]]) -> Sequence[str]:
        return compact(self._keys[number] for ids in lists for number in ids.tolist())

    def _check(self, block: Block) -> None:
        shapes = [rows.shape for rows in block.rows]
        if sum(shape[0] for shape in shapes) != len(block.keys) or any(shape[1:] != (self._dim,) for shape in shapes):
            raise CacheError(f"vectors of shapes {shapes} for {len(block.keys)} keys of {self._dim} dimensions")
        if (block.layout is None) != (block.finer is None):
            raise CacheError("a block of codes without what they leave out, or the other way round")

    def _checked(self, vector: NDArray[np.float32]) -> NDArray[np.float32]:
        if vector.shape != (self._dim,):
            raise CacheError(f"a vector of shape {vector.shape} for an index of {self._dim} dimensions")
        row: NDArray[np.float32] = self._np.ascontiguousarray(vector, self._np.float32)
        if not is_unit(row):
            raise CacheError(f"a vector of squared norm {float(row @ row):.3f} where 1 is due")
        return row
