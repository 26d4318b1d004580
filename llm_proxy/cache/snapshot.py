"""What a process knows of a store, as one file: it spares the next process from reading every entry.

::

    "LPX3", length of the head (u32), head (JSON), keys (32 bytes each, or JSON), scopes (JSON),
    sizes (i64), costs (f64), hits (i64), pinned (i8), scope after scope its vectors, CRC-32 of all before (u32)

    a flat scope [name, vectors]:                  vectors (f16, ``dim`` a row)
    a large scope [name, [vectors a list], error]: middles and steps (f32), codes of the centres (u8),
                                                   list by list its codes and what they leave out (u8)

The first keys are those with vectors, in the order of the rows, scope after scope. A large scope comes as it is laid
out, so that a start copies its codes and works nothing out again. The file is a convenience: whatever is wrong with
it, the store is read instead.
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

from .index.base import Block, Layout
from .index.codes import Codec, finer_bytes
from .index.keys import KEY_BYTES, HexKeys, compact, packed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["Snapshot", "bytes_of", "is_of_other_version", "load", "remove_abandoned", "save", "sequence_of"]

_MAGIC = b"LPX3"
_FAMILY = _MAGIC[:3]
_PREFIX = struct.Struct("=4sI")
_CRC = struct.Struct("=I")
_HEAD_LIMIT = 1 << 16
_COLUMNS = (("sizes", 8), ("costs", 8), ("hits", 8), ("pinned", 1))
_KEYS_A_BLOCK = 4096  # of a large scope, about; what is taken in at once, in some ten milliseconds
_CHUNK = 1 << 20
_MOST_DIM = 1 << 16
_MOST_BYTES = 1 << 40  # of one entry
_MOST_HITS = 1 << 53
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
        blocks: Vectors by scope; of one that was read, to be gone through once.
        pinned: 1 for each entry that is never given up for others, else 0; int8.
    """

    store: str
    sequence: int
    encoder: str = ""
    dim: int = 0
    keys: Sequence[str] = ()
    sizes: array[int] = field(default_factory=lambda: array("q"))
    costs: array[float] = field(default_factory=lambda: array("d"))
    hits: array[int] = field(default_factory=lambda: array("q"))
    blocks: Iterable[Block] = ()
    pinned: array[int] = field(default_factory=lambda: array("b"))


