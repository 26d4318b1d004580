"""The file of issued keys, how it is followed, the pace of a key, and `llm-proxy keys`."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import stat
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llm_proxy.backends.base import Ask
from llm_proxy.backends.budget import Budget
from llm_proxy.config import Config
from llm_proxy.errors import ConfigError
from llm_proxy.faces.keys import KeyBook, add, read, remove
from llm_proxy.faces.pace import Paces
from llm_proxy.holders import Holder
from llm_proxy.limits import BUDGET_NAME, keys_file
from llm_proxy.observe.events import Troubles
from llm_proxy.observe.ledger import Ledger
from llm_proxy.runtime import LEDGER_NAME
from llm_proxy.testing import FakeClock
from tests.faces.cli_kit import invoke, invoke_json, settled
from tests.observe.events_kit import miss

NOW_S = 1_700_000_000.0
ANNA = Holder("", "anna", "research")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sub" / "keys.json"


def book_of(path: Path | None, clock: FakeClock | None = None) -> tuple[KeyBook, list[Exception]]:
    clock, noted = clock or FakeClock(NOW_S), []
    return KeyBook(path, time=clock.time, monotonic=clock.monotonic, note=noted.append), noted


class TestFile:
    def test_a_key_is_random_and_only_its_hash_is_kept(self, path: Path) -> None:
        key, record = add(path, ANNA, now_s=NOW_S)
        other, _ = add(path, ANNA._replace(name="ben"), now_s=NOW_S)
        assert key.startswith("lp-")
        assert len(key) == 46
        assert key != other
        assert key not in path.read_text()
        assert record.sha256 == hashlib.sha256(key.encode()).hexdigest()
        assert record.holder == ANNA._replace(id=record.sha256[:8])
        assert read(path)[0] == record

    def test_it_is_its_owners_alone(self, path: Path) -> None:
        add(path, ANNA, now_s=NOW_S)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert sorted(found.name for found in path.parent.iterdir()) == ["keys.json", "keys.json.lock"]

    def test_a_name_holds_once(self, path: Path) -> None:
        add(path, ANNA, now_s=NOW_S)
        with pytest.raises(ConfigError, match="'anna' is there already"):
            add(path, ANNA, now_s=NOW_S)
        remove(path, "anna", now_s=NOW_S + 1)
        add(path, ANNA, now_s=NOW_S)
        assert [(record.removed_s, bool(record.sha256)) for record in read(path)] == [(NOW_S + 1, False), (None, True)]

    def test_taking_back_by_id(self, path: Path) -> None:
        _, record = add(path, ANNA, now_s=NOW_S)
        assert remove(path, record.holder.id, now_s=NOW_S) == record
        with pytest.raises(ConfigError, match="no key has the name or id 'anna'"):
            remove(path, "anna", now_s=NOW_S)

    def test_taking_back_where_none_were_issued(self, path: Path) -> None:
        with pytest.raises(ConfigError, match="no keys were issued"):
            remove(path, "anna", now_s=NOW_S)
        assert not path.parent.exists()

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "[]",
            "{",
            '{"format": 2, "keys": []}',
            '{"format": 1}',
            '{"format": 1, "keys": [{}]}',
            '{"format": 1, "keys": 7}',
            "[" * 100_000,
        ],
    )
    def test_what_is_no_file_of_keys_is_said(self, path: Path, text: str) -> None:
        path.parent.mkdir()
        path.write_text(text)
        for act in (lambda: read(path), lambda: add(path, ANNA, now_s=NOW_S), lambda: book_of(path)):
            with pytest.raises(ConfigError, match="no file of keys of this version"):
                act()
        assert path.read_text() == text

    @pytest.mark.parametrize(
        "change",
        [
            {"models": "gpt"},
            {"models": [1]},
            {"id": 1},
            {"name": "a b"},
            {"tenant": ""},
            {"usd_per_day": -1},
            {"expires_s": "never"},
            {"requests_per_minute": float("nan")},
            {"sha256": None},
        ],
    )
    def test_a_row_that_is_wrong_is_said(self, path: Path, change: dict[str, Any]) -> None:
        add(path, ANNA, now_s=NOW_S)
        found = json.loads(path.read_text())
        found["keys"][0].update(change)
        path.write_text(json.dumps(found))
        with pytest.raises(ConfigError, match="no file of keys"):
            read(path)

    def test_a_folder_in_its_place(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="can't be read"):
            read(tmp_path)

    def test_a_place_that_can_not_be_written(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(ConfigError, match="can't be written"):
            add(tmp_path / "file" / "keys.json", ANNA, now_s=NOW_S)

    def test_processes_take_turns(self, path: Path) -> None:
        context = multiprocessing.get_context("spawn")
        workers = [context.Process(target=_add_ten, args=(path, place)) for place in range(3)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert len({record.holder.name for record in read(path)}) == 30

    def test_where_it_is(self, tmp_path: Path) -> None:
        cache = {"directory": tmp_path / "cache"}
        assert keys_file(Config(cache=cache)) == tmp_path / "cache-keys.json"
        assert keys_file(Config(cache={**cache, "store": "memory"})) is None
        named = Config(cache={"store": "memory"}, server={"keys_file": str(tmp_path / "k")})
        assert keys_file(named) == tmp_path / "k"
        with pytest.raises(ConfigError, match="must be the path of a file"):
            Config(server={"keys_file": ""})


def _add_ten(path: Path, place: int) -> None:
    for number in range(10):
        add(path, ANNA._replace(name=f"key-{place}-{number}"), now_s=NOW_S)


class TestBook:
    def test_who_presents_what(self, path: Path) -> None:
        key, record = add(path, ANNA, now_s=NOW_S)
        book, _ = book_of(path)
        assert book.is_managed
        assert book.find(key.encode()) == record.holder
        for wrong in (b"", b"lp-", key.encode()[:-1], key.encode() + b"x", key.upper().encode(), b"\xff\xfe"):
            assert book.find(wrong) is None

    def test_a_hash_is_no_key(self, path: Path) -> None:
        _, record = add(path, ANNA, now_s=NOW_S)
        assert book_of(path)[0].find(record.sha256.encode()) is None

    def test_no_file_is_no_keys(self, path: Path) -> None:
        for place in (path, None):
            book, _ = book_of(place)
            assert not book.is_managed
            assert book.find(b"lp-x") is None

    def test_it_is_followed_within_a_second(self, path: Path) -> None:
        clock = FakeClock(NOW_S)
        book, noted = book_of(path, clock)
        key, record = add(path, ANNA, now_s=NOW_S)
        assert book.find(key.encode()) is None
        clock.advance(1.0)
        assert book.find(key.encode()) == record.holder
        assert book.is_managed
        remove(path, "anna", now_s=NOW_S)
        clock.advance(1.0)
        assert book.find(key.encode()) is None
        assert book.named() == {record.holder.id: record.holder}, "what it did keeps its name"
        assert noted == []

    def test_a_file_that_vanished_admits_nobody(self, path: Path) -> None:
        key, _ = add(path, ANNA, now_s=NOW_S)
        book, _ = book_of(path)
        path.unlink()
        book.refresh(is_due=True)
        assert book.find(key.encode()) is None
        assert book.is_managed

    def test_a_file_that_broke_leaves_what_is_known(self, path: Path) -> None:
        key, record = add(path, ANNA, now_s=NOW_S)
        book, noted = book_of(path)
        path.write_text("{")
        book.refresh(is_due=True)
        assert book.find(key.encode()) == record.holder
        assert [type(exc) for exc in noted] == [ConfigError]

    def test_its_time_is_over(self, path: Path) -> None:
        clock = FakeClock(NOW_S)
        key, _ = add(path, ANNA._replace(expires_s=NOW_S + 60), now_s=NOW_S)
        book, _ = book_of(path, clock)
        assert book.find(key.encode()) is not None
        clock.advance(60)
        assert book.find(key.encode()) is None


class TestModels:
    @pytest.mark.parametrize(
        ("patterns", "names", "may"),
        [
            ((), ("anything",), True),
            (("gpt-4o",), ("gpt-4o",), True),
            (("gpt-4o",), ("gpt-4o-mini",), False),
            (("gpt-*",), ("gpt-4o-mini",), True),
            (("GPT-*",), ("gpt-4o",), False),
            (("local/*",), ("local/a/b",), True),
            (("auto",), ("gpt-4o", "auto"), True),
            (("auto",), ("",), False),
        ],
    )
    def test_patterns(self, patterns: tuple[str, ...], names: tuple[str, ...], may: bool) -> None:
        assert Holder("1", "a", "a", models=patterns).may_ask(*names) is may


class TestPace:
    def paces(self, folder: Path | None, clock: FakeClock) -> Paces:
        self.noted: list[Exception] = []
        return Paces(folder, time=clock.time, note=self.noted.append)

    @pytest.mark.parametrize("is_on_disk", [True, False])
    def test_never_more_in_any_minute(self, tmp_path: Path, is_on_disk: bool) -> None:
        clock = FakeClock(NOW_S)
        paces = self.paces(tmp_path / "pace" if is_on_disk else None, clock)
        holder = Holder("12345678", "a", "a", requests_per_minute=3)
        taken = []
        for _ in range(40):
            if not paces.wait_s(holder):
                taken.append(clock.time())
            clock.advance(7.0)
        assert len(taken) == 15
        assert all(later - first >= 60.0 for first, later in zip(taken, taken[3:], strict=False))
        paces.close()

    def test_how_long_to_wait(self, tmp_path: Path) -> None:
        clock = FakeClock(NOW_S)
        paces = self.paces(tmp_path, clock)
        holder = Holder("12345678", "a", "a", requests_per_minute=1)
        assert paces.wait_s(holder) == 0.0
        clock.advance(20)
        assert paces.wait_s(holder) == pytest.approx(40.0)
        assert paces.wait_s(holder._replace(requests_per_minute=None)) == 0.0
        assert paces.wait_s(holder._replace(requests_per_minute=0)) == 60.0
        assert paces.wait_s(holder._replace(id="87654321")) == 0.0
        paces.close()

    def test_processes_count_together(self, tmp_path: Path) -> None:
        clock = FakeClock(NOW_S)
        first, second = self.paces(tmp_path, clock), self.paces(tmp_path, clock)
        holder = Holder("12345678", "a", "a", requests_per_minute=4)
        found = [one.wait_s(holder) for one in (first, second) * 3]
        assert [wait_s > 0 for wait_s in found] == [False] * 4 + [True] * 2
        first.close()
        assert self.paces(tmp_path, clock).wait_s(holder) > 0, "it outlives the process"
        second.close()

    def test_threads_of_two_processes_lose_nothing(self, tmp_path: Path) -> None:
        clock = FakeClock(NOW_S)
        holder = Holder("12345678", "a", "a", requests_per_minute=1000)
        made = [self.paces(tmp_path, clock) for _ in range(4)]
        threads = [threading.Thread(target=lambda one=one: [one.wait_s(holder) for _ in range(200)]) for one in made]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sum(made[0].wait_s(holder) == 0.0 for _ in range(300)) == 200
        for one in made:
            one.close()

    def test_a_clock_that_was_set_back_shuts_nobody_out(self, tmp_path: Path) -> None:
        clock = FakeClock(NOW_S)
        paces = self.paces(tmp_path, clock)
        holder = Holder("12345678", "a", "a", requests_per_minute=1)
        assert paces.wait_s(holder) == 0.0
        clock.advance(-3600)
        assert paces.wait_s(holder) == 0.0
        paces.close()

    def test_without_a_disk_it_goes_on_in_memory(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        paces = self.paces(tmp_path / "file" / "x", FakeClock(NOW_S))
        holder = Holder("12345678", "a", "a", requests_per_minute=1)
        assert [paces.wait_s(holder) > 0 for _ in range(2)] == [False, True]
        assert [type(exc) for exc in self.noted] == [NotADirectoryError]
        paces.close()


@pytest.fixture
def directory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with settled(monkeypatch) as found:
        yield found


class TestCommands:
    def test_add_shows_the_key_once(self, directory: Path) -> None:
        shown = invoke("keys", "add", "ci")
        assert shown.stdout.startswith("lp-")
        assert "only time" in shown.stderr
        assert shown.stdout.strip() not in json.dumps(invoke_json("keys", "ls"))

    def test_all_of_a_key(self, directory: Path) -> None:
        made = invoke_json(
            "keys", "add", "anna", "--tenant", "research", "--model", "gpt-*", "--model", "auto", "--rpm", "60",
            "--usd-per-day", "5", "--usd-per-month", "50", "--expires", "30d", "--watch",
        )  # fmt: skip
        assert hashlib.sha256(made["key"].encode()).hexdigest()[:8] == made["id"]
        [row] = invoke_json("keys", "ls")["keys"]
        assert (row["name"], row["tenant"], row["models"]) == ("anna", "research", ["gpt-*", "auto"])
        assert (row["requests_per_minute"], row["usd_per_day"], row["usd_per_month"]) == (60, 5.0, 50.0)
        assert (row["may_pass"], row["may_watch"]) == (False, True), "a budget counts no path that is passed on"
        assert row["expires_s"] == pytest.approx(row["created_s"] + 30 * 86_400, abs=5)
        text = invoke("keys", "ls").stdout
        assert "$0.00 of $5.00" in text
        assert "gpt-*, auto" in text

    def test_add_says_which_backend_is_left_without_a_key(
        self, directory: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("OPENAI_API_KEY", raising=False)
        assert "backend openai is asked without a key" in invoke("keys", "add", "ci").stderr
        monkeypatch.setenv("OPENAI_API_KEY", "sk-x")
        assert "asked without a key" not in invoke("keys", "add", "cd").stderr
        monkeypatch.setenv("LLM_PROXY_BACKENDS_UP_BASE_URL", "http://127.0.0.1:9/v1")
        monkeypatch.setenv("LLM_PROXY_BACKENDS_UP_AUTH", "caller")
        said = invoke("keys", "add", "ce").stderr
        assert "backend up is asked without a key" in said
        assert "set backends.up.api_key_env" in said

    def test_it_may_pass_where_it_is_said(self, directory: Path) -> None:
        found = [
            invoke_json("keys", "add", f"k{place}", *more)["may_pass"]
            for place, more in enumerate([[], ["--usd-per-day", "1"], ["--usd-per-day", "1", "--pass"], ["--no-pass"]])
        ]
        assert found == [True, False, True, False]

    def test_rm(self, directory: Path) -> None:
        made = invoke_json("keys", "add", "ci")
        assert invoke_json("keys", "rm", "ci") == {"id": made["id"], "name": "ci"}
        assert invoke_json("keys", "ls")["keys"] == []
        assert "No keys in" in invoke("keys", "ls").stdout
        assert [row["name"] for row in invoke_json("keys", "ls", "--all")["keys"]] == ["ci"]
        assert "taken back" in invoke("keys", "ls", "--all").stdout
        invoke("keys", "add", "ben")
        assert "is taken back" in invoke("keys", "rm", "ben").stdout

    @pytest.mark.parametrize(
        ("words", "says"),
        [
            (["add", "a b"], "a name must be"),
            (["add", "a", "--tenant", "x/y"], "a name must be"),
            (["add", "a", "--expires", "soon"], "--expires must be like"),
            (["add", "a", "--expires", "2001-01-01"], "is over already"),
            (["add", "a", "--expires", "0s"], "is over already"),
            (["rm", "nobody"], "no keys were issued"),
        ],
    )
    def test_mistakes(self, directory: Path, words: list[str], says: str) -> None:
        assert says in invoke("keys", *words, code=2).stderr

    def test_without_a_disk_there_is_no_place(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LLM_PROXY_CACHE_STORE", "memory")
        assert "set server.keys_file" in invoke("keys", "ls", code=2).stderr

    def test_what_was_spent(self, directory: Path) -> None:
        key_id = invoke_json("keys", "add", "ci", "--usd-per-day", "2")["id"]
        holder = Holder(key_id, "ci", "ci", usd_per_day=2.0)
        one = Budget(directory / BUDGET_NAME, {}, time=time.time, later=lambda call: None, note=print)
        spent = one.reserve(Ask("tenant:ci", "", "b", 0.5, 10, False, holder))
        assert spent is not None
        one.settle(spent, 0.25, 10)
        one.close()
        [row] = invoke_json("keys", "ls")["keys"]
        assert (row["usd_today"], row["usd_this_month"]) == (0.25, 0.0)

    def test_stats_name_them(self, directory: Path) -> None:
        made = invoke_json("keys", "add", "ci", "--tenant", "builds")
        ledger = Ledger(directory / LEDGER_NAME, monotonic=time.monotonic, max_rows=100, troubles=Troubles())
        for caller in (made["id"], "12ab34cd"):
            ledger(replace(miss(), caller=caller))
        ledger.close()
        groups = invoke_json("stats", "--by", "key")["groups"]
        assert {key: (group["name"], group["tenant"]) for key, group in groups.items()} == {
            made["id"]: ("ci", "builds"),
            "12ab34cd": ("", ""),
        }
        assert f"{made['id']} ci" in invoke("stats", "--by", "key").stdout
