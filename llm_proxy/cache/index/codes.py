"""Vectors in one byte a dimension: ``x = middle + step * c``, with ``c`` from -128 to 127, and two bits beside it.

Middle and step are learnt for each dimension from the scope's first thousands of vectors and stay: codes move between
lists as they are, and nothing is ever coded twice. The order of inner products needs no decoding:
``q.x = q.middle + (q*step).c``. The scaled query is rounded to whole numbers as well, because FAISS compares whole
numbers, at half the time; so what it finds first is compared again, with the query as it is, and with the two bits,
which say in which quarter of its step each value lies.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Codec", "finer_bytes", "learn"]

_LOW, _HIGH = -128, 127
_SPREADS = 5.0  # a normal variable goes beyond five standard deviations once in two million
_SLACK = 1.1
_LEAST_STEP = 1e-6
_QUARTERS = 4  # of a step; in a byte there are as many
_SHIFTS = (0, 2, 4, 6)
_MIDDLE_QUARTER = (_QUARTERS - 1) / 2


@dataclass(slots=True)
class Codec:
    """Codes and back.

    Attributes:
        middle: Shape ``(dim,)``, float32.
        step: Shape ``(dim,)``, float32, > 0.
        error: Largest distance between a vector coded so far and what code and quarters stand for: a bound of the
            error of each of its inner products with unit vectors.
    """

    middle: NDArray[np.float32]
    step: NDArray[np.float32]
    error: float = 0.0

    def encode(self, rows: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Code vectors, shape ``(n, dim)``; values beyond the range are cut, which `error` then says.

        Returns:
            Codes, shape ``(n, dim)``, and quarters, shape ``(n, ceil(dim / 4))``.
        """
        codes = self.encode_centres(rows)
        finer = self._quarters((rows - self.decode(codes)) / self.step)
        away = rows - self.decode_finely(codes, finer)
        self.error = max(self.error, float((away * away).sum(axis=1).max()) ** 0.5)
        return codes, finer

    def encode_centres(self, rows: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Code vectors whose quarters and error nobody needs."""
        signed = ((rows - self.middle) / self.step).round().clip(_LOW, _HIGH)
        return (signed - _LOW).astype("u1")

    def decode(self, codes: NDArray[np.uint8] | NDArray[np.float64]) -> NDArray[np.float32]:
        """What codes, or means of codes, stand for, of their shape."""
        return (codes.astype("f4") + _LOW) * self.step + self.middle

    def decode_finely(self, codes: NDArray[np.uint8], finer: NDArray[np.uint8]) -> NDArray[np.float32]:
        """What codes and quarters stand for, shape ``(n, dim)``."""
        import numpy as np

        quarters = (finer[:, :, None] >> np.array(_SHIFTS, np.uint8)) & (_QUARTERS - 1)
        rows = codes.astype(np.float32)
        rows += (quarters.reshape(len(finer), -1)[:, : rows.shape[1]] - _MIDDLE_QUARTER) / _QUARTERS + _LOW
        rows *= self.step
        rows += self.middle
        return rows

    def query(self, vector: NDArray[np.float32]) -> NDArray[np.float32]:
        """What to search among signed codes for the same order, up to rounding: whole numbers from -127 to 127."""
        scaled = vector * self.step
        return (scaled * (_HIGH / max(float(abs(scaled).max()), _LEAST_STEP**2))).round()

    def _quarters(self, left: NDArray[np.float32]) -> NDArray[np.uint8]:
        """The quarter of each of what is left, from -.5 to .5; four to a byte, the first lowest."""
        import numpy as np

        quarters = np.zeros((len(left), _QUARTERS * finer_bytes(left.shape[1])), np.uint8)
        quarters[:, : left.shape[1]] = ((left + 0.5) * _QUARTERS).clip(0, _QUARTERS - 1)
        shifted = quarters.reshape(len(left), -1, _QUARTERS) << np.array(_SHIFTS, np.uint8)
        packed: NDArray[np.uint8] = shifted.sum(axis=2, dtype=np.uint8)
        return packed


def finer_bytes(dim: int) -> int:
    """Bytes that the quarters of a vector of so many dimensions take."""
    return -(-dim // _QUARTERS)


def learn(rows: NDArray[np.float32]) -> Codec:
    """A codec for vectors like these.

    Args:
        rows: Shape ``(n, dim)``, n > 0.
    """
    middle = rows.mean(axis=0)
    away = abs(rows - middle)
    reach = (_SLACK * away.max(axis=0)).clip(min=_SPREADS * rows.std(axis=0))
    return Codec(middle, (reach / _HIGH).clip(min=_LEAST_STEP))
