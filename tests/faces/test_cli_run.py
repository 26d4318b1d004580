"""``llm-proxy run``, with real programs, real sockets and real signals."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import signal
import socket
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llm_proxy.config import environment_for_child
from llm_proxy.faces.cli import run as module
from llm_proxy.observe.events import CallEvent
from llm_proxy.testing import FakeBackend
from llm_proxy.types import Outcome
from tests.faces.cli_kit import invoke, invoke_json, settled, spawn
from tests.servers import Served, serving

WAIT_S = 30.0


@pytest.fixture(autouse=True)
def directory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with settled(monkeypatch) as folder:
        yield folder


@pytest.fixture
def upstream(monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    with serving(FakeBackend("It is 42.")) as served:
        monkeypatch.setenv("OPENAI_BASE_URL", f"{served.url}/v1")
        yield served


def script(directory: Path, code: str) -> list[str]:
    """The command of a Python program; `out` in it writes to a file beside."""
    path = directory.parent / "program.py"
    path.write_text(f"import json, os, sys, time\ndef out(value): json.dump(value, open('out', 'w'))\n{code}")
    return ["--", sys.executable, str(path), "-x", "--json"]


def out(directory: Path) -> Any:
    return json.loads((directory.parent / "out").read_text())


ASK = """
import openai
client = openai.OpenAI(max_retries=0)
def ask():
    raw = client.chat.completions.with_raw_response.create(model="m", messages=[{"role": "user", "content": "6 x 7?"}])
    return raw.parse().choices[0].message.content, raw.headers["cache-status"]
