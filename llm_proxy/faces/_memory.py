"""Memory that a server gives back to the system once a rush is over, and how often its garbage is looked for.

glibc keeps most of what was freed for later: after a thousand slow streams a server would stay as large as it was at
its busiest moment. ``malloc_trim`` gives free pages back wherever they lie; it takes milliseconds for each hundred
mebibytes, in which allocations wait, so it is called in a calm moment.

Calls that failed may lie in reference cycles. Those that were under way while the garbage collector looked are old to
it, and under `llm_proxy.faces.serve`'s thresholds the old ones wait for tens of thousands of calls: a server under
steady load could grow by a few mebibytes a minute. So all garbage is collected first.

Source: glibc manual, section 3.2.3.6, and malloc_trim(3). Fewer arenas were tried (``MALLOC_ARENA_MAX``), and make no
difference: the pages are free, but not at the end of their arena.
"""

from __future__ import annotations

import ctypes
import gc
import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

__all__ = ["LOOK_EVERY_S", "Slack", "forget", "resident_bytes", "settle", "trim"]

LOOK_EVERY_S = 5.0
_GROWTH_BYTES = 8 << 20
_PATIENCE_LOOKS = 12  # a minute
_YOUNG_OBJECTS = 10_000  # made since the last collection and still there: a few mebibytes


class Slack:
    """Knows when to give memory back; to be asked every `LOOK_EVERY_S`.

    Args:
        resident: Bytes that are resident; 0 where the system does not say.
        give: Gives free memory back.
    """

    def __init__(self, resident: Callable[[], int], give: Callable[[], object]) -> None:
        self._resident, self._give = resident, give
        self._floor_bytes = self._looks = self._most_busy = 0

    def is_due(self, busy: int) -> bool:
        """Whether memory has grown by 8 MiB, and the rush is over or has gone on for a minute.

        Args:
            busy: Calls under way.
        """
        self._looks += 1
        self._most_busy = max(self._most_busy, busy)
        if self._resident() - self._floor_bytes < _GROWTH_BYTES:
            return False
        return busy <= self._most_busy // 2 or self._looks >= _PATIENCE_LOOKS

    def give_back(self) -> None:
        """Give back what can be, and remember how much is left; from any thread."""
        self._looks = self._most_busy = 0
        self._give()
        self._floor_bytes = self._resident()


def settle() -> None:
    """Have the garbage collector leave alone what is there for good, and come less often.

    Events of calls wait for the ledger, and each round of them would have it walk through all that was imported: a
    sixth of the time of an exact hit, and pauses of tens of milliseconds.
    """
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS, 20, 20)


def forget() -> None:
    """Collect what is no longer needed of what `settle` had the garbage collector leave alone.

    Takes a tenth of a second or two, in which nothing else goes on; nothing where nothing was settled.
    """
    if gc.get_freeze_count():
        gc.unfreeze()
        gc.collect()
        gc.freeze()


def resident_bytes() -> int:
    """Memory of this process that is resident; 0 where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


def trim() -> bool:
    """Collect garbage and give free pages back to the system; whether there were any. False without glibc."""
    gc.collect()
    function = _malloc_trim()
    return bool(function(0)) if function is not None else False


@lru_cache(maxsize=1)
def _malloc_trim() -> Callable[[int], int] | None:
    try:
        found: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError, TypeError):  # musl, macOS, Windows
        return None
    return found
