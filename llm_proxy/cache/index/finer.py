"""What one byte a dimension leaves out of each vector: two bits a dimension more, by the vector's number.

A search reads them for the few vectors that it compares again, so they lie apart from the codes that it goes through,
and stay where they are when codes move between lists.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .shelf import libraries

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Finer"]

_LEAST_ROOM = 4096


class Finer:
    """Rows of bytes by number. One thread writes; others may read what they know to be written.

    Args:
        width: Bytes a row.
    """

    def __init__(self, width: int) -> None:
        _, self._np = libraries()
        self._rows: NDArray[np.uint8] = self._np.empty((0, width), self._np.uint8)

    def put(self, ids: NDArray[np.int64], rows: NDArray[np.uint8]) -> None:
        """Write the rows of some numbers, shape ``(n, width)``."""
        last = int(ids.max(initial=-1))
        if last >= len(self._rows):  # who reads meanwhile has the old array, which has what he knows of
            room = self._np.empty((last + 1 + max(_LEAST_ROOM, last // 8), self._rows.shape[1]), self._np.uint8)
            room[: len(self._rows)] = self._rows
            self._rows = room
        self._rows[ids] = rows

    def get(self, ids: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The rows of some numbers, copied, shape ``(n, width)``."""
        return self._rows[ids]
