"""From settings to a cache."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from llm_proxy.cache import build as building
from llm_proxy.cache.build import build, build_for
from llm_proxy.cache.near import NOWHERE, Reach
from llm_proxy.config import CacheConfig, Config

from .helpers import FakeClock, entry_of, find, key_of, sizes_of


def test_on_disk(tmp_path: Path) -> None:
    config = CacheConfig(directory=tmp_path / "cache")
    cache = build(config, clock=FakeClock())
    assert not config.directory.exists()
    cache.admit(entry_of("a"))
    assert find(cache, entry_of("a")).entry is not None
    cache.close()
    assert set(sizes_of(config.directory)) == {"entries", "index.snapshot"}
    assert config.directory.stat().st_mode & 0o777 == 0o700
    again = build(config, clock=FakeClock())
    assert again.get(key_of("a")) is not None
    assert find(again, entry_of("a")).entry is not None
    assert again.stats().problems == ()
    again.close()


def test_in_memory(tmp_path: Path) -> None:
    cache = build(CacheConfig(store="memory", directory=tmp_path / "cache", policy="lru"), clock=FakeClock())
    cache.admit(entry_of("a"))
    assert find(cache, entry_of("a")).entry is not None
    cache.close()
    assert not (tmp_path / "cache").exists()


def test_limits_are_passed_on(tmp_path: Path) -> None:
    config = CacheConfig(store="memory", max_entries=1, budget_bytes=1 << 20, max_entry_bytes=3_000, threshold=0.5)
    cache = build(config, clock=FakeClock())
    assert not cache.admit(entry_of("large", completion=b"x" * 3_000))
    cache.admit(entry_of("a"))
    cache.admit(entry_of("b"))
    stats = cache.stats()
    assert (stats.entries, stats.max_entries, stats.budget_bytes) == (1, 1, 1 << 20)
    cache.close()


def test_exact_only() -> None:
    cache = build(CacheConfig(store="memory", semantic=False), clock=FakeClock())
    cache.admit(entry_of("a"))
    assert find(cache, entry_of("a")).entry is None
    assert cache.stats().problems == ()


@pytest.mark.parametrize("names", [("faiss",), ("numpy",), ("faiss", "numpy")])
def test_without_the_extras(monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...]) -> None:
    monkeypatch.setattr(building, "find_spec", lambda name: None if name in names else object())
    cache = build(CacheConfig(store="memory"), clock=FakeClock())
    assert cache.admit(entry_of("a"))
    assert cache.get(key_of("a")) is not None
    assert find(cache, entry_of("a")).entry is None
    (problem,) = cache.stats().problems
    assert problem == f'semantic hits need {" and ".join(names)}: pip install "llm-proxy[cpu]"'


def test_importing_and_building_load_nothing_heavy() -> None:
    program = (
        "import sys, time, pathlib; from llm_proxy.cache.build import build; from llm_proxy.config import CacheConfig\n"
        "build(CacheConfig(directory=pathlib.Path('/nonexistent/x')), clock=time)\n"
        "print([name for name in ('numpy', 'faiss', 'diskcache', 'sqlite3') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() in ("[]", "['sqlite3']")


def test_near_misses_are_looked_for_where_something_is_made_of_them() -> None:
    for draft, reach in (({}, NOWHERE), ({"predicted": True, "near_similarity": 0.4, "near_misses": 2}, Reach(0.4, 2))):
        config = Config(cache={"store": "memory"}, draft={**draft})
        cache = build_for(config, FakeClock())
        assert cache._matcher._reach == reach
        cache.close()