"""


class TestRun:
    def test_the_program_s_calls_go_through_the_cache(self, directory, upstream):
        command = script(directory, f"{ASK}\nout([ask(), ask()])")
        result = invoke("run", *command)
        (first, second) = out(directory)
        assert first[0] == "It is 42."
        assert first[1].startswith("llm-proxy; fwd=uri-miss; stored")  # the encoder may still be loading
        assert second == ["It is 42.", 'llm-proxy; hit; detail="exact"']
        assert len(upstream.app.requests) == 1
        assert result.stderr.startswith("llm-proxy: 2 calls, 1 answered from the cache, $0.00 and ")
        assert result.stdout == ""
        assert invoke_json("cache", "ls")["count"] == 1, "closed: what it learnt is on disk"
        assert invoke_json("stats")["calls"] == 2

    def test_json_and_quiet(self, directory, upstream):
        command = script(directory, f"{ASK}\nask()\nsys.exit(3)")
        result = invoke("run", "--json", *command, code=3)
        assert json.loads(result.stdout) == {"calls": 1, "hits": 0, "saved_usd": 0.0, "saved_s": 0.0, "exit_code": 3}
        quiet = invoke("run", "--quiet", *command, code=3)
        assert (quiet.stdout, quiet.stderr) == ("", "")
        assert "3 calls, none" in _sentence(calls=3)

    def test_arguments_are_the_program_s_own(self, directory):
        invoke("run", *script(directory, "out(sys.argv[1:])"))
        assert out(directory) == ["-x", "--json"]

    def test_without_a_dash(self, directory):
        invoke("run", *script(directory, "out(1)")[1:])
        assert out(directory) == 1

    def test_the_environment(self, directory, monkeypatch):
        names = ("OPENAI_BASE_URL", "LLM_PROXY_URL", "OPENAI_API_KEY", "NO_PROXY", "no_proxy", "OTHER")
        command = script(directory, f"out([os.environ.get(name) for name in {names}])")
        monkeypatch.setenv("OTHER", "kept")
        invoke("run", *command)
        base_url, url, key, exempt, same, other = out(directory)
        assert base_url == f"{url}/v1"
        assert url.startswith("http://127.0.0.1:")
        assert (key, exempt, same, other) == ("unused", None, None, "kept")
        monkeypatch.setenv("OPENAI_API_KEY", "sk-mine")
        monkeypatch.setenv("HTTPS_PROXY", "http://corp:1")
        monkeypatch.setenv("HTTP_PROXY", "http://corp:1")
        monkeypatch.setenv("no_proxy", "intra")
        invoke("run", *command)
        assert out(directory)[2:] == ["sk-mine", "intra,127.0.0.1", "intra,127.0.0.1", "kept"]

    def test_a_proxy_with_keys_gives_the_program_one(self, directory, monkeypatch):
        monkeypatch.setenv("LLM_PROXY_SERVER_KEYS", "first,second")
        monkeypatch.setenv("LLM_PROXY_SERVER_HOST", "0.0.0.0")
        monkeypatch.setenv("OPENAI_API_KEY", "sk-mine")
        invoke("run", *script(directory, "out([os.environ[n] for n in ('OPENAI_API_KEY', 'LLM_PROXY_URL')])"))
        key, url = out(directory)
        assert key == "first"
        assert url.startswith("http://127.0.0.1:"), "only this machine, whatever the settings of a server"

    def test_where_keys_are_issued_the_program_gets_one_of_its_own(self, directory, upstream):
        issued = invoke_json("keys", "add", "anna")["key"]
        invoke("run", *script(directory, f"{ASK}\nout([ask()[0], os.environ['OPENAI_API_KEY']])"))
        said, key = out(directory)
        assert said == "It is 42."
        assert key not in {issued, "", "sk-mine"}

    def test_a_configured_backend_wins_over_the_environment_s(self, directory, upstream, monkeypatch):
        monkeypatch.setenv("LLM_PROXY_BACKENDS_MINE_BASE_URL", f"{upstream.url}/v1")
        monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
        invoke("run", *script(directory, f"{ASK}\nout(ask())"))
        assert out(directory)[0] == "It is 42."

    def test_a_base_url_that_is_none(self, directory, monkeypatch):
        monkeypatch.setenv("OPENAI_BASE_URL", "localhost")
        result = invoke("run", *script(directory, ""), code=2)
        assert "OPENAI_BASE_URL is no base URL" in result.stderr

    @pytest.mark.parametrize(
        ("code", "seen"), [("sys.exit(0)", 0), ("sys.exit(41)", 41), ("os.kill(os.getpid(), 9)", 137), ("1 / 0", 1)]
    )
    def test_exits_as_the_program_does(self, directory, code, seen):
        invoke("run", *script(directory, code), code=seen)

    def test_programs_that_can_not_be_run(self, directory):
        assert "no-such-program is not found" in invoke("run", "--", "no-such-program", code=127).stderr
        text = directory.parent / "notes.txt"
        text.write_text("not a program")
        assert "is no program that can be run" in invoke("run", "--", str(text), code=126).stderr
        text.chmod(0o755)
        assert "can't be run: Exec format error" in invoke("run", "--", str(text), code=126).stderr
        assert invoke("run", code=2).stderr

    def test_a_port_of_choice_and_one_that_is_taken(self, directory):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
            taken = invoke("run", "--port", str(port), *script(directory, ""), code=2)
        assert f"port {port} can't be listened on" in taken.stderr
        invoke("run", "--port", str(port), *script(directory, "out(os.environ['LLM_PROXY_URL'])"))
        assert out(directory) == f"http://127.0.0.1:{port}"

    def test_is_no_model_server_to_discover(self, directory, upstream):
        code = (
            "from llm_proxy.backends.discover import discover\n"
            "port = int(os.environ['LLM_PROXY_URL'].rpartition(':')[2])\nout(len(discover({port: 'x'})))"
        )
        invoke("run", *script(directory, code))
        assert out(directory) == 0
        assert upstream.app.requests == []

    def test_says_when_it_does_not_get_ready(self, directory, monkeypatch):
        class Dead:
            def __init__(self, config: object) -> None:
                self.should_exit = False

            def run(self, sockets: object) -> None:
                return

        monkeypatch.setattr("uvicorn.Server", Dead)
        result = invoke("run", *script(directory, "out(1)"), code=1)
        assert "the proxy did not get ready" in result.stderr
        assert not (directory.parent / "out").exists()


def _sentence(calls: int) -> str:
    tally = module._Tally()
    for _ in range(calls):
        tally(CallEvent(0.0, Outcome("miss"), 0.0))
    return tally.sentence()


class TestSignals:
    SLEEPER = """
import signal
def note(number, frame):
    out(number)
    sys.exit(5)
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
    signal.signal(number, note)
print("up", flush=True)
for _ in range(600):  # one long sleep would miss a signal that comes just before it
    time.sleep(0.1)
