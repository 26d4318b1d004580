"""Puts a cache together from its settings."""

from __future__ import annotations

from importlib.util import find_spec
from types import MappingProxyType
from typing import TYPE_CHECKING

from .bound import ErrorLimits
from .cache import Cache
from .guard import Guard, load_shipped
from .near import NOWHERE, Reach
from .policies.gdsf import GDSF
from .policies.lec import LEC
from .policies.lfu import LFU
from .policies.lru import LRU

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from llm_proxy.config import CacheConfig, Config, RouteConfig
    from llm_proxy.types import Clock

    from .index.base import VectorIndex
    from .policies.base import Policy
    from .stores.base import Store

__all__ = ["ENTRIES_NAME", "SNAPSHOT_NAME", "build", "build_for", "error_limits"]

ENTRIES_NAME = "entries"
SNAPSHOT_NAME = "index.snapshot"

_POLICIES: dict[str, Callable[[], Policy]] = {"gdsf": GDSF, "lec": LEC, "lfu": LFU, "lru": LRU}


def error_limits(config: CacheConfig, routes: Mapping[str, RouteConfig]) -> ErrorLimits:
    """How many semantic hits may be wrong, as configured."""
    by_route = {name: route.max_error_rate or config.max_error_rate for name, route in routes.items()}
    return ErrorLimits(config.max_error_rate, by_route, config.explore_share, config.check_share)


def build(
    config: CacheConfig,
    *,
    clock: Clock,
    routes: Mapping[str, RouteConfig] = MappingProxyType({}),
    reach: Reach = NOWHERE,
) -> Cache:
    """A cache as configured. Nothing is opened, read or loaded before its first verb.

    Args:
        config: Settings; ``enabled`` is the caller's business.
        clock: Clocks of the cache.
        routes: By name; they may have error rates of their own.
        reach: How far near misses are looked for.
    """
    missing = [name for name in ("faiss", "numpy") if config.semantic and find_spec(name) is None]
    return Cache(
        _store(config, clock),
        policy=_POLICIES[config.policy](),
        budget_bytes=config.budget_bytes,
        max_entries=config.max_entries,
        max_entry_bytes=config.max_entry_bytes,
        clock=clock,
        new_index=_index() if config.semantic and not missing else None,
        snapshot_path=config.directory / SNAPSHOT_NAME if config.store == "disk" else None,
        threshold=config.threshold,
        limits=error_limits(config, routes),
        guard=Guard(load_shipped),
        reach=reach,
        problems=[f'semantic hits need {" and ".join(missing)}: pip install "llm-proxy[cpu]"'] if missing else (),
    )


def build_for(config: Config, clock: Clock) -> Cache:
    """The cache of a whole configuration, with its routes, and as far as near misses are of use."""
    draft = config.draft
    reach = Reach(draft.near_similarity, draft.near_misses) if config.uses_near_misses else NOWHERE
    return build(config.cache, clock=clock, routes=config.routes, reach=reach)


# What a configuration does not use is not imported.


def _store(config: CacheConfig, clock: Clock) -> Store:
    if config.store == "memory":
        from .stores.memory import MemoryStore

        return MemoryStore()
    from .stores.disk import DiskStore

    return DiskStore(config.directory / ENTRIES_NAME, monotonic=clock.monotonic)


def _index() -> Callable[[int], VectorIndex]:
    from .index.faiss import FaissIndex

    return FaissIndex
