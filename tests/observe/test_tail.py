"""The newest calls of this process and of others, each once."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from llm_proxy.observe.events import CheckEvent
from llm_proxy.observe.recent import MOST_CALLS, Recent
from llm_proxy.observe.tail import Feed
from tests.observe.events_kit import NOW_S, exact, miss, near
from tests.observe.ledger_kit import Bench

UNDO = CheckEvent(NOW_S, "undo", "k" * 64, "a" * 64, "s" * 64, "auto", "m", 0.9, 0.002, False)


def test_this_process_alone():
    recent = Recent()
    feed = Feed(recent, None)
    recent(miss())
    recent(near(NOW_S + 1))
    feed.refresh()
    number, rows = feed.since(0)
    assert [(row["status"], row["hit_id"]) for row in rows] == [("miss", ""), ("hit", "a" * 16)]
    assert rows[0]["reason"] == "cheapest"
    assert (rows[0]["prompt_tokens"], rows[1]["prompt_tokens"]) == (10, None)
    assert rows[0]["is_here"]
    assert feed.since(number) == (number, [])
    assert feed.row(rows[0]["id"]) == rows[0]
    assert feed.row("unheard of") is None


def test_a_call_of_this_process_is_there_once(bench: Bench):
    recent = Recent()
    feed = Feed(recent, bench.path)
    event = replace(near(), question="what is up?")
    recent(event)
    bench.ledger(event)
    bench.ledger(exact(NOW_S + 1))
    bench.ledger.close()
    feed.refresh()
    rows = feed.since(0)[1]
    assert [(row["is_here"], row["question"]) for row in rows] == [(True, "what is up?"), (False, "")]


def test_of_which_api_a_call_was_is_known_from_either(bench: Bench):
    event = replace(miss(), api="embeddings")
    bench.ledger(event)
    bench.ledger(exact(NOW_S + 1))
    bench.ledger.close()
    by_ledger = Feed(Recent(), bench.path)
    by_ledger.refresh()
    assert [row["api"] for row in by_ledger.since(0)[1]] == ["embeddings", "chat"]
    recent = Recent()
    recent(event)
    here = Feed(recent, None)
    here.refresh()
    assert [row["api"] for row in here.since(0)[1]] == ["embeddings"]


def test_another_process_tells_as_much_by_the_ledger(bench: Bench):
    bench.ledger(near())
    bench.ledger.close()
    feed = Feed(Recent(), bench.path)
    feed.refresh()
    row = feed.since(0)[1][0]
    assert (row["kind"], row["hit_id"], row["p_wrong"], row["is_stream"]) == ("semantic", "a" * 16, 0.002, False)
    mine = Recent()
    mine(near())
    own = Feed(mine, None)
    own.refresh()
    assert row.keys() == own.since(0)[1][0].keys()


def test_memory_comes_before_what_the_ledger_said(bench: Bench):
    """A call may be in the file a moment before it is in memory."""
    recent = Recent()
    feed = Feed(recent, bench.path)
    bench.ledger(near())
    bench.ledger.close()
    feed.refresh()
    number, _ = feed.since(0)
    recent(near())
    feed.refresh()
    assert [row["is_here"] for row in feed.since(number)[1]] == [True]
    assert len(feed.since(0)[1]) == 1


def test_only_the_newest_are_kept(bench: Bench):
    recent = Recent()
    feed = Feed(recent, bench.path)
    for number in range(MOST_CALLS):
        bench.ledger(exact(NOW_S + number))
    bench.ledger.close()
    for number in range(50):
        recent(miss(NOW_S + 1_000 + number))
    feed.refresh()
    rows = feed.since(0)[1]
    assert len(rows) == MOST_CALLS
    assert sum(row["status"] == "miss" for row in rows) == 50


def test_a_hit_that_somebody_took_back(bench: Bench):
    feed = Feed(Recent(), bench.path)
    bench.ledger(near())
    bench.ledger.close()
    feed.refresh()
    number, rows = feed.since(0)
    assert not rows[0]["is_undone"]
    bench.ledger(UNDO)
    bench.ledger(near(NOW_S + 5))
    feed.refresh()
    assert [row["is_undone"] for row in feed.since(number)[1]] == [True, True], "the later hit is of the same pair"


def test_a_hit_that_is_taken_back_here():
    recent = Recent()
    feed = Feed(recent, None)
    recent(near())
    recent(exact(NOW_S + 1))
    feed.refresh()
    number, rows = feed.since(0)
    for _ in range(2):
        feed.take_back(rows[0]["pair"])
    assert [row["is_undone"] for row in feed.since(number)[1]] == [True]


def test_another_ledger_in_its_place(bench: Bench):
    feed = Feed(Recent(), bench.path)
    for number in range(3):
        bench.ledger(exact(NOW_S + number))
    bench.ledger.close()
    feed.refresh()
    for path in bench.path.parent.glob("ledger*"):
        path.unlink()
    bench.ledger(exact(NOW_S + 9))
    feed.refresh()
    assert len(feed.since(0)[1]) == 4


def test_a_ledger_of_before(bench: Bench, tmp_path: Path):
    bench.ledger(near())
    bench.ledger.close()
    with closing(sqlite3.connect(bench.path)) as connection:
        connection.execute("DROP TABLE semantic")
    feed = Feed(Recent(), bench.path)
    feed.refresh()
    assert feed.since(0)[1][0]["hit_id"] == ""
    absent = Feed(Recent(), tmp_path / "none")
    absent.refresh()
    assert absent.since(0) == (0, [])
