"""What ``llm-proxy doctor --fix`` does by itself: only what can be undone or is made anew, never to an answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from llm_proxy.config import Config

    from ._findings import Finding

__all__ = ["fixed"]

_PRIVATE = 0o700


def fixed(config: Config, found: Iterable[Finding]) -> Iterator[tuple[bool, str]]:
    """Mend what can be mended.

    Yields:
        For each finding with a ``fix``, whether it worked, and a sentence about it.
    """
    for finding in found:
        if not finding.fix:
            continue
        try:
            yield True, _made_private(config) if finding.fix == "rights" else _without_snapshot(config)
        except OSError as exc:
            yield False, f"{finding.remedy}: not done: {exc.strerror or exc}"


def _made_private(config: Config) -> str:
    place = config.cache.directory
    place.chmod(_PRIVATE)
    return f"{place} is for its owner only"


def _without_snapshot(config: Config) -> str:
    from llm_proxy.cache.build import SNAPSHOT_NAME

    path = config.cache.directory / SNAPSHOT_NAME
    path.unlink(missing_ok=True)
    return f"{path} is gone: the next start makes it anew from the answers, which are all there"
