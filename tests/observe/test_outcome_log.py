"""The log of outcomes: what is written, what goes first, who may read it, and that a call never notices."""

from __future__ import annotations

import math
import sqlite3
import stat
import threading
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llm_proxy.encode.base import Encoding
from llm_proxy.errors import CacheError, LLMProxyError
from llm_proxy.observe import outcomes as module
from llm_proxy.observe.events import GradeEvent, HitEvent, RoutedEvent, Troubles
from llm_proxy.observe.outcome_rows import asked_of_both, calls_of, comparison_spending, logged, standings
from llm_proxy.observe.outcomes import FORMAT, Kept, Known, OutcomeLog
from llm_proxy.testing import FakeClock
from llm_proxy.types import Usage
from tests.observe.ledger_kit import Later

DAY_S = 86_400
ALL = Kept(rows=1000, days=30.0, size_bytes=1 << 30)
SECRET = "what is my secret?"


class Encoder:
    """Says of every text the same; or fails."""

    name = "later@1"
    is_ready = True

    def __init__(self, error: LLMProxyError | None = None) -> None:
        self.error, self.asked = error, list[str]()

    def encode(self, text: str) -> Encoding:
        self.asked.append(text)
        if self.error is not None:
            raise self.error
        return Encoding(np.array([0.0, 1.0], np.float32), len(text))


class Desk:
    """A log with its clock, timers and troubles."""

    def __init__(self, path: Path, kept: Kept = ALL, encoder: Any = None) -> None:
        self.path, self.clock, self.later, self.troubles = path, FakeClock(), Later(), Troubles()
        self.log = OutcomeLog(
            path,
            kept,
            clock=self.clock,
            troubles=self.troubles,
            features=lambda text: (float(len(text)), 0.5),
            encoder=encoder,
            later=self.later,
        )

    def call(self, call_id: str, **changes: Any) -> None:
        event = RoutedEvent(
            at_s=self.clock.time(),
            call_id=call_id,
            owner="owner",
            route="auto",
            candidates=("b/small", "b/large"),
            backend="b",
            model="small",
            question=SECRET,
            encoder="e@1",
            vector=np.array([0.6, 0.8], np.float32),
            layers=np.array([1.5], np.float32),
            usage=Usage(7, 9),
            cost_usd=0.25,
        )
        self.log(replace(event, **changes))

    def grade(self, call_id: str, score: float | None = 1.0, **changes: Any) -> None:
        event = GradeEvent(self.clock.time(), call_id, "auto", "b", "small", "feedback", score)
        self.log(replace(event, **changes))

    def ids(self, table: str = "calls") -> set[str]:
        with closing(sqlite3.connect(self.path)) as connection:
            return {row[0] for row in connection.execute(f"SELECT * FROM {table}")}


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path / "cache" / "outcomes.sqlite3")


