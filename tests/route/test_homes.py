"""Where responses are kept: what both ways of knowing it have in common, and what a file can do to it."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from llm_proxy.errors import CacheError
from llm_proxy.route.base import Home
from llm_proxy.route.homes import KEPT_S, FileHomes, MemoryHomes, address_of
from llm_proxy.testing import FakeClock

HOME = Home("main", "m", address_of("https://main.test/v1"))
Make = Callable[..., Any]


def unexpected(exc: Exception) -> None:
    raise AssertionError(exc)


def file_homes(path: Path, **options: Any) -> FileHomes:
    given = {"time": FakeClock().time, "monotonic": FakeClock().monotonic, "note": unexpected, **options}
    return FileHomes(path, **given)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "responses.sqlite3"


@pytest.fixture(params=["memory", "file"])
def make(request: pytest.FixtureRequest, path: Path) -> Make:
    def made(**options: Any) -> Any:
        return MemoryHomes(**options) if request.param == "memory" else file_homes(path, **options)

    return made


class TestBoth:
    def test_what_is_kept_is_found(self, make: Make) -> None:
        homes = make(time=FakeClock().time)
        assert homes.find("a") is None
        homes.keep("a", HOME)
        assert homes.find("a") == HOME
        assert homes.find("b") is None

    def test_the_last_word_counts(self, make: Make) -> None:
        homes = make(time=FakeClock().time)
        homes.keep("a", HOME)
        homes.keep("a", HOME._replace(backend="spare"))
        assert homes.find("a") == HOME._replace(backend="spare")

    def test_it_ends_after_thirty_days(self, make: Make) -> None:
        clock = FakeClock(KEPT_S)
        homes = make(time=clock.time)
        homes.keep("a", HOME)
        clock.advance(KEPT_S)
        assert homes.find("a") == HOME
        clock.advance(1.0)
        assert homes.find("a") is None

    def test_the_oldest_goes_beyond_the_bound(self, make: Make) -> None:
        homes = make(time=FakeClock().time, most=3)
        for mark in ("a", "b", "c", "a", "d"):  # "a" was said again, and is newer than "b"
            homes.keep(mark, HOME)
        assert [homes.find(mark) is not None for mark in "abcd"] == [True, False, True, True]


class TestFile:
    def test_others_see_it_at_once_and_after_a_restart(self, path: Path) -> None:
        file_homes(path).keep("a", HOME)
        script = "import sys, pathlib; from llm_proxy.route.homes import FileHomes\n"
        script += (
            "print(FileHomes(pathlib.Path(sys.argv[1]), time=float, monotonic=float, note=print).find('a').backend)"
        )
        ended = subprocess.run(
            [sys.executable, "-c", script, str(path)], capture_output=True, text=True, timeout=60, check=True
        )
        assert ended.stdout == "main\n"

    def test_many_write_at_once(self, path: Path) -> None:
        def write(number: int) -> None:
            homes = file_homes(path)
            for at in range(20):
                with suppress(CacheError):  # others may be writing for long: it is written with the next, or at the end
                    homes.keep(f"{number}-{at}", HOME)
            homes.close()

        threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        homes = file_homes(path)
        assert all(homes.find(f"{number}-{at}") == HOME for number in range(4) for at in range(20))

    def test_it_is_its_owners_alone_and_tells_no_id_and_no_address(self, path: Path) -> None:
        file_homes(path).keep("mark", HOME)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert b"main.test" not in b"".join(file.read_bytes() for file in path.parent.iterdir())

    def test_it_is_closed_and_opened_again(self, path: Path) -> None:
        homes = file_homes(path)
        homes.close()
        homes.keep("a", HOME)
        homes.close()
        homes.close()
        assert [file.name for file in path.parent.iterdir()] == [path.name]
        assert homes.find("a") == HOME
        homes.close()

    def test_a_file_that_was_taken_away_is_made_anew(self, path: Path) -> None:
        homes = file_homes(path)
        homes.keep("a", HOME)
        shutil.rmtree(path.parent)
        assert homes.find("a") is None
        homes.keep("b", HOME)
        assert (homes.find("a"), homes.find("b")) == (None, HOME)

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
    def test_both_sides_of_a_fork_go_on(self, path: Path) -> None:
        script = "import os, pathlib, sys\nfrom llm_proxy.route.homes import FileHomes\n"
        script += "from llm_proxy.route.base import Home\n"
        script += "homes = FileHomes(pathlib.Path(sys.argv[1]), time=float, monotonic=float, note=print)\n"
        script += "home = Home('b', 'm', 'a')\n"
        script += "homes.keep('before', home)\npid = os.fork()\nif not pid:\n"
        script += "  homes.close()\n  homes.keep('child', home)\n  os._exit(0 if homes.find('before') else 1)\n"
        script += "status = os.waitpid(pid, 0)[1]\nhomes.keep('parent', home)\n"
        script += "print(status, all(map(homes.find, ('before', 'child', 'parent'))))"
        ended = subprocess.run(
            [sys.executable, "-c", script, str(path)], capture_output=True, text=True, timeout=60, check=True
        )
        assert ended.stdout == "0 True\n"

    def test_a_write_that_fails_leaves_nothing_open(self, path: Path) -> None:
        homes = file_homes(path)
        homes.keep("a", HOME)
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("CREATE TRIGGER no BEFORE INSERT ON homes BEGIN SELECT RAISE(ABORT, 'simulated'); END")
        with pytest.raises(CacheError, match="simulated"):
            homes.keep("b", HOME)
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("DROP TRIGGER no")
        homes.keep("b", HOME)
        assert homes.find("b") == HOME

    def test_old_rows_are_removed(self, path: Path) -> None:
        clock = FakeClock()
        homes = file_homes(path, time=clock.time)
        homes.keep("a", HOME)
        clock.advance(KEPT_S + 1.0)
        homes.keep("b", HOME)
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("SELECT mark FROM homes").fetchall() == [("b",)]

    def test_a_model_may_have_any_name(self, path: Path) -> None:
        homes = file_homes(path)
        homes.keep("a", HOME._replace(model="\ud800" + "x" * 500))
        assert homes.find("a").model == "?" + "x" * 199  # type: ignore[union-attr]

    def test_an_empty_file_is_nothing_yet(self, path: Path) -> None:
        path.parent.mkdir()
        path.touch()
        homes = file_homes(path)
        assert homes.find("a") is None
        homes.keep("a", HOME)
        assert homes.find("a") == HOME

    @pytest.mark.parametrize("verb", ["keep", "find"])
    def test_another_programs_file_is_left_as_it_is(self, path: Path, verb: str) -> None:
        path.parent.mkdir()
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("CREATE TABLE theirs (x)")
        before = path.read_bytes()
        with pytest.raises(CacheError, match="is not a file of llm-proxy"):
            getattr(file_homes(path), verb)(*{"keep": ("a", HOME), "find": ("a",)}[verb])
        assert path.read_bytes() == before


class TestLocked:
    """What another process does to an answer that is to be remembered."""

    @pytest.fixture
    def locked(self, path: Path) -> Iterator[Callable[[], None]]:
        """The file, which another process writes and does not end; what is given ends it."""
        file_homes(path).keep("old", HOME)
        script = "import sqlite3, sys\nconnection = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        script += "connection.execute('BEGIN EXCLUSIVE')\nprint('locked', flush=True)\nsys.stdin.read()"
        command = [sys.executable, "-c", script, str(path)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "locked\n"
            yield lambda: process.communicate()[0]
            process.communicate()

    def test_one_answer_waits_and_no_other_for_a_while(self, path: Path, locked: Any) -> None:
        clock = FakeClock()
        homes = file_homes(path, monotonic=clock.monotonic)
        waits_s, said = [], []
        for number in range(20):
            begun_s = time.monotonic()
            with pytest.raises(CacheError) as caught:
                homes.keep(str(number), HOME)
            waits_s.append(time.monotonic() - begun_s)
            said.append("database is locked" in str(caught.value))
            clock.advance(0.1)
        # The first waits for a quarter of a second, where each waited for a second; then it is tried now and then.
        first, *others = waits_s
        assert first > 0.2
        assert statistics.median(others) < first / 10
        assert sum(said) <= 5

    def test_what_waits_is_known_here_and_written_with_the_next(self, path: Path, locked: Any) -> None:
        clock = FakeClock()
        homes, other = file_homes(path, monotonic=clock.monotonic), file_homes(path)
        for mark in "ab":
            with pytest.raises(CacheError):
                homes.keep(mark, HOME._replace(model=mark))
        assert homes.find("a") == HOME._replace(model="a")
        assert other.find("a") is None
        assert other.find("old") == HOME  # who reads does not wait for who writes
        locked()
        with pytest.raises(CacheError, match="was locked: it is written later"):
            homes.keep("c", HOME)
        clock.advance(0.6)
        homes.keep("d", HOME)
        assert [other.find(mark) for mark in "abcd"] == [*(HOME._replace(model=name) for name in "ab"), HOME, HOME]
        assert homes.find("a") == HOME._replace(model="a")
        homes.keep("e", HOME)
        assert other.find("e") == HOME

    def test_what_waits_is_written_at_the_end(self, path: Path, locked: Any) -> None:
        homes = file_homes(path)
        with pytest.raises(CacheError):
            homes.keep("a", HOME)
        homes.close()  # it is still locked: nothing is raised, and nothing forgotten
        assert homes.find("a") == HOME
        locked()
        homes.close()
        assert file_homes(path).find("a") == HOME

    def test_it_waits_thirty_days_at_most(self, path: Path, locked: Any) -> None:
        clock = FakeClock()
        homes = file_homes(path, time=clock.time)
        with pytest.raises(CacheError):
            homes.keep("a", HOME)
        clock.advance(KEPT_S + 1.0)
        assert homes.find("a") is None

    def test_no_more_wait_than_may(self, path: Path, locked: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("llm_proxy.route.homes._MOST_WAITING", 2)
        homes = file_homes(path)
        for mark in ("a", "b", "a", "c"):
            with pytest.raises(CacheError):
                homes.keep(mark, HOME)
        assert [homes.find(mark) is not None for mark in "abc"] == [True, False, True]

    def test_a_file_of_another_program_keeps_nothing_from_being_known_here(self, path: Path) -> None:
        path.parent.mkdir()
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("CREATE TABLE theirs (x)")
        homes = file_homes(path)
        with pytest.raises(CacheError):
            homes.keep("a", HOME)
        assert homes.find("a") == HOME
