"""Notices that the past no longer foretells the present.

::

    request:  error = foretold chance of a hit - (1 if it is one, else 0)
              mean += (error - mean) / min(requests so far, REMEMBERED)
              rise = max(0, rise + error - mean - ALLOWED)        from the WARM_UP-th request on
              changed when rise > ALARM;  then all begins anew

A steady error is no concern: only one that becomes worse than it used to be.

Source: Page, "Continuous Inspection Schemes", Biometrika 41, 1954 (cumulative sums); Hinkley, "Inference about the
change-point from cumulative sum tests", Biometrika 58, 1971.
"""

from __future__ import annotations

__all__ = ["Drift"]

_ALLOWED = 0.02  # points of hit ratio
_ALARM = 40.0  # hits that should have been: two thousand requests of one that lies 0.04 too high
_WARM_UP = 1_000
_REMEMBERED = 32_768  # requests; else the first ones, when a cache fills, would be felt for as long again


class Drift:
    """Compares what was foretold with what came; O(1)."""

    def __init__(self) -> None:
        self._requests = 0
        self._mean = self._rise = 0.0

    def has_changed(self, foretold: float, *, hits: int, requests: int) -> bool:
        """Take in some requests; whether hits have become rarer than was foretold, said once.

        Args:
            foretold: Chance of a hit, in [0, 1].
            hits: How many of the requests were hits.
            requests: How many there were, >= 1.
        """
        error = foretold - hits / requests
        self._requests += requests
        self._mean += (error - self._mean) * min(1.0, requests / min(self._requests, _REMEMBERED))
        if self._requests > _WARM_UP:
            self._rise = max(0.0, self._rise + requests * (error - self._mean - _ALLOWED))
        if self._rise <= _ALARM:
            return False
        self._requests, self._mean, self._rise = 0, 0.0, 0.0
        return True
