"""What the ledger says over time: the same by its rows, by pieces of them, and by events without a ledger."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from llm_proxy.errors import CacheError
from llm_proxy.observe import history as module
from llm_proxy.observe.events import CallEvent, CheckEvent
from llm_proxy.observe.history import RANGES, History, Range
from llm_proxy.observe.totals import totals
from tests.observe.events_kit import NOW_S, bypass, exact, miss, near, refused
from tests.observe.ledger_kit import Bench

HOUR_S, DAY_S = 3_600.0, 86_400.0
AGES_S = (0.0, 61.0, HOUR_S / 2, 3 * HOUR_S, 30 * HOUR_S, 5 * DAY_S, 20 * DAY_S, 300 * DAY_S)


def some_calls() -> list[CallEvent]:
    """Calls of all kinds and ages, oldest first."""
    found = []
    for age_s in sorted(AGES_S, reverse=True):
        at_s = NOW_S - age_s
        found += [exact(at_s), near(at_s), miss(at_s), miss(at_s, 4.0), bypass(at_s), bypass(at_s, 500), refused(at_s)]
    return found


def checks(*verdicts: bool | None, source: str = "shadow") -> list[CheckEvent]:
    row = CheckEvent(NOW_S, source, "k", "a", "s", "auto", "m", 0.9, 0.01, None, 0.25)  # type: ignore[arg-type]
    return [replace(row, is_same=verdict) for verdict in verdicts]


def written(bench: Bench, events: Iterable[CallEvent | CheckEvent]) -> Path:
    for event in events:
        bench.ledger(event)
    bench.ledger.close()
    return bench.path


def followed(path: Path | None) -> History:
    history = History(path, now=lambda: NOW_S)
    history.refresh()
    return history


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PIECE", 7)


class TestSums:
    @pytest.mark.usefixtures("small_pieces")
    def test_of_all_time_are_those_of_the_ledger(self, bench: Bench):
        path = written(bench, some_calls())
        numbers, expected = followed(path).total().numbers(), totals(path)
        for name in ("calls", "errors", "saved_usd", "cost_usd", "saved_s"):
            assert numbers[name] == pytest.approx(expected[name])
        assert numbers["exact"] == expected["exact_hits"] == len(AGES_S)

    @pytest.mark.parametrize("name", RANGES)
    def test_of_a_range_are_those_of_its_slots(self, bench: Bench, name: Range):
        view = followed(written(bench, some_calls())).view(name)
        for place, kind in enumerate(("exact", "semantic", "miss", "bypass", "errors", "saved_usd", "refused")):
            assert sum(slot[place] for slot in view["slots"]) == pytest.approx(view["totals"][kind])

    @pytest.mark.parametrize("name", RANGES)
    def test_are_the_same_without_a_ledger(self, bench: Bench, name: Range):
        history = History(None, now=lambda: NOW_S)
        for event in some_calls():
            history(event)
        history.refresh()
        view, other = followed(written(bench, some_calls())).view(name), history.view(name)
        assert other["slots"] == view["slots"]
        assert other["latency"] == view["latency"]
        assert history.total().numbers() == followed(bench.path).total().numbers()

    def test_a_ledger_is_not_counted_twice(self, bench: Bench):
        history = followed(written(bench, some_calls()))
        history(exact())
        assert history.total().exact == len(AGES_S)

    def test_ranges_hold_what_they_say(self, bench: Bench):
        history = followed(written(bench, some_calls()))
        ages = {name: history.view(name)["totals"]["exact"] for name in RANGES}
        assert ages["hour"] == 3
        assert ages["all"] == len(AGES_S)
        assert ages["hour"] <= ages["day"] <= ages["week"] <= ages["all"]
        assert {name: numbers["exact"] for name, numbers in history.sums().items()} == {
            name: ages[name] for name in ("day", "week", "all")
        }

    def test_long_histories_have_few_slots(self, bench: Bench):
        view = followed(written(bench, some_calls())).view("all")
        assert len(view["slots"]) <= 60
        assert view["slot_s"] % DAY_S == 0

    def test_nothing_is_there(self, tmp_path: Path):
        view = followed(tmp_path / "none").view("all")
        assert view["totals"]["calls"] == 0
        assert view["latency"]["with"] == {"p50": None, "p90": None, "p99": None}
        assert view["mix"] == []


class TestLatency:
    def test_with_and_without(self, bench: Bench):
        events = [exact(latency_s=0.001), miss(latency_s=4.0), bypass(), bypass(http_status=500)]
        latency = followed(written(bench, events)).view("hour")["latency"]
        assert latency["with"]["p50"] == pytest.approx(0.001, rel=0.062)
        assert latency["without"]["p50"] == pytest.approx(2.001, rel=0.062), "what the answer took that was replayed"
        assert latency["upstream"]["p50"] == pytest.approx(4.0, rel=0.062)

    def test_of_what_failed_says_nothing(self, bench: Bench):
        latency = followed(written(bench, [bypass(http_status=500), bypass(error="aborted")])).view("hour")["latency"]
        assert latency["with"]["p99"] is None


class TestMix:
    def test_most_calls_first(self, bench: Bench):
        mix = followed(written(bench, [exact(), near(), miss()])).view("hour")["mix"]
        assert [(row["route"], row["model"], row["calls"], row["hits"]) for row in mix] == [
            ("auto", "m", 2, 2),
            ("", "m", 1, 0),
        ]

    def test_callers_may_name_any_model(self, bench: Bench):
        history = followed(written(bench, [miss(model=f"m{number}") for number in range(500)]))
        assert len(history.total().mix) <= 128
        assert sum(part.calls for part in history.total().mix.values()) == 500


class TestChecks:
    def test_are_told_apart(self, bench: Bench):
        events = [near(), near(), *checks(True, True, False, None), *checks(False, source="undo")]
        numbers = followed(written(bench, events)).view("hour")["totals"]
        assert [numbers[name] for name in ("served", "checked", "wrong", "unclear", "undone")] == [2, 3, 1, 1, 1]
        assert numbers["check_usd"] == pytest.approx(1.25)


class TestFollowing:
    def test_only_new_rows_are_read(self, bench: Bench):
        history = followed(written(bench, some_calls()))
        before = history.total().calls
        with closing(sqlite3.connect(bench.path)) as connection:
            connection.execute("UPDATE calls SET saved_usd = 99")
            connection.commit()
        bench.ledger(exact())
        history.refresh()
        assert history.total().calls == before + 1
        assert history.total().saved_usd < 99

    def test_a_trimmed_ledger_keeps_its_sums(self, tmp_path: Path):
        bench = Bench(tmp_path / "ledger.sqlite3", max_rows=2)
        history = followed(written(bench, [exact()]))
        for _ in range(4):
            bench.ledger(exact())
        history.refresh()
        assert history.total().exact == 3, "two that are still there, and one that was read before it went"
        assert followed(bench.path).total().exact == 2

    def test_another_ledger_in_its_place_begins_anew(self, bench: Bench):
        history = followed(written(bench, some_calls()))
        for path in bench.path.parent.glob("ledger*"):
            path.unlink()
        bench.ledger(exact())
        history.refresh()
        assert history.total().calls == 1

    def test_a_ledger_of_before_has_no_checks(self, bench: Bench):
        written(bench, [exact()])
        with closing(sqlite3.connect(bench.path)) as connection:
            connection.execute("DROP TABLE semantic")
        assert followed(bench.path).total().exact == 1

    def test_who_comes_while_another_reads_does_not_wait(self, bench: Bench):
        history = History(written(bench, [exact()]), now=lambda: NOW_S)
        with history._reading:
            history.refresh()
        assert history.total().calls == 0

    def test_what_is_no_ledger(self, tmp_path: Path):
        path = tmp_path / "ledger.sqlite3"
        path.write_text("no database at all, though it is long enough to be looked at")
        with pytest.raises(CacheError, match="can't be read"):
            followed(path)

    def test_what_is_old_is_forgotten_but_for_its_sums(self, bench: Bench):
        now_s = NOW_S
        history = History(written(bench, [exact()]), now=lambda: now_s)
        history.refresh()
        now_s += 500 * DAY_S
        history.refresh()
        assert history._minutes == history._quarters == history._days == {}
        assert history.sums()["all"]["exact"] == 1
