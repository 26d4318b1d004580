"""What a process knows of a store, as one file: it spares the next process from reading every entry.

::

    "LPX1", length of the head (u32), head (JSON), keys (JSON), scopes (JSON: [name, vectors] each),
    sizes (i64), costs (f64), hits (i64), vectors (f16, ``dim`` a row), CRC-32 of all before (u32)

The first keys are those with vectors, in the order of the rows, scope after scope. The file is a convenience: whatever
is wrong with it, the store is read instead.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import stat
import struct
import sys
import time
import zlib
from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO

from llm_proxy.errors import CacheCorruptError, CacheError

from .index import Block

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

__all__ = ["Snapshot", "load", "save", "sequence_of"]

_MAGIC = b"LPX1"
_PREFIX = struct.Struct("=4sI")
_CRC = struct.Struct("=I")
_HEAD_LIMIT = 1 << 16
_STALE_S = 60.0  # age at which another process's unfinished file is taken for abandoned


@dataclass(slots=True)
class Snapshot:
    """What is known of a store as of a step of its log.

    Attributes:
        store: Random name of the store.
        sequence: The last step that is in it.
        encoder: Name of the encoder of the vectors; empty when there are none.
        dim: Length of every vector, or 0.
        keys: All keys; those with vectors first, in the order of ``blocks``.
        sizes: Bytes of each entry in the budget, int64.
        costs: Cost of asking again, US dollars, float64.
        hits: Hits of each entry, int64.
        blocks: Vectors by scope.
    """

    store: str
    sequence: int
    encoder: str = ""
    dim: int = 0
    keys: Sequence[str] = ()
    sizes: array[int] = field(default_factory=lambda: array("q"))
    costs: array[float] = field(default_factory=lambda: array("d"))
    hits: array[int] = field(default_factory=lambda: array("q"))
    blocks: Sequence[Block] = ()


def save(path: Path, snapshot: Snapshot) -> bool:
    """Write a snapshot beside ``path`` and put it in its place, so that a reader sees the old one or the new.

    Returns:
        Whether it was written; not when another process is at it.

    Raises:
        CacheError: The file cannot be written.
    """
    unfinished = path.with_name(path.name + ".tmp")
    try:
        descriptor = _claim(unfinished)
        if descriptor is None:
            return False
        with contextlib.ExitStack() as on_failure:
            on_failure.callback(unfinished.unlink, missing_ok=True)
            with os.fdopen(descriptor, "wb") as file:
                _write(file, snapshot)
                file.flush()
                os.fsync(file.fileno())
            os.replace(unfinished, path)
            on_failure.pop_all()
    except OSError as exc:
        raise CacheError(f"index snapshot {path} cannot be written: {exc}") from exc
    return True


def load(path: Path) -> Snapshot:
    """Read a snapshot. Its vectors lie in the mapped file: copy them before another process shortens it.

    Raises:
        CacheCorruptError: The file is cut, altered, of another make, or no regular file.
        OSError: It is not there or cannot be read.
    """
    with open(path, "rb", opener=_opened) as file:
        try:
            data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
            return _parsed(data)
        except (ValueError, KeyError, TypeError, struct.error, RecursionError) as exc:
            raise CacheCorruptError(f"index snapshot {path} is damaged: {exc}") from exc


def sequence_of(path: Path, store: str) -> int:
    """The last step that a snapshot has of a store, or -1 when it has none; reads the head only."""
    with (
        contextlib.suppress(CacheCorruptError, OSError, ValueError, KeyError, TypeError, struct.error, RecursionError),
        open(path, "rb", opener=_opened) as file,
    ):
        head, _ = _head(file.read(_PREFIX.size + _HEAD_LIMIT))
        if head["store"] == store:
            return int(head["sequence"])
    return -1


def _opened(path: str, flags: int) -> int:
    """Open a regular file, and nothing else: a pipe in its place would be waited for without end."""
    descriptor = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise CacheCorruptError(f"index snapshot {path} is damaged: it is no regular file")


def _claim(path: Path) -> int | None:
    """Open a file that must not exist, or None when a living process seems to have it."""
    for _ in range(2):
        try:
            return os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        except FileExistsError:
            with contextlib.suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime < _STALE_S:
                    return None
                path.unlink()
    return None


def _write(file: BinaryIO, snapshot: Snapshot) -> None:
    crc = 0
    for part in _parts(snapshot):
        crc = zlib.crc32(part, crc)
        file.write(part)
    file.write(_CRC.pack(crc))


def _parts(snapshot: Snapshot) -> Iterator[Any]:
    keys = json.dumps(list(snapshot.keys)).encode()
    scopes = json.dumps([[block.scope, len(block.keys)] for block in snapshot.blocks]).encode()
    head = json.dumps(
        {
            "store": snapshot.store,
            "sequence": snapshot.sequence,
            "encoder": snapshot.encoder,
            "dim": snapshot.dim,
            "entries": len(snapshot.keys),
            "byteorder": sys.byteorder,
            "keys_bytes": len(keys),
            "scopes_bytes": len(scopes),
        }
    ).encode()
    yield _PREFIX.pack(_MAGIC, len(head)) + head
    yield keys
    yield scopes
    for column in (snapshot.sizes, snapshot.costs, snapshot.hits):
        yield memoryview(column).cast("B")
    for block in snapshot.blocks:
        yield block.rows.data.cast("B")


def _head(data: bytes | memoryview) -> tuple[dict[str, Any], int]:
    magic, length = _PREFIX.unpack_from(data)
    if magic != _MAGIC or length > _HEAD_LIMIT:
        raise ValueError("not an index snapshot, or of another format")
    end = _PREFIX.size + length
    return json.loads(bytes(data[_PREFIX.size : end])), end


def _parsed(data: memoryview) -> Snapshot:
    body = data[: -_CRC.size]
    if len(body) < _PREFIX.size or _CRC.unpack(data[-_CRC.size :]) != (zlib.crc32(body),):
        raise ValueError("it fails its checksum")
    head, at = _head(body)
    if head["byteorder"] != sys.byteorder:
        raise ValueError(f"it was written on a {head['byteorder']}-endian machine")

    def take(length: int) -> memoryview:
        nonlocal at
        at += length
        return body[at - length : at]

    keys = json.loads(bytes(take(head["keys_bytes"])))
    scopes = json.loads(bytes(take(head["scopes_bytes"])))
    snapshot = Snapshot(head["store"], head["sequence"], head["encoder"], head["dim"], keys)
    for column in (snapshot.sizes, snapshot.costs, snapshot.hits):
        column.frombytes(take(8 * head["entries"]))
    if len(keys) != head["entries"] or len(snapshot.hits) != len(keys):
        raise ValueError(f"it has {len(keys)} keys and {len(snapshot.hits)} counts of hits")
    snapshot.blocks = list(_blocks(keys, scopes, take(len(body) - at), head["dim"])) if scopes else []
    return snapshot


def _blocks(keys: list[str], scopes: list[list[Any]], data: memoryview, dim: int) -> Iterator[Block]:
    try:
        import numpy as np
    except ImportError:  # a directory shared with an installation that has the extras
        return
    rows = np.frombuffer(data, np.float16).reshape(-1, dim)
    if sum(count for _, count in scopes) != len(rows):
        raise ValueError(f"it has {len(rows)} vectors for scopes of {sum(count for _, count in scopes)}")
    start = 0
    for scope, count in scopes:
        yield Block(scope, keys[start : start + count], rows[start : start + count])
        start += count