"""

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
    def test_are_passed_on(self, directory, number):
        process = spawn("run", *script(directory, self.SLEEPER), stdin=subprocess.DEVNULL, start_new_session=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        process.send_signal(number)
        _, said = process.communicate(timeout=WAIT_S)
        assert process.returncode == 5, said
        assert out(directory) == number

    def test_a_program_ended_by_one(self, directory):
        process = spawn("run", *script(directory, "print('up', flush=True)\ntime.sleep(60)"), start_new_session=True)
        assert process.stdout is not None
        process.stdout.readline()
        process.terminate()
        process.communicate(timeout=WAIT_S)
        assert process.returncode == 128 + signal.SIGTERM

    def test_the_keyboard_s_reach_the_program_once(self, monkeypatch):
        """A terminal sends them to the whole group: passing them on would be the second time."""
        sent: list[int] = []

        class Child:
            pid = None

            def __init__(self, *_: object, **__: object) -> None:
                signal.raise_signal(signal.SIGQUIT)
                self.pid = 1
                signal.raise_signal(signal.SIGINT)

            def send_signal(self, number: int) -> None:
                sent.append(number)

            def wait(self) -> int:
                signal.raise_signal(signal.SIGINT)
                signal.raise_signal(signal.SIGTERM)
                return 0

        monkeypatch.setattr(module.subprocess, "Popen", Child)
        monkeypatch.setattr(module, "_is_foreground", lambda: True)
        assert module._child(["x"], {}) == 0
        assert sent == [signal.SIGQUIT, signal.SIGTERM], "one came before the program was there"

    @pytest.mark.parametrize("redirect", ["", "</dev/null"])
    def test_a_key_pressed_at_a_terminal(self, directory, redirect):
        """The program gets one signal, not one from the terminal and another that was passed on."""
        code = (
            "import signal\nseen = []\nsignal.signal(signal.SIGINT, lambda number, frame: seen.append(number))\n"
            "print('up', flush=True)\nwhile not seen: time.sleep(0.01)\ntime.sleep(0.3)\nout(len(seen))\nsys.exit(9)"
        )
        master, terminal = pty.openpty()
        program = [sys.executable, "-m", "llm_proxy"]
        process = subprocess.Popen(
            ["sh", "-c", f'exec "$@" {redirect}', "sh", *program, "run", *script(directory, code)],
            stdin=terminal, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment_for_child({}),
            start_new_session=True, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        os.write(master, b"\x03")
        process.communicate(timeout=WAIT_S)
        os.close(master)
        os.close(terminal)
        assert process.returncode == 9
        assert out(directory) == 1

    def test_one_that_comes_before_the_program_is_kept_for_it(self, monkeypatch):
        sent: list[int] = []

        class Child:
            def __init__(self, *_: object, **__: object) -> None:
                signal.raise_signal(signal.SIGTERM)

            def send_signal(self, number: int) -> None:
                sent.append(number)

            def wait(self) -> int:
                return -15

        monkeypatch.setattr(module.subprocess, "Popen", Child)
        assert module._child(["x"], {}) == 143
        assert sent == [signal.SIGTERM]
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL, "as it was before"

    def test_there_is_no_terminal_here(self, monkeypatch, tmp_path):
        monkeypatch.setattr(module, "_TERMINAL", str(tmp_path / "none"))
        assert not module._is_foreground()
        (tmp_path / "file").touch()
        monkeypatch.setattr(module, "_TERMINAL", str(tmp_path / "file"))
        before = os.listdir("/proc/self/fd")
        assert not module._is_foreground()
        assert os.listdir("/proc/self/fd") == before, "nothing is left open"


def test_python_dash_m_and_the_script_are_the_same():
    done = subprocess.run(
        [sys.executable, "-m", "llm_proxy", "--version"],
        capture_output=True, text=True, check=True, env=environment_for_child({}),
    )  # fmt: skip
    assert done.stdout == invoke("--version").stdout


def test_help_comes_at_once():
    """Nothing heavy is loaded to say what there is."""
    code = (
        "import sys, time; t = time.perf_counter()\n"
        "import typer, typer.main, rich.console\nbase = time.perf_counter() - t\n"
        "sys.argv = ['llm-proxy', '--help']\nfrom llm_proxy.faces.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "heavy = {'numpy', 'faiss', 'onnxruntime', 'openai', 'httpx2', 'httpx', 'diskcache', 'pydantic', 'uvicorn'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    assert "serve" in done.stdout
