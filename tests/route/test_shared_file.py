"""A file that processes share, damaged in the ways that a disk or a person damages it; and what is no damage."""

from __future__ import annotations

import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import pytest

from llm_proxy.errors import CacheError
from llm_proxy.route.base import Home
from llm_proxy.route.homes import FileHomes
from llm_proxy.testing import FakeClock

HOME = Home("main", "m", "address")
NAMES = ["responses.sqlite3", "responses.2.sqlite3", "responses.3.sqlite3"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file of several pages, whole and closed."""
    found = tmp_path / NAMES[0]
    homes = opened(found, [])
    for number in range(300):
        homes.keep(f"old-{number}", HOME)
    homes.close()
    assert [file.name for file in tmp_path.iterdir()] == NAMES[:1]
    return found


def opened(path: Path, noted: list[Exception]) -> FileHomes:
    return FileHomes(path, time=FakeClock().time, monotonic=FakeClock().monotonic, note=noted.append)


def databases(path: Path) -> list[str]:
    return sorted((file.name for file in path.parent.glob("*.sqlite3")), key=NAMES.index)


def garbage(path: Path) -> None:
    path.write_bytes(b"what is it" * 999)


def a_few_bytes(path: Path) -> None:
    path.write_bytes(b"SQLite format 3\0 and")


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def overwritten(path: Path) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[:4096] + b"\xff" * (len(whole) - 4096))


DAMAGES = [garbage, a_few_bytes, truncated, overwritten]


@pytest.mark.parametrize("verb", ["keep", "find"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_another_takes_its_place(path: Path, damage: Callable[[Path], None], verb: str) -> None:
    damage(path)
    before, noted = path.read_bytes(), []
    homes, other = opened(path, noted), opened(path, noted)
    if verb == "find":
        assert homes.find("old-7") is None
    homes.keep("new", HOME)
    assert homes.find("new") == other.find("new") == HOME
    assert homes.find("old-7") is None
    assert databases(path) == NAMES[:2]
    assert path.read_bytes() == before
    assert stat.S_IMODE(path.with_name(NAMES[1]).stat().st_mode) == 0o600
    [error] = noted
    assert isinstance(error, CacheError)
    assert str(error).startswith(f"{path} is damaged (")
    assert str(error).endswith("what it held is unknown, responses.2.sqlite3 takes its place")
    homes.close()
    other.close()
    assert opened(path, noted).find("new") == HOME  # after a restart, too
    assert len(noted) == 1


@pytest.mark.parametrize("damage", DAMAGES)
def test_it_is_damaged_while_it_is_open(path: Path, damage: Callable[[Path], None]) -> None:
    noted: list[Exception] = []
    homes = opened(path, noted)
    assert homes.find("old-7") == HOME
    homes.keep("known", HOME)
    damage(path)
    # Another program empties the log of changes, and what was read from it before is read anew.
    with closing(sqlite3.connect(path)) as connection, suppress(sqlite3.DatabaseError):
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    for number in range(300):  # some may be written to what was not seen to be damaged yet
        homes.keep(f"new-{number}", HOME)
        homes.find(f"old-{number}")
    homes.keep("later", HOME)
    assert homes.find("later") == opened(path, []).find("later") == HOME
    assert [str(error) for error in noted if "is damaged" not in str(error)] == []


def test_many_processes_find_it_damaged_at_once(path: Path) -> None:
    garbage(path)
    script = "import contextlib, pathlib, sys\nfrom llm_proxy.errors import CacheError\n"
    script += "from llm_proxy.route.base import Home\n"
    script += "from llm_proxy.route.homes import FileHomes\n"
    script += "homes = FileHomes(pathlib.Path(sys.argv[1]), time=float, monotonic=float, note=lambda exc: None)\n"
    script += "print('ready', flush=True)\nsys.stdin.readline()\n"
    script += "for at in range(30):\n"
    script += "  with contextlib.suppress(CacheError):\n    homes.keep(f'{sys.argv[2]}-{at}', Home('b', 'm', 'a'))\n"
    script += "for _ in range(10): homes.close()"  # on a busy machine the first may not get its turn
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(path), str(number)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for number in range(4)
    ]  # fmt: skip
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    assert [(process.communicate(timeout=60)[1], process.returncode) for process in processes] == [("", 0)] * 4
    assert databases(path) == NAMES[:2]
    homes = FileHomes(path, time=float, monotonic=float, note=[].append)
    found = [homes.find(f"{number}-{at}") for number in range(4) for at in range(30)]
    assert found == [Home("b", "m", "a")] * 120


def test_a_process_that_has_met_no_damage_goes_where_the_others_are(path: Path) -> None:
    noted: list[Exception] = []
    first, second = opened(path, noted), opened(path, noted)
    assert first.find("old-7") == second.find("old-7") == HOME
    path.with_name(NAMES[1]).touch()
    first.keep("new", HOME)
    assert second.find("new") == HOME
    assert second.find("old-7") is None
    assert noted == []


def test_a_damaged_one_may_be_removed(path: Path) -> None:
    garbage(path)
    homes = opened(path, [])
    homes.keep("new", HOME)
    path.unlink()
    assert homes.find("new") == opened(path, []).find("new") == HOME
    path.with_name(NAMES[1]).unlink()
    assert homes.find("new") is None
    homes.keep("again", HOME)
    assert opened(path, []).find("again") == HOME


def test_a_disk_that_damages_each_of_them_is_given_up(path: Path) -> None:
    noted: list[Exception] = []
    for name in NAMES:
        garbage(path.with_name(name))
    homes = opened(path, noted)
    for _ in range(2):
        with pytest.raises(CacheError, match="can't be used: file is not a database"):
            homes.keep("a", HOME)
        with pytest.raises(CacheError, match="can't be used: file is not a database"):
            homes.find("b")
    assert databases(path) == NAMES
    assert noted == []


def test_one_damage_after_the_other(path: Path) -> None:
    noted: list[Exception] = []
    for name in NAMES[:2]:
        garbage(path.with_name(name))
        homes = opened(path, noted)
        homes.keep("a", HOME)
        assert homes.find("a") == HOME
        homes.close()
    assert databases(path) == NAMES
    assert len(noted) == 2


class TestNoDamage:
    def refused(self, path: Path, words: str) -> None:
        """What can't be used, and stays the one in use."""
        before, noted = path.read_bytes(), []
        homes = opened(path, noted)
        with pytest.raises(CacheError, match=words):
            homes.keep("a", HOME)
        with pytest.raises(CacheError, match=words):
            homes.find("old-7")
        homes.close()
        assert databases(path) == NAMES[:1]
        assert path.read_bytes() == before
        assert noted == []

    def header(self, path: Path, at: int, value: bytes) -> None:
        whole = bytearray(path.read_bytes())
        whole[at : at + len(value)] = value
        path.write_bytes(whole)

    def test_another_programs_file(self, path: Path) -> None:
        self.header(path, 68, b"THEM")
        self.refused(path, "is not a file of llm-proxy")

    def test_another_programs_file_that_is_damaged(self, path: Path) -> None:
        self.header(path, 68, b"THEM")
        truncated(path)
        self.refused(path, "malformed")

    def test_a_file_of_a_newer_sqlite(self, path: Path) -> None:
        self.header(path, 18, b"\x03\x03")
        self.refused(path, "not a database")

    def test_a_file_that_is_locked(self, path: Path) -> None:
        noted: list[Exception] = []
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            connection.execute("BEGIN EXCLUSIVE")
            homes = opened(path, noted)
            with pytest.raises(CacheError, match="locked"):
                homes.find("old-7")
            with pytest.raises(CacheError, match="locked"):
                homes.keep("a", HOME)
        assert homes.find("old-7") == HOME
        assert databases(path) == NAMES[:1]
        assert noted == []

    def test_a_full_disk(self, path: Path) -> None:
        """Simulated by a limit on how long the process's files may be."""
        pytest.importorskip("resource")
        script = "import pathlib, resource, sys\nfrom llm_proxy.errors import CacheError\n"
        script += "from llm_proxy.route.base import Home\nfrom llm_proxy.route.homes import FileHomes\n"
        script += "resource.setrlimit(resource.RLIMIT_FSIZE, (40000, resource.RLIM_INFINITY))\n"
        script += "homes = FileHomes(pathlib.Path(sys.argv[1]), time=float, monotonic=float, note=print)\n"
        script += "try:\n  for at in range(2000): homes.keep(str(at), Home('b', 'm', 'a'))\n"
        script += "except CacheError as exc: print(exc)"
        ended = subprocess.run(
            [sys.executable, "-c", script, str(path)], capture_output=True, text=True, timeout=60, check=True
        )
        assert "can't be used: " in ended.stdout
        assert "damaged" not in ended.stdout
        assert databases(path) == NAMES[:1]
        assert opened(path, []).find("old-7") == HOME
