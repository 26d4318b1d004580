"""What may be spent: exact among threads and processes, given back by the dead, out of the way when it is broken."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from llm_proxy.backends import owners
from llm_proxy.backends.base import Ask
from llm_proxy.backends.budget import Budget, accounts
from llm_proxy.config import BudgetLimit
from llm_proxy.errors import CacheError, ConfigError, LimitReached
from llm_proxy.holders import Holder
from llm_proxy.testing import FakeClock

NOON_S = 1_769_860_800.0  # 2026-01-31 12:00 UTC
DAY_S = 86_400.0


def ask(usd: float = 1.0, tokens: int = 100, **more: Any) -> Ask:
    return Ask(
        **{"tenant": "key:1", "route": "", "backend": "b", "usd": usd, "tokens": tokens, "is_free": False, **more}
    )


def budget(path: Path | None = None, clock: FakeClock | None = None, **limits: Any) -> Budget:
    sections = {name: BudgetLimit(**limit) for name, limit in limits.items()}
    noted: list[Exception] = []
    made = Budget(path, sections, time=(clock or FakeClock(NOON_S)).time, later=lambda call: None, note=noted.append)
    made.noted = noted  # type: ignore[attr-defined]
    return made


def passes(one: Budget, asked: Ask) -> bool:
    try:
        one.reserve(asked)
    except LimitReached:
        return False
    return True


def test_reserved_then_settled(tmp_path: Path) -> None:
    path = tmp_path / "new" / "budget.sqlite3"
    one = budget(path, all={"usd_per_day": 2.0, "tokens_per_month": 1000})
    first = one.reserve(ask())
    second = one.reserve(ask())
    with pytest.raises(
        LimitReached, match=r"'all' of the budget \(total, 2026-01-31 UTC\) has no room: of \$2"
    ) as caught:
        one.reserve(ask())
    assert "$0 is spent and $2 reserved, and this call may take $1" in str(caught.value)
    assert (caught.value.code, caught.value.retry_after_s) == ("budget_exceeded", None)
    one.settle(first, 0.25, 40)
    third = one.reserve(ask(0.75))
    assert not passes(one, ask(0.01))
    one.settle(second, 0.0, 0)
    one.settle(third, 0.5, 7)
    one.close()
    assert [tuple(row) for row in accounts(path, now_s=NOON_S)] == [
        ("total", "2026-01", 0.75, 47, 0.0, 0),
        ("total", "2026-01-31", 0.75, 47, 0.0, 0),
    ]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_days_and_months_begin_anew() -> None:
    clock = FakeClock(NOON_S)
    one = budget(None, clock, day={"usd_per_day": 1.0}, month={"usd_per_month": 2.5})

    def spends(usd: float) -> bool:
        try:
            one.settle(one.reserve(ask(usd)), usd, 0)
        except LimitReached:
            return False
        return True

    assert [spends(1.0) for _ in range(2)] == [True, False]
    late = one.reserve(ask(0.0))
    clock.advance(DAY_S)  # the first of February
    one.settle(late, 1.5, 0)
    assert spends(1.0), "what was reserved in January counts there"
    clock.advance(DAY_S)
    assert spends(1.0)
    clock.advance(DAY_S)
    assert not spends(1.0), "two of two and a half are gone this month"
    assert spends(0.5)


@pytest.mark.parametrize(
    ("limit", "held", "other"),
    [
        ({"per": "key"}, {}, {"tenant": "key:2"}),
        ({"per": "route"}, {"route": "auto"}, {"route": "cheap"}),
        ({"per": "backend"}, {}, {"backend": "c"}),
        ({"per": "route"}, {"route": "auto"}, {"route": ""}),
        ({"per": "backend", "only": ["b"]}, {}, {"backend": "c"}),
    ],
)
def test_each_has_its_own(limit: dict[str, Any], held: dict[str, Any], other: dict[str, Any]) -> None:
    one = budget(None, mine={**limit, "tokens_per_day": 100})
    assert passes(one, ask(**held))
    assert not passes(one, ask(**held))
    assert passes(one, ask(**other))


def test_only_those_who_are_named() -> None:
    one = budget(None, mine={"per": "key", "only": ["key:2"], "usd_per_day": 0.5})
    assert one.reserve(ask()) is None
    assert not passes(one, ask(tenant="key:2"))


def test_every_limit_must_have_room_and_nothing_is_left_of_a_refusal(tmp_path: Path) -> None:
    path = tmp_path / "b.sqlite3"
    one = budget(path, all={"usd_per_day": 100.0}, mine={"per": "key", "tokens_per_day": 150})
    assert passes(one, ask())
    assert not passes(one, ask())
    assert {row.name: row.held_usd for row in accounts(path, now_s=NOON_S)} == {"total": 1.0, "key key:1": 1.0}
    one.close()


def test_free_models_are_not_held_up() -> None:
    one = budget(
        None,
        all={"usd_per_day": 0.0, "tokens_per_day": 0},
        mine={"per": "backend", "tokens_per_day": 0},
        local={"per": "backend", "only": ["local"], "tokens_per_day": 100, "usd_per_day": 0.0},
    )
    free = ask(0.0, 60, is_free=True)
    assert passes(one, free)
    assert not passes(one, free._replace(is_free=False))
    named = free._replace(backend="local")
    assert [passes(one, named) for _ in range(2)] == [True, False], "but where its tokens are limited by name"


def test_cents_add_up() -> None:
    one = budget(None, all={"usd_per_day": 1.0})
    assert sum(passes(one, ask(0.1)) for _ in range(20)) == 10, "ten times 0.1 is 1, not less"


def test_sixty_four_threads_against_a_budget_for_ten(tmp_path: Path) -> None:
    one = budget(tmp_path / "b.sqlite3", all={"usd_per_day": 10.0})
    start = threading.Barrier(64)

    def call(_: int) -> bool:
        start.wait(30)
        return passes(one, ask())

    with ThreadPoolExecutor(64) as pool:
        assert sum(pool.map(call, range(64))) == 10
    one.close()


PROCESS = """
import sys, time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from llm_proxy.backends.budget import Budget
from llm_proxy.backends.base import Ask
from llm_proxy.config import BudgetLimit
from llm_proxy.errors import LimitReached
one = Budget(Path(sys.argv[1]), {"all": BudgetLimit(usd_per_day=10.0)}, time=lambda: float(sys.argv[2]),
             later=lambda call: None, note=print)
