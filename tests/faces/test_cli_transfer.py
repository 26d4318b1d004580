"""``llm-proxy cache export``, ``import``, ``pin`` and ``unpin``: files, pipes and what is wrong with them."""

from __future__ import annotations

import io
import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from llm_proxy.cache.build import ENTRIES_NAME
from llm_proxy.cache.stores.disk import DiskStore
from llm_proxy.config import environment_for_child
from llm_proxy.faces.cli import _progress
from tests.faces.cli_kit import entry, invoke, invoke_json, seed, settled


@pytest.fixture(autouse=True)
def directory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with settled(monkeypatch) as folder:
        yield folder


def records(directory: Path) -> dict[str, bytes]:
    store = DiskStore(directory / ENTRIES_NAME)
    found = {row.key: row.record for row in store.scan()}
    store.close()
    return found


class TestExportAndImport:
    def test_there_and_back(self, directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        seed(directory, entry(1), entry(2, is_pinned=True), hits={entry(1).key: 3})
        file = tmp_path / "answers.jsonl"
        assert "Exported 2 entries." in invoke("cache", "export", str(file)).stderr
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert list(tmp_path.iterdir()) == [file]
        before = records(directory)
        monkeypatch.setenv("LLM_PROXY_CACHE_DIRECTORY", str(directory.parent / "other"))
        assert invoke("cache", "import", str(file)).stdout == "Imported 2 entries.\n"
        assert records(directory.parent / "other") == before
        assert invoke_json("cache", "ls", "--sort", "hits")["entries"][0]["hits"] == 3
        assert invoke("cache", "import", str(file)).stdout == "Imported 0 entries, left out 2 older.\n"
        assert invoke_json("cache", "check")["findings"] == []

    def test_as_json(self, directory: Path, tmp_path: Path) -> None:
        seed(directory, entry(1), entry(2, expires_s=5.0))
        file = str(tmp_path / "answers.jsonl")
        assert invoke_json("cache", "export", file) == {"entries": 1, "expired": 1, "damaged": 0}
        with Path(file).open("a") as lines:
            lines.write("broken\n")
        found = invoke_json("cache", "import", file, code=1)
        assert (found["lines"], found["older"], found["broken"]) == (2, 1, 1)
        assert found["first_broken"][0]["line"] == 3

    def test_broken_lines_are_told(self, directory: Path, tmp_path: Path) -> None:
        file = tmp_path / "answers.jsonl"
        file.write_text('{"format": "llm-proxy-cache", "version": 1}\n{"key":\n\x1b[2J\n')
        result = invoke("cache", "import", str(file), code=1)
        assert result.stdout == "Imported 0 entries, left out 2 broken.\n"
        assert "line 2: " in result.stderr
        assert "line 3: " in result.stderr
        assert "\x1b" not in result.stderr

    def test_through_pipes(self, directory: Path) -> None:
        seed(directory, entry(1), entry(2))
        command = [sys.executable, "-m", "llm_proxy", "cache"]
        exported = subprocess.run([*command, "export"], capture_output=True, check=True, env=environment_for_child({}))
        assert exported.stdout.count(b"\n") == 3
        other = environment_for_child({"LLM_PROXY_CACHE_DIRECTORY": str(directory.parent / "other")})
        done = subprocess.run(
            [*command, "import", "-", "--json"], input=exported.stdout, capture_output=True, check=True, env=other
        )
        assert json.loads(done.stdout)["stored"] == 2
        assert records(directory.parent / "other") == records(directory)

    @pytest.mark.parametrize(("option", "fits"), [("--without-vectors", 0), ("--half-vectors", 1)])
    def test_vectors(self, directory: Path, tmp_path: Path, option: str, fits: int) -> None:
        seed(directory, entry(1, seen_chars=100))
        file = tmp_path / "answers.jsonl"
        invoke("cache", "export", str(file), option)
        line = json.loads(file.read_text().splitlines()[1])
        assert ("vector" in line, line.get("vector_type")) == ((True, "float16") if fits else (False, None))

    def test_nothing_is_there_yet(self, directory: Path, tmp_path: Path) -> None:
        file = tmp_path / "answers.jsonl"
        assert "Exported 0 entries." in invoke("cache", "export", str(file)).stderr
        assert not directory.exists()
        assert invoke("cache", "import", str(file)).stdout == "Imported 0 entries.\n"

    def test_json_and_entries_do_not_go_the_same_way(self) -> None:
        assert "--json needs a FILE" in invoke("cache", "export", "-", "--json", code=2).stderr

    def test_another_file(self, directory: Path, tmp_path: Path) -> None:
        seed(directory, entry(1))
        file = tmp_path / "other.jsonl"
        file.write_text('{"some": "thing"}\n')
        assert "no export of a cache" in invoke("cache", "import", str(file), code=1).stderr
        assert len(records(directory)) == 1

    def test_files_that_are_not_to_be_had(self, directory: Path, tmp_path: Path) -> None:
        seed(directory, entry(1))
        assert "can't be read: No such file" in invoke("cache", "import", str(tmp_path / "gone"), code=1).stderr
        assert "can't be written" in invoke("cache", "export", str(tmp_path / "gone" / "file"), code=1).stderr

    def test_an_export_that_breaks_off_leaves_the_last_one(
        self, directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seed(directory, entry(1))
        file = tmp_path / "answers.jsonl"
        file.write_text("the last one")

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("llm_proxy.cache.transfer._data_of", full)
        assert "can't be written: No space left" in invoke("cache", "export", str(file), code=1).stderr
        assert file.read_text() == "the last one"
        assert list(tmp_path.iterdir()) == [file]

    def test_the_budget_is_kept(self, directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        seed(directory, *(entry(number) for number in range(20)))
        file = str(tmp_path / "answers.jsonl")
        invoke("cache", "export", file)
        monkeypatch.setenv("LLM_PROXY_CACHE_DIRECTORY", str(directory.parent / "other"))
        monkeypatch.setenv("LLM_PROXY_CACHE_MAX_ENTRIES", "5")
        invoke("cache", "import", file)
        assert len(records(directory.parent / "other")) == 5

    @pytest.mark.parametrize("limit", [("MAX_ENTRIES", "5"), ("BUDGET_BYTES", str(1 << 20))])
    @pytest.mark.parametrize("command", ["import", "warm"])
    def test_what_others_keep_is_not_evicted(
        self, directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: tuple[str, str], command: str
    ) -> None:
        seed(directory, *(entry(number, answer="x" * 100_000) for number in range(20)))
        file = tmp_path / "answers.jsonl"
        invoke("cache", "export", str(file))
        before = records(directory)
        monkeypatch.setenv(f"LLM_PROXY_CACHE_{limit[0]}", limit[1])
        said = invoke("cache", command, str(file), code=1).stderr
        assert f"more than cache.{limit[0].lower()} = {limit[1]}, and a command must not evict" in said
        assert records(directory) == before

    def test_an_export_follows_no_link(self, directory: Path, tmp_path: Path) -> None:
        seed(directory, entry(1))
        victim, file, link = tmp_path / "victim", tmp_path / "answers.jsonl", tmp_path / "link"
        victim.write_text("precious")
        (tmp_path / "answers.jsonl.part").symlink_to(victim)
        link.symlink_to(victim)
        invoke("cache", "export", str(file))
        assert "it is a link" in invoke("cache", "export", str(link), code=1).stderr
        assert victim.read_text() == "precious"
        assert link.is_symlink()
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert sorted(path.name for path in tmp_path.iterdir()) == [
            *("answers.jsonl", "answers.jsonl.part", "link", "victim"),
        ]

    def test_an_export_into_a_pipe(self, directory: Path, tmp_path: Path) -> None:
        seed(directory, entry(1))
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
        try:
            invoke("cache", "export", str(pipe))
            assert os.read(reader, 1 << 16).count(b"\n") == 2
        finally:
            os.close(reader)
        assert stat.S_ISFIFO(pipe.stat().st_mode)

    @pytest.mark.parametrize("name", [".", "/", "folder"])
    def test_an_export_into_a_folder(self, directory: Path, tmp_path: Path, name: str) -> None:
        (tmp_path / "folder").mkdir()
        result = invoke("cache", "export", name if name in "./" else str(tmp_path / name), code=1)
        assert "it is a folder" in result.stderr

    def test_entries_in_memory(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("LLM_PROXY_CACHE_STORE", "memory")
        for command in (["export"], ["import", "x"], ["warm", "x"], ["pin", "0001"]):
            assert "live inside the running program" in invoke("cache", *command, code=2).stderr


class TestPin:
    def test_keeps_and_lets_go(self, directory: Path) -> None:
        seed(directory, entry(1), entry(2))
        assert invoke("cache", "pin", "0001", entry(1).key).stdout == "Pinned 1 entry.\n"
        assert "pinned    yes" in invoke("cache", "show", "0001").stdout
        assert invoke_json("cache", "show", "0001")["is_pinned"] is True
        assert invoke_json("cache", "pin", "0001", "0002") == {"pinned": 1, "keys": [entry(1).key, entry(2).key]}
        assert invoke("cache", "unpin", "0001", "0002").stdout == "Unpinned 2 entries.\n"
        assert "pinned    no" in invoke("cache", "show", "0001").stdout
        assert invoke_json("cache", "check")["findings"] == []

    def test_no_more_than_the_budget(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        seed(directory, *(entry(number, answer="x" * 400_000) for number in range(4)))
        monkeypatch.setenv("LLM_PROXY_CACHE_BUDGET_BYTES", str(1 << 20))
        said = invoke("cache", "pin", "0000", "0001", "0002", code=1).stderr
        assert "more than the budget of 1048576 bytes: unpin some, or raise cache.budget_bytes" in said
        assert len(records(directory)) == 4, "a smaller budget here evicts nothing"
        assert invoke("cache", "pin", "0000").stdout == "Pinned 1 entry.\n"

    def test_what_is_not_there(self, directory: Path) -> None:
        assert "no entry has a key" in invoke("cache", "pin", "0001", code=1).stderr
        seed(directory, entry(1), replace(entry(2), expires_s=5.0))
        assert "has expired" in invoke("cache", "pin", "0001", "0002", code=1).stderr
        assert invoke_json("cache", "show", "0001")["is_pinned"] is False


def test_a_bar_where_somebody_looks(directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    screen = Terminal()
    monkeypatch.setattr("sys.stderr", screen)
    with _progress.progress("Moving", 10) as step:
        step(5)
    assert "Moving" in screen.getvalue()
    assert "50%" in screen.getvalue()
    silent = io.StringIO()
    monkeypatch.setattr("sys.stderr", silent)
    with _progress.progress("Moving", None) as step:
        step(5)
    assert silent.getvalue() == ""
