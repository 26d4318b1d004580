"""Numbered lists of coded vectors in one FAISS object: what flat and large scopes are both made of.

FAISS's inverted lists are used as such, without its coarse quantizer: who searches says which lists. So a scope of
one vector costs a list, 1 kB with its vector, instead of a FAISS index of its own, and a search of one list takes
6 us. A list changes only at its end, or a vector is overwritten by the last one: no identifier moves but that one's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llm_proxy.errors import MissingDependencyError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Shelf", "libraries"]


def libraries() -> tuple[Any, Any]:
    """FAISS and NumPy.

    Raises:
        MissingDependencyError: One of them is not installed.
    """
    try:
        import faiss
        import numpy as np
    except ImportError as exc:
        raise MissingDependencyError('semantic hits need faiss and numpy: pip install "llm-proxy[cpu]"') from exc
    return faiss, np


class Shelf:
    """Lists of vectors with an identifier each. Not thread-safe: searches may run side by side, and nothing else.

    A list that shrinks keeps its memory for the next vectors; it is freed with the shelf.

    Args:
        dim: Length of every vector, > 0.
        kind: Name of FAISS's scalar quantizer: ``QT_fp16``, or ``QT_8bit_direct_signed`` (values from -128 to 127,
            kept with 128 added), which was searched at 35 ns a vector of 384 where ``QT_8bit`` took 65.
        lists: How many lists there are, > 0.
        probes: Most lists that a search may name, > 0.
    """

    def __init__(self, dim: int, kind: str, *, lists: int, probes: int) -> None:
        self._faiss, self._np = libraries()
        faiss = self._faiss
        self.lists = lists
        self._quantizer = faiss.IndexFlatIP(dim)  # FAISS wants one; it stays empty
        self._index = faiss.IndexIVFScalarQuantizer(
            self._quantizer, dim, 1, getattr(faiss.ScalarQuantizer, kind), faiss.METRIC_INNER_PRODUCT, False
        )
        self.code_bytes: int = self._index.code_size
        self._lists = faiss.ArrayInvertedLists(lists, self.code_bytes)
        self._index.nlist = lists
        self._index.replace_invlists(self._lists, False)
        self._index.nprobe = probes
        self._centre_products = self._np.zeros((1, probes), self._np.float32)  # of no use, but older ones ask for them
        self._index.is_trained = True  # neither quantizer learns anything

    def size(self, place: int) -> int:
        """How many vectors a list has."""
        return int(self._lists.list_size(place))

    def codes(self, place: int) -> NDArray[np.uint8]:
        """The codes of a list in its own memory, shape ``(size, code_bytes)``; valid until the list changes."""
        count = self.size(place)
        pointer = self._lists.get_codes(place)  # null in a list that never had any
        codes: NDArray[np.uint8] = (
            self._faiss.rev_swig_ptr(pointer, count * self.code_bytes) if count else self._np.empty(0, self._np.uint8)
        )
        return codes.reshape(count, self.code_bytes)

    def ids(self, place: int) -> NDArray[np.int64]:
        """The identifiers of a list in its own memory, shape ``(size,)``; valid until the list changes."""
        count = self.size(place)
        pointer = self._lists.get_ids(place)
        ids: NDArray[np.int64] = (
            self._faiss.rev_swig_ptr(pointer, count) if count else self._np.empty(0, self._np.int64)
        )
        return ids

    def reserve(self, place: int, count: int) -> None:
        """Give an empty list room for so many vectors: growing by itself, it would take up to twice what it holds."""
        self._lists.resize(place, count)
        self._lists.resize(place, 0)

    def append(self, place: int, ids: NDArray[np.int64], codes: NDArray[np.uint8]) -> None:
        """Put vectors at the end of a list.

        Args:
            place: The list.
            ids: Their identifiers, shape ``(n,)``, contiguous.
            codes: Shape ``(n, code_bytes)``, contiguous.
        """
        pointer = self._faiss.swig_ptr
        self._lists.add_entries(place, len(ids), pointer(ids), pointer(codes))

    def drop(self, place: int, offset: int) -> int:
        """Take a vector out of a list; the last one takes its place.

        Returns:
            The identifier of that last one, which lies at ``offset`` now, or was dropped itself.
        """
        last = self.size(place) - 1
        ids = self.ids(place)
        moved = int(ids[last])
        if offset != last:
            codes = self.codes(place)
            codes[offset] = codes[last]
            ids[offset] = moved
        self._lists.resize(place, last)
        return moved

    def clear(self, place: int) -> None:
        """Empty a list."""
        self._lists.resize(place, 0)

    def search(
        self, query: NDArray[np.float32], places: NDArray[np.int64], k: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The vectors of some lists with the largest inner products with a query, largest first.

        FAISS is held to one thread: with OpenMP's default a search waits for a second core, 14 ms instead of 0.5
        where the machine is busy.

        Args:
            query: Shape ``(dim,)``, float32, contiguous.
            places: Shape ``(probes,)``; -1 where fewer lists are asked.
            k: How many, > 0; no more than the lists have.

        Returns:
            Inner products and identifiers, shape ``(k,)``.
        """
        faiss = self._faiss
        threads = faiss.omp_get_max_threads()
        faiss.omp_set_num_threads(1)
        try:
            products, ids = self._index.search_preassigned(query[None], k, places[None], self._centre_products)
        finally:
            faiss.omp_set_num_threads(threads)
        return products[0], ids[0]
