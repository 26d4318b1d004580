"""A core installation and one with the extras share a directory: the core reads every entry, without vectors."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from llm_proxy.cache import snapshot
from llm_proxy.cache.cache import _remembered
from llm_proxy.cache.entry import decode_entry, encode_entry
from llm_proxy.cache.stores.disk import DiskStore

from .helpers import entry_of, key_of, new_cache


def without_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numpy", None)  # what an import statement then raises is ImportError


def forget_what_was_read() -> None:
    _remembered.cache_clear()  # as in a new process


def test_an_entry_is_read_without_its_vector(monkeypatch: pytest.MonkeyPatch) -> None:
    record = encode_entry(entry_of("a"))
    without_numpy(monkeypatch)
    entry = decode_entry(record)
    assert (entry.vector, entry.text) == (None, "what is a")


def test_a_directory_is_shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "index.snapshot"
    full = new_cache(DiskStore(tmp_path), snapshot_path=path)
    full.admit(entry_of("a"))
    full.close()
    forget_what_was_read()
    without_numpy(monkeypatch)
    assert list(snapshot.load(path).blocks) == []
    core = new_cache(DiskStore(tmp_path), snapshot_path=path, new_index=None)
    core.open()
    found = core.get(key_of("a"))
    assert found is not None
    assert found.vector is None
    assert core.stats().entries == 1
    core.close()
