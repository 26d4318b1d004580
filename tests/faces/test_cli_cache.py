"""``llm-proxy cache``: on every sort of directory, and while others use it."""

from __future__ import annotations

import json
import sqlite3
import stat
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from llm_proxy.cache.build import ENTRIES_NAME, SNAPSHOT_NAME, build
from llm_proxy.cache.stores.disk import DiskStore
from llm_proxy.config import Config
from llm_proxy.runtime import SystemClock
from tests.faces.cli_kit import entry, invoke, invoke_json, seed, settled
from tests.privileges import unprivileged

COMMANDS = (["ls"], ["show", "0001"], ["rm", "0001"], ["clear", "--yes"], ["check"], ["check", "--repair"])


@pytest.fixture(autouse=True)
def directory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with settled(monkeypatch) as folder:
        yield folder


class TestLs:
    def test_lists_the_newest_first(self, directory):
        seed(directory, entry(1), entry(2, "Who wrote Emma?"), hits={entry(1).key: 3})
        lines = invoke("cache", "ls").stdout.splitlines()
        assert [name for name in lines[0].split() if name] == [
            "key", "age", "hits", "size", "cost", "model", "question",
        ]  # fmt: skip
        assert lines[2].startswith("0002abababab")
        assert "Who wrote Emma?" in lines[2]
        assert " 3 " in lines[3]
        assert "gpt-4o-mini" in lines[3]

    def test_as_json(self, directory):
        seed(directory, entry(1), entry(2), hits={entry(1).key: 3})
        found = invoke_json("cache", "ls", "--limit", "1", "--sort", "hits")
        assert found["count"] == 2
        (row,) = found["entries"]
        size_bytes = row.pop("size_bytes")
        assert row == {
            "key": entry(1).key, "created_s": entry(1).created_s, "expires_s": None, "hits": 3, "cost_usd": 0.001,
            "model": "gpt-4o-mini", "question": "What is the capital of France?", "is_pinned": False,
        }  # fmt: skip
        assert size_bytes > 300

    @pytest.mark.parametrize(("sort", "first"), [("age", "0003"), ("cost", "0002"), ("hits", "0001"), ("size", "0004")])
    def test_sorts(self, directory, sort, first):
        seed(
            directory,
            entry(1), entry(2, cost_usd=9.0), entry(3, created_s=1.8e9), entry(4, "long " * 300),
            hits={entry(1).key: 2},
        )  # fmt: skip
        assert invoke_json("cache", "ls", "--sort", sort)["entries"][0]["key"].startswith(first)

    def test_says_when_there_are_more(self, directory):
        seed(directory, *(entry(number) for number in range(3)))
        assert "2 of 3 entries; --limit shows more" in invoke("cache", "ls", "--limit", "2").stdout

    def test_marks_what_expired(self, directory):
        seed(directory, entry(1, expires_s=5.0))
        assert "(expired)" in invoke("cache", "ls").stdout

    def test_text_can_not_command_the_terminal(self, directory):
        """Prompts and the names of models come from others: no escape, bell, title or reversed writing gets out."""
        nasty = (
            "\x1b]0;owned\x07 \x1b[2J\x9b31m a\u202eb\u200b\r\nc [bold]x[/bold] [link=http://h]y[/link] :smile:\ud800"
        )
        seed(directory, entry(1, nasty, model=nasty, answer=nasty))
        for arguments in (("ls",), ("show", "0001"), ("show", "0001", "--full")):
            shown = invoke("cache", *arguments).stdout
            assert all(character.isprintable() or character in "\n\t" for character in shown)
            assert "\\x1b]0;owned\\x07" in shown
            assert "[bold]x" in shown, "markup is text"
        assert "\\u202e" in shown
        assert "\\ud800" in shown
        assert ":smile:" in shown

    def test_damaged_records_are_passed_over(self, directory):
        seed(directory, entry(1))
        store = DiskStore(directory / ENTRIES_NAME)
        store.put("2" * 64, b"LPE1 nonsense")
        store.close()
        assert invoke_json("cache", "ls")["count"] == 1
        assert "is damaged" in invoke("cache", "show", "2222", code=1).stderr

    def test_a_limit_is_checked(self):
        assert "limit" in invoke("cache", "ls", "--limit", "0", code=2).stderr


