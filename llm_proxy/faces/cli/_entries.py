"""The entries of a cache directory, for people: found by a prefix of their key, sorted, put into words.

The store is read as it is. A `Cache` would keep its own budget, and a command must not evict what a proxy with other
settings keeps.
"""

from __future__ import annotations

import heapq
import json
import string
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from llm_proxy.errors import CacheCorruptError, CacheError, ConfigError
from llm_proxy.types import texts_of

if TYPE_CHECKING:
    from pathlib import Path

    from llm_proxy.cache.cache import Cache
    from llm_proxy.cache.entry import Entry
    from llm_proxy.cache.evidence import Observation
    from llm_proxy.cache.stores.base import Stored
    from llm_proxy.cache.stores.disk import DiskStore
    from llm_proxy.config import Config

__all__ = [
    "Row",
    "Sort",
    "answer_of",
    "evidence_of",
    "found",
    "keys_of",
    "limitless",
    "listed",
    "opened",
    "place_of",
    "spare",
]

_KEY_CHARS = 64
_LEAST_CHARS = 4
_QUESTION_CHARS = 200
_FILE = "cache.db"
_ANY = 1 << 62
_OVERRUN_PART = 64  # the part by which busy processes may be over their bounds for a moment


class Sort(StrEnum):
    """What a list of entries begins with."""

    age = "age"
    cost = "cost"
    hits = "hits"
    size = "size"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a list.

    Attributes:
        key: The exact key.
        created_s: Unix time at which the answer was complete.
        expires_s: Unix time after which it is not served, or None.
        hits: How often it was served.
        size_bytes: What it takes of the budget.
        cost_usd: What asking again is expected to cost.
        model: Model that answered.
        question: Its first 200 characters.
        is_pinned: Whether it is kept whatever the budget.
    """

    key: str
    created_s: float
    expires_s: float | None
    hits: int
    size_bytes: int
    cost_usd: float
    model: str
    question: str
    is_pinned: bool


def place_of(config: Config) -> Path:
    """The directory of the disk store.

    Raises:
        ConfigError: The entries are not on disk.
    """
    from llm_proxy.cache.build import ENTRIES_NAME

    if config.cache.store != "disk":
        raise ConfigError(
            f'cache.store is "{config.cache.store}": its entries live inside the running program and end with it; set '
            'cache.store = "disk" to keep them'
        )
    return config.cache.directory / ENTRIES_NAME


@contextmanager
def opened(config: Config) -> Iterator[DiskStore | None]:
    """The store; None when nothing was ever stored there, and nothing is made then."""
    from llm_proxy.cache.stores.disk import DiskStore

    place = place_of(config)
    try:
        (place / _FILE).stat()
    except (FileNotFoundError, NotADirectoryError):
        yield None
        return
    except OSError as exc:
        raise CacheError(f"the cache in {place} can't be read: {exc.strerror}; llm-proxy doctor says more") from exc
    store = DiskStore(place)
    try:
        yield store
    finally:
        store.close()


def limitless(config: Config, store: DiskStore, *, is_semantic: bool = True) -> Cache:
    """A cache that evicts nothing: a process with other settings may keep more than these would."""
    from llm_proxy.cache.build import SNAPSHOT_NAME, error_limits
    from llm_proxy.cache.cache import Cache
    from llm_proxy.cache.index.faiss import FaissIndex
    from llm_proxy.cache.policies.lru import LRU
    from llm_proxy.runtime import SystemClock

    return Cache(
        store,
        policy=LRU(),
        budget_bytes=_ANY,
        max_entries=_ANY,
        max_entry_bytes=_ANY,
        limits=error_limits(config.cache, config.routes),
        clock=SystemClock(),
        new_index=FaissIndex if is_semantic and find_spec("faiss") and find_spec("numpy") else None,
        snapshot_path=config.cache.directory / SNAPSHOT_NAME,
    )


def spare(config: Config) -> None:
    """See to it that a cache of these settings may be opened for writing without evicting what is kept.

    Raises:
        CacheError: The store holds more than they allow, so a proxy that uses it has others.
    """
    with opened(config) as store:
        if store is None:
            return
        cache = limitless(config, store, is_semantic=False)
        try:
            held = cache.stats()
        finally:
            cache.close()
    for name, kept in (("budget_bytes", held.used_bytes), ("max_entries", held.entries)):
        allowed = getattr(config.cache, name)
        if kept > allowed + allowed // _OVERRUN_PART:
            raise CacheError(
                f"this cache holds {kept}, more than cache.{name} = {allowed}, and a command must not evict what a "
                "proxy with other settings keeps: give it the proxy's settings"
            )


def listed(store: DiskStore, *, sort: Sort, limit: int) -> tuple[list[Row], int]:
    """The first rows by a criterion, the largest or newest first, and how many entries there are in all."""
    from llm_proxy.cache.entry import readable

    count = 0

    def rows() -> Iterator[Row]:
        nonlocal count
        for stored in store.scan():
            entry = readable(stored.record)
            if entry is not None:
                count += 1
                yield _row(stored, entry)

    ranks = {
        Sort.age: lambda row: (row.created_s, row.key),
        Sort.cost: lambda row: (row.cost_usd, row.key),
        Sort.hits: lambda row: (row.hits, row.created_s, row.key),
        Sort.size: lambda row: (row.size_bytes, row.key),
    }
    first = heapq.nlargest(limit, rows(), key=ranks[sort])
    return first, count


def found(store: DiskStore | None, prefix: str) -> tuple[Entry, Row]:
    """The entry whose key begins with ``prefix``.

    Raises:
        CacheError: There is none, or more than one, or its record is damaged.
    """
    from llm_proxy.cache.entry import decode_entry

    (key,) = keys_of(store, [prefix])
    stored = None if store is None else store.row(key)
    try:
        entry = decode_entry(stored.record) if stored is not None else None
    except CacheCorruptError as exc:
        raise CacheError(f"entry {key} is damaged: {exc}; run llm-proxy cache check --repair") from exc
    if stored is None or entry is None:
        raise CacheError(f"entry {key} was removed meanwhile; llm-proxy cache ls shows what is there")
    return entry, _row(stored, entry)


def evidence_of(store: DiskStore | None, key: str) -> tuple[Observation, ...]:
    """What later answers said of an entry; none where that can't be read."""
    from llm_proxy.cache.evidence import decode_evidence

    try:
        return () if store is None else decode_evidence(store.evidence(key))
    except CacheCorruptError:
        return ()


