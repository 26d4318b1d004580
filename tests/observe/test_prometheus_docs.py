"""docs/observability.md: every figure that the proxy exposes is in its tables, and none that it does not."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from llm_proxy.observe.buckets import Sums
from llm_proxy.observe.metrics import Family, Metrics
from tests.observe.events_kit import exact, miss, near
from tests.observe.test_prometheus import CONFIG, watched

PAGE = (Path(__file__).parent.parent.parent / "docs" / "observability.md").read_text(encoding="utf-8")


def documented() -> Iterator[str]:
    """The names in the tables; `_vectors` after `llm_proxy_cache_entries` stands for `llm_proxy_cache_vectors`."""
    for cell in re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", PAGE, re.MULTILINE):
        first, *others = re.findall(r"`(\w+)`", cell)
        yield first
        steps = first.split("_")
        beginnings = ["_".join(steps[:count]) for count in range(1, len(steps))]
        for name in others:
            yield from (f"{beginning}{name}" for beginning in beginnings) if name.startswith("_") else (name,)


def test_every_figure_is_in_the_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    exposed: set[str] = set()
    lines = Family.lines

    def noted(family: Family) -> Iterator[str]:
        exposed.add(family.name)
        return lines(family)

    monkeypatch.setattr(Family, "lines", noted)
    metrics = Metrics(CONFIG)
    for event in (exact(), near(), miss()):
        metrics(event)
    metrics.exposition(watched(), Sums())
    assert {"llm_proxy_requests_total", "llm_proxy_cache_entries", "process_threads"} <= exposed
    missing = sorted(exposed - set(documented()))
    assert missing == [], f"add to a table of docs/observability.md: {missing}"


def test_none_is_named_that_is_not_exposed() -> None:
    text = Metrics(CONFIG).exposition(watched(), Sums()).decode()
    said = set(re.findall(r"`(llm_proxy_\w+|process_\w+)`", PAGE))
    source = text + "".join(
        path.read_text(encoding="utf-8")
        for path in (Path(__file__).parent.parent.parent / "llm_proxy/observe").glob("*.py")
    )
    for name in said:
        last = name.removesuffix("_total").rpartition("_")[2]
        assert last in source, f"{name} is named in docs/observability.md and not exposed"
