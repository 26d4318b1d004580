"""Entries as lines of JSON: nothing is lost on the way, and nothing bad gets in."""

from __future__ import annotations

import base64
import io
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llm_proxy.cache import transfer
from llm_proxy.cache.cache import Cache
from llm_proxy.cache.entry import Entry, decode_entry, encode_entry
from llm_proxy.cache.stores.base import Store
from llm_proxy.cache.stores.disk import DiskStore
from llm_proxy.cache.stores.memory import MemoryStore
from llm_proxy.cache.transfer import Exported, Imported, export, import_into, lines_of
from llm_proxy.errors import CacheError

from .helpers import CountingStore, FakeClock, entry_of, key_of, new_cache, size_of

NOW_S = 1_000_000.0
HEADER = b'{"format":"llm-proxy-cache","version":1}\n'


def answered(name: object, **changes: Any) -> Entry:
    completion = json.dumps({"choices": [{"message": {"content": f"{name} é"}}]}, ensure_ascii=False).encode()
    return entry_of(name, **{"completion": completion, **changes})


def exported(store: Store, **options: Any) -> tuple[bytes, Exported]:
    parts: list[bytes] = []
    count = Exported()
    numbers = list(export(store, parts.append, count, now_s=NOW_S, **options))
    assert numbers == list(range(1, len(numbers) + 1))
    return b"".join(parts), count


def imported(cache: Cache, data: bytes) -> Imported:
    count = Imported()
    assert list(import_into(cache, io.BytesIO(data), count, now_s=NOW_S))[-1] == len(data)
    return count


def filled(*entries: Entry) -> MemoryStore:
    store = MemoryStore()
    for entry in entries:
        store.put(entry.key, encode_entry(entry))
    return store


def line_of(entry: Entry, **changes: Any) -> dict[str, Any]:
    data, _ = exported(filled(entry))
    return {**json.loads(data.splitlines()[1]), **changes}


class TestThereAndBack:
    def test_all_of_it_comes_back(self) -> None:
        entries = [
            answered("a", model="m", backend="b", cost_usd=0.5, wait_usd=0.1, latency_s=2.0, has_usage=True),
            answered("b", text="\ud800 \x00 é", vector=None, encoder="", seen_chars=0, expires_s=2e9),
            answered("c", is_pinned=True),
        ]
        store = filled(*entries)
        store.touch({key_of("a"): 3})
        data, count = exported(store)
        assert (count.entries, count.expired, count.damaged) == (3, 0, 0)
        target = MemoryStore()
        result = imported(new_cache(target), data)
        assert (result.lines, result.stored, result.broken) == (3, 3, 0)
        for entry in entries:
            assert target.get(entry.key) == encode_entry(entry)

    def test_hits_come_along(self) -> None:
        store = filled(answered("a"))
        store.touch({key_of("a"): 3})
        target = MemoryStore()
        cache = new_cache(target)
        for _ in range(2):
            imported(cache, exported(store)[0])
        cache.maintain()
        assert [row.hits for row in target.scan()] == [3]

    def test_half_vectors(self) -> None:
        entry = answered("a")
        data, _ = exported(filled(entry), vectors="float16")
        target = MemoryStore()
        imported(new_cache(target), data)
        found = decode_entry(target.get(entry.key) or b"").vector
        assert found is not None
        assert entry.vector is not None
        assert found.dtype == np.float32
        assert float(found @ found) == pytest.approx(1.0, abs=1e-6)
        assert float(found @ entry.vector) == pytest.approx(1.0, abs=1e-3)

    def test_without_vectors(self) -> None:
        long = answered("long", seen_chars=3)
        data, _ = exported(filled(answered("a"), long), vectors="none")
        target = MemoryStore()
        cache = new_cache(target)
        assert imported(cache, data).stored == 2
        assert decode_entry(target.get(key_of("a")) or b"").vector is None
        assert [entry.key for entry in cache.lacking("encoder@2")] == [key_of("a")]
        kept = decode_entry(target.get(long.key) or b"")
        assert (kept.seen_chars, kept.scope) == (3, long.scope), "a narrowed scope can't be taken back"
        assert kept.vector is not None

    @pytest.mark.parametrize("answer", [b'{"choices": []}', b'{"output": []}', b'{"data": []}'])
    def test_answers_of_any_api(self, answer: bytes) -> None:
        data, _ = exported(filled(answered("a", completion=answer)))
        target = MemoryStore()
        assert imported(new_cache(target), data).stored == 1
        assert decode_entry(target.get(key_of("a")) or b"").completion == answer

    def test_a_completion_that_is_no_text(self) -> None:
        entry = answered("a", completion=b'{"choices": []}')
        store = filled(replace(entry, completion=b"\xff"))
        data, _ = exported(store)
        assert base64.b64decode(json.loads(data.splitlines()[1])["completion_base64"]) == b"\xff"
        result = imported(new_cache(), data)
        assert (result.stored, result.broken) == (0, 1)
        assert imported(new_cache(), exported(filled(entry))[0]).stored == 1

    def test_what_expired_or_is_damaged_stays_behind(self) -> None:
        store = filled(answered("a"), answered("b", expires_s=NOW_S))
        store.put(key_of("c"), b"nonsense")
        store.put(key_of("d"), encode_entry(answered("another")))
        data, count = exported(store)
        assert data.count(b"\n") == 2
        assert (count.entries, count.expired, count.damaged) == (1, 1, 2)

    def test_without_numpy_entries_are_served_on_their_keys(self, monkeypatch: pytest.MonkeyPatch) -> None:
        data, _ = exported(filled(answered("a")))
        target = MemoryStore()
        cache = new_cache(target, new_index=None)
        monkeypatch.setitem(sys.modules, "numpy", None)
        assert imported(cache, data).stored == 1
        monkeypatch.undo()
        assert decode_entry(target.get(key_of("a")) or b"").vector is None


