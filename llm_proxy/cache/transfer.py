"""Entries as lines of JSON, to carry them from one store to another: no pickle, one line an entry, read as a stream.

::

    {"format": "llm-proxy-cache", "version": 1}
    {"key": …, "scope": …, "text": …, "completion": "…", "hits": 3, "vector": "base64…", "vector_type": "float32", …}

The other fields are those of `llm_proxy.cache.entry.Entry`. A completion that is no UTF-8 is in ``completion_base64``.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

from llm_proxy.errors import CacheCorruptError, CacheError

from .entry import Entry, checked_fields, fields_of, readable
from .index.base import is_unit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    from numpy.typing import NDArray

    from .cache import Cache
    from .stores.base import Store

__all__ = ["Exported", "Imported", "Vectors", "export", "import_into", "lines_of"]

Vectors = Literal["float32", "float16", "none"]

FORMAT, VERSION = "llm-proxy-cache", 1
BATCH = 100  # entries that are acknowledged together,
BATCH_BYTES = 4 << 20  # or fewer, where their lines are this long
MOST_LINE_BYTES = 64 << 20
MOST_NUMBER = 1e12  # seconds or dollars
MOST_AHEAD_S = 86_400.0  # clocks of several machines differ, but not by more
MOST_TOLD = 5  # of the lines that were passed over

_KEY = re.compile(r"[0-9a-f]{64}")
_LISTS = ("choices", "output", "data")  # of chat and completions, responses, embeddings
_TYPES = {"float32": "<f4", "float16": "<f2"}


@dataclass(slots=True)
class Exported:
    """What `export` wrote and left out.

    Attributes:
        entries: Lines written, the first one excepted.
        expired: Entries left out because their time is over.
        damaged: Records left out because they cannot be read.
    """

    entries: int = 0
    expired: int = 0
    damaged: int = 0


@dataclass(slots=True)
class Imported:
    """What became of the lines of an import.

    Attributes:
        lines: Lines read, the first one and empty ones excepted.
        stored: Entries that are in the store now.
        older: Entries left out because the store has the same or a newer one.
        expired: Entries left out because their time is over.
        refused: Entries left out because they are worth less than what would go for them.
        too_large: Entries left out because they are larger than an entry may be.
        broken: Lines passed over because they cannot be read.
        first_broken: Number and fault of the first of those.
    """

    lines: int = 0
    stored: int = 0
    older: int = 0
    expired: int = 0
    refused: int = 0
    too_large: int = 0
    broken: int = 0
    first_broken: list[tuple[int, str]] = field(default_factory=list)


def export(
    store: Store, write: Callable[[bytes], object], count: Exported, *, now_s: float, vectors: Vectors = "float32"
) -> Iterator[int]:
    """Write all entries of a store, line by line; yields how many records it has read, after each.

    Args:
        store: The store; others may use it meanwhile.
        write: Takes one line after the other.
        count: Is kept up to date.
        now_s: Unix time: what has expired is left out.
        vectors: How precise they shall be. With ``none`` they are left out, and whoever imports encodes the texts
            again; a vector of the beginning of a long text is kept even so, because its scope can't be made again.
    """
    write(_line({"format": FORMAT, "version": VERSION}))
    for number, row in enumerate(store.scan(), 1):
        entry = readable(row.record)
        if entry is None or entry.key != row.key:
            count.damaged += 1
        elif entry.is_expired(now_s):
            count.expired += 1
        else:
            count.entries += 1
            write(_line(_data_of(entry, row.hits, vectors)))
        yield number


def import_into(cache: Cache, file: BinaryIO, count: Imported, *, now_s: float) -> Iterator[int]:
    """Store the entries of a file, at most a hundred at a time; yields how many bytes it has read, after each time.

    Args:
        cache: Takes them in as far as its budget allows.
        file: What `export` wrote. It is read as a stream.
        count: Is kept up to date.
        now_s: Unix time: what claims to be made more than a day later is passed over.

    Raises:
        CacheError: It is no such file, or of a newer version; or the cache cannot be written.
    """
    lines = lines_of(file)
    read_bytes = _check_header(next(lines, (1, b"", 0)))
    batch: list[tuple[Entry, int]] = []
    batch_bytes = 0
    for number, line, length in lines:
        read_bytes += length
        batch_bytes += length
        if line is not None and not line.strip():
            continue
        count.lines += 1
        try:
            batch.append(_entry_of(line, now_s))
        except CacheCorruptError as exc:
            count.broken += 1
            if len(count.first_broken) < MOST_TOLD:
                count.first_broken.append((number, str(exc)))
        if len(batch) >= BATCH or batch_bytes >= BATCH_BYTES:
            batch_bytes = 0
            _merge(cache, batch, count)
            yield read_bytes
    _merge(cache, batch, count)
    yield read_bytes


def lines_of(file: BinaryIO) -> Iterator[tuple[int, bytes | None, int]]:
    """Number, content and length of each line; no content where a line is longer than any entry can be."""
    number = 0
    while line := file.readline(MOST_LINE_BYTES):
        number += 1
        length = len(line)
        content: bytes | None = line
        while len(line) == MOST_LINE_BYTES and not line.endswith(b"\n"):
            content = None
            line = file.readline(MOST_LINE_BYTES)
            length += len(line)
        yield number, content, length


def _merge(cache: Cache, batch: list[tuple[Entry, int]], count: Imported) -> None:
    became = Counter(cache.merge(batch)) if batch else Counter()
    count.stored += became["stored"]
    count.older += became["older"]
    count.expired += became["expired"]
    count.refused += became["refused"]
    count.too_large += became["too-large"]
    batch.clear()


def _check_header(first: tuple[int, bytes | None, int]) -> int:
    _, line, length = first
    try:
        header = json.loads(line or b"")
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise CacheError("this is no export of a cache: its first line must be that of llm-proxy cache export")
    version = header.get("version")
    if type(version) is not int or not 1 <= version <= VERSION:
        raise CacheError(f"this export has version {version} and this program knows {VERSION}: update llm-proxy")
    return length


def _line(data: dict[str, Any]) -> bytes:
    return json.dumps(data, separators=(",", ":")).encode() + b"\n"


def _data_of(entry: Entry, hits: int, vectors: Vectors) -> dict[str, Any]:
    is_partial = entry.vector is not None and entry.seen_chars < len(entry.text)
    kind = "float32" if vectors == "none" and is_partial else vectors
    if kind == "none" or entry.vector is None:
        entry = replace(entry, vector=None, encoder="", seen_chars=0)
    data = fields_of(entry) | {"hits": hits}
    try:
        data["completion"] = entry.completion.decode()
    except UnicodeDecodeError:
        data["completion_base64"] = base64.b64encode(entry.completion).decode()
    if entry.vector is not None:
        data["vector"] = base64.b64encode(entry.vector.astype(_TYPES[kind]).tobytes()).decode()
        data["vector_type"] = kind
    return data


def _entry_of(line: bytes | None, now_s: float) -> tuple[Entry, int]:
    """Entry and hits of a line.

    Raises:
        CacheCorruptError: The line holds none.
    """
    if line is None:
        raise CacheCorruptError(f"it is longer than {MOST_LINE_BYTES >> 20} MiB")
    try:
        data = json.loads(line)
        fields = checked_fields(data)
        entry = Entry(**fields, completion=_completion_of(data), vector=_vector_of(data))
    except (ValueError, RecursionError, binascii.Error) as exc:
        raise CacheCorruptError(f"it is no JSON of an entry: {exc}") from exc
    if not _KEY.fullmatch(entry.key) or not _KEY.fullmatch(entry.scope):
        raise CacheCorruptError("key or scope is not 64 hex digits")
    _check_numbers(entry, now_s)
    hits = data.get("hits", 0)
    return entry, hits if type(hits) is int and 0 <= hits < 1 << 53 else 0


def _check_numbers(entry: Entry, now_s: float) -> None:
    numbers = (entry.created_s, entry.cost_usd, entry.wait_usd, entry.latency_s, entry.seen_chars)
    # NaN compares false, and an integer may be longer than any float.
    if not all(0 <= number < MOST_NUMBER for number in numbers) or not abs(entry.expires_s or 0.0) < MOST_NUMBER:
        raise CacheCorruptError("a time, a cost or a count is negative, too large or no number")
    if entry.created_s > now_s + MOST_AHEAD_S:
        raise CacheCorruptError("it was made in the future")


def _completion_of(data: dict[str, Any]) -> bytes:
    text, encoded = data.get("completion"), data.get("completion_base64")
    if isinstance(text, str):
        completion = text.encode("utf-8", "surrogatepass")
    elif isinstance(encoded, str):
        completion = base64.b64decode(encoded, validate=True)
    else:
        raise CacheCorruptError("it has no completion")
    answer = json.loads(completion)
    if not isinstance(answer, dict) or not any(isinstance(answer.get(name), list) for name in _LISTS):
        raise CacheCorruptError("its completion is no answer of an API")
    return completion


def _vector_of(data: dict[str, Any]) -> NDArray[np.float32] | None:
    encoded, kind = data.get("vector"), data.get("vector_type", "float32")
    if encoded is None:
        return None
    if not isinstance(encoded, str) or kind not in _TYPES:
        raise CacheCorruptError("its vector is no base64 of float32 or float16")
    try:
        import numpy as np
    except ImportError:  # an installation without the extras serves it on exact keys
        return None
    vector = np.frombuffer(base64.b64decode(encoded, validate=True), _TYPES[kind]).astype(np.float32)
    if not len(vector) or not is_unit(vector):
        raise CacheCorruptError("its vector is not of length 1")
    return vector if kind == "float32" else vector / np.float32(np.linalg.norm(vector))
