"""Figures for Prometheus: what its own parser reads, names that stay few, and numbers that are the events'."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from llm_proxy.config import Config
from llm_proxy.observe.buckets import Sums
from llm_proxy.observe.events import CallEvent
from llm_proxy.observe.metrics import LATENCY_EDGES_S, Family, Metrics
from llm_proxy.observe.process import process_figures
from tests.observe.events_kit import bypass, exact, miss, near, refused

CONFIG = Config(
    backends={"main": {"base_url": "http://127.0.0.1:1/v1", "models": ["m"]}},
    routes={"auto": {"candidates": ["main/m"]}},
    aliases={"gpt": "big"},
)
STATS = dict.fromkeys(
    ("entries", "vectors", "used_bytes", "budget_bytes", "store_bytes", "evicted", "expired", "corrupt"), 7
)


def watched(*, is_open: bool = True, has_cache: bool = True, has_encoder: bool = True) -> Any:
    cache = SimpleNamespace(is_open=is_open, stats=lambda: SimpleNamespace(**STATS))
    return SimpleNamespace(
        cache=cache if has_cache else None,
        troubles=SimpleNamespace(counts=Counter(cache=2)),
        flights=[1, 2, 3],
        encoder=SimpleNamespace(is_ready=True) if has_encoder else None,
    )


def scraped(*events: CallEvent, ledger: Sums | None = None, **parts: bool) -> dict[str, Any]:
    """Values by name and labels, read by Prometheus's own parser."""
    parser = pytest.importorskip("prometheus_client.parser")
    metrics = Metrics(CONFIG)
    for event in events:
        metrics(event)
    text = metrics.exposition(watched(**parts), ledger or Sums()).decode()
    found = {}
    for family in parser.text_string_to_metric_families(text):
        assert family.documentation
        assert family.type in {"counter", "gauge", "histogram"}
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sample.labels.items())
            key = f"{sample.name}{{{labels}}}" if labels else sample.name
            assert key not in found, "a series twice"
            found[key] = sample.value
    return found


def test_calls_by_what_was_done():
    found = scraped(exact(), exact(), near(), miss(), bypass(), refused(), replace(miss(), api="embeddings"))
    name = "llm_proxy_requests_total"
    assert {key: value for key, value in found.items() if key.startswith(name)} == {
        name + "{outcome=hit,kind=exact,route=auto,model=m,backend=main,api=chat}": 2,
        name + "{outcome=hit,kind=semantic,route=auto,model=m,backend=,api=chat}": 1,
        name + "{outcome=miss,kind=,route=,model=m,backend=main,api=chat}": 1,
        name + "{outcome=miss,kind=,route=,model=m,backend=main,api=embeddings}": 1,
        name + "{outcome=bypass,kind=,route=,model=other,backend=,api=chat}": 1,
        name + "{outcome=refused,kind=,route=,model=m,backend=,api=chat}": 1,
    }
    assert found["llm_proxy_saved_usd_total"] == 1.0
    assert found["llm_proxy_saved_seconds_total"] == 5.0
    assert not any("duration" in key and "refused" in key for key in found), "nobody was waited for"
    assert found["llm_proxy_cost_usd_total"] == 0.25
    assert found["llm_proxy_tokens_total{type=output,model=m,backend=main}"] == 40


def test_latencies_add_up():
    found = scraped(exact(latency_s=0.001), exact(latency_s=0.0011), exact(latency_s=1e6))
    name = "llm_proxy_request_duration_seconds"
    assert found[name + "_bucket{outcome=hit,le=0.001}"] == 1
    assert found[name + "_bucket{outcome=hit,le=0.0025}"] == 2
    assert found[name + "_bucket{outcome=hit,le=300}"] == 2
    assert found[name + "_bucket{outcome=hit,le=+Inf}"] == found[name + "_count{outcome=hit}"] == 3
    assert found[name + "_count{outcome=miss}"] == 0


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (bypass(http_status=502), "http_5xx"),
        (bypass(http_status=429), "http_4xx"),
        (bypass(error="aborted"), "aborted"),
        (bypass(error="body-damaged"), "body"),
        (bypass(http_status=0, error="ConnectTimeout"), "connection"),
    ],
)
def test_failures_by_a_few_words(event: CallEvent, reason: str):
    assert scraped(event)[f"llm_proxy_failed_requests_total{{reason={reason}}}"] == 1


def test_callers_can_not_make_series():
    events = [miss(model=f"m{n}", route=f"r{n}", backend=f"b{n}") for n in range(300)]
    found = scraped(*events, bypass(model="big"))
    assert found["llm_proxy_requests_total{outcome=miss,kind=,route=other,model=other,backend=other,api=chat}"] == 300
    assert found["llm_proxy_requests_total{outcome=bypass,kind=,route=,model=big,backend=,api=chat}"] == 1
    assert len(found) < 100


def test_parts_and_process():
    found = scraped()
    assert found["llm_proxy_cache_used_bytes"] == found["llm_proxy_cache_evicted_total"] == 7
    assert found["llm_proxy_troubles_total{part=cache}"] == 2
    assert found["llm_proxy_flights"] == 3
    assert found["llm_proxy_encoder_up"] == 1
    assert found["process_cpu_seconds_total"] > 0
    assert found.get("process_resident_memory_bytes", 1 << 20) >= 1 << 20


def test_parts_that_are_not_there():
    assert not any("cache" in name for name in scraped(has_cache=False) if "part" not in name)
    assert not any(name.startswith("llm_proxy_cache") for name in scraped(is_open=False))
    assert "llm_proxy_encoder_up" not in scraped(has_encoder=False)


def test_what_all_processes_saw():
    sums = Sums(exact=1, semantic=2, miss=3, bypass=4, refused=7, errors=5, saved_usd=0.5, checked=6, wrong=1, undone=2)
    found = scraped(ledger=sums)
    assert found["llm_proxy_ledger_requests_total{outcome=hit,kind=semantic}"] == 2
    assert found["llm_proxy_ledger_requests_total{outcome=refused,kind=}"] == 7
    assert found["llm_proxy_ledger_failed_requests_total"] == 5
    assert found["llm_proxy_ledger_checks_total"] == 6
    assert found["llm_proxy_ledger_wrong_hits_total"] == 1
    assert found["llm_proxy_ledger_undone_total"] == 2


def test_text_that_could_break_a_line():
    family = Family("a_total", "counter", "A.")
    family.add(1.5, ("name", 'x"\n\\'))
    assert list(family.lines()) == ["# HELP a_total A.", "# TYPE a_total counter", 'a_total{name="x\\"\\n\\\\"} 1.5']
    assert list(Family("b", "gauge", "B.").lines()) == []


def test_threads_lose_no_count():
    metrics = Metrics(CONFIG)
    threads = [threading.Thread(target=lambda: [metrics(replace(miss())) for _ in range(500)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert b'outcome="miss",kind="",route="",model="m",backend="main",api="chat"} 2000' in metrics.exposition(
        watched(), Sums()
    )


def test_a_system_that_does_not_tell():
    names = [name for name, *_ in process_figures(-1)]
    assert names == ["process_cpu_seconds_total", "process_threads"]


def test_edges_rise():
    assert list(LATENCY_EDGES_S) == sorted(set(LATENCY_EDGES_S))
