"""Puts a cache together from its settings."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from .cache import Cache
from .guard import Guard, load_shipped
from .index.faiss import FaissIndex
from .policies.gdsf import GDSF
from .policies.lec import LEC
from .policies.lfu import LFU
from .policies.lru import LRU
from .stores.disk import DiskStore
from .stores.memory import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Callable

    from llm_proxy.config import CacheConfig
    from llm_proxy.types import Clock

    from .policies.base import Policy

__all__ = ["ENTRIES_NAME", "SNAPSHOT_NAME", "build"]

ENTRIES_NAME = "entries"
SNAPSHOT_NAME = "index.snapshot"

_POLICIES: dict[str, Callable[[], Policy]] = {"gdsf": GDSF, "lec": LEC, "lfu": LFU, "lru": LRU}


def build(config: CacheConfig, *, clock: Clock) -> Cache:
    """A cache as configured. Nothing is opened, read or loaded before its first verb.

    Args:
        config: Settings; ``enabled`` is the caller's business.
        clock: Clocks of the cache.
    """
    missing = [name for name in ("faiss", "numpy") if config.semantic and find_spec(name) is None]
    is_on_disk = config.store == "disk"
    directory = config.directory
    return Cache(
        DiskStore(directory / ENTRIES_NAME, monotonic=clock.monotonic) if is_on_disk else MemoryStore(),
        policy=_POLICIES[config.policy](),
        budget_bytes=config.budget_bytes,
        max_entries=config.max_entries,
        max_entry_bytes=config.max_entry_bytes,
        clock=clock,
        new_index=FaissIndex if config.semantic and not missing else None,
        snapshot_path=directory / SNAPSHOT_NAME if is_on_disk else None,
        threshold=config.threshold,
        max_error_rate=config.max_error_rate,
        guard=Guard(load_shipped),
        problems=[f'semantic hits need {" and ".join(missing)}: pip install "llm-proxy[cpu]"'] if missing else (),
    )
