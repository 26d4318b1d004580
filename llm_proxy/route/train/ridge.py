"""Ridge regression for many targets and penalties, and what it says of each row without having seen that row.

::

    W       = (X'X + penalty I)^-1 X'(Y - mean Y), X centered
    alone   = y - (y - X w) / (1 - leverage)              what is predicted of a row by all others
    penalty: of each target, the one of least squared error of ``alone``
    without = y - (I - X_f (X'X + penalty I)^-1 X_f')^-1 (y_f - X_f w)    by the rows of the other folds f of ten

Learners on top read ``without``: the mean of the others' targets gives away the one that was left out, if it is one.

Source: Hoerl & Kennard 1970; leave-one-out in closed form: Golub, Heath & Wahba 1979, equation 2.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Ridge", "RidgeFit"]

_FOLDS = 10
_PENALTIES = (30.0, 100.0, 300.0, 1000.0, 3000.0, 10_000.0, 30_000.0, 100_000.0)


@dataclass(frozen=True, slots=True)
class RidgeFit:
    """What was learnt of ``K`` targets from ``n`` rows of ``p`` numbers.

    Attributes:
        weights: Shape ``(p, K)``, float64.
        bias: Shape ``(K,)``, float64.
        without: Shape ``(n, K)``, float64: of each row, what is predicted by the rows of the nine other folds.
    """

    weights: NDArray[np.float64]
    bias: NDArray[np.float64]
    without: NDArray[np.float64]

    def __add__(self, other: RidgeFit) -> RidgeFit:
        """Of the sum of two targets that were learnt apart."""
        return RidgeFit(self.weights + other.weights, self.bias + other.bias, self.without + other.without)


class Ridge:
    """Rows, decomposed once for every penalty and target.

    Args:
        x: Shape ``(n, p)``, about of unit variance; not changed.
    """

    def __init__(self, x: NDArray[np.float32]) -> None:
        import numpy

        inputs = x.astype(numpy.float64)
        self._center = inputs.mean(axis=0)
        inputs -= self._center
        values, self._basis = numpy.linalg.eigh(inputs.T @ inputs)
        self._rotated = inputs @ self._basis
        values = values.clip(0)
        self._shrunk = [1 / (values + penalty) for penalty in _PENALTIES]
        self._leverage = [((self._rotated**2) @ shrunk + 1 / len(x)).clip(max=1 - 1e-9) for shrunk in self._shrunk]

    def components(self, most: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The directions in which the rows differ most.

        Args:
            most: How many, > 0.

        Returns:
            Weights, shape ``(p, k)``, and bias, shape ``(k,)``, float64: ``x @ weights + bias`` is where rows lie
            along them. ``k`` is ``most``, or p where that is less.
        """
        weights = self._basis[:, ::-1][:, :most]
        return weights, -self._center @ weights

    def fit(self, y: NDArray[np.float64]) -> RidgeFit:
        """Learn targets.

        Args:
            y: Shape ``(n, K)``, finite.
        """
        import numpy

        middle = y.mean(axis=0)
        centered = y - middle
        product = self._rotated.T @ centered
        best, chosen = numpy.zeros_like(product), numpy.zeros(y.shape[1], numpy.intp)
        least = numpy.full(y.shape[1], numpy.inf)
        for place, (shrunk, leverage) in enumerate(zip(self._shrunk, self._leverage, strict=True)):
            found = product * shrunk[:, None]
            left = (centered - self._rotated @ found) / (1 - leverage)[:, None]
            error = (left**2).mean(axis=0)
            is_better = error < least
            best[:, is_better], chosen[is_better] = found[:, is_better], place
            least = numpy.minimum(error, least)
        weights = self._basis @ best
        off = centered - self._rotated @ best
        for place in numpy.unique(chosen).tolist():
            off[:, chosen == place] = self._left_out(off[:, chosen == place], place)
        return RidgeFit(weights, middle - self._center @ weights, y - off)

    def _left_out(self, off: NDArray[np.float64], place: int) -> NDArray[np.float64]:
        """What rows are off by where their fold was left out, of what they are off by where it was not."""
        import numpy

        found = numpy.empty_like(off)
        folds = min(_FOLDS, len(off))
        for fold in range(folds):
            rows = self._rotated[fold::folds]
            kept = numpy.eye(len(rows)) - (rows * self._shrunk[place]) @ rows.T - 1 / len(off)
            found[fold::folds] = numpy.linalg.solve(kept + 1e-9 * numpy.eye(len(rows)), off[fold::folds])
        return found
