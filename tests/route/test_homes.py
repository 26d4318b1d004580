"""Where responses are kept: what both ways of knowing it have in common, and what a file can do to it."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from llm_proxy.errors import CacheError
from llm_proxy.route.base import Home
from llm_proxy.route.homes import KEPT_S, FileHomes, MemoryHomes, address_of
from llm_proxy.testing import FakeClock

HOME = Home("main", "m", address_of("https://main.test/v1"))
Make = Callable[..., Any]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "responses.sqlite3"


@pytest.fixture(params=["memory", "file"])
def make(request: pytest.FixtureRequest, path: Path) -> Make:
    def made(**options: Any) -> Any:
        return MemoryHomes(**options) if request.param == "memory" else FileHomes(path, **options)

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
        FileHomes(path, time=FakeClock().time).keep("a", HOME)
        script = "import sys, pathlib; from llm_proxy.route.homes import FileHomes\n"
        script += "print(FileHomes(pathlib.Path(sys.argv[1]), time=lambda: 0.0).find('a').backend)"
        ended = subprocess.run(
            [sys.executable, "-c", script, str(path)], capture_output=True, text=True, timeout=60, check=True
        )
        assert ended.stdout == "main\n"

    def test_many_write_at_once(self, path: Path) -> None:
        def write(number: int) -> None:
            homes = FileHomes(path, time=FakeClock().time)
            for at in range(20):
                homes.keep(f"{number}-{at}", HOME)

        threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        homes = FileHomes(path, time=FakeClock().time)
        assert all(homes.find(f"{number}-{at}") == HOME for number in range(4) for at in range(20))

    def test_it_is_its_owners_alone_and_tells_no_id_and_no_address(self, path: Path) -> None:
        FileHomes(path, time=FakeClock().time).keep("mark", HOME)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert b"main.test" not in b"".join(file.read_bytes() for file in path.parent.iterdir())

    def test_it_is_closed_and_opened_again(self, path: Path) -> None:
        homes = FileHomes(path, time=FakeClock().time)
        homes.close()
        homes.keep("a", HOME)
        homes.close()
        homes.close()
        assert [file.name for file in path.parent.iterdir()] == [path.name]
        assert homes.find("a") == HOME
        homes.close()

    def test_a_file_that_was_taken_away_is_made_anew(self, path: Path) -> None:
        homes = FileHomes(path, time=FakeClock().time)
        homes.keep("a", HOME)
        shutil.rmtree(path.parent)
        assert homes.find("a") is None
        homes.keep("b", HOME)
        assert (homes.find("a"), homes.find("b")) == (None, HOME)

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
    def test_both_sides_of_a_fork_go_on(self, path: Path) -> None:
        script = "import os, pathlib, sys\nfrom llm_proxy.route.homes import FileHomes\n"
        script += "from llm_proxy.route.base import Home\n"
        script += "homes = FileHomes(pathlib.Path(sys.argv[1]), time=lambda: 0.0)\nhome = Home('b', 'm', 'a')\n"
        script += "homes.keep('before', home)\npid = os.fork()\nif not pid:\n"
        script += "  homes.close()\n  homes.keep('child', home)\n  os._exit(0 if homes.find('before') else 1)\n"
        script += "status = os.waitpid(pid, 0)[1]\nhomes.keep('parent', home)\n"
        script += "print(status, all(map(homes.find, ('before', 'child', 'parent'))))"
        ended = subprocess.run(
            [sys.executable, "-c", script, str(path)], capture_output=True, text=True, timeout=60, check=True
        )
        assert ended.stdout == "0 True\n"

    def test_a_write_that_fails_leaves_nothing_open(self, path: Path) -> None:
        homes = FileHomes(path, time=FakeClock().time)
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
        homes = FileHomes(path, time=clock.time)
        homes.keep("a", HOME)
        clock.advance(KEPT_S + 1.0)
        homes.keep("b", HOME)
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("SELECT mark FROM homes").fetchall() == [("b",)]

    def test_a_model_may_have_any_name(self, path: Path) -> None:
        homes = FileHomes(path, time=FakeClock().time)
        homes.keep("a", HOME._replace(model="\ud800" + "x" * 500))
        assert homes.find("a").model == "?" + "x" * 199  # type: ignore[union-attr]

    def test_an_empty_file_is_nothing_yet(self, path: Path) -> None:
        path.parent.mkdir()
        path.touch()
        homes = FileHomes(path, time=FakeClock().time)
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
            getattr(FileHomes(path, time=FakeClock().time), verb)(*{"keep": ("a", HOME), "find": ("a",)}[verb])
        assert path.read_bytes() == before

    @pytest.mark.parametrize("verb", ["keep", "find"])
    def test_a_damaged_file(self, path: Path, verb: str) -> None:
        path.parent.mkdir()
        path.write_bytes(b"what is it" * 99)
        with pytest.raises(CacheError, match="can't be used"):
            getattr(FileHomes(path, time=FakeClock().time), verb)(*{"keep": ("a", HOME), "find": ("a",)}[verb])
