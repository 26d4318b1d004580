"""Sums over the ledger."""

from __future__ import annotations

import sqlite3
import statistics
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_proxy.errors import CacheError
from llm_proxy.observe.events import CallEvent, Troubles
from llm_proxy.observe.ledger import Ledger
from llm_proxy.observe.totals import bypass_reasons, latest_calls, refusal_reasons, totals, totals_by
from llm_proxy.types import Outcome, Usage
from tests.privileges import unprivileged

DAY_S = 86_400.0
NOON = time.mktime((2026, 3, 1, 12, 0, 0, 0, 0, -1))


def written(path: Path, *events: CallEvent) -> Path:
    troubles = Troubles()
    ledger = Ledger(path, monotonic=time.monotonic, max_rows=10**6, troubles=troubles)
    for event in events:
        ledger(event)
    ledger.close()
    assert not troubles.counts
    return path


def hit(at_s: float = NOON, kind: Any = "exact", latency_s: float = 0.001, **more: Any) -> CallEvent:
    outcome = Outcome("hit", kind=kind, model=more.pop("model", "m"), route=more.pop("route", ""), saved_usd=0.01)
    return CallEvent(at_s, outcome, latency_s, saved_s=0.5, **more)


def miss(at_s: float = NOON, latency_s: float = 0.5, **more: Any) -> CallEvent:
    outcome = Outcome(
        "miss", model=more.pop("model", "m"), route=more.pop("route", ""), cost_usd=more.pop("cost", 0.02)
    )
    return CallEvent(at_s, outcome, latency_s, **more)


def refused(detail: str) -> CallEvent:
    return CallEvent(NOON, Outcome("refused", forward="", detail=detail), 0.001, http_status=429)


def bypass(detail: str) -> CallEvent:
    return CallEvent(NOON, Outcome("bypass", detail=detail), 0.1)


def test_everything_is_added_up(tmp_path):
    path = written(
        tmp_path / "l.sqlite3",
        hit(), hit(kind="semantic", latency_s=0.003), hit(latency_s=0.002),
        miss(), miss(cost=None), miss(latency_s=9.0, error="aborted"), miss(latency_s=9.0, http_status=500),
        bypass("temperature"), bypass("temperature"), bypass("tools"), refused("budget-usd"),
    )  # fmt: skip
    assert totals(path) == pytest.approx({
        "calls": 11, "exact_hits": 2, "semantic_hits": 1, "misses": 4, "bypasses": 3, "refusals": 1, "errors": 3,
        "saved_usd": 0.03,
        "cost_usd": 0.06, "saved_s": 1.5, "hit_p50_s": 0.002, "hit_p99_s": 0.003, "miss_p50_s": 0.5, "miss_p99_s": 0.5,
    })  # fmt: skip
    assert bypass_reasons(path) == {"temperature": 2, "tools": 1}
    assert list(bypass_reasons(path)) == ["temperature", "tools"]
    assert refusal_reasons(path) == {"budget-usd": 1}


def test_what_is_of_one_call_only_makes_no_reason_of_its_own(tmp_path):
    details = [f"not-cached; refused=similarity; similarity=0.{share}" for share in (448, 489)]
    path = written(tmp_path / "l.sqlite3", *map(refused, ["not-cached", *details, "queue-full"]))
    assert refusal_reasons(path) == {"not-cached": 3, "queue-full": 1}


def test_since(tmp_path):
    path = written(tmp_path / "l.sqlite3", hit(NOON - DAY_S), hit(NOON), bypass("x"))
    assert totals(path, since_s=NOON)["exact_hits"] == 1
    assert totals(path, since_s=NOON + 1)["calls"] == 0
    assert bypass_reasons(path, since_s=NOON + 1) == {}