class TestWritten:
    def test_a_call_and_what_became_of_it(self, desk: Desk) -> None:
        desk.call("r1")
        desk.grade("r1", 0.5)
        desk.grade("r1", 1.0, model="large", source="comparison", completion_tokens=3, cost_usd=0.5, spent_usd=0.75)
        desk.call("r2")
        desk.log.close()
        (row,) = logged(desk.path)
        assert (row.call_id, row.route, row.candidates) == ("r1", "auto", ("b/small", "b/large"))
        assert (row.backend, row.model, row.encoder, row.chars, row.prompt) == ("b", "small", "e@1", len(SECRET), None)
        assert (row.prompt_tokens, row.completion_tokens, row.cost_usd) == (7, 9, 0.25)
        assert np.frombuffer(row.vector or b"", "<f2").tolist() == pytest.approx([0.6, 0.8], abs=1e-3)
        assert np.frombuffer(row.layers or b"", "<f2").tolist() == [1.5]
        assert np.frombuffer(row.features or b"", "<f2").tolist() == [len(SECRET), 0.5]
        assert {(one.model, one.source, one.score, one.completion_tokens, one.cost_usd) for one in row.grades} == {
            ("small", "feedback", 0.5, None, None),
            ("large", "comparison", 1.0, 3, 0.5),
        }
        assert [one.call_id for one in logged(desk.path, only_graded=False)] == ["r1", "r2"]
        assert list(logged(desk.path, route="other")) == []
        assert list(logged(desk.path, since_s=desk.clock.time())) == []

    def test_no_prompt_and_no_owner_in_clear(self, desk: Desk) -> None:
        desk.call("r1")
        desk.log.close()
        assert b"secret" not in desk.path.read_bytes()

    def test_prompts_where_they_are_wanted(self, tmp_path: Path) -> None:
        desk = Desk(tmp_path / "o.sqlite3", replace(ALL, has_prompts=True))
        desk.call("r1")
        desk.call("r2", question="x" * 9000 + "\ud800")
        desk.log.close()
        prompts = [row.prompt for row in logged(desk.path, only_graded=False)]
        assert prompts == [SECRET, "x" * 8000]

    def test_only_its_owner_may_read_it(self, desk: Desk) -> None:
        desk.call("r1")
        desk.log.close()
        assert stat.S_IMODE(desk.path.stat().st_mode) == 0o600

    def test_what_comes_later_replaces(self, desk: Desk) -> None:
        desk.call("r1")
        desk.grade("r1", 1.0)
        desk.log.flush()
        desk.grade("r1", 0.0)
        desk.log.close()
        (row,) = logged(desk.path)
        assert [one.score for one in row.grades] == [0.0]

    def test_an_outcome_of_nothing_that_is_known(self, desk: Desk) -> None:
        desk.call("r1")
        desk.grade("r2")
        desk.log.close()
        assert desk.ids("outcomes") == set()

    def test_a_comparison_that_tells_nothing_is_paid_for(self, desk: Desk) -> None:
        desk.call("r1")
        desk.grade("r1", None, model="", source="comparison", spent_usd=0.5)
        desk.clock.advance(DAY_S)
        desk.grade("r1", None, model="", source="comparison", spent_usd=0.25)
        desk.log.close()
        assert list(logged(desk.path)) == []
        assert comparison_spending(desk.path, "auto", desk.clock.time()) == 0.25
        assert comparison_spending(desk.path, "auto", desk.clock.time() - DAY_S) == 0.75
        assert comparison_spending(desk.path, "other", 0.0) == 0.0

    def test_numbers_of_any_size(self, desk: Desk) -> None:
        desk.call("r1", usage=Usage(1 << 80, -5), cost_usd=math.nan, layers=np.array([1e30, -1e30], np.float32))
        desk.grade("r1", 1.0, cost_usd=math.inf)
        desk.log.close()
        (row,) = logged(desk.path)
        assert (row.prompt_tokens, row.completion_tokens, row.cost_usd) == (1 << 53, 0, None)
        assert np.isfinite(np.frombuffer(row.layers or b"", "<f2")).all()
        assert not desk.troubles.counts

    def test_without_numpy(self, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(__import__("sys").modules, "numpy", None)
        desk.call("r1", vector=None, layers=None)
        desk.log.close()
        assert calls_of(desk.path) == [("auto", "b", "small", 1, 0)]


class TestEncodedLater:
    def test_what_its_call_did_not_need(self, tmp_path: Path) -> None:
        encoder = Encoder()
        desk = Desk(tmp_path / "o.sqlite3", encoder=encoder)
        desk.call("r1", vector=None, encoder="")
        desk.call("r2", vector=None, encoder="", question=" ")
        desk.call("r3")
        desk.log.flush()
        rows = {row.call_id: row for row in logged(desk.path, only_graded=False)}
        assert (rows["r1"].encoder, np.frombuffer(rows["r1"].vector or b"", "<f2").tolist()) == ("later@1", [0.0, 1.0])
        assert (rows["r2"].encoder, rows["r2"].vector) == ("", None)
        assert encoder.asked == [SECRET]

    def test_an_encoder_that_fails(self, tmp_path: Path) -> None:
        desk = Desk(tmp_path / "o.sqlite3", encoder=Encoder(LLMProxyError("no")))
        desk.call("r1", vector=None)
        desk.log.flush()
        assert desk.troubles.counts == {"encoder": 1}
        assert calls_of(desk.path) == [("auto", "b", "small", 1, 0)]

    def test_none_is_loaded_to_end_with(self, tmp_path: Path) -> None:
        encoder = Encoder()
        encoder.is_ready = False
        desk = Desk(tmp_path / "o.sqlite3", encoder=encoder)
        desk.call("r1", vector=None)
        desk.log.close()
        assert encoder.asked == []
        desk = Desk(tmp_path / "p.sqlite3", encoder=encoder)
        desk.call("r1", vector=None)
        desk.log.flush()
        assert encoder.asked == [SECRET], "while it runs there is time"


class TestKept:
    def test_the_oldest_go_first_and_those_of_which_nothing_is_known_before(self, tmp_path: Path) -> None:
        desk = Desk(tmp_path / "o.sqlite3", replace(ALL, rows=8))
        for at in range(12):
            desk.clock.advance(1.0)
            desk.call(f"r{at}")
            if at < 5:
                desk.grade(f"r{at}")
        desk.log.flush()
        assert desk.ids() == {"r0", "r1", "r2", "r3", "r4", "r9", "r10", "r11"}
        for at in range(12, 20):
            desk.clock.advance(1.0)
            desk.call(f"r{at}")
            desk.grade(f"r{at}")
        desk.log.flush()
        assert desk.ids() == {"r10", "r11", *(f"r{at}" for at in range(14, 20))}, "two wait, as a quarter may"
        assert desk.ids("outcomes") == {f"r{at}" for at in range(14, 20)}

    def test_bytes(self, tmp_path: Path) -> None:
        desk = Desk(tmp_path / "o.sqlite3", replace(ALL, size_bytes=4000))
        for at in range(30):
            desk.clock.advance(1.0)
            desk.call(f"r{at}")
        desk.log.flush()
        assert 5 < len(desk.ids()) <= 4000 // 300
        assert "r29" in desk.ids()

    def test_days(self, tmp_path: Path) -> None:
        desk = Desk(tmp_path / "o.sqlite3", replace(ALL, days=2.0))
        desk.call("r1")
        desk.grade("r1", spent_usd=1.0)
        desk.log(HitEvent(desk.clock.time(), "a" * 16, "owner"))
        desk.log.flush()
        desk.clock.advance(5 * DAY_S)
        desk.call("r2")
        desk.log.flush()
        assert (desk.ids(), desk.ids("hits"), desk.ids("outcomes"), desk.ids("spending")) == (
            {"r2"}, set(), set(), set(),
        )  # fmt: skip

    def test_nothing_is_left_of_what_went(self, tmp_path: Path) -> None:
        desk = Desk(tmp_path / "o.sqlite3", replace(ALL, has_prompts=True))
        desk.call("r1")
        desk.log.flush()
        assert b"secret" in desk.path.read_bytes()
        desk.clock.advance(31 * DAY_S)
        desk.call("r2", question="nothing to hide")
        desk.log.flush()
        assert b"secret" not in desk.path.read_bytes()

    def test_hits(self, tmp_path: Path) -> None:
        desk = Desk(tmp_path / "o.sqlite3", replace(ALL, rows=3))
        for at in range(6):
            desk.clock.advance(1.0)
            desk.log(HitEvent(desk.clock.time(), f"{at}" * 16, "owner"))
        desk.log.flush()
        assert desk.ids("hits") == {f"{at}" * 16 for at in (2, 3, 4, 5)}


class TestFound:
    def test_a_call_that_is_not_written_yet(self, desk: Desk) -> None:
        desk.call("r1")
        assert desk.log.find("r1") == Known("owner", "auto", "b", "small")
        assert not desk.later.waiting

    def test_a_call_that_another_thread_is_writing(self, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
        is_writing, may_go_on, real = threading.Event(), threading.Event(), desk.log._write

        def write(events: Any, *, busy_s: float) -> None:
            is_writing.set()
            assert may_go_on.wait(30)
            real(events, busy_s=busy_s)

        monkeypatch.setattr(desk.log, "_write", write)
        desk.call("r1")
        timer = threading.Thread(target=desk.log.flush)
        timer.start()
        assert is_writing.wait(30)
        found: list[Any] = []
        finder = threading.Thread(target=lambda: found.append(desk.log.find("r1")))
        finder.start()
        may_go_on.set()
        timer.join(30)
        finder.join(30)
        assert found == [Known("owner", "auto", "b", "small")]

    def test_a_hit(self, desk: Desk) -> None:
        desk.log(HitEvent(desk.clock.time(), "a" * 16, "somebody"))
        assert desk.log.find("a" * 16) == Known("somebody")

    def test_nothing(self, desk: Desk) -> None:
        assert desk.log.find("r1") is None
        desk.path.parent.mkdir(parents=True)
        desk.path.touch()
        assert desk.log.find("r1") is None
        desk.call("r2")
        assert desk.log.find("r1") is None

    def test_what_is_no_such_file(self, desk: Desk) -> None:
        desk.path.parent.mkdir(parents=True)
        desk.path.write_bytes(b"This is a letter to my aunt. " * 100)
        with pytest.raises(CacheError, match="can't be read"):
            desk.log.find("r1")


class TestFormat:
    def spoilt(self, desk: Desk, statement: str) -> None:
        desk.call("r1")
        desk.log.flush()
        with closing(sqlite3.connect(desk.path)) as connection:
            connection.execute(statement)
            connection.commit()

    @pytest.mark.parametrize(
        ("statement", "said"),
        [
            (f"PRAGMA user_version = {FORMAT + 1}", f"has format {FORMAT + 1}"),
            ("PRAGMA application_id = 7", "no log of outcomes"),
        ],
    )
    def test_a_newer_ones_or_another_programs_is_refused(self, desk: Desk, statement: str, said: str) -> None:
        self.spoilt(desk, statement)
        for read in (logged, standings, calls_of, asked_of_both):
            with pytest.raises(CacheError, match=said):
                list(read(desk.path))
        with pytest.raises(CacheError, match=said):
            desk.log.find("r1")
        desk.call("r2")
        desk.log.flush()
        assert desk.troubles.counts == {"outcomes": 1}

    def test_rows_that_somebody_else_wrote(self, desk: Desk) -> None:
        self.spoilt(desk, "UPDATE calls SET candidates = '[', is_graded = 1")
        with pytest.raises(CacheError, match="can't be read"):
            list(logged(desk.path))

    def test_another_process_is_faster_between_two_looks(self, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
        looks, real = [], module.check_format

        def look(connection: Any, path: Path) -> bool:
            looks.append(1)
            if len(looks) == 1:
                with closing(sqlite3.connect(path, isolation_level=None)) as other:
                    module._lay_out(other, path)
                return False
            return real(connection, path)

        monkeypatch.setattr(module, "check_format", look)
        desk.call("r1")
        desk.log.flush()
        assert not desk.troubles.counts
        assert desk.ids() == {"r1"}

    def test_none_yet(self, tmp_path: Path) -> None:
        path = tmp_path / "none"
        assert (list(logged(path)), standings(path), calls_of(path), asked_of_both(path)) == ([], [], [], [])
        assert comparison_spending(path, "auto", 0.0) == 0.0


def test_what_there_is_of_each_model(desk: Desk) -> None:
    for at in range(3):
        desk.call(f"r{at}")
        desk.grade(f"r{at}", at / 2)
    desk.grade("r0", 1.0, model="large", source="comparison")
    desk.grade("r1", 1.0, model="large", source="comparison")
    desk.log.flush()
    found = standings(desk.path)
    assert [(one.model, one.source, one.count, one.mean_score) for one in found] == [
        ("small", "feedback", 3, 0.5),
        ("large", "comparison", 2, 1.0),
    ]
    assert asked_of_both(desk.path) == [("b/large", "b/small", 2)]
    assert standings(desk.path, route="other") == []
    assert calls_of(desk.path) == [("auto", "b", "small", 3, 3)]
