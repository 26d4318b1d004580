"""A ledger that a newer version has used: this one goes on reading and writing it, and loses nothing that it knows."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from llm_proxy.faces.stats import _rows
from llm_proxy.observe.history import History
from llm_proxy.observe.recent import Recent
from llm_proxy.observe.tail import Feed
from llm_proxy.observe.totals import bypass_reasons, latest_calls, refusal_reasons, totals, totals_by
from llm_proxy.observe.verdicts import served_hit, verdicts
from tests.observe.events_kit import NOW_S, bypass, exact, miss, near, refused
from tests.observe.ledger_kit import Bench

EVENTS = (exact(), near(), miss(), bypass(), refused(NOW_S + 0.5))
NEWER = """
ALTER TABLE calls RENAME TO before;
CREATE TABLE calls (
  shard TEXT NOT NULL DEFAULT 'a', kind TEXT NOT NULL, status TEXT NOT NULL, caller TEXT NOT NULL DEFAULT 'nobody',
  api TEXT NOT NULL DEFAULT 'newest', at_s REAL NOT NULL, id INTEGER PRIMARY KEY, detail TEXT NOT NULL,
  model TEXT NOT NULL, backend TEXT NOT NULL, route TEXT NOT NULL, latency_s REAL NOT NULL, saved_s REAL NOT NULL,
  saved_usd REAL NOT NULL, cost_usd REAL, similarity REAL, http_status INTEGER NOT NULL, error TEXT NOT NULL,
  prompt_tokens INTEGER, completion_tokens INTEGER, is_stream INTEGER NOT NULL, region TEXT);
INSERT INTO calls (kind, status, at_s, id, detail, model, backend, route, latency_s, saved_s, saved_usd, cost_usd,
    similarity, http_status, error, prompt_tokens, completion_tokens, is_stream)
  SELECT kind, status, at_s, id, detail, model, backend, route, latency_s, saved_s, saved_usd, cost_usd, similarity,
    http_status, error, prompt_tokens, completion_tokens, is_stream FROM before;
DROP TABLE before;
ALTER TABLE semantic ADD COLUMN judge TEXT NOT NULL DEFAULT '';
ALTER TABLE callers ADD COLUMN team TEXT NOT NULL DEFAULT '';
ALTER TABLE apis ADD COLUMN version INTEGER NOT NULL DEFAULT 1;
CREATE TABLE regions (call INTEGER PRIMARY KEY, region TEXT NOT NULL);
PRAGMA user_version = 7;
"""
UNHEARD_OF = """
INSERT INTO calls (kind, status, at_s, detail, model, backend, route, latency_s, saved_s, saved_usd, http_status, error,
    is_stream)
  VALUES ('{kind}', '{status}', {at_s}, '', 'm', '', '', 0.5, 0.0, 0.0, 200, '', 0);
INSERT INTO semantic (at_s, source, key, asked, scope, route, model, similarity)
  VALUES ({at_s}, 'oracle', 'k', 'b', 's', '', 'm', 0.9);
"""


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A ledger of this version with five calls, made into a newer one's, with a call of a sort unheard of in it."""
    made = Bench(tmp_path / "ledger.sqlite3")
    for event in EVENTS:
        made.ledger(event)
    made.ledger.flush()
    with closing(sqlite3.connect(made.path)) as connection:
        connection.executescript(NEWER)
        connection.executescript(UNHEARD_OF.format(kind="", status="replayed", at_s=NOW_S + 1.0))
        connection.executescript(UNHEARD_OF.format(kind="approximate", status="hit", at_s=NOW_S + 2.0))
    return made


def test_rows_are_added_as_ever(bench: Bench) -> None:
    for event in EVENTS:
        bench.ledger(event)
    bench.ledger.flush()
    assert not bench.troubles.counts
    with closing(sqlite3.connect(bench.path)) as connection:
        found = connection.execute("SELECT id, status, shard, region FROM calls WHERE id > 7 ORDER BY id").fetchall()
        assert found == [
            (8 + place, status, "a", None) for place, status in enumerate(("hit", "hit", "miss", "bypass", "refused"))
        ]
        assert connection.execute("SELECT COUNT(*) FROM semantic WHERE source = 'served'").fetchone() == (2,)


def test_the_sums(bench: Bench) -> None:
    found = totals(bench.path)
    sorts = ("exact_hits", "semantic_hits", "misses", "bypasses", "refusals")
    assert [found[name] for name in ("calls", *sorts)] == [7, 1, 1, 1, 1, 1]
    assert found["saved_usd"] == 0.75
    assert totals_by(bench.path, "api")["chat"]["calls"] == 7
    assert totals_by(bench.path, "key")[""]["calls"] == 7
    assert {name: group["calls"] for name, group in totals_by(bench.path, "model").items()} == {"m": 6, "n": 1}
    assert bypass_reasons(bench.path) == {"temperature": 1}
    assert refusal_reasons(bench.path) == {"budget-usd": 1}
    assert len(latest_calls(bench.path, most=9)) == 1
    assert (verdicts(bench.path)[""].served, verdicts(bench.path)[""].checked) == (1, 0)
    assert served_hit(bench.path, "aaaa").key == "k" * 64


def test_the_dashboard(bench: Bench) -> None:
    history = History(bench.path, now=lambda: NOW_S + 9.0)
    history.refresh()
    view = history.view("hour")
    assert view["totals"]["calls"] == 7
    assert view["totals"]["other"] == 2
    assert [view["totals"][name] for name in ("exact", "semantic", "miss", "bypass", "refused", "served")] == [1] * 6
    feed = Feed(Recent(), bench.path)
    feed.refresh()
    shown = feed.since(0)[1]
    assert [row["status"] for row in shown] == ["hit", "hit", "miss", "bypass", "refused", "replayed", "hit"]
    assert {(row["caller"], row["api"]) for row in shown} == {("", "chat")}
    bench.ledger(exact(NOW_S + 5.0))
    bench.ledger.flush()
    history.refresh()
    assert history.total().exact == 2


def test_the_table(bench: Bench) -> None:
    table = _rows(bench.path, 0.0)
    assert len(table) == 7
    assert table[0]["status"] == "hit"
    assert table["api"] == ["chat"] * 7


def test_events_of_a_sort_unheard_of_are_counted_without_a_ledger_too() -> None:
    history = History(None, now=lambda: NOW_S)
    history(exact(status="replayed", kind=""))
    history.refresh()
    assert history.total().calls == history.total().other == 1