def test_by_model_and_route_most_calls_first(tmp_path):
    path = written(
        tmp_path / "l.sqlite3", miss(model="b", route="auto"), hit(model="a"), miss(model="b"), hit(model="c")
    )
    groups = totals_by(path, "model")
    assert {name: group["calls"] for name, group in groups.items()} == {"b": 2, "a": 1, "c": 1}
    assert list(groups) == ["b", "a", "c"]
    assert (groups["b"]["miss_p50_s"], groups["b"]["hit_p50_s"]) == (0.5, 0.0)
    assert {name: group["calls"] for name, group in totals_by(path, "route").items()} == {"": 3, "auto": 1}


def test_by_key_most_calls_first(tmp_path):
    path = written(
        tmp_path / "l", hit(caller="aaaa1111"), hit(caller="bbbb2222"), hit(caller="aaaa1111", latency_s=0.003), hit()
    )
    found = totals_by(path, "key")
    assert {name: sums["calls"] for name, sums in found.items()} == {"aaaa1111": 2, "": 1, "bbbb2222": 1}
    assert next(iter(found)) == "aaaa1111"
    assert found["aaaa1111"]["hit_p99_s"] == 0.003


def test_a_ledger_of_before_knows_no_keys(tmp_path):
    path = written(tmp_path / "l", hit(caller="aaaa1111"))
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TABLE callers")
    assert list(totals_by(path, "key")) == [""]
    assert list(totals_by(written(path, hit(caller="cccc3333")), "key")) == ["", "cccc3333"]


def test_who_called_goes_with_the_call(tmp_path):
    troubles = Troubles()
    path = tmp_path / "l"
    ledger = Ledger(path, monotonic=time.monotonic, max_rows=2, troubles=troubles)
    ledger.close()  # from now on each event is written at once
    for number in range(5):
        ledger(hit(caller=f"{number:08x}"))
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT caller FROM callers ORDER BY call").fetchall() == [
            ("00000003",),
            ("00000004",),
        ]
        joined = connection.execute("SELECT COUNT(*) FROM calls JOIN callers ON call = id").fetchone()
    assert joined == (2,)


def test_by_api(tmp_path):
    embedding, response = replace(hit(), api="embeddings"), replace(hit(), api="responses")
    path = written(tmp_path / "l", hit(), embedding, hit(), response, embedding, embedding)
    found = {name: sums["calls"] for name, sums in totals_by(path, "api").items()}
    assert found == {"embeddings": 3, "chat": 2, "responses": 1}
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT COUNT(*) FROM apis").fetchone() == (4,), "most calls are of chat, unwritten"
        connection.execute("DROP TABLE apis")
    assert list(totals_by(path, "api")) == ["chat"], "a ledger of before knows one"
    written(path, embedding)
    assert {name: sums["calls"] for name, sums in totals_by(path, "api").items()} == {"chat": 6, "embeddings": 1}


