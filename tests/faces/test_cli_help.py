"""Help and completion: each command explains itself with examples that parse, and each shell completes it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from llm_proxy.config import environment_for_child
from llm_proxy.faces.cli.app import app
from tests.faces.cli_kit import invoke


def walk(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command with its words, the program itself and the groups included."""
    yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from walk(inner, (*path, name))


COMMANDS = dict(walk(get_command(app)))
EVERY_COMMAND = pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
SHELLS = {
    "bash": "complete -o default -F _llm_proxy_completion llm-proxy",
    "zsh": "#compdef llm-proxy",
    "fish": "complete --command llm-proxy --no-files",
}


@EVERY_COMMAND
def test_help_has_examples_of_this_command(words: tuple[str, ...]) -> None:
    said = invoke(*words, "--help").stdout
    name = " ".join(("llm-proxy", *words))
    assert "Examples:" in said, f"{name} --help shows no example: add an Examples: block to its docstring"
    _, _, examples = (COMMANDS[words].help or "").partition("Examples:")
    assert " ".join(words) in examples


@EVERY_COMMAND
def test_every_option_is_explained(words: tuple[str, ...]) -> None:
    for parameter in COMMANDS[words].params:
        assert getattr(parameter, "help", None), f"llm-proxy {' '.join(words)}: {parameter.name} has no help"


def complete(shell: str, line: str) -> str:
    """What the program answers when a shell asks it to complete a line."""
    variables = {
        "_LLM_PROXY_COMPLETE": f"complete_{shell}",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(line.split(" ")) - 1),
        "_TYPER_COMPLETE_ARGS": line,
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    asked = [sys.executable, "-c", "from llm_proxy.faces.cli import main; main()"]
    ended = subprocess.run(
        asked, env=environment_for_child(variables), capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.stderr == ""
    return ended.stdout


class TestCompletion:
    @pytest.mark.parametrize("shell", SHELLS)
    def test_the_script_of_each_shell(self, shell: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
        script = invoke("--show-completion", shell).stdout
        assert SHELLS[shell] in script
        assert f"_LLM_PROXY_COMPLETE=complete_{shell}" in script

    @pytest.mark.parametrize("shell", SHELLS)
    def test_commands_and_options(self, shell: str) -> None:
        def found(line: str) -> set[str]:
            return set(re.findall(r"(?<![\w-])(?:--)?[a-z][a-z-]*", complete(shell, line)))

        assert {"cache", "route", "doctor", "init"} <= found("llm-proxy ")
        assert "doctor" in found("llm-proxy doc")
        assert {"ls", "warm", "report"} <= found("llm-proxy cache ")
        assert {"--sort", "--limit"} <= found("llm-proxy cache ls --")
        assert {"age", "cost", "hits", "size"} <= found("llm-proxy cache ls --sort ")

    @pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
    def test_bash_itself_completes(self, tmp_path: Path) -> None:
        program = tmp_path / "llm-proxy"
        program.write_text(f"#!{sys.executable}\nfrom llm_proxy.faces.cli import main\nmain()\n")
        program.chmod(0o755)
        script = tmp_path / "completion.sh"
        script.write_text(invoke_script("bash"))
        typed = "COMP_WORDS=(llm-proxy cach); COMP_CWORD=1; _llm_proxy_completion llm-proxy"
        asked = f'. "{script}"; {typed}; echo "${{COMPREPLY[@]}}"'
        path = f"{tmp_path}:{environment_for_child({})['PATH']}"
        ended = subprocess.run(
            ["bash", "-c", asked], env=environment_for_child({"PATH": path}), capture_output=True, text=True,
            timeout=60, check=True,
        )  # fmt: skip
        assert ended.stdout == "cache\n"

    @pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
    def test_it_installs_itself_once(self, tmp_path: Path) -> None:
        variables = {"HOME": str(tmp_path), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
        for _ in range(2):
            asked = [sys.executable, "-m", "llm_proxy", "--install-completion", "bash"]
            ended = subprocess.run(
                asked, env=environment_for_child(variables), capture_output=True, text=True, timeout=60, check=False
            )
            assert ended.returncode == 0, ended.stderr
        (line,) = [line for line in (tmp_path / ".bashrc").read_text().splitlines() if line]
        installed = Path(line.split("'")[1] if "'" in line else line.split()[1])
        assert SHELLS["bash"] in installed.read_text()


def invoke_script(shell: str) -> str:
    """The completion script of a shell."""
    variables = {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    asked = [sys.executable, "-c", "from llm_proxy.faces.cli import main; main()", "--show-completion", shell]
    ended = subprocess.run(
        asked, env=environment_for_child(variables), capture_output=True, text=True, timeout=60, check=True
    )
    return ended.stdout