class TestShow:
    def test_the_facts_the_question_and_the_answer(self, directory):
        seed(directory, entry(1, "Line one\nline two", backend="b"), hits={entry(1).key: 1_234})
        shown = invoke("cache", "show", "0001").stdout
        assert entry(1).key in shown
        assert "hits      1,234" in shown
        assert "expires   never" in shown
        assert "vector    4 dimensions of fake-4" in shown
        assert "question\nLine one\nline two\n" in shown
        assert shown.endswith("answer\nParis.\n")

    def test_long_texts_are_cut_unless_asked_for(self, directory):
        seed(directory, entry(1, "x" * 5000, answer="y" * 5000, vector=None, encoder="", expires_s=2e9))
        shown = invoke("cache", "show", "0001").stdout
        assert shown.count("(--full shows the rest)") == 2
        assert "x" * 801 not in shown
        assert "none: exact hits only" in shown
        full = invoke("cache", "show", "0001", "--full").stdout
        assert "x" * 5000 in full
        assert "y" * 5000 in full

    def test_as_json(self, directory):
        seed(directory, entry(1, "q" * 900))
        found = invoke_json("cache", "show", entry(1).key.upper())
        assert (found["key"], found["question"]) == (entry(1).key, "q" * 900)
        assert found["completion"]["choices"][0]["message"]["content"] == "Paris."
        assert (found["has_vector"], found["encoder"], found["latency_s"]) == (True, "fake-4", 0.5)

    @pytest.mark.parametrize(
        ("completion", "said"),
        [
            (b'{"choices": [{"message": {"content": null, "tool_calls": [{"id": "c"}]}}]}', '[{"id": "c"}]'),
            (b'{"choices": [{"message": {"content": null}}]}', "-"),
            (b'{"choices": []}', '{"choices": []}'),
            (b'{"choices": [{"message": 3}]}', '{"choices": [{"message": 3}]}'),
            (b"\xff not json", "\ufffd not json"),
            (b"[" * 100_000, "[[["),
        ],
    )
    def test_any_completion(self, directory, completion, said):
        seed(directory, entry(1, completion=completion, created_s=1e300))
        assert said in invoke("cache", "show", "0001").stdout.partition("answer\n")[2]

    @pytest.mark.parametrize(
        ("key", "said"),
        [
            ("9999", "no entry has a key that begins with 9999"),
            ("000", "is no key: give 4 to 64 hex digits"),
            ("zzzz", "is no key"),
            ("0" * 65, "is no key"),
            ("\x1b[2J", "is no key"),
            ("0001", "2 entries have a key that begins with 0001: 00010"),
        ],
    )
    def test_a_key_that_means_not_one(self, directory, key, said):
        seed(directory, entry(1, key="0001" + "0" * 60), entry(1, key="0001" + "1" * 60))
        result = invoke("cache", "show", key, code=1)
        assert said in result.stderr
        assert result.stderr.count("\n") == 1
        assert "\x1b" not in result.stderr


class TestRm:
    def test_removes_what_is_named(self, directory):
        seed(directory, entry(1), entry(2), entry(3))
        assert invoke("cache", "rm", "0001", "0003", "0003").stdout == "Removed 2 entries.\n"
        assert [row["key"] for row in invoke_json("cache", "ls")["entries"]] == [entry(2).key]
        assert invoke_json("cache", "rm", "0002") == {"removed": 1, "keys": [entry(2).key]}

    def test_removes_nothing_when_one_is_wrong(self, directory):
        seed(directory, entry(1))
        invoke("cache", "rm", "0001", "9999", code=1)
        assert invoke_json("cache", "ls")["count"] == 1

    def test_a_running_cache_notices(self, directory):
        cache = build(Config(cache={"directory": directory}).cache, clock=SystemClock())
        cache.admit(entry(1))
        invoke("cache", "rm", "0001")
        assert cache.get(entry(1).key) is None
        cache.close()


