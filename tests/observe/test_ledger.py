"""The ledger: rows arrive, hold what the events say, and a call never notices."""

from __future__ import annotations

import math
import sqlite3
import stat
import threading
from contextlib import closing
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.observe.events import CallEvent, Troubles
from llm_proxy.observe.ledger import Ledger
from llm_proxy.observe.totals import totals
from llm_proxy.testing import FakeClock
from llm_proxy.types import Outcome, Usage
from tests.observe.ledger_kit import MISS, Bench


def test_a_row_holds_what_the_event_says(bench):
    outcome = Outcome(
        "hit", kind="semantic", detail="d", model="m", backend="b", route="r", similarity=0.97, saved_usd=0.5,
        cost_usd=0.25,
    )  # fmt: skip
    bench.ledger(
        CallEvent(1.0, outcome, 0.5, saved_s=2.0, http_status=201, usage=Usage(3, 4), is_stream=True, error="aborted")
    )
    bench.ledger(CallEvent(2.0, Outcome("bypass"), 0.1))
    bench.ledger.close()
    assert bench.rows() == [
        (1, 1.0, "hit", "semantic", "d", "m", "b", "r", 0.5, 2.0, 0.5, 0.25, 0.97, 201, "aborted", 3, 4, 1),
        (2, 2.0, "bypass", "", "", "", "", "", 0.1, 0.0, 0.0, None, None, 200, "", None, None, 0),
    ]


def test_one_timer_a_batch_and_nothing_on_disk_before(bench):
    bench.ledger(MISS)
    bench.ledger(MISS)
    assert bench.later.delays == [1.0]
    assert not bench.path.exists()
    bench.later.go_off()
    assert len(bench.rows()) == 2
    bench.ledger(MISS)
    assert bench.later.delays == [1.0, 1.0]


def test_the_timer_of_its_own_writes_without_being_asked(tmp_path):
    clock = FakeClock()
    ledger = Ledger(tmp_path / "l.sqlite3", monotonic=clock.monotonic, max_rows=10, troubles=Troubles(), flush_s=0.001)
    ledger(MISS)
    timer = ledger._timer
    assert isinstance(timer, threading.Timer)
    assert timer.daemon
    timer.join(10)
    assert totals(tmp_path / "l.sqlite3")["calls"] == 1
    ledger.close()


def test_closing_writes_and_may_be_repeated(bench):
    bench.ledger(MISS)
    bench.ledger.close()
    bench.ledger.close()
    assert not bench.later.waiting
    bench.ledger(MISS)
    bench.ledger.close()
    assert len(bench.rows()) == 2, "a late event is written too"


def test_closing_without_a_call_makes_no_file(bench):
    bench.ledger.close()
    assert not bench.path.parent.exists()


def test_only_the_owner_may_read(bench):
    bench.ledger(MISS)
    bench.ledger.flush()
    with closing(sqlite3.connect(bench.path)) as connection:  # its presence keeps the side files
        connection.execute("SELECT * FROM calls").fetchall()
        bench.ledger(MISS)
        bench.ledger.flush()
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in bench.path.parent.iterdir()}
    assert len(modes) == 3
    assert set(modes.values()) == {0o600}
    assert stat.S_IMODE(bench.path.parent.stat().st_mode) == 0o700


def test_the_oldest_rows_go(tmp_path):
    bench = Bench(tmp_path / "l.sqlite3", max_rows=3)
    for number in range(5):
        bench.ledger(CallEvent(float(number), Outcome("miss"), 0.0))
    bench.ledger.flush()
    bench.ledger(CallEvent(5.0, Outcome("miss"), 0.0))
    bench.ledger.flush()
    assert bench.rows("at_s") == [(3.0,), (4.0,), (5.0,)]


def test_a_folder_removed_meanwhile_is_made_again(bench):
    bench.ledger(MISS)
    bench.ledger.flush()
    for path in bench.path.parent.iterdir():
        path.unlink()
    bench.path.parent.rmdir()
    bench.ledger(MISS)
    bench.ledger.flush()
    assert len(bench.rows()) == 1
    assert not bench.troubles.counts


@given(
    text=st.text(st.characters(), max_size=300),
    number=st.floats(),
    count=st.integers(),
)
def test_any_event_has_a_row(tmp_path_factory, text, number, count):
    bench = Bench(tmp_path_factory.mktemp("l") / "l.sqlite3")
    outcome = Outcome("miss", detail=text, model=text, backend=text, route=text, saved_usd=number, cost_usd=number)
    bench.ledger(CallEvent(number, outcome, number, saved_s=number, usage=Usage(count, count), error=text))
    bench.ledger.close()
    assert not bench.troubles.counts
    ((model, spent, tokens),) = bench.rows("model, cost_usd, prompt_tokens")
    assert len(model) <= 200
    assert math.isfinite(spent)
    assert 0 <= tokens <= 2**53


def test_lone_surrogates_in_the_name_of_a_model(bench):
    bench.ledger(CallEvent(1.0, Outcome("miss", model="a\ud800b"), 0.1))
    bench.ledger.close()
    assert bench.rows("model") == [("a?b",)]


def test_callers_stay_with_their_calls_in_any_order(tmp_path):
    bench = Bench(tmp_path / "l.sqlite3")
    batches = (["a", "a", "", "b", "a", "b", "b"], ["", "b", "a", "é" * 300])
    for callers in batches:
        for caller in callers:
            bench.ledger(replace(MISS, caller=caller))
        bench.ledger.flush()
    with closing(sqlite3.connect(bench.path)) as connection:
        found = connection.execute("SELECT caller FROM calls LEFT JOIN callers ON call = calls.id ORDER BY calls.id")
        assert [caller for (caller,) in found] == [
            "a", "a", None, "b", "a", "b", "b", None, "b", "a", "é" * 200
        ]  # fmt: skip


def test_callers_of_calls_that_are_dropped_at_once_are_dropped_too(tmp_path):
    bench = Bench(tmp_path / "l.sqlite3", max_rows=2)
    for caller in "aabbb":
        bench.ledger(replace(MISS, caller=caller))
    bench.ledger.flush()
    with closing(sqlite3.connect(bench.path)) as connection:
        assert connection.execute("SELECT call, caller FROM callers").fetchall() == [(4, "b"), (5, "b")]
