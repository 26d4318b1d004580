"""Vectors in one byte a dimension: ``x = middle + step * c``, with ``c`` from -128 to 127.

Middle and step are learnt for each dimension from the scope's first thousands of vectors and stay: codes move between
lists as they are, and nothing is ever coded twice. The order of inner products needs no decoding:
``q.x = q.middle + (q*step).c``. The scaled query is rounded to whole numbers as well, because FAISS compares whole
numbers, at half the time; so what it finds first is compared again, with the query as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Codec", "learn"]

_LOW, _HIGH = -128, 127
_SPREADS = 5.0  # a normal variable goes beyond five standard deviations once in two million
_SLACK = 1.1
_LEAST_STEP = 1e-6


@dataclass(slots=True)
class Codec:
    """Codes and back.

    Attributes:
        middle: Shape ``(dim,)``, float32.
        step: Shape ``(dim,)``, float32, > 0.
        error: Largest distance between a vector coded so far and what its code stands for: a bound of the error of
            each of its inner products with unit vectors.
    """

    middle: NDArray[np.float32]
    step: NDArray[np.float32]
    error: float = 0.0

    def encode(self, rows: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Code vectors, shape ``(n, dim)``; values beyond the range are cut, which `error` then says."""
        codes = self.encode_centres(rows)
        away = rows - self.decode(codes)
        self.error = max(self.error, float((away * away).sum(axis=1).max()) ** 0.5)
        return codes

    def encode_centres(self, rows: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Code vectors whose error nobody needs to know."""
        signed = ((rows - self.middle) / self.step).round().clip(_LOW, _HIGH)
        return (signed - _LOW).astype("u1")

    def decode(self, codes: NDArray[np.uint8]) -> NDArray[np.float32]:
        """What codes stand for, shape ``(n, dim)``."""
        return (codes.astype("f4") + _LOW) * self.step + self.middle

    def query(self, vector: NDArray[np.float32]) -> NDArray[np.float32]:
        """What to search among signed codes for the same order, up to rounding: whole numbers from -127 to 127."""
        scaled = vector * self.step
        return (scaled * (_HIGH / max(float(abs(scaled).max()), _LEAST_STEP**2))).round()


def learn(rows: NDArray[np.float32]) -> Codec:
    """A codec for vectors like these.

    Args:
        rows: Shape ``(n, dim)``, n > 0.
    """
    middle = rows.mean(axis=0)
    away = abs(rows - middle)
    reach = (_SLACK * away.max(axis=0)).clip(min=_SPREADS * rows.std(axis=0))
    return Codec(middle, (reach / _HIGH).clip(min=_LEAST_STEP))
