"""``llm-proxy cache report``, and ``cache rm --hit``, which takes a semantic hit back."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llm_proxy.cache.build import ENTRIES_NAME
from llm_proxy.cache.evidence import Observation, decode_evidence, encode_evidence
from llm_proxy.cache.stores.disk import DiskStore
from llm_proxy.observe.events import CallEvent, CheckEvent, Troubles
from llm_proxy.observe.ledger import Ledger
from llm_proxy.runtime import LEDGER_NAME
from llm_proxy.types import Outcome
from tests.faces.cli_kit import entry, invoke, invoke_json, seed, settled

KEY = entry(1).key
ASKED = "feed" * 16


@pytest.fixture(autouse=True)
def directory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with settled(monkeypatch) as folder:
        yield folder


def hit(asked: str = ASKED, **changes: Any) -> CallEvent:
    values: dict[str, Any] = {"key": KEY, "asked": asked, "scope": "5" * 64, "similarity": 0.97, "model": "gpt-4o"}
    return CallEvent(time.time(), Outcome("hit", "semantic", **{**values, **changes}), 0.01)


def check(is_same: bool | None, source: Any = "shadow", **changes: Any) -> CheckEvent:
    values: dict[str, Any] = {"scope": "5" * 64, "route": "", "model": "gpt-4o", "cost_usd": 0.0, **changes}
    return CheckEvent(time.time(), source, KEY, ASKED, similarity=0.97, is_same=is_same, **values)


def book(directory: Path, *events: CallEvent | CheckEvent) -> None:
    ledger = Ledger(directory / LEDGER_NAME, monotonic=time.monotonic, max_rows=10_000, troubles=Troubles())
    for event in events:
        ledger(event)
    ledger.close()


def lines(*arguments: str) -> list[str]:
    return [" ".join(line.split()) for line in invoke("cache", "report", *arguments).stdout.splitlines()]


class TestReport:
    def test_nothing_was_served(self) -> None:
        assert lines() == ["semantic hits served 0", "checked 0 of 0", "wrong 0 of 0 checked: no rate", "taken back 0"]

    def test_nothing_was_checked(self, directory: Path) -> None:
        book(directory, *[hit()] * 312)
        assert lines() == [
            "semantic hits served 312",
            "checked 0 of 312",
            "wrong 0 of 312 checked: no rate",
            "taken back 0",
            "Nothing is checked with these settings: set cache.check_share to have a share of hits asked again.",
        ]
        found = invoke_json("cache", "report")
        assert (found["served"], found["checked"], found["rate"], found["rate_high95"]) == (312, 0, None, None)

    def test_checks_that_are_on_are_not_recommended(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LLM_PROXY_CACHE_CHECK_SHARE", "0.1")
        book(directory, hit())
        assert lines()[-1] == "taken back 0"

    def test_a_rate_comes_with_its_interval(self, directory: Path) -> None:
        book(directory, *[hit()] * 20, *[check(True, cost_usd=0.01)] * 9, check(False), check(None))
        assert lines() == [
            "semantic hits served 20",
            "checked 10 of 20, 1 more without a verdict",
            "wrong 1: 10.00% (0.25% to 44.50%, Clopper-Pearson, 95 %)",
            "taken back 0",
            "spent on checks $0.09",
        ]
        found = invoke_json("cache", "report")
        assert (found["rate"], found["interval"]) == (0.1, "Clopper-Pearson, 95 %")
        assert (found["rate_low95"], found["rate_high95"]) == pytest.approx((0.00253, 0.44502), abs=1e-5)
        assert found["since_s"] is None

    def test_what_is_no_drawn_hit_is_counted_apart(self, directory: Path) -> None:
        book(directory, hit(), check(True), check(False, "undo"), check(True, "explore"), check(False, "explore"))
        shown = lines()
        assert shown[1:4] == [
            "checked 1 of 1",
            "wrong 0: 0.00% (0.00% to 97.50%, Clopper-Pearson, 95 %)",
            "taken back 1",
        ]
        assert shown[4] == "asked instead 1 of 2 had another answer (not served)"

    def test_by_scope(self, directory: Path) -> None:
        book(directory, hit(), hit(), check(True), hit(scope="6" * 64))
        table = lines("--by", "scope")
        assert table[0] == "scope served checked wrong and rate taken back"
        assert table[2:4] == [
            f"{'5' * 16} 2 1 0: 0.00% (0.00% to 97.50%, Clopper-Pearson, 95 %) 0",
            f"{'6' * 16} 1 0 0 of 1 checked: no rate 0",
        ]
        found = invoke_json("cache", "report", "--by", "scope")
        assert found["by"] == "scope"
        assert {name: group["served"] for name, group in found["groups"].items()} == {"5" * 64: 2, "6" * 64: 1}

    @pytest.mark.parametrize(("part", "name"), [("route", "-"), ("model", "gpt-4o")])
    def test_by_others(self, directory: Path, part: str, name: str) -> None:
        book(directory, hit())
        assert lines("--by", part)[2].startswith(f"{name} 1 0")

    def test_by_nothing_that_was_served(self) -> None:
        assert lines("--by", "model")[0] == "semantic hits served 0"

    def test_since(self, directory: Path) -> None:
        book(directory, hit())
        assert invoke_json("cache", "report", "--since", "2099-01-01T00:00")["served"] == 0
        assert invoke_json("cache", "report", "--since", "1h")["served"] == 1

    def test_no_ledger_is_kept(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LLM_PROXY_OBSERVE_LEDGER", "false")
        assert "no ledger is kept" in invoke("cache", "report", code=2).stderr


def evidence(directory: Path) -> tuple[Observation, ...]:
    store = DiskStore(directory / ENTRIES_NAME)
    try:
        return decode_evidence(store.evidence(KEY))
    finally:
        store.close()


class TestTakingBack:
    def test_the_pair_becomes_wrong_evidence(self, directory: Path) -> None:
        seed(directory, entry(1))
        book(directory, hit(similarity=0.9625))
        shown = invoke("cache", "rm", "--hit", ASKED[:16]).stdout
        assert shown == f"Taken back: entry {KEY[:12]} is no longer served to such questions.\n"
        (seen,) = evidence(directory)
        assert (seen.similarity, seen.is_same, seen.source) == (0.9625, False, "undo")
        assert "taken back 1" in lines()
        assert invoke_json("cache", "ls")["count"] == 1, "it stays for its own question"

    def test_as_data(self, directory: Path) -> None:
        seed(directory, entry(1))
        book(directory, hit())
        assert invoke_json("cache", "rm", "--hit", "feed") == {
            "taken_back": [{"entry": KEY, "asked": ASKED, "similarity": 0.97, "is_there": True}]
        }

    @pytest.mark.parametrize("has_store", [True, False])
    def test_an_entry_that_is_gone(self, directory: Path, has_store: bool) -> None:
        if has_store:
            seed(directory, entry(2))
        book(directory, hit())
        assert "is not there any more" in invoke("cache", "rm", "--hit", "feed").stdout
        assert "taken back 1" in lines()

    def test_all_or_none(self, directory: Path) -> None:
        seed(directory, entry(1))
        book(directory, hit())
        said = invoke("cache", "rm", "--hit", "feed", "dead", code=1).stderr
        assert "no semantic hit with the id 'dead'" in said
        assert evidence(directory) == ()

    def test_a_ledger_that_cannot_be_written(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        seed(directory, entry(1))
        book(directory, hit())

        def gone(self: Any, event: Any) -> None:
            shutil.rmtree(directory / LEDGER_NAME, ignore_errors=True)
            self._lose(1, OSError("read-only"))

        monkeypatch.setattr(Ledger, "__call__", gone)
        assert "could not be written to say so" in invoke("cache", "rm", "--hit", "feed", code=1).stderr
        assert len(evidence(directory)) == 1


class TestShow:
    @pytest.mark.parametrize(
        ("data", "said"),
        [
            (b"", "none"),
            (b"[", "none"),
            (encode_evidence((Observation(1.0, 0.96, None, True, "shadow"),)), "1 right"),
            (
                encode_evidence(
                    (Observation(1.0, 0.96, None, True, "shadow"), Observation(2.0, 0.9712, 0.9, False, "undo"))
                ),
                "1 right, 1 wrong (similarity 0.971)",
            ),
        ],
    )
    def test_evidence_is_shown(self, directory: Path, data: bytes, said: str) -> None:
        seed(directory, entry(1))
        store = DiskStore(directory / ENTRIES_NAME)
        store.put_evidence(KEY, data)
        store.close()
        facts = [line.split(maxsplit=1) for line in invoke("cache", "show", "0001").stdout.splitlines() if line]
        assert ["evidence", said] in facts
        found = invoke_json("cache", "show", "0001")["evidence"]
        assert len(found) == (0 if said == "none" else len(decode_evidence(data)))