class TestWhatIsThere:
    @pytest.mark.parametrize(("created_s", "wins"), [(NOW_S - 1, False), (NOW_S, False), (NOW_S + 1, True)])
    def test_the_newer_wins(self, created_s: float, wins: bool) -> None:
        target = filled(answered("a"))
        data, _ = exported(filled(answered("a", created_s=created_s, model="imported")))
        result = imported(new_cache(target), data)
        assert (result.stored, result.older) == (int(wins), int(not wins))
        assert (decode_entry(target.get(key_of("a")) or b"").model == "imported") is wins

    def test_the_budget_is_kept(self) -> None:
        cache = new_cache(budget_bytes=3 * size_of(answered("aaaa")), max_entry_bytes=5_000)
        large = answered("large", completion=b'{"choices": [], "x": "' + b"x" * 5_000 + b'"}')
        data, _ = exported(filled(*(answered(f"a{number:03}") for number in range(20)), large))
        result = imported(cache, data)
        assert result.too_large == 1
        assert 1 <= cache.stats().entries <= 3, "bookkeeping takes its part"
        assert cache.stats().used_bytes <= cache.stats().budget_bytes

    def test_what_is_worth_less_than_all_there_is_refused(self) -> None:
        store = CountingStore()
        cache = new_cache(store, max_entries=2)
        for name in "ab":
            cache.admit(answered(name, cost_usd=9.0))
        store.calls.clear()
        result = imported(cache, exported(filled(answered("c", cost_usd=1e-6)))[0])
        assert (result.stored, result.refused) == (0, 1)
        assert "put" not in store.calls

    def test_what_expired_meanwhile(self) -> None:
        clock = FakeClock()
        data, _ = exported(filled(answered("a", expires_s=NOW_S + 5)))
        clock.advance(5)
        assert imported(new_cache(clock=clock), data).expired == 1

    def test_pins_beyond_the_budget_are_not_taken_over(self) -> None:
        entries = [answered(f"a{number}", is_pinned=True) for number in range(4)]
        store = MemoryStore()
        cache = new_cache(store, budget_bytes=2 * size_of(entries[0]))
        imported(cache, exported(filled(*entries))[0])
        rows = [decode_entry(row.record) for row in store.scan()]
        assert 1 <= sum(entry.is_pinned for entry in rows) <= 2
        assert cache.stats().used_bytes <= cache.stats().budget_bytes

    def test_a_batch_is_acknowledged_together(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(transfer, "BATCH", 10)
        store = DiskStore(tmp_path / "entries")
        cache = new_cache(store)
        data, _ = exported(filled(*(answered(number) for number in range(25))))
        lines = import_into(cache, io.BytesIO(data), Imported(), now_s=NOW_S)
        seen = [len(store.keys()) for _ in lines]
        assert seen == [10, 20, 25]
        assert cache.check().is_clean
        cache.close()

    def test_large_entries_come_a_few_at_a_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(transfer, "BATCH_BYTES", 3_000)
        data, _ = exported(filled(*(answered(number, text="x" * 2_000) for number in range(6))))
        lines = list(import_into(new_cache(), io.BytesIO(data), Imported(), now_s=NOW_S))
        assert len(lines) == 4
        assert max(after - before for before, after in pairwise(lines[:-1])) < 6_000


BROKEN: list[tuple[str, Callable[[dict[str, Any]], object]]] = [
    ("no JSON", lambda line: b"{"),
    ("no object", lambda line: [line]),
    ("nested", lambda line: b"[" * 100_000),
    ("no key", lambda line: {**line, "key": None}),
    ("short key", lambda line: {**line, "key": "ab"}),
    ("odd scope", lambda line: {**line, "scope": "G" * 64}),
    ("a field lacks", lambda line: {name: value for name, value in line.items() if name != "text"}),
    ("a field of another type", lambda line: {**line, "is_pinned": 1}),
    ("a negative cost", lambda line: {**line, "cost_usd": -1}),
    ("a negative time", lambda line: {**line, "created_s": -1}),
    ("a cost beyond all", lambda line: {**line, "wait_usd": 1e300}),
    ("an integer beyond all floats", lambda line: {**line, "created_s": 10**400}),
    ("an expiry beyond all floats", lambda line: {**line, "expires_s": -(10**400)}),
    ("a negative count", lambda line: {**line, "seen_chars": -1}),
    ("from the future", lambda line: {**line, "created_s": NOW_S + 90_000}),
    ("not finite", lambda line: {**line, "created_s": float("nan")}),
    ("no completion", lambda line: {**line, "completion": 5}),
    ("a completion that is no JSON", lambda line: {**line, "completion": "hello"}),
    ("a completion without choices", lambda line: {**line, "completion": "{}"}),
    ("bad base64", lambda line: {**line, "completion": None, "completion_base64": "é"}),
    ("a vector that is no text", lambda line: {**line, "vector": 5}),
    ("a vector of another type", lambda line: {**line, "vector_type": "object"}),
    ("half a number", lambda line: {**line, "vector": "AAA="}),
    ("no numbers", lambda line: {**line, "vector": ""}),
    ("a long vector", lambda line: {**line, "vector": base64.b64encode(np.ones(8, "<f4").tobytes()).decode()}),
]


class TestBadInput:
    @pytest.mark.parametrize(("name", "change"), BROKEN, ids=[name for name, _ in BROKEN])
    def test_a_broken_line_is_counted_and_passed_over(
        self, name: str, change: Callable[[dict[str, Any]], object]
    ) -> None:
        changed = change(line_of(answered("a")))
        broken = changed if isinstance(changed, bytes) else json.dumps(changed).encode()
        good = [json.dumps(line_of(answered(number))).encode() for number in range(2)]
        result = imported(new_cache(), HEADER + b"\n".join([good[0], b"", broken, good[1]]))
        assert (result.lines, result.stored, result.broken) == (3, 2, 1)
        ((number, fault),) = result.first_broken
        assert number == 4
        assert fault

    def test_only_the_first_are_told(self) -> None:
        result = imported(new_cache(), HEADER + b"x\n" * 20)
        assert (result.broken, [number for number, _ in result.first_broken]) == (20, [2, 3, 4, 5, 6])

    def test_a_line_that_is_too_long_is_not_kept_in_memory(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(transfer, "MOST_LINE_BYTES", 50)
        data = b"a\n" + b"x" * 120 + b"\nb"
        assert list(lines_of(io.BytesIO(data))) == [(1, b"a\n", 2), (2, None, 121), (3, b"b", 1)]
        monkeypatch.setattr(transfer, "MOST_LINE_BYTES", 4_000)
        good = json.dumps(line_of(answered("a"))).encode()
        assert len(good) < 4_000
        result = imported(new_cache(), HEADER + b"x" * 9_000 + b"\n" + good)
        assert (result.stored, result.broken) == (1, 1)

    @pytest.mark.parametrize(
        "first", [b"", b"\n", b"PK\x03\x04", b"[]\n", b'{"format": "other", "version": 1}\n', b"[" * 100_000]
    )
    def test_another_file_is_refused(self, first: bytes) -> None:
        with pytest.raises(CacheError, match="no export of a cache"):
            imported(new_cache(), first)

    @pytest.mark.parametrize("version", [2, 0, -1, None, "1", True])
    def test_a_newer_version_is_refused(self, version: object) -> None:
        header = json.dumps({"format": "llm-proxy-cache", "version": version}).encode() + b"\n"
        with pytest.raises(CacheError, match=r"has version .* knows 1: update llm-proxy"):
            imported(new_cache(), header)

    @pytest.mark.parametrize("hits", [-1, 1.5, "3", None, 1 << 60])
    def test_absurd_hits_count_nothing(self, hits: object) -> None:
        target = MemoryStore()
        cache = new_cache(target)
        data = HEADER + json.dumps(line_of(answered("a"), hits=hits)).encode()
        assert imported(cache, data).stored == 1
        cache.maintain()
        assert [row.hits for row in target.scan()] == [0]