class TestClear:
    def test_with_yes(self, directory):
        seed(directory, *(entry(number) for number in range(1, 4)))
        assert invoke("cache", "clear", "--yes").stdout == "Removed 3 entries.\n"
        assert invoke_json("cache", "clear", "-y") == {"removed": 0}

    def test_without_an_answer_to_be_had(self, directory):
        seed(directory, entry(1))
        for arguments in ((), ("--json",)):
            result = invoke("cache", "clear", *arguments, code=2)
            assert "this would remove 1 entry" in result.stderr
            assert "add --yes" in result.stderr
        assert invoke_json("cache", "ls")["count"] == 1

    @pytest.mark.parametrize(("answer", "left"), [("y\n", 0), ("n\n", 1), ("\n", 1)])
    def test_asks_on_a_terminal(self, directory, monkeypatch, answer, left):
        seed(directory, entry(1))
        monkeypatch.setattr("llm_proxy.faces.cli.cache._is_interactive", lambda: True)
        result = invoke("cache", "clear", stdin=answer, code=left)
        assert "Remove 1 entry from" in result.stdout
        assert invoke_json("cache", "ls")["count"] == left

    def test_is_not_interactive_here(self):
        from llm_proxy.faces.cli.cache import _is_interactive

        assert _is_interactive() in {True, False}


class TestCheck:
    def test_clean(self, directory):
        seed(directory, entry(1), entry(2))
        assert invoke("cache", "check").stdout == f"2 entries in {directory}: all is well.\n"
        assert invoke_json("cache", "check") == {"entries": 2, "damaged": 0, "findings": [], "repaired": False}

    def test_damage_is_told_and_repaired(self, directory):
        seed(directory, entry(1), entry(2))
        store = DiskStore(directory / ENTRIES_NAME)
        store.put("2" * 64, b"LPE1 nonsense")
        store.close()
        (directory / SNAPSHOT_NAME).write_bytes(b"nonsense")
        told = invoke("cache", "check", code=1).stdout
        assert "- 1 record(s) cannot be read\n" in told
        assert "cache check --repair" in told
        store = DiskStore(directory / ENTRIES_NAME)
        store.put("3" * 64, b"LPE1 nonsense")
        store.close()
        repaired = invoke_json("cache", "check", "--repair")
        assert repaired["repaired"]
        assert repaired["damaged"] >= 1
        assert invoke("cache", "check").stdout.endswith(f"2 entries in {directory}: all is well.\n")

    def test_evicts_nothing_whatever_the_budget_here(self, directory, monkeypatch):
        seed(directory, *(entry(number, answer="x" * 100_000) for number in range(20)))
        monkeypatch.setenv("LLM_PROXY_CACHE_MAX_ENTRIES", "3")
        monkeypatch.setenv("LLM_PROXY_CACHE_BUDGET_BYTES", str(1 << 20))
        for arguments in (("ls",), ("show", "0001"), ("check",), ("check", "--repair")):
            invoke("cache", *arguments)
        assert invoke_json("cache", "ls")["count"] == 20

    def test_while_another_writes(self, directory):
        seed(directory, entry(1))
        cache = build(Config(cache={"directory": directory}).cache, clock=SystemClock())
        stop = threading.Event()

        def write() -> None:
            number = 2
            while not stop.is_set():
                cache.admit(entry(number))
                number += 1
                stop.wait(0.002)

        writer = threading.Thread(target=write)
        writer.start()
        try:
            for _ in range(5):
                for arguments in (("ls",), ("show", "0001"), ("check",)):
                    invoke("cache", *arguments)
        finally:
            stop.set()
            writer.join()
            cache.close()


