"""What all commands share: errors, settings, formats, and documentation that is true."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import llm_proxy
from llm_proxy.faces.cli import _format as form
from llm_proxy.faces.cli._shared import one_line, visible
from tests.faces.cli_kit import invoke, invoke_json, settled, spawn

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(autouse=True)
def directory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with settled(monkeypatch) as folder:
        yield folder


class TestVisible:
    @given(st.text())
    def test_nothing_that_does_not_print_is_left(self, text):
        assert visible(text).isprintable()
        assert all(character.isprintable() or character in "\n\t" for character in visible(text, keep_lines=True))
        assert "\n" not in one_line(text)
        assert len(one_line(text, 10)) <= 10

    def test_what_prints_stays(self):
        assert visible("Grüße, 世界 🎉 €") == "Grüße, 世界 🎉 €"
        assert visible("a\tb\nc", keep_lines=True) == "a\tb\nc"

    @pytest.mark.parametrize(
        ("text", "shown"),
        [("\x1b[2J", "\\x1b[2J"), ("\x9b", "\\x9b"), ("\u202e", "\\u202e"), ("\ud800", "\\ud800"), ("\r", "\\r"),
         ("\x00", "\\x00"), ("\U000e0001", "\\U000e0001")],
    )  # fmt: skip
    def test_what_does_not_is_spelt(self, text, shown):
        assert visible(text) == shown

    def test_one_line(self):
        assert one_line(" a\n\tb  c ") == "a b c"
        assert one_line("abcdef", 4) == "abc…"


def test_formats():
    assert [form.age(value) for value in (0, 59, 60, 7_199, 86_400 * 3)] == ["now", "59 s", "1 min", "1 h", "3 d"]
    assert [form.size(value) for value in (0, 1023, 1536, 1 << 30, 1 << 50)] == [
        "0 B", "1023 B", "1.5 KiB", "1.0 GiB", "1024.0 TiB",
    ]  # fmt: skip
    assert [form.dollars(value) for value in (0, 1234.5, 0.5, 0.00012, 1e-9)] == [
        "$0.00", "$1,234.50", "$0.5", "$0.00012", "<$0.000001",
    ]  # fmt: skip
    assert [form.seconds(value) for value in (1.26, 180, 7_200)] == ["1.3 s", "3.0 min", "2.0 h"]
    assert [form.milliseconds(value) for value in (0.00042, 0.0123, 1.5)] == ["0.42 ms", "12.3 ms", "1,500 ms"]
    assert [form.share(1, 2), form.share(0, 0), form.amount(1e6)] == ["50%", "-", "1,000,000"]


class TestErrors:
    def test_a_wrong_setting(self, monkeypatch):
        monkeypatch.setenv("LLM_PROXY_CACHE_STORE", "redis")
        result = invoke("cache", "ls", code=2)
        assert result.stderr == (
            "llm-proxy: wrong setting: cache.store must be 'disk' or 'memory', not 'redis' "
            "(from LLM_PROXY_CACHE_STORE)\n"
        )
        assert result.stdout == ""

    def test_a_file_that_is_not_there(self):
        assert "absent.toml can't be read" in invoke("--config", "absent.toml", "stats", code=2).stderr

    def test_a_package_that_is_missing(self, monkeypatch):
        def absent(*_: object) -> None:
            raise ModuleNotFoundError("No module named 'numpy'", name="numpy")

        monkeypatch.setattr("llm_proxy.faces.cli.cache.opened", absent)
        assert invoke("cache", "ls", code=1).stderr == 'llm-proxy: this needs numpy: pip install "llm-proxy[cpu]"\n'

    def test_stdout_is_empty_with_json_too(self):
        assert invoke("--config", "absent.toml", "stats", "--json", code=2).stdout == ""

    @pytest.mark.parametrize("arguments", [["nonsense"], ["cache", "nonsense"], ["stats", "--nonsense"]])
    def test_wrong_arguments(self, arguments):
        result = invoke(*arguments, code=2)
        assert result.stdout == ""
        assert "nonsense" in result.stderr

    def test_the_file_that_is_named_is_read(self, directory):
        (directory.parent / "my.toml").write_text("[observe]\nledger = false\n")
        assert "no ledger is kept" in invoke("--config", "my.toml", "stats", code=2).stderr

    def test_in_a_process_of_its_own(self):
        process = spawn("--config", "absent.toml", "cache", "check")
        said, complained = process.communicate(timeout=30)
        assert (process.returncode, said) == (2, "")
        assert complained.count("\n") == 1

    def test_output_that_nobody_reads(self):
        process = spawn("--help")
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        complained = process.stderr.read()
        process.stderr.close()
        process.wait(30)
        assert "Traceback" not in complained


def test_version_and_help():
    assert invoke("--version").stdout == f"llm-proxy {llm_proxy.__version__}\n"
    for arguments in ([], ["cache"]):
        assert "Usage" in invoke(*arguments, "-h").stdout
    for command in ("serve", "run", "demo", "stats", "doctor"):
        shown = invoke(command, "--help").stdout
        assert "Examples" in shown
        assert "--json" in shown
    for command in ("ls", "show", "rm", "clear", "check"):
        assert "Examples" in invoke("cache", command, "--help").stdout


def test_demo_is_wired(monkeypatch):
    """The demonstration has its own tests; here only that the options reach it."""
    from llm_proxy.faces.cli import demo

    seen = {}

    class Result:
        pass

    def choose(kind: str) -> demo.Provider:
        seen["kind"] = kind
        return demo.Provider("simulated", "", "m", "k")

    monkeypatch.setattr(demo, "choose_provider", choose)
    monkeypatch.setattr(demo, "run_demo", lambda provider, console: Result())
    monkeypatch.setattr(demo, "as_json", lambda result: {"calls": 3})
    monkeypatch.setattr(demo, "show", lambda result, console: console.print("a table"))
    assert invoke_json("demo", "--provider", "simulated") == {"calls": 3}
    assert seen == {"kind": "simulated"}
    shown = invoke("demo").stdout
    assert shown.startswith("Simulated provider: no model is asked.")
    assert shown.endswith("a table\n")


class TestDocs:
    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "scripts/docs", *arguments], cwd=ROOT, capture_output=True, text=True)

    def test_are_fresh(self):
        done = self.run("--check")
        assert (done.returncode, done.stderr) == (0, "")

    def test_wrong_arguments(self):
        assert self.run("--nonsense").returncode == 2

    def test_every_setting_and_option_is_there(self):
        from llm_proxy.config import Config
        from llm_proxy.settings.variables import variables_of

        page = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
        tables = {"LLM_PROXY_BACKENDS", "LLM_PROXY_ROUTES"}
        assert [name for name in variables_of(Config) if f"`{name}`" not in page and name not in tables] == []
        commands = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
        assert all(f"## llm-proxy {name}\n" in commands for name in ("serve", "run", "demo", "cache ls", "doctor"))

    def test_the_example_is_a_good_one(self, directory):
        from llm_proxy.config import load

        page = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
        path = directory.parent / "example.toml"
        path.write_text(page.split("```toml\n")[1].split("```")[0])
        assert load(path).routes["auto"].candidates == ("local/llama3.2", "openai/gpt-4o")

    def test_no_name_of_this_machine(self):
        pages = "".join((ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("settings.md", "cli.md"))
        assert str(Path.home()) not in pages
        assert json.dumps(str(ROOT))[1:-1] not in pages
