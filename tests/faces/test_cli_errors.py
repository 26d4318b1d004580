"""Errors say what to do: each one that a person meets at the command line names the value and a remedy, on one line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faces.cli_kit import entry, invoke, seed, settled, spawn

ONE_ROUTE = """
[backends.a]
base_url = "http://127.0.0.1:1/v1"
[routes.auto]
candidates = ["a/m"]
"""
CASES = {
    "no file": (("--config", "absent.toml", "stats"), "", ("absent.toml", "No such file", "llm-proxy init writes one")),
    "no toml": (("stats",), "[cache\n", ("llm-proxy.toml is not TOML", "line 1")),
    "no setting": (("stats",), "[cache]\ntreshold = 1\n", ("cache.treshold", "did you mean cache.threshold?")),
    "out of range": (("stats",), "[cache]\nthreshold = 2\n", ("cache.threshold", "1", "2")),
    "in memory": (("cache", "ls"), '[cache]\nstore = "memory"\n', ('"memory"', 'set cache.store = "disk"')),
    "no key": (("cache", "show", "zz"), "", ("'zz'", "hex digits of cache ls")),
    "no entry": (("cache", "show", "ffff"), "", ("ffff", "llm-proxy cache ls lists them")),
    "no export": (("cache", "import", "gone"), "", ("gone", "No such file", "- stands for standard input")),
    "a folder": (("cache", "export", "."), "", ("can't be written", "it is a folder", "name a file in it")),
    "no span": (("stats", "--since", "soon"), "", ("--since", "90m, 24h, 7d", "'soon'")),
    "no ledger": (("stats",), "[observe]\nledger = false\n", ("no ledger is kept", "observe.ledger = true")),
    "no route": (("route", "explain", "?"), "", ("no route", "llm-proxy.toml")),
    "other route": (("route", "explain", "?", "--route", "b"), ONE_ROUTE, ("--route", "['auto']", "'b'")),
    "no header": (("cache", "warm", "calls.jsonl", "--header", "x"), "", ("--header must be NAME:VALUE", "'x'")),
    "no url": (("cache", "warm", "calls.jsonl", "--base-url", "h"), "", ("--base-url must be an http", "'h'")),
    "no caller": (("cache", "warm", "calls.jsonl"), "", ("set OPENAI_API_KEY", "--tenant-key-env")),
    "no address": (("serve", "--host", "0.0.0.0"), "", ("0.0.0.0", "server.keys")),
    "there already": (("init",), ONE_ROUTE, ("llm-proxy.toml is there already", "--force")),
}  # fmt: skip


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with settled(monkeypatch) as cache:
        seed(cache, entry(1))
        (cache.parent / "calls.jsonl").write_text("{}\n")
        yield cache.parent


@pytest.mark.parametrize("case", CASES)
def test_it_says_what_to_do(case: str, folder: Path) -> None:
    arguments, settings, parts = CASES[case]
    if settings:
        (folder / "llm-proxy.toml").write_text(settings)
    code = 1 if case in {"no key", "no entry", "no export", "a folder"} else 2
    said = invoke(*arguments, code=code).stderr
    line = said.splitlines()[-1]
    assert line.startswith("llm-proxy: ")
    assert [part for part in parts if part not in line] == [], line


@pytest.mark.parametrize(
    "words", [("cache", "ls"), ("cache", "show", "0001"), ("route", "train", "--help")], ids=" ".join
)
def test_a_character_that_the_terminal_lacks_is_escaped(words: tuple[str, ...], folder: Path) -> None:
    seed(folder / "cache", entry(1, "Wo liegt 東京…?"))
    process = spawn(*words, variables={"PYTHONIOENCODING": "latin-1"})
    said, complained = process.communicate(timeout=60)
    assert (process.returncode, complained) == (0, "")
    assert "\\u2026" in said


def test_the_doctor_has_marks_for_every_terminal() -> None:
    process = spawn("doctor", variables={"PYTHONIOENCODING": "ascii"})
    said, complained = process.communicate(timeout=120)
    assert process.returncode in {0, 1}
    assert complained == ""
    assert "+ python " in said
    assert "\\u2713" not in said