def save(path: Path, snapshot: Snapshot) -> bool:
    """Write a snapshot beside ``path`` and put it in its place, so that a reader sees the old one or the new.

    Returns:
        Whether it was written; not when another process is at it.

    Raises:
        CacheError: The file cannot be written.
    """
    unfinished = _unfinished(path)
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
            _check_sum(file)
            return _parsed(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        except (ValueError, KeyError, TypeError, struct.error, RecursionError) as exc:
            raise CacheCorruptError(f"index snapshot {path} is damaged: {exc}") from exc


def is_of_other_version(path: Path) -> bool:
    """Whether a snapshot is of another version of this program: of no use here, and no damage.

    Raises:
        CacheCorruptError: It is no regular file.
        OSError: It is not there or cannot be read.
    """
    with open(path, "rb", opener=_opened) as file:
        magic = file.read(len(_MAGIC))
    return magic.startswith(_FAMILY) and len(magic) == len(_MAGIC) and magic != _MAGIC


def remove_abandoned(path: Path) -> None:
    """Remove what a process that was killed while it saved has left, unless it may still be at it."""
    unfinished = _unfinished(path)
    with contextlib.suppress(OSError):
        if _is_stale(unfinished):
            unfinished.unlink()


def bytes_of(path: Path | None) -> int:
    """Bytes of the file; 0 where there is none."""
    try:
        return path.stat().st_size if path is not None else 0
    except OSError:
        return 0


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


def _unfinished(path: Path) -> Path:
    return path.with_name(path.name + ".tmp")


def _is_stale(path: Path) -> bool:
    return time.time() - path.stat().st_mtime >= _STALE_S


def _claim(path: Path) -> int | None:
    """Open a file that must not exist, or None when a living process seems to have it."""
    for _ in range(2):
        try:
            return os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        except FileExistsError:
            with contextlib.suppress(FileNotFoundError):
                if not _is_stale(path):
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
    blocks = list(snapshot.blocks)
    kept = compact(packed(key) for key in snapshot.keys)
    keys = kept.raw if isinstance(kept, HexKeys) else json.dumps(kept).encode()
    scopes = json.dumps([_scope(block) for block in blocks]).encode()
    head = json.dumps(
        {
            "store": snapshot.store,
            "sequence": snapshot.sequence,
            "encoder": snapshot.encoder,
            "dim": snapshot.dim,
            "entries": len(kept),
            "byteorder": sys.byteorder,
            "keys": "bytes" if isinstance(kept, HexKeys) else "json",
            "keys_bytes": len(keys),
            "scopes_bytes": len(scopes),
        }
    ).encode()
    yield _PREFIX.pack(_MAGIC, len(head)) + head
    yield keys
    yield scopes
    for name, _ in _COLUMNS:
        yield memoryview(getattr(snapshot, name)).cast("B")
    for block in blocks:
        if block.layout is not None:
            yield block.layout.codec.middle.tobytes()
            yield block.layout.codec.step.tobytes()
            yield block.layout.centres.data.cast("B")
        for at, rows in enumerate(block.rows):
            if len(rows):
                yield rows.data.cast("B")
                if block.finer is not None:
                    yield block.finer(at).data.cast("B")


def _scope(block: Block) -> list[Any]:
    if block.layout is None:
        return [block.scope, len(block.keys)]
    return [block.scope, [len(rows) for rows in block.rows], block.layout.codec.error]


def _check_sum(file: BinaryIO) -> None:
    """Read the file through, not by its map: what is read of a map counts as memory of this process."""
    left = os.fstat(file.fileno()).st_size - _CRC.size
    crc = 0
    while left > 0 and (chunk := file.read(min(_CHUNK, left))):
        crc = zlib.crc32(chunk, crc)
        left -= len(chunk)
    if left or _CRC.unpack(file.read(_CRC.size)) != (crc,):
        raise ValueError("it fails its checksum")


def _head(data: bytes | memoryview) -> tuple[dict[str, Any], int]:
    magic, length = _PREFIX.unpack_from(data)
    if magic != _MAGIC or length > _HEAD_LIMIT:
        raise ValueError("not an index snapshot, or of another format")
    end = _PREFIX.size + length
    head = json.loads(bytes(data[_PREFIX.size : end]))
    _check_head(head)
    return head, end


def _check_head(head: dict[str, Any]) -> None:
    texts, numbers = ("store", "encoder", "keys", "byteorder"), ("sequence", "dim", "entries")
    if any(type(head[name]) is not str for name in texts) or any(type(head[name]) is not int for name in numbers):
        raise ValueError("its head has values of other types")
    if not (0 <= head["dim"] < _MOST_DIM and 0 <= head["sequence"] < 1 << 63 and head["entries"] >= 0):
        raise ValueError("its head has numbers that can't be")


def _check_rows(snapshot: Snapshot) -> None:
    """Sizes and hits decide what is evicted, and so must be such as can be."""
    if not snapshot.sizes:
        return
    if not 0 < min(snapshot.sizes) <= max(snapshot.sizes) < _MOST_BYTES:
        raise ValueError("it has entries of a size that can't be")
    if not 0 <= min(snapshot.hits) <= max(snapshot.hits) <= _MOST_HITS:
        raise ValueError("it has counts of hits that can't be")


class _Reader:
    """Takes a mapped file apart, from the front."""

    def __init__(self, mapped: mmap.mmap, start: int) -> None:
        self._mapped = mapped
        self._body = memoryview(mapped)[: -_CRC.size]
        self._at = start

    @property
    def left(self) -> int:
        return len(self._body) - self._at

    def take(self, length: int) -> memoryview:
        if not 0 <= length <= self.left:
            raise ValueError(f"{length} bytes are due where {self.left} are left")
        self._at += length
        return self._body[self._at - length : self._at]

    def rows(self, count: int, dim: int, kind: str) -> NDArray[Any]:
        import numpy as np

        size = np.dtype(kind).itemsize
        return np.frombuffer(self.take(count * dim * size), kind).reshape(count, dim)

    def forget(self) -> None:
        """Have the pages that were read count no longer as memory of this process; they are read again if need be."""
        if hasattr(mmap, "MADV_DONTNEED"):
            self._mapped.madvise(mmap.MADV_DONTNEED)


def _parsed(mapped: mmap.mmap) -> Snapshot:
    head, start = _head(mapped[: _PREFIX.size + _HEAD_LIMIT])
    if head["byteorder"] != sys.byteorder:
        raise ValueError(f"it was written on a {head['byteorder']}-endian machine")
    reader = _Reader(mapped, start)
    raw = bytes(reader.take(head["keys_bytes"]))
    keys: Sequence[str] = HexKeys(raw) if head["keys"] == "bytes" else json.loads(raw)
    scopes = json.loads(bytes(reader.take(head["scopes_bytes"])))
    snapshot = Snapshot(head["store"], head["sequence"], head["encoder"], head["dim"], keys)
    for name, width in _COLUMNS:
        getattr(snapshot, name).frombytes(reader.take(width * head["entries"]))
    if len(keys) != head["entries"] or (head["keys"] == "bytes" and len(raw) % KEY_BYTES):
        raise ValueError(f"it has {len(keys)} keys for {head['entries']} entries")
    if head["keys"] != "bytes" and not all(type(key) is str for key in keys):
        raise ValueError("it has keys that are no text")
    _check_rows(snapshot)
    _check_scopes(scopes, len(keys), head["dim"], reader.left)
    if scopes:
        snapshot.blocks = _blocks(keys, scopes, reader, head["dim"])
    return snapshot


def _check_scopes(scopes: list[list[Any]], keys: int, dim: int, left: int) -> None:
    vectors = due = 0
    for name, count, *more in scopes:
        lists = count if more else [count]
        if type(name) is not str or (more and not (type(more[0]) in (int, float) and 0 <= more[0] <= 2)):
            raise ValueError("it has a scope of another make")
        if any(not isinstance(size, int) or size < 0 for size in lists) or (dim < 1 or not lists):
            raise ValueError("it has scopes of a negative size or dimension")
        vectors += sum(lists)
        due += dim * (8 + len(lists)) + (dim + finer_bytes(dim)) * sum(lists) if more else 2 * dim * count
    if due != left or vectors > keys:
        raise ValueError(f"it has {left} bytes of vectors where {due} are due, for {vectors} of {keys} keys")


def _blocks(keys: Sequence[str], scopes: list[list[Any]], reader: _Reader, dim: int) -> Iterator[Block]:
    try:
        import numpy as np
    except ImportError:  # a directory shared with an installation that has the extras
        return
    start = 0
    for scope, count, *more in scopes:
        if not more:
            yield Block(scope, keys[start : start + count], [reader.rows(count, dim, "f2")])
            start += count
            continue
        middle, step = (np.array(reader.rows(1, dim, "f4")[0]) for _ in range(2))
        layout = Layout(Codec(middle, step, float(more[0])), np.array(reader.rows(len(count), dim, "u1")))
        for first, sizes in _parts_of(count):
            stop = start + sum(sizes)
            rows, finer = [], []
            for size in sizes:
                rows.append(reader.rows(size, dim, "u1"))
                finer.append(reader.rows(size, finer_bytes(dim), "u1"))
            yield Block(scope, keys[start:stop], rows, layout, first, finer.__getitem__)
            reader.forget()
            start = stop


def _parts_of(sizes: list[int]) -> Iterator[tuple[int, list[int]]]:
    """Cut the lists of a large scope into runs of some thousand vectors, each with the number of its first list."""
    first = 0
    while first < len(sizes):
        stop, vectors = first, 0
        while stop < len(sizes) and vectors < _KEYS_A_BLOCK:
            vectors += sizes[stop]
            stop += 1
        yield first, sizes[first:stop]
        first = stop