def keys_of(store: DiskStore | None, prefixes: Iterable[str]) -> list[str]:
    """The full keys that prefixes mean, each once, in their order.

    Raises:
        CacheError: A prefix is no key, means none, or more than one.
    """
    wanted = list(dict.fromkeys(prefix.strip().lower() for prefix in prefixes))
    for prefix in wanted:
        if not _LEAST_CHARS <= len(prefix) <= _KEY_CHARS or not set(prefix) <= set(string.hexdigits):
            raise CacheError(f"{prefix!r} is no key: give {_LEAST_CHARS} to {_KEY_CHARS} hex digits of cache ls")
    matches = []
    for prefix in wanted:
        keys = store.keys(prefix) if store is not None else []
        if not keys:
            raise CacheError(f"no entry has a key that begins with {prefix}; llm-proxy cache ls lists them")
        if len(keys) > 1:
            some = ", ".join(key[:16] for key in keys[:5])
            raise CacheError(f"{len(keys)} entries have a key that begins with {prefix}: {some}; give more digits")
        matches += keys
    return list(dict.fromkeys(matches))


def answer_of(entry: Entry) -> tuple[Any, str]:
    """The answer as data, None where it can't be read, and what the model said, of several choices in the first."""
    try:
        completion = json.loads(entry.completion)
        said, calls = _said_in(completion)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None, ""
    return completion, said if isinstance(said, str) else json.dumps(calls) if calls else ""


def _said_in(answer: Any) -> tuple[Any, Any]:
    """Text and tool calls of an answer of any API; vectors say nothing."""
    if "output" in answer:
        calls = [item for item in answer["output"] if "call_id" in item]
        texts = [text for item in answer["output"] for text in texts_of(item.get("content"))]
        return "\n".join(texts) or None, calls
    if "data" in answer:
        return f"{len(answer['data'])} embeddings", None
    choice = answer["choices"][0]
    if "message" not in choice:
        return choice["text"], None
    return choice["message"].get("content"), choice["message"].get("tool_calls")


def _row(stored: Stored, entry: Entry) -> Row:
    from llm_proxy.cache.view import stored_bytes

    return Row(
        key=stored.key,
        created_s=entry.created_s,
        expires_s=entry.expires_s,
        hits=stored.hits,
        size_bytes=stored_bytes(len(stored.record), entry),
        cost_usd=entry.cost_usd,
        model=entry.model,
        question=entry.text[:_QUESTION_CHARS],
        is_pinned=entry.is_pinned,
    )
