"""Gives entries the vectors that they lack: other processes write such, and this one where the encoder was late."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .engine.settle import attach_vector
from .errors import LLMProxyError

if TYPE_CHECKING:
    from .cache.cache import Cache
    from .encode.lazy import LazyEncoder
    from .observe.events import Troubles

__all__ = ["Backfill"]

_ENCODE_AT_ONCE = 500  # texts, in about a second of one core
_FAIL_AT_ONCE = 20  # texts that can't be encoded, before the encoder itself is suspected


class Backfill:
    """Encodes entries without a vector, some at a time. A text that can't be encoded is passed over from then on."""

    def __init__(self, troubles: Troubles) -> None:
        self._troubles = troubles
        self._unencodable: set[str] = set()
        self._without_vector = -1  # entries, after the last look at all of them

    def run(self, cache: Cache, encoder: LazyEncoder) -> None:
        """Encode some of the entries without a vector, if there are more than were left after the last look.

        Raises:
            LLMProxyError: The cache refuses, or the encoder itself fails.
        """
        if _without_vector(cache) <= self._without_vector:
            return
        tried = failed = 0
        for entry in cache.lacking(encoder.name):
            if entry.key in self._unencodable:
                continue
            if tried == _ENCODE_AT_ONCE or failed == _FAIL_AT_ONCE:
                return
            tried += 1
            try:
                attach_vector(entry, cache=cache, encoder=encoder)
            except LLMProxyError as exc:
                if _can_encode(encoder, entry.text):
                    raise
                failed += 1
                self._unencodable.add(entry.key)
                self._troubles.note("encoder", exc)
        self._without_vector = _without_vector(cache)


def _without_vector(cache: Cache) -> int:
    stats = cache.stats()
    return stats.entries - stats.vectors


def _can_encode(encoder: LazyEncoder, text: str) -> bool:
    try:
        encoder.encode(text)
    except LLMProxyError:
        return False
    return True
