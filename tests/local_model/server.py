"""The local model servers as context managers, on loopback, with one tiny model.

They are llama-cpp-python's, llama.cpp's own and ``transformers serve``.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType

ROOT = Path(__file__).resolve().parents[2]
VENV = ROOT / ".venv-local-model"
PYTHON = VENV / "bin" / "python"
READY = VENV / "ready"
FOLDERS = VENV / "models"
MODEL = Path(__file__).resolve().parent / "model.gguf"
DRAFT = MODEL.with_name("draft.gguf")
NAME = "tiny"
MISSING = (
    "The local model server is not installed: run `scripts/local-model`, or `make test-local-model` for all of it."
)

SETTINGS: dict[str, str | int | bool] = {
    "n_ctx": 512,
    "n_threads": 1,
    "n_threads_batch": 1,
    "verbose": False,
    # The server's default cuts a running stream short, without a finish_reason, when another request arrives.
    "interrupt_requests": False,
}


def is_installed() -> bool:
    """Return whether scripts/local-model has finished its work."""
    return READY.is_file() and PYTHON.exists() and FOLDERS.is_dir()  # an older one has not the last


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class LocalModelServer:
    """One server process that answers one request at a time.

    Settings of `llama_cpp.server` are given by name, such as `interrupt_requests=True` or `api_key="secret"`.

    Attributes:
        base_url: For `openai.OpenAI(base_url=...)`; valid while the context is open.
        pid: Of the server process.
        states: The path that tells whether it answers.
        longest_silence_s: More than it takes to its first byte, and from one to the next, while it is well.
        log_path: What the server printed; removed when the context closes.
    """

    program: tuple[str, ...] = ("-m", "llama_cpp.server")
    defaults = SETTINGS
    states = "/v1/models"
    folder = VENV
    longest_silence_s = 0.5

    def __init__(self, *, model: Path = MODEL, start_timeout_s: float = 60.0, **settings: str | int | bool) -> None:
        self._model, self._start_timeout_s = model, start_timeout_s
        self._settings = {**self.defaults, **settings}
        self._process: subprocess.Popen[bytes] | None = None
        self.base_url = ""
        self._port = self.pid = 0
        self.log_path = Path()

    def __enter__(self) -> LocalModelServer:
        if not is_installed():
            raise FileNotFoundError(MISSING)
        handle, name = tempfile.mkstemp(prefix="local-model-", suffix=".log")
        self.log_path = Path(name)
        with contextlib.ExitStack() as undo, os.fdopen(handle, "wb") as log:
            undo.callback(self.stop)
            self._start(log.fileno())
            undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop the process, politely for five seconds, and remove its log; harmless when it has ended."""
        if self._process is not None:
            self._process.terminate()
            self._process.send_signal(signal.SIGCONT)  # one that stands still hears nothing else
            try:
                self._process.wait(timeout=5)
            except subprocess.TimeoutExpired:  # it waits for open streams
                self._process.kill()
                self._process.wait()
            self._process = None
        self.log_path.unlink(missing_ok=True)

    def kill(self) -> None:
        """End it as a crash would: with no word to those who wait."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def freeze(self) -> None:
        """Have it stand still, its connections open, until `thaw`."""
        self._tell(signal.SIGSTOP)

    def thaw(self) -> None:
        """Have it go on after `freeze`; harmless otherwise."""
        self._tell(signal.SIGCONT)

    def _tell(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)  # nothing where it has ended

    def begin_again(self) -> None:
        """Start it anew at the same address after `kill`; it may not listen yet, nor have its model."""
        with self.log_path.open("ab") as log:
            self._process = self._spawn(self._port, log.fileno())
        self.pid = self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether its process has not ended."""
        return self._process is not None and self._process.poll() is None

    def is_ready(self) -> bool:
        """Whether it answers."""
        return self._status(self._port) in {200, 401}

    def is_loading(self) -> bool:
        """Whether it says that its model is not there yet."""
        return self._status(self._port) == 503

    def _start(self, log: int) -> None:
        deadline = time.monotonic() + self._start_timeout_s
        for _ in range(3):  # between the choice of a free port and its use another process may take it
            port = _free_port()
            self._process = self._spawn(port, log)
            while self._process.poll() is None and time.monotonic() < deadline:
                if self._status(port) in {200, 401}:
                    self._port, self.base_url = port, f"http://127.0.0.1:{port}/v1"
                    self.pid = self._process.pid
                    return
                time.sleep(0.05)
            if self._process.poll() is None or "address already in use" not in self._log():
                break
        raise RuntimeError(f"The local model server did not start in {self._start_timeout_s:g} s:\n{self._log()}")

    def _spawn(self, port: int, log: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self._command(port),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=self.folder,
            # The server reads its settings from the environment too: give it none.
            env={"PATH": os.defpath, "PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        )

    def _command(self, port: int) -> list[str]:
        command = [str(PYTHON), *self.program, "--model", str(self._model), "--model_alias", NAME]
        command += ["--host", "127.0.0.1", "--port", str(port)]
        for name, value in self._settings.items():
            command += [f"--{name}", str(value).lower() if isinstance(value, bool) else str(value)]
        return command

    def _status(self, port: int) -> int:
        """What it says of its models; 0 where it says nothing."""
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", self.states)
            return connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return 0
        finally:
            connection.close()

    def _log(self) -> str:
        return self.log_path.read_text(encoding="utf-8", errors="replace")[-4000:]


class NativeServer(LocalModelServer):
    """llama.cpp's own server; settings are those of `tests.local_model.native`, such as ``n_parallel=2``."""

    program = (str(Path(__file__).with_name("native.py")),)
    defaults: dict[str, str | int | bool] = {}  # noqa: RUF012 - never changed


class TransformersServer(LocalModelServer):
    """``transformers serve``, which answers one after the other; settings are its options, as ``default_seed=1``."""

    program = (str(VENV / "bin" / "transformers"), "serve", NAME)
    defaults: dict[str, str | int | bool] = {"device": "cpu"}  # noqa: RUF012 - never changed
    states = "/health"  # its list of models is that of a cache of downloads
    folder = FOLDERS
    longest_silence_s = 3.0

    def _command(self, port: int) -> list[str]:
        """The model is the folder of that name beside it: it answers to no other name."""
        command = [str(PYTHON), *self.program, "--host", "127.0.0.1", "--port", str(port)]
        return command + [part for name, value in self._settings.items() for part in (_option(name), str(value))]


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")
