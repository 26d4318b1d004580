"""One cached answer, and its bytes: a checked binary record that holds JSON and a vector, never a pickle."""

from __future__ import annotations

import json
import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llm_proxy.errors import CacheCorruptError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Entry", "checked_fields", "decode_entry", "encode_entry", "fields_of", "readable"]

# Record: magic, CRC-32 of all that follows (the lengths last), length of the JSON head, length of the vector in
# bytes; then head, vector (float32, little endian) and the completion as it is served to a plain request.
_PREFIX = struct.Struct("<4sIII")
_LENGTHS = struct.Struct("<II")
_MAGIC = b"LPE1"


@dataclass(frozen=True, slots=True)
class Entry:
    """A completion and what is needed to find, judge, price and replay it.

    Attributes:
        key: Exact key, 64 lower-case hex digits.
        scope: Hash of everything but the last user text that changes the answer, 64 hex digits.
        text: Last user text; empty where the last message is not plain user text.
        completion: The ``chat.completion`` object as UTF-8 JSON, as a plain request gets it.
        created_s: Unix time at which the answer was complete.
        expires_s: Unix time after which it is not served, or None.
        model: Model that answered, as the upstream named it.
        backend: Backend that answered; empty for the caller's own upstream.
        cost_usd: Money that asking again is expected to cost, >= 0.
        wait_usd: What the time that asking again takes is worth, dollars, >= 0.
        latency_s: Time the upstream took from request to terminal event, >= 0.
        has_usage: False only when token counts were not asked for, so that who needs them must ask again.
        encoder: Name of the encoder that made the vector; empty when there is none.
        vector: Shape ``(dim,)``, float32, unit norm; None when the entry is served on exact keys only, and where
            numpy is not installed.
        seen_chars: Leading characters of the text that the vector stands for; the rest narrowed the scope.
        is_pinned: Whether it is kept whatever the budget; it may expire even so.
        turns: User texts of earlier turns that the scope leaves open, oldest first.
    """

    key: str
    scope: str
    text: str
    completion: bytes
    created_s: float
    expires_s: float | None = None
    model: str = ""
    backend: str = ""
    cost_usd: float = 0.0
    wait_usd: float = 0.0
    latency_s: float = 0.0
    has_usage: bool = False
    encoder: str = ""
    vector: NDArray[np.float32] | None = None
    seen_chars: int = 0
    is_pinned: bool = False
    turns: tuple[str, ...] = ()

    @property
    def worth_usd(self) -> float:
        """What the entry spares when it is served: money and time."""
        return self.cost_usd + self.wait_usd

    def age_s(self, now_s: float) -> float:
        """Seconds since the answer was complete, never negative (clocks of several machines differ)."""
        return max(0.0, now_s - self.created_s)

    def is_expired(self, now_s: float) -> bool:
        """Whether the entry may no longer be served at ``now_s`` (Unix time)."""
        return self.expires_s is not None and now_s >= self.expires_s


# JSON has one kind of number: 0.0 may come back as 0.
_HEAD_FIELDS: dict[str, tuple[type, ...]] = {
    "key": (str,), "scope": (str,), "text": (str,), "created_s": (float, int), "expires_s": (float, int, type(None)),
    "model": (str,), "backend": (str,), "cost_usd": (float, int), "wait_usd": (float, int),
    "latency_s": (float, int), "has_usage": (bool,), "encoder": (str,), "seen_chars": (int,), "is_pinned": (bool,),
    "turns": (list,),
}  # fmt: skip
_MOST_INTEGER = 1 << 63  # JSON's may be longer than any float
_ADDED = {"is_pinned": False, "turns": ()}  # fields that records of before lack, and what they stand for there


def encode_entry(entry: Entry) -> bytes:
    """The record of an entry; `decode_entry` reads it back."""
    head = json.dumps(fields_of(entry), separators=(",", ":")).encode()
    vector = b"" if entry.vector is None else entry.vector.astype("<f4", copy=False).tobytes()
    tail = b"".join((head, vector, entry.completion))
    return _PREFIX.pack(_MAGIC, _crc(tail, len(head), len(vector)), len(head), len(vector)) + tail


def decode_entry(record: bytes) -> Entry:
    """The entry of a record.

    Raises:
        CacheCorruptError: The record is cut, altered or of another format.
    """
    try:
        magic, crc, head_length, vector_length = _PREFIX.unpack_from(record)
    except struct.error as exc:
        raise CacheCorruptError(f"cache record of {len(record)} bytes is too short") from exc
    tail = memoryview(record)[_PREFIX.size :]
    if magic != _MAGIC or head_length + vector_length > len(tail) or _crc(tail, head_length, vector_length) != crc:
        raise CacheCorruptError("cache record fails its checksum or is of another format")
    try:
        fields = checked_fields(json.loads(bytes(tail[:head_length])))
    except (ValueError, RecursionError) as exc:
        raise CacheCorruptError(f"cache record has a bad head: {exc}") from exc
    vector = _vector(bytes(tail[head_length : head_length + vector_length])) if vector_length else None
    return Entry(**fields, vector=vector, completion=bytes(tail[head_length + vector_length :]))


def fields_of(entry: Entry) -> dict[str, Any]:
    """All of an entry but completion and vector, as JSON has it."""
    return {name: getattr(entry, name) for name in _HEAD_FIELDS} | {"turns": list(entry.turns)}


def checked_fields(head: object) -> dict[str, Any]:
    """What `fields_of` gave, read back from JSON: more fields than are known here are left out.

    Raises:
        CacheCorruptError: It is no object, or lacks a field, or has one of another type, or an absurd one.
    """
    if not isinstance(head, dict):
        raise CacheCorruptError("cache record has a bad head: it is no object")
    fields = {name: head[name] for name in _HEAD_FIELDS if name in head}
    for name, types in _HEAD_FIELDS.items():
        if name not in fields and name not in _ADDED:
            raise CacheCorruptError(f"cache record has a bad head: {name!r} is not in it")
        if name in fields and type(fields[name]) not in types:
            raise CacheCorruptError(f"cache record has {type(fields[name]).__name__} for {name}")
        if type(fields.get(name)) is int and abs(fields[name]) >= _MOST_INTEGER:
            raise CacheCorruptError(f"cache record has a number beyond {_MOST_INTEGER:.0e} for {name}")
    if not all(type(turn) is str for turn in fields.get("turns", ())):
        raise CacheCorruptError("cache record has a turn that is no text")
    return _ADDED | fields | {"turns": tuple(fields.get("turns", ()))}


def readable(record: bytes) -> Entry | None:
    """The entry of a record, or None when it is damaged."""
    try:
        return decode_entry(record)
    except CacheCorruptError:
        return None


def _crc(tail: bytes | memoryview, head_length: int, vector_length: int) -> int:
    return zlib.crc32(_LENGTHS.pack(head_length, vector_length), zlib.crc32(tail))


def _vector(data: bytes) -> NDArray[np.float32] | None:
    try:
        import numpy as np
    except ImportError:  # a directory shared with an installation that has the extras
        return None
    if len(data) % 4:
        raise CacheCorruptError(f"cache record has a vector of {len(data)} bytes")
    return np.frombuffer(data, dtype="<f4").astype(np.float32, copy=False)
