"""The dashboard's data: figures, calls, what explains one, and taking a hit back."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from llm_proxy import runtime as runtime_module
from llm_proxy.errors import CacheError
from llm_proxy.faces.dashboard import board as board_module
from llm_proxy.observe.events import CallEvent
from llm_proxy.observe.history import RANGES
from llm_proxy.observe.recent import MOST_CALLS
from llm_proxy.runtime import LEDGER_NAME
from tests.faces.asgi_kit import until
from tests.faces.dashboard.kit import TWICE, Shown, shown
from tests.observe.events_kit import miss, near


def failing(*arguments: object) -> None:
    raise CacheError("the disk is gone")


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Shown]:
    with shown(tmp_path) as found:
        yield found


@pytest.fixture
def open_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shown]:
    """A proxy that may show what was asked."""
    for module in (runtime_module, board_module):
        monkeypatch.setattr(module, "may_show_questions", lambda config: True)
    with shown(tmp_path) as found:
        yield found


class TestSummary:
    def test_counts_what_was_done(self, page: Shown):
        page.ask("one", "one", *TWICE)
        page.runtime.ledger.flush()
        found = page.get("/llm-proxy/summary?range=hour").data
        numbers = found["totals"]
        assert [numbers[name] for name in ("exact", "semantic", "miss", "bypass")] == [1, 1, 2, 0]
        assert found["sums"]["all"]["calls"] == found["sums"]["day"]["calls"] == 4
        assert found["verified"]["served"] == 1
        assert found["verified"]["rate"] is None
        assert found["latency"]["without"]["p50"] >= found["latency"]["hits"]["p50"]
        assert found["mix"][0]["model"] == "m"

    def test_tells_of_the_parts(self, page: Shown):
        page.ask("one")
        found = page.get("/llm-proxy/summary").data
        assert found["cache"]["entries"] == 1
        assert sum(entries for _, entries, _ in found["cache"]["worth"]) == 1
        assert found["cache"]["used_bytes"] == sum(held for *_, held in found["cache"]["worth"])
        assert found["settings"]["routes"] == ["auto"]
        assert found["encoder"] == "ok"
        assert found["troubles"] == {}

    @pytest.mark.parametrize("name", RANGES)
    def test_has_ranges(self, page: Shown, name: str):
        assert page.get(f"/llm-proxy/summary?range={name}").data["range"] == name

    @pytest.mark.parametrize("name", ["year", ""])
    def test_knows_no_other_range(self, page: Shown, name: str):
        reply = page.get(f"/llm-proxy/summary?range={name}")
        assert (reply.status, reply.data["error"]["type"]) == (400, "invalid_request_error")

    def test_says_how_often_checked_hits_were_wrong(self, page: Shown):
        page.runtime.emit(near())
        page.runtime.ledger.flush()
        with closing(sqlite3.connect(page.runtime.config.cache.directory / LEDGER_NAME)) as connection:
            for is_same in (1, 1, 1, 0):
                connection.execute(
                    "INSERT INTO semantic SELECT NULL, at_s, 'shadow', key, asked, scope, route, model, similarity, "
                    "p_wrong, ?, 0.01 FROM semantic WHERE source = 'served'",
                    (is_same,),
                )
            connection.commit()
        found = page.get("/llm-proxy/summary").data["verified_all"]
        assert (found["checked"], found["wrong"], found["rate"]) == (4, 1, 0.25)
        assert 0 < found["low95"] < 0.25 < found["high95"] < 1

    def test_a_ledger_that_can_not_be_read_is_one_trouble(self, page: Shown):
        page.ask("one")
        page.runtime.ledger.close()
        for path in Path(page.runtime.config.cache.directory).glob(f"{LEDGER_NAME}*"):
            path.unlink()
        (page.runtime.config.cache.directory / LEDGER_NAME).write_text("this is not a database, whatever its name is")
        assert page.get("/llm-proxy/summary").status == 200
        assert page.get("/llm-proxy/summary").data["troubles"]["dashboard"] >= 1
        assert len(page.calls()) == 1, "those of this process are known all the same"

    def test_a_cache_that_fails_is_one_trouble(self, page: Shown, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(page.runtime.cache, "stats", failing)
        found = page.get("/llm-proxy/summary").data
        assert found["cache"]["policy"] == "gdsf"
        assert "used_bytes" not in found["cache"]
        assert page.runtime.troubles.counts == {"dashboard": 1}

    def test_a_cache_that_is_not_open_yet(self, page: Shown, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(type(page.runtime.cache), "is_open", False)
        assert "used_bytes" not in page.get("/llm-proxy/summary").data["cache"]

    def test_without_a_ledger_it_counts_from_its_start(self, tmp_path: Path):
        with shown(tmp_path, cache={"store": "memory"}) as page:
            page.ask("one", "one")
            found = page.get("/llm-proxy/summary").data
            assert found["totals"]["calls"] == 2
            assert not found["settings"]["ledger"]

    def test_without_a_cache(self, tmp_path: Path):
        with shown(tmp_path, cache={"enabled": False}) as page:
            page.ask("one")
            assert page.get("/llm-proxy/summary").data["cache"] is None


def test_trouble_of_the_dashboard_is_no_trouble_of_calls(page: Shown, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(page.app._dashboard._board, "summary", lambda name: 1 / 0)
    reply = page.get("/llm-proxy/summary")
    assert (reply.status, reply.message) == (500, "the dashboard is in trouble; calls go on")
    page.ask("one")
    assert page.runtime.troubles.counts == {"dashboard": 1}


class TestCalls:
    def test_hide_what_was_asked(self, page: Shown):
        page.ask("what is my secret?")
        (row,) = page.calls()
        assert row["question"] == ""
        detail = page.get(f"/llm-proxy/calls/{row['id']}")
        assert detail.data["model"] == "m"
        assert b"secret" not in detail.body
        assert "matched" not in detail.data

    def test_are_bounded(self, page: Shown):
        for number in range(MOST_CALLS + 10):
            page.runtime.emit(miss(1_700_000_000.0 + number))
        assert len(page.calls()) == MOST_CALLS

    def test_of_other_processes_are_there_as_well(self, page: Shown, tmp_path: Path):
        with shown(tmp_path) as other:
            other.ask("one")
            other.runtime.ledger.flush()
            (row,) = page.calls()
            assert not row["is_here"]
            assert page.get(f"/llm-proxy/calls/{row['id']}").data["reason"] == ""

    def test_that_are_not_known(self, page: Shown):
        assert page.get("/llm-proxy/calls/never").status == 404
        assert page.get("/llm-proxy/elsewhere").status == 404


class TestWhatMayBeShown:
    def test_the_question_and_the_one_it_was_answered_as(self, open_page: Shown):
        row = open_page.semantic_hit()
        assert row["question"] == TWICE[1]
        found = open_page.get(f"/llm-proxy/calls/{row['id']}").data
        assert (found["question"], found["matched"]) == (TWICE[1], TWICE[0])
        assert "explanation" not in found, "no route decided"

    def test_an_entry_that_can_not_be_read(self, open_page: Shown, monkeypatch: pytest.MonkeyPatch):
        row = open_page.semantic_hit()
        monkeypatch.setattr(open_page.runtime.cache, "get", failing)
        assert open_page.get(f"/llm-proxy/calls/{row['id']}").data["matched"] is None

    def test_why_this_model(self, open_page: Shown):
        open_page.ask("Why?", model="auto")
        row = open_page.calls()[-1]
        found = open_page.get(f"/llm-proxy/calls/{row['id']}").data
        assert found["reason"] == row["reason"] != ""
        assert {option["candidate"] for option in found["explanation"]["options"]} == {"main/small", "main/m"}
        assert found["matched"] is None

    def test_a_route_that_is_gone(self, open_page: Shown):
        event = CallEvent(1.0, miss().outcome.with_changes(route="gone"), 0.5, question="Why?")
        open_page.runtime.emit(event)
        row = open_page.calls()[-1]
        assert "trouble" in open_page.get(f"/llm-proxy/calls/{row['id']}").data


class TestUndo:
    def test_takes_a_hit_back_for_good(self, page: Shown):
        row = page.semantic_hit()
        assert page.undo(row["id"]).data == {"is_there": True}
        assert [found["is_undone"] for found in page.calls() if found["kind"] == "semantic"] == [True]
        page.ask(TWICE[1])
        assert page.calls()[-1]["kind"] != "semantic"
        page.runtime.ledger.flush()
        until(lambda: page.get("/llm-proxy/summary").data["verified_all"]["undone"] == 1)

    def test_of_another_process_goes_by_the_ledger(self, page: Shown, tmp_path: Path):
        with shown(tmp_path) as other:
            other.semantic_hit()
            other.runtime.ledger.flush()
            row = next(row for row in page.calls() if row["kind"] == "semantic")
            assert page.undo(row["id"]).status == 200
            page.runtime.ledger.flush()
            assert [found["is_undone"] for found in other.calls() if found["kind"] == "semantic"] == [True]

    def test_of_what_is_no_semantic_hit(self, page: Shown):
        page.ask("one")
        reply = page.undo(page.calls()[0]["id"])
        assert (reply.status, reply.message) == (409, "only a semantic hit can be taken back")

    def test_of_a_call_that_is_not_known(self, page: Shown):
        reply = page.undo("never")
        assert reply.status == 409
        assert "cache rm --hit" in reply.message

    @pytest.mark.parametrize("body", [b"", b"[]", b'{"name": 1}', b"\xff", b"[" * 3000])
    def test_of_nonsense(self, page: Shown, body: bytes):
        reply = page.send("POST", "/llm-proxy/undo", body, x_llm_proxy_dashboard="1")
        assert reply.status == 400
        assert page.send("POST", "/llm-proxy/undo", b"x" * 5_000, x_llm_proxy_dashboard="1").status == 413
