"""Several processes on one directory: they see each other's entries soon, and agree on what was given up."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from llm_proxy.cache.build import build
from llm_proxy.cache.cache import Cache
from llm_proxy.config import CacheConfig
from llm_proxy.runtime import SystemClock

from .helpers import entry_of, find, key_of, remove

SOON_S = 0.1
PROGRAM = """
import json, sys
from pathlib import Path
from tests.cache.helpers import entry_of, find, key_of, remove
from tests.cache.test_processes import opened
cache = opened(Path(sys.argv[1]), int(sys.argv[2]))
cache.open()
cache.nearest(entry_of(0).scope, "text", entry_of(0).vector, encoder=entry_of(0).encoder)
print(json.dumps("ready"), flush=True)
for line in sys.stdin:
    print(json.dumps(eval(line)), flush=True)
cache.close()
"""


def opened(directory: Path, max_entries: int = 1_000_000) -> Cache:
    return build(CacheConfig(directory=directory, max_entries=max_entries), clock=SystemClock())


class Other:
    """A cache in another process, which is told what to do in Python."""

    def __init__(self, directory: Path, max_entries: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(directory), str(max_entries)],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def say(self, expression: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(expression + "\n")
        self.process.stdin.flush()

    def heard(self) -> Any:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def ask(self, expression: str) -> Any:
        self.say(expression)
        return self.heard()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Other]]:
    others: list[Other] = []

    def begin(max_entries: int = 1_000_000) -> Other:
        others.append(Other(tmp_path, max_entries))
        return others[-1]

    yield begin
    for other in others:
        other.process.communicate(timeout=20)
        assert other.process.returncode == 0


def took_s(is_so: Callable[[], object]) -> float:
    """How long it is until something holds."""
    began_s = time.monotonic()
    while not is_so() and time.monotonic() - began_s < 10:
        time.sleep(0.001)
    return time.monotonic() - began_s


def test_they_see_entries_and_removals_within_a_tenth_of_a_second(tmp_path: Path, start: Callable[..., Other]) -> None:
    cache = opened(tmp_path)
    cache.admit(entry_of("first"))
    other = start()
    assert other.heard() == "ready"
    spans: dict[str, list[float]] = {"exact": [], "by meaning": [], "removed": [], "back": []}
    for name in map(str, range(20)):
        assert other.ask(f"cache.admit(entry_of({name!r}))") is True
        spans["exact"].append(took_s(lambda name=name: cache.get(key_of(name))))
        spans["by meaning"].append(took_s(lambda name=name: find(cache, entry_of(name)).entry))
        assert cache.admit(entry_of(name + "!"))
        spans["back"].append(
            took_s(lambda name=name: other.ask(f"find(cache, entry_of({name + '!'!r})).entry is not None"))
        )
        assert other.ask(f"remove(cache, {name!r})") == 1
        spans["removed"].append(took_s(lambda name=name: find(cache, entry_of(name)).entry is None))
    cache.close()
    # One of twenty may fall into a moment in which the machine does something else.
    assert {what: found for what, found in spans.items() if sorted(found)[-2] > SOON_S} == {}


def test_they_do_not_give_up_twice_for_the_same_bytes(tmp_path: Path, start: Callable[..., Other]) -> None:
    """Each process writes as fast as it can, all of them at the budget: it stays full, and all know the same."""
    most = 50
    cache = opened(tmp_path, most)
    for number in range(most):
        cache.admit(entry_of(f"before {number}"))
    others = [start(most) for _ in range(4)]
    assert [other.heard() for other in others] == ["ready"] * 4
    for number, other in enumerate(others):
        other.say(f"[cache.admit(entry_of('{number}-%d' % turn, cost_usd=0.1 + turn)) for turn in range(100)]")
    counts = set()
    while not all(other.process.poll() for other in others) and len(counts) < 200:
        counts.add((len(counts), len(cache._store.keys())))
    admitted = sum(sum(other.heard()) for other in others)
    assert admitted > most
    assert {count for _, count in counts} == {most}, "never over the budget, and never under it"
    for other in others:
        other.ask("cache.maintain()")
    kept = sorted(cache._store.keys())
    assert len(kept) == most
    views = [other.ask("sorted(cache._view.keys())") for other in others]
    assert views == [kept] * 4
    assert [other.ask("cache.stats().vectors") for other in others] == [most] * 4
    assert sum(other.ask("cache.stats().evicted") for other in others) == admitted
    assert cache.check().is_clean
    cache.close()


def test_an_entry_is_not_lost_to_another_ones_clean_up(tmp_path: Path, start: Callable[..., Other]) -> None:
    """A key that one process found expired is written anew by another before the first removes it."""
    cache = opened(tmp_path)
    cache.admit(entry_of("a", expires_s=time.time() + 0.05))
    time.sleep(0.06)
    assert cache.get(key_of("a")) is None
    other = start()
    assert other.heard() == "ready"
    assert other.ask("cache.admit(entry_of('a', completion=b'{}'))") is True
    cache.maintain()
    found = cache.get(key_of("a"))
    assert found is not None
    assert found.completion == b"{}"
    assert remove(cache, "a") == 1
    cache.close()
