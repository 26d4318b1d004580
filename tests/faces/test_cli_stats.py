"""``llm-proxy stats``."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from llm_proxy.errors import ConfigError
from llm_proxy.faces.cli.stats import since_s
from llm_proxy.observe.events import CallEvent, Troubles
from llm_proxy.observe.ledger import Ledger
from llm_proxy.runtime import LEDGER_NAME
from llm_proxy.types import Outcome
from tests.faces.cli_kit import invoke, invoke_json, settled

HIT = Outcome("hit", kind="exact", model="gpt-4o", saved_usd=0.25)
NEAR = Outcome("hit", kind="semantic", model="gpt-4o", route="auto", saved_usd=0.5)
MISS = Outcome("miss", model="\x1b[2Jllama", cost_usd=1_234.5)


@pytest.fixture(autouse=True)
def directory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with settled(monkeypatch) as folder:
        yield folder


@pytest.fixture
def filled(directory: Path) -> float:
    """A ledger with calls of now and of ten days ago; the time of the former."""
    now_s = time.time()
    ledger = Ledger(directory / LEDGER_NAME, monotonic=time.monotonic, max_rows=100, troubles=Troubles())
    ledger(CallEvent(now_s - 864_000, HIT, 0.001, saved_s=3.0))
    ledger(CallEvent(now_s, HIT, 0.002, saved_s=3.0))
    ledger(CallEvent(now_s, NEAR, 0.004, saved_s=7_200.0))
    ledger(CallEvent(now_s, MISS, 1.5))
    ledger(CallEvent(now_s, Outcome("bypass", detail="tools"), 0.1, http_status=500))
    ledger.close()
    return now_s


def test_the_whole_story(filled):
    shown = invoke("stats").stdout
    rows = {line[:20].strip(): line[20:].strip() for line in shown.splitlines()}
    found = {" ".join(line.split()) for line in shown.splitlines()}
    assert {
        "calls 5", "hit rate 60%", "exact 2", "semantic 1", "misses 1", "bypasses 1", "bypassed: tools 1", "errors 1",
        "saved $1.00", "spent $1,234.50", "time saved 2.0 h", "hit p50 / p99 2 ms / 4 ms",
        "miss p50 / p99 1,500 ms / 1,500 ms",
    } <= found, rows  # fmt: skip


def test_refused_calls_are_no_part_of_the_hit_rate(directory):
    ledger = Ledger(directory / LEDGER_NAME, monotonic=time.monotonic, max_rows=100, troubles=Troubles())
    refused = Outcome("refused", forward="", detail="request-too-large")
    for outcome in (HIT, HIT, MISS, refused, refused, refused):
        ledger(CallEvent(time.time(), outcome, 0.002, http_status=413 if outcome is refused else 200))
    ledger.close()
    found = {" ".join(line.split()) for line in invoke("stats").stdout.splitlines()}
    assert {"calls 6", "hit rate 67%", "refused 3", "refused: request-too-large 3"} <= found


def test_by_key(directory):
    ledger = Ledger(directory / LEDGER_NAME, monotonic=time.monotonic, max_rows=100, troubles=Troubles())
    ledger(CallEvent(time.time(), HIT, 0.002, caller="12ab34cd"))
    ledger.close()
    assert "12ab34cd" in invoke("stats", "--since", "1h", "--by", "key").stdout
    assert invoke_json("stats", "--by", "key")["groups"]["12ab34cd"]["calls"] == 1


def test_as_json(filled):
    report = invoke_json("stats")
    assert report["calls"] == 5
    assert report["bypass_reasons"] == {"tools": 1}
    assert report["since_s"] is None
    assert "groups" not in report


def test_since(filled):
    assert invoke_json("stats", "--since", "7d")["exact_hits"] == 1
    assert invoke_json("stats", "--since", "2w")["exact_hits"] == 2
    report = invoke_json("stats", "--since", "24h")
    assert report["since_s"] == pytest.approx(filled - 86_400, abs=60)


def test_by_model_route_and_day(filled):
    groups = invoke_json("stats", "--by", "model")["groups"]
    assert list(groups) == ["gpt-4o", "", "\x1b[2Jllama"]
    assert groups["gpt-4o"]["semantic_hits"] == 1
    assert set(invoke_json("stats", "--by", "route")["groups"]) == {"", "auto"}
    assert len(invoke_json("stats", "--by", "day")["groups"]) == 2
    shown = invoke("stats", "--by", "model").stdout
    assert "\x1b" not in shown
    assert "\\x1b[2Jllama" in shown
    assert invoke("stats", "--by", "day").stdout.splitlines()[0].split()[:2] == ["day", "calls"]


def test_nothing_yet(directory):
    assert invoke("stats").stdout == f"No calls yet in {directory / LEDGER_NAME}.\n"
    assert invoke("stats", "--since", "1h").stdout == f"No calls since then in {directory / LEDGER_NAME}.\n"
    assert invoke_json("stats")["calls"] == 0
    assert not directory.exists()


def test_a_file_that_is_no_ledger(directory):
    directory.mkdir()
    (directory / LEDGER_NAME).write_bytes(b"Dear aunt, " * 100)
    result = invoke("stats", code=1)
    assert "can't be read" in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(("name", "value"), [("OBSERVE_LEDGER", "false"), ("CACHE_STORE", "memory")])
def test_no_ledger_is_kept(monkeypatch, name, value):
    monkeypatch.setenv(f"LLM_PROXY_{name}", value)
    assert "no ledger is kept with these settings" in invoke("stats", code=2).stderr


@pytest.mark.parametrize(
    ("text", "before_s"),
    [("90s", 90), ("90m", 5_400), ("24h", 86_400), ("7d", 604_800), ("2w", 1_209_600), ("999999999w", 2e9)],
)
def test_spans(text, before_s):
    assert since_s(text, 2e9) == 2e9 - before_s


def test_times():
    assert since_s("2026-01-31T08:00:00+00:00", 0) == datetime(2026, 1, 31, 8, tzinfo=UTC).timestamp()
    assert since_s(" 2026-01-31 ", 0) == datetime(2026, 1, 31).timestamp()


@pytest.mark.parametrize("text", ["yesterday", "7", "d", "-7d", "7y", "9999999999w", "2026-13-01", "0001-01-01"])
def test_what_is_no_time(text):
    with pytest.raises(ConfigError, match="--since must be like 90m, 24h, 7d or"):
        since_s(text, 1.7e9)
    assert invoke("stats", "--since", text, code=2).stderr
