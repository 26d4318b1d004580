"""What the ledger keeps of semantic hits, and adds up."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from llm_proxy.errors import CacheError
from llm_proxy.observe.events import CallEvent, CheckEvent
from llm_proxy.observe.verdicts import Verdicts, check_spending, served_hit, verdicts
from llm_proxy.types import Outcome
from tests.observe.ledger_kit import MISS, Bench

NOW_S = 1_700_000_000.0


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "ledger.sqlite3")


def hit(asked: str = "a" * 64, **changes: Any) -> CallEvent:
    values: dict[str, Any] = {"key": "k" * 64, "asked": asked, "scope": "s1", "similarity": 0.97, "model": "m"}
    return CallEvent(NOW_S, Outcome("hit", "semantic", **{**values, **changes}), 0.01)


def check(is_same: bool | None, source: Any = "shadow", **changes: Any) -> CheckEvent:
    values: dict[str, Any] = {
        "at_s": NOW_S, "key": "k" * 64, "asked": "a" * 64, "scope": "s1", "route": "", "model": "m",
        "similarity": 0.97, "cost_usd": 0.25,
    }  # fmt: skip
    return CheckEvent(source=source, is_same=is_same, **{**values, **changes})


def write(bench: Bench, *events: CallEvent | CheckEvent) -> Path:
    for event in events:
        bench.ledger(event)
    bench.ledger.flush()
    return bench.path


def test_what_is_counted(bench: Bench) -> None:
    exact = CallEvent(NOW_S, Outcome("hit", "exact", similarity=1.0), 0.01)
    path = write(
        bench, MISS, exact, hit(), hit(), hit("b" * 64), check(True), check(False), check(None), check(False, "undo"),
        check(True, "explore", cost_usd=None), check(False, "explore", cost_usd=None),
        check(None, "explore", cost_usd=None),
    )  # fmt: skip
    assert verdicts(path) == {
        "": Verdicts(served=3, checked=2, wrong=1, unclear=1, undone=1, explored=2, explored_different=1, spent_usd=1.0)
    }
    assert len(bench.rows()) == 5, "checks are no calls"
    assert bench.troubles.counts == {}


def test_by_scope_route_and_model(bench: Bench) -> None:
    path = write(
        bench, hit(), hit(scope="s2", route="auto"), hit(scope="s2", model="n"), check(True, scope="s2", model="n")
    )
    assert {name: (part.served, part.checked) for name, part in verdicts(path, "scope").items()} == {
        "s2": (2, 1),
        "s1": (1, 0),
    }
    assert list(verdicts(path, "scope")) == ["s2", "s1"], "most hits first"
    assert {name: part.served for name, part in verdicts(path, "route").items()} == {"": 2, "auto": 1}
    assert {name: part.checked for name, part in verdicts(path, "model").items()} == {"m": 0, "n": 1}


def test_since(bench: Bench) -> None:
    path = write(bench, hit(), check(True), check(True, at_s=NOW_S - 10, cost_usd=1.0))
    assert verdicts(path, since_s=NOW_S)[""].checked == 1
    assert (verdicts(path, since_s=NOW_S + 1), check_spending(path, since_s=NOW_S + 1)) == ({}, 0.0)
    assert (check_spending(path, since_s=NOW_S), check_spending(path, since_s=0)) == (0.25, 1.25)


def test_nothing_was_ever_written(tmp_path: Path) -> None:
    path = tmp_path / "none"
    assert (verdicts(path), check_spending(path, since_s=0)) == ({}, 0.0)
    with pytest.raises(CacheError, match="has no semantic hit"):
        served_hit(path, "a" * 16)


def test_a_ledger_of_before_is_read_and_written(bench: Bench) -> None:
    path = write(bench, MISS)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TABLE semantic")
    assert (verdicts(path), check_spending(path, since_s=0)) == ({}, 0.0)
    write(bench, hit())
    assert verdicts(path)[""].served == 1
    assert len(bench.rows()) == 2


def test_the_oldest_go(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "ledger.sqlite3", max_rows=3)
    path = write(bench, *[hit() for _ in range(5)])
    assert verdicts(path)[""].served == 3


class TestServedHit:
    def test_the_newest_of_its_id(self, bench: Bench) -> None:
        newest = CallEvent(NOW_S + 1, hit(similarity=0.98, p_wrong=0.01, route="auto").outcome, 0.01)
        found = served_hit(write(bench, newest, hit()), " AAAA ")
        assert found == Outcome(
            "hit", "semantic", key="k" * 64, asked="a" * 64, scope="s1", route="auto", model="m", similarity=0.98,
            p_wrong=0.01,
        )  # fmt: skip

    def test_of_two_entries_the_one_served_last(self, bench: Bench) -> None:
        late = CallEvent(NOW_S + 5, hit(key="l" * 64).outcome, 0.01)
        assert served_hit(write(bench, late, hit()), "a" * 16).key == "l" * 64

    @pytest.mark.parametrize("hit_id", ["", "aaa", "%"])
    def test_too_little_is_given(self, bench: Bench, hit_id: str) -> None:
        with pytest.raises(CacheError, match="give at least 4 characters"):
            served_hit(write(bench, hit()), hit_id)

    @pytest.mark.parametrize("hit_id", ["bbbb", "%%%%", "____"])
    def test_there_is_none(self, bench: Bench, hit_id: str) -> None:
        with pytest.raises(CacheError, match="has no semantic hit with the id"):
            served_hit(write(bench, hit()), hit_id)

    def test_there_are_several(self, bench: Bench) -> None:
        with pytest.raises(CacheError, match="give more of it"):
            served_hit(write(bench, hit(), hit("aaaab")), "aaaa")

    def test_a_hit_without_a_similarity_is_written(self, bench: Bench) -> None:
        assert served_hit(write(bench, hit(similarity=None)), "aaaa").similarity == 0.0