def test_by_local_day_earliest_first(tmp_path):
    path = written(tmp_path / "l.sqlite3", hit(NOON), hit(NOON - DAY_S), hit(NOON))
    groups = totals_by(path, "day")
    assert {name: group["calls"] for name, group in groups.items()} == {"2026-02-28": 1, "2026-03-01": 2}
    assert totals_by(path, "day", since_s=NOON).keys() == {"2026-03-01"}


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0.0, 100.0), min_size=1, max_size=120))
def test_percentiles_are_nearest_ranks(tmp_path_factory, latencies):
    path = written(tmp_path_factory.mktemp("l") / "l.sqlite3", *(hit(latency_s=value) for value in latencies))
    found = totals(path)
    ordered = sorted(latencies)
    assert found["hit_p50_s"] == statistics.median_low(ordered)
    assert found["hit_p99_s"] == ordered[-(len(ordered) // 100) - 1]


def test_no_file_or_no_row_is_nothing(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "empty.sqlite3").write_bytes(b"")
    for path in (tmp_path / "absent.sqlite3", tmp_path / "file" / "l.sqlite3", tmp_path / "empty.sqlite3"):
        assert set(totals(path).values()) == {0}
        assert (totals_by(path, "model"), bypass_reasons(path)) == ({}, {})
    assert not (tmp_path / "absent.sqlite3").exists(), "reading makes nothing"


def test_what_is_no_ledger_is_said(tmp_path):
    (tmp_path / "letter").write_bytes(b"Dear aunt, " * 200)
    (tmp_path / "folder").mkdir()
    with closing(sqlite3.connect(tmp_path / "foreign")) as connection:
        connection.execute("CREATE TABLE other (x)")
    for name in ("letter", "folder", "foreign"):
        with pytest.raises(CacheError, match=f"{name} can't be read: .*; move it away"):
            totals(tmp_path / name)


def test_a_file_in_a_folder_that_may_not_be_entered(open_folder):
    path = written(open_folder / "inner" / "l.sqlite3", hit())
    path.parent.chmod(0o600)
    with unprivileged(), pytest.raises(CacheError, match="can't be read: Permission denied"):
        totals(path)


@pytest.mark.parametrize("name", ["l.sqlite3", "what? #1 100%.sqlite3"])
def test_any_name_will_do(tmp_path, name):
    assert totals(written(tmp_path / name, hit()))["calls"] == 1


def test_a_folder_that_may_not_be_written(open_folder):
    path = written(open_folder / "l.sqlite3", hit())
    path.chmod(0o644)
    open_folder.chmod(0o555)
    with unprivileged():
        assert totals(path)["calls"] == 1


def test_a_folder_that_may_not_be_written_while_another_writes(open_folder):
    path = written(open_folder / "l.sqlite3", hit())
    path.chmod(0o644)
    with closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.execute("UPDATE calls SET model = 'x'")
        open_folder.chmod(0o555)
        with unprivileged():
            assert totals(path)["calls"] == 1


def test_rows_that_may_not_be_read_are_not_passed_over(open_folder):
    """The side file holds rows: reading the main file alone would be wrong."""
    path = written(open_folder / "l.sqlite3", hit())
    path.chmod(0o644)
    with closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.execute("UPDATE calls SET model = 'x'")
        for side in open_folder.glob("*-*"):
            side.chmod(0o600)
        open_folder.chmod(0o555)
        with unprivileged(), pytest.raises(CacheError, match="can't be read"):
            totals(path)


def test_a_reader_does_not_hold_a_writer_up(tmp_path):
    path = written(tmp_path / "l.sqlite3", hit())
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT COUNT(*) FROM calls").fetchone()
        written(path, hit())
    assert totals(path)["calls"] == 2


def test_prompts_and_keys_have_no_column(tmp_path):
    path = written(tmp_path / "l.sqlite3", hit())
    with closing(sqlite3.connect(path)) as connection:
        columns = {row[1] for row in connection.execute("PRAGMA table_info(calls)")}
    assert not columns & {"prompt", "messages", "text", "completion", "answer", "api_key", "headers", "tenant", "key"}


class TestLatestCalls:
    def test_what_was_answered_upstream_with_counts(self, tmp_path: Path) -> None:
        def call(model: str, **more: Any) -> CallEvent:
            fields = {"usage": Usage(10, 20), **more}
            return CallEvent(NOON, Outcome("miss", model=model, backend="own"), 0.5, **fields)

        path = written(
            tmp_path / "ledger.sqlite3",
            *(
                call("old"),
                call("new"),
                call("none", usage=None),
                call("bad", http_status=500),
                call("torn", error="x"),
            ),
            hit(),
        )
        old, new = (("own", model, 10, 20, 0.5) for model in ("old", "new"))
        assert latest_calls(path, most=9) == [old, new]
        assert latest_calls(path, most=1) == [new]

    def test_no_ledger_and_no_ledger_of_ours(self, tmp_path: Path) -> None:
        assert latest_calls(tmp_path / "absent", most=9) == []
        (tmp_path / "other").write_bytes(b"what is it" * 99)
        with pytest.raises(CacheError, match="can't be read"):
            latest_calls(tmp_path / "other", most=9)