def call(_):
    try:
        return one.reserve(Ask("k", "", "b", 1.0, 10, False)) is not None
    except LimitReached:
        return False
print("ready", flush=True)
sys.stdin.readline()
with ThreadPoolExecutor(16) as pool:
    print(sum(pool.map(call, range(16))), flush=True)
sys.stdin.readline()
"""


def start(path: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PROCESS, str(path), str(NOON_S)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def line(process: subprocess.Popen[str], *, go: bool = False) -> str:
    assert process.stdin is not None
    assert process.stdout is not None
    if go:
        process.stdin.write("go\n")
        process.stdin.flush()
        return ""
    return process.stdout.readline().strip()


def test_four_processes_and_those_that_are_killed(tmp_path: Path) -> None:
    path = tmp_path / "b.sqlite3"
    processes = [start(path) for _ in range(4)]
    try:
        assert [line(process) for process in processes] == ["ready"] * 4
        for process in processes:
            line(process, go=True)
        counts = [int(line(process)) for process in processes]
        assert sum(counts) == 10
        one = budget(path, all={"usd_per_day": 10.0})
        assert not passes(one, ask()), "they live, and hold it all"
        dead = processes[counts.index(max(counts))]
        dead.kill()
        if os.name == "posix":
            os.waitid(os.P_PID, dead.pid, os.WEXITED | os.WNOWAIT)  # dead, and nobody has asked for it yet
        assert sum(passes(one, ask()) for _ in range(12)) == max(counts), "what the dead held is free, and no more"
        one.close()
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def test_a_reservation_an_hour_old_is_free_and_settled_all_the_same(tmp_path: Path) -> None:
    clock, path = FakeClock(NOON_S), tmp_path / "b.sqlite3"
    one = budget(path, clock, all={"usd_per_day": 1.0})
    first = one.reserve(ask())
    clock.advance(3599.0)
    assert not passes(one, ask())
    clock.advance(2.0)
    second = one.reserve(ask())
    one.settle(first, 0.75, 1)
    one.settle(second, 0.125, 1)
    one.close()
    assert [(row.usd, row.held_usd) for row in accounts(path, now_s=NOON_S)] == [(0.875, 0.0)]


def test_settled_in_the_background_or_when_it_is_over(tmp_path: Path) -> None:
    path, due = tmp_path / "b.sqlite3", []
    limits = {"all": BudgetLimit(usd_per_day=10.0)}
    one = Budget(path, limits, time=lambda: NOON_S, later=due.append, note=print)

    def spent() -> float:
        return accounts(path, now_s=NOON_S)[0].usd

    held = [one.reserve(ask()) for _ in range(4)]
    one.settle(held[0], 1.0, 0)
    one.settle(held[1], 1.0, 0)
    assert len(due) == 1
    due.pop()()
    assert spent() == 2.0
    one.flush()
    one.settle(held[2], 1.0, 0)
    one.close()
    one.close()
    assert spent() == 3.0
    one.settle(held[3], 1.0, 0)
    assert spent() == 4.0, "an answer that outlives the runtime"
    one.close()


class TestTrouble:
    def test_a_file_that_is_no_budget(self, tmp_path: Path) -> None:
        path = tmp_path / "b.sqlite3"
        path.write_bytes(b"something else entirely, and long enough to be looked at")
        one = budget(path, all={"usd_per_day": 1.0})
        with pytest.raises(CacheError, match="can't be used"):
            one.reserve(ask())
        with pytest.raises(CacheError, match="can't be read"):
            accounts(path, now_s=NOON_S)

    def test_another_programs_file(self, tmp_path: Path) -> None:
        path = tmp_path / "b.sqlite3"
        with sqlite3.connect(path) as connection:
            connection.execute("CREATE TABLE theirs (a)")
        connection.close()
        one = budget(path, all={"usd_per_day": 1.0})
        with pytest.raises(CacheError, match="is not a budget"):
            one.reserve(ask())
        with pytest.raises(CacheError, match="is not a budget"):
            accounts(path, now_s=NOON_S)

    def test_a_file_that_another_holds_too_long(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("llm_proxy.backends.budget._BUSY_S", 0.05)
        path = tmp_path / "b.sqlite3"
        one = budget(path, all={"usd_per_day": 3.0})
        held = one.reserve(ask())
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(CacheError, match="locked"):
            one.reserve(ask())
        one.settle(held, 0.5, 1)
        one.flush()
        assert len(one.noted) == 1  # type: ignore[attr-defined]
        other.execute("ROLLBACK")
        other.close()
        one.flush()
        assert accounts(path, now_s=NOON_S)[0].usd == 0.5, "it is written later"
        one.close()

    def test_a_folder_that_was_removed(self, tmp_path: Path) -> None:
        path = tmp_path / "new" / "b.sqlite3"
        one = budget(path, all={"usd_per_day": 1.0})
        assert passes(one, ask())
        for file in path.parent.iterdir():
            file.unlink()
        path.parent.rmdir()
        assert passes(one, ask()), "a new file, and nothing spent"
        one.close()

    def test_nothing_there_yet(self, tmp_path: Path) -> None:
        assert accounts(tmp_path / "b.sqlite3", now_s=NOON_S) == []
        (tmp_path / "b.sqlite3").touch()
        assert accounts(tmp_path / "b.sqlite3", now_s=NOON_S) == []

    def test_a_child_has_a_connection_of_its_own(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        one = budget(tmp_path / "b.sqlite3", all={"usd_per_day": 2.0})
        assert passes(one, ask())
        mine = one._file._open
        pid = os.getpid()
        monkeypatch.setattr("llm_proxy.backends.budget.os.getpid", lambda: pid + 1)
        assert passes(one, ask())
        assert one._file._open is not mine
        one.close()
        monkeypatch.undo()
        assert mine is not None
        mine[0].close()


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        ({}, "one of usd_per_day"),
        ({"only": ["a"], "usd_per_day": 1.0}, "only must be left out"),
        ({"usd_per_day": -1.0}, "usd_per_day"),
    ],
)
def test_limits_are_checked(limit: dict[str, Any], said: str) -> None:
    from llm_proxy.config import Config

    with pytest.raises(ConfigError, match=said):
        Config(budget={"limits": {"mine": limit}})


class TestOwners:
    def test_whoever_lives_is_not_gone(self) -> None:
        assert not owners.is_gone(owners.owner())

    def test_whoever_is_elsewhere_is_not_known_to_be_gone(self) -> None:
        assert not owners.is_gone("another|1|999999999|1")

    @pytest.mark.skipif(os.name != "posix", reason="needs signals")
    def test_a_number_that_is_used_again(self) -> None:
        machine, number, _ = owners.owner().rsplit("|", 2)
        assert owners.is_gone(f"{machine}|{number}|1")

    def test_without_a_proc(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr(owners, "_PROC", tmp_path)
        owners._name.cache_clear()
        name = owners.owner()
        assert name.endswith("|")
        assert not owners.is_gone(name)
        owners._name.cache_clear()

    def test_somebody_elses_process(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def kill(pid: int, signal: int) -> None:
            raise PermissionError

        name = owners.owner()
        monkeypatch.setattr(owners.os, "kill", kill)
        assert not owners.is_gone(name)
        assert owners.is_gone(name + "0")


class TestIssuedKeys:
    """The budget of a key counts beside the limits, on an account of its own."""

    ANNA = Holder("12345678", "anna", "research", usd_per_day=3.0, usd_per_month=4.0)

    def test_a_day_and_a_month(self, tmp_path: Path) -> None:
        clock, path = FakeClock(NOON_S - 2 * DAY_S), tmp_path / "budget.sqlite3"
        one = budget(path, clock)
        for _ in range(3):
            kept = one.reserve(ask(holder=self.ANNA))
            assert kept is not None
            one.settle(kept, 1.0, 10)
        with pytest.raises(LimitReached, match=r"'of key anna' of the budget \(issued 12345678, 2026-01-29 UTC\)"):
            one.reserve(ask(holder=self.ANNA))
        clock.advance(DAY_S)
        assert passes(one, ask(holder=self.ANNA))
        with pytest.raises(LimitReached, match=r"issued 12345678, 2026-01 UTC"):
            one.reserve(ask(holder=self.ANNA))
        assert passes(one, ask(holder=self.ANNA._replace(id="87654321")))
        one.close()
        assert {account.name for account in accounts(path, now_s=clock.time())} == {
            "issued 12345678",
            "issued 87654321",
        }

    def test_what_is_free_or_without_bound(self) -> None:
        one = budget()
        assert one.reserve(ask(usd=9.0, is_free=True, holder=self.ANNA)) is None
        assert one.reserve(ask(usd=9.0, holder=Holder("1", "a", "a"))) is None

    def test_limits_hold_beside_it(self) -> None:
        one = budget(all={"usd_per_day": 1.5})
        assert passes(one, ask(holder=self.ANNA))
        with pytest.raises(LimitReached, match="'all'"):
            one.reserve(ask(holder=self.ANNA))
