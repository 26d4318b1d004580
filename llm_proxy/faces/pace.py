"""Requests per minute of an issued key, counted by all processes of a machine together.

::

    a ring of as many times as requests are allowed; the oldest one lies where the next one will
    allowed   the oldest is a minute ago:  it becomes now, and the ring moves on by one
    else      wait until it will be

So no 60 seconds, wherever they begin, have more. The ring lies in a file that processes map into their memory and lock
for the some microseconds that this takes. Where that can't be, each process counts by itself.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

try:
    import fcntl
except ImportError:  # each process counts by itself then
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from llm_proxy.holders import Holder

__all__ = ["MOST_PER_MINUTE", "Paces"]

MOST_PER_MINUTE = 1_000_000
"""Highest rate of a key: a time takes eight bytes."""

_WINDOW_S = 60.0
_PLACE, _TIME = struct.Struct("<Q"), struct.Struct("<d")


class Paces:
    """The rings of all keys. For one thread at a time.

    Args:
        folder: Where their files are, made on first use; None: in memory.
        time: Unix time, seconds.
        note: Takes what goes wrong with a file.
    """

    def __init__(self, folder: Path | None, *, time: Callable[[], float], note: Callable[[Exception], object]) -> None:
        self._folder, self._time, self._note = folder, time, note
        self._rings: dict[tuple[str, int], _Ring] = {}

    def wait_s(self, holder: Holder) -> float:
        """Count a request; how long its holder has to wait for the next one, seconds, where this one is too many.

        Returns:
            0.0 where the request may go on; else it was not counted.
        """
        rate = holder.requests_per_minute
        if rate is None:
            return 0.0
        if rate == 0:
            return _WINDOW_S
        ring = self._rings.get((holder.id, rate))
        if ring is None:
            ring = self._rings[holder.id, rate] = self._opened(f"{holder.id}-{rate}", rate)
        return ring.take(self._time())

    def close(self) -> None:
        """Release the files; a later request opens them again."""
        rings, self._rings = self._rings, {}
        for ring in rings.values():
            ring.close()

    def _opened(self, name: str, rate: int) -> _Ring:
        if self._folder is None or fcntl is None:
            return _Ring(None, rate)
        try:
            return _Ring(self._folder / name, rate)
        except (OSError, ValueError) as exc:
            self._note(exc)
            return _Ring(None, rate)


class _Ring:
    """The times of the newest requests of one key."""

    def __init__(self, path: Path | None, rate: int) -> None:
        self._rate = rate
        size = _PLACE.size + rate * _TIME.size
        self._file: int | None = None
        self._times: mmap.mmap | bytearray = bytearray(size)
        if path is None:
            return
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
        try:
            os.ftruncate(file, size)  # of all who open it, the same size: zeros are times long ago
            self._times = mmap.mmap(file, size)
        except BaseException:
            os.close(file)
            raise
        self._file = file

    def take(self, now_s: float) -> float:
        """See `Paces.wait_s`."""
        if self._file is None:
            return self._take(now_s)
        fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            return self._take(now_s)
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def _take(self, now_s: float) -> float:
        place = _PLACE.unpack_from(self._times)[0] % self._rate
        at = _PLACE.size + place * _TIME.size
        oldest_s = _TIME.unpack_from(self._times, at)[0]
        if oldest_s <= now_s < oldest_s + _WINDOW_S:  # one in the future was noted by a clock that was set back
            return float(oldest_s + _WINDOW_S - now_s)
        _TIME.pack_into(self._times, at, now_s)
        _PLACE.pack_into(self._times, 0, (place + 1) % self._rate)
        return 0.0

    def close(self) -> None:
        """Release the file."""
        if self._file is not None and isinstance(self._times, mmap.mmap):
            self._times.close()
            os.close(self._file)
            self._file = None