class TestDirectories:
    """Every command, wherever it is pointed: a clear line, an exit code, no traceback."""

    @pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
    @pytest.mark.parametrize("made", [False, True], ids=["missing", "empty"])
    def test_missing_or_empty(self, directory, arguments, made):
        if made:
            directory.mkdir()
        needs_one = arguments[0] in {"show", "rm"}
        invoke("cache", *arguments, code=1 if needs_one else 0)
        assert made or not directory.exists(), "looking makes nothing"
        assert not made or list(directory.iterdir()) == []

    def test_says_so(self, directory):
        assert invoke("cache", "ls").stdout == f"Nothing is cached in {directory} yet.\n"
        assert invoke_json("cache", "ls") == {"entries": [], "count": 0}

    @pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
    @pytest.mark.parametrize("spoilt", ["text", "other", "folder", "file"])
    def test_corrupt_or_foreign(self, directory, arguments, spoilt):
        if spoilt == "file":
            directory.write_text("I am a file.")
        else:
            place = directory / ENTRIES_NAME
            place.mkdir(parents=True)
            _spoil(place / "cache.db", spoilt)
        code = 1
        if spoilt == "file" and arguments[0] not in {"show", "rm"}:
            code = 0
        result = invoke("cache", *arguments, code=code)
        assert "Traceback" not in result.stderr
        assert code == 0 or (result.stderr.count("\n") == 1 and result.stderr.startswith("llm-proxy: "))

    @pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
    def test_read_only(self, directory, arguments):
        seed(directory, entry(1))
        for path in (directory, *directory.rglob("*")):
            path.chmod(0o555 if path.is_dir() else 0o444)
        with unprivileged():
            result = invoke("cache", *arguments, code=1)
        assert result.stderr.startswith(f"llm-proxy: the cache in {directory / ENTRIES_NAME} ")
        assert result.stderr.count("\n") == 1

    @pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
    def test_not_to_be_entered(self, directory, arguments):
        seed(directory, entry(1))
        directory.chmod(0o600)
        with unprivileged():
            assert "can't be read: Permission denied" in invoke("cache", *arguments, code=1).stderr

    @pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
    def test_in_memory(self, monkeypatch, arguments):
        monkeypatch.setenv("LLM_PROXY_CACHE_STORE", "memory")
        assert 'cache.store is "memory"' in invoke("cache", *arguments, code=2).stderr

    def test_files_stay_private(self, directory):
        seed(directory, entry(1))
        invoke("cache", "check", "--repair")
        modes = {stat.S_IMODE(path.stat().st_mode) for path in directory.rglob("*") if path.is_file()}
        assert modes <= {0o600}


def _spoil(path: Path, how: str) -> None:
    if how == "text":
        path.write_bytes(b"Dear aunt, all is well here. " * 500)
    elif how == "folder":
        path.mkdir()
    else:
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("CREATE TABLE Cache (mine TEXT)")
            connection.commit()


def test_json_stays_json_whatever_is_in_it(directory):
    seed(directory, entry(1, "\ud800\x1b[2J\u2028", answer="\ud800"))
    assert invoke_json("cache", "ls")["entries"][0]["question"] == "\ud800\x1b[2J\u2028"
    assert json.dumps(invoke_json("cache", "show", "0001")["completion"])


def test_what_is_pinned_shows_and_is_pinned_once(directory):
    seed(directory, entry(1), entry(2))
    assert invoke("cache", "pin", entry(1).key).stdout == "Pinned 1 entry.\n"
    assert invoke("cache", "pin", entry(1).key, entry(2).key).stdout == "Pinned 1 entry; 1 already pinned.\n"
    assert invoke("cache", "ls").stdout.count("(pinned)") == 2
    assert all(row["is_pinned"] for row in invoke_json("cache", "ls")["entries"])
