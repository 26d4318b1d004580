"""``llm-proxy run -- CMD``: a program behind a proxy of its own, which ends with it."""

from __future__ import annotations

import http.client
import os
import secrets
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llm_proxy.encode.extras import exact_only
from llm_proxy.errors import BackendUnavailable, ConfigError

from ._format import amount, dollars, seconds
from ._shared import emit, one_line, say, settings

if TYPE_CHECKING:
    from types import FrameType

    from llm_proxy.config import Config
    from llm_proxy.observe.events import CallEvent, Sink

__all__ = ["run"]

_HOST = "127.0.0.1"
_READY_S = 20.0
_GRACE_S = 2
_HEAR_EVERY_S = 0.1
_PLACEHOLDER_KEY = "unused"
_PROXY_VARIABLES = ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")
_TERMINAL = "/dev/tty"  # this process's, even where standard input is a file
_KEYBOARD = frozenset({"SIGINT", "SIGQUIT"})
_FORWARDED = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2")


def run(
    context: typer.Context,
    command: Annotated[list[str], typer.Argument(metavar="CMD", help="The program and its arguments, after --.")],
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the proxy; 0 takes a free one.")] = 0,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing at the end.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="At the end, print one line of JSON after the program's own output.")
    ] = False,
) -> None:
    """Run a program with its OpenAI calls going through the proxy.

    The proxy listens on a loopback port while the program runs, which finds
    it by OPENAI_BASE_URL; LLM_PROXY_URL has the address without /v1.
    OPENAI_API_KEY is left as it is; where there is none it becomes "unused",
    for clients that won't start without. Signals are passed on, and the exit
    code is the program's (128 + N when signal N ended it, 127 when it isn't
    found, 126 when it can't be run).

    Examples:
        llm-proxy run -- python app.py
        llm-proxy run --port 9000 -- npm test
    """
    config = _with_own_key(_with_own_address(settings(context)))
    program = _found(command[0])
    warning = exact_only(config)
    if warning and not quiet:
        say(warning)
    tally = _Tally()
    with _proxy(config, port, tally) as url:
        try:
            code = _child([program, *command[1:]], _variables(config, url))
        except OSError as exc:
            say(f"llm-proxy: {command[0]} can't be run: {exc.strerror or exc}")
            raise typer.Exit(126) from exc
    if as_json:
        emit({**tally.report(), "exit_code": code})
    elif not quiet:
        say(tally.sentence())
    raise typer.Exit(code)


@dataclass
class _Tally:
    """Counts calls; a sink."""

    calls: int = 0
    hits: int = 0
    saved_usd: float = 0.0
    saved_s: float = 0.0
    # Reentrant: the garbage collector may end a dropped call, which reports here, in the middle of a report.
    lock: threading.RLock = field(default_factory=threading.RLock)

    def __call__(self, event: CallEvent) -> None:
        with self.lock:
            self.calls += 1
            self.hits += event.outcome.status == "hit"
            self.saved_usd += event.outcome.saved_usd
            self.saved_s += event.saved_s

    def report(self) -> dict[str, Any]:
        return {"calls": self.calls, "hits": self.hits, "saved_usd": self.saved_usd, "saved_s": self.saved_s}

    def sentence(self) -> str:
        if not self.hits:
            return f"llm-proxy: {amount(self.calls)} calls, none answered from the cache"
        return (
            f"llm-proxy: {amount(self.calls)} calls, {amount(self.hits)} answered from the cache, "
            f"{dollars(self.saved_usd)} and {seconds(self.saved_s)} saved"
        )


def _with_own_address(config: Config) -> Config:
    """The settings for a proxy that only this machine reaches; its upstream is where the program would have gone."""
    from llm_proxy.config import environment, load

    base_url = environment("OPENAI_BASE_URL")
    if config.backends or base_url is None:
        return load(config, server={"host": _HOST})
    backend = {"base_url": base_url, "auth": "caller", "api_key_env": "OPENAI_API_KEY"}
    try:
        return load(config, server={"host": _HOST}, backends={"openai": backend})
    except ConfigError as exc:
        raise ConfigError(f"OPENAI_BASE_URL is no base URL: {exc}") from exc


def _with_own_key(config: Config) -> Config:
    """The settings with a key for this one program, where keys are issued: whoever calls needs one then."""
    from llm_proxy.config import load
    from llm_proxy.limits import keys_file

    path = keys_file(config)
    if config.server.keys or path is None or not path.is_file():
        return config
    return load(config, server={"keys": (secrets.token_urlsafe(),)})


def _found(program: str) -> str:
    from llm_proxy.config import environment

    found = shutil.which(program, path=environment("PATH"))
    if found is None:
        is_there = os.path.exists(program)
        say(f"llm-proxy: {one_line(program)} {'is no program that can be run' if is_there else 'is not found'}")
        raise typer.Exit(126 if is_there else 127)
    return found


@contextmanager
def _proxy(config: Config, port: int, tally: Sink) -> Iterator[str]:
    """A proxy in a thread; yields its URL once it is ready, and closes the cache at the end."""
    import uvicorn

    from llm_proxy.config import load
    from llm_proxy.faces.asgi import ProxyApp
    from llm_proxy.faces.serve import server_config, server_settings
    from llm_proxy.runtime import Runtime

    try:
        listener = socket.create_server((_HOST, port))
    except OSError as exc:
        raise ConfigError(f"port {port} can't be listened on: {exc.strerror}; use --port 0 for a free one") from exc
    with listener:
        bound = load(config, server={"port": listener.getsockname()[1]})
        runtime = Runtime(server_config(bound), sinks=(tally,))
        how = server_settings(ProxyApp(runtime))
        how.timeout_graceful_shutdown = _GRACE_S  # the program has ended: nobody waits for these answers
        server = uvicorn.Server(how)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="llm-proxy-run")
        thread.start()
        try:
            bound_port: int = listener.getsockname()[1]
            _wait_until_ready(bound_port, thread)
            yield f"http://{_HOST}:{bound_port}"
        finally:
            server.should_exit = True
            thread.join()
            runtime.close()


def _wait_until_ready(port: int, thread: threading.Thread) -> None:
    deadline = time.monotonic() + _READY_S
    while thread.is_alive() and time.monotonic() < deadline:
        connection = http.client.HTTPConnection(_HOST, port, timeout=1.0)
        try:
            connection.request("GET", "/readyz")
            if connection.getresponse().status == 200:
                return
        except (OSError, http.client.HTTPException):
            pass
        finally:
            connection.close()
        time.sleep(0.01)
    raise BackendUnavailable("the proxy did not get ready; llm-proxy doctor may say why")


def _variables(config: Config, url: str) -> dict[str, str]:
    """What the program's environment gets."""
    from llm_proxy.config import environment

    changes = {"OPENAI_BASE_URL": f"{url}/v1", "LLM_PROXY_URL": url}
    if config.server.keys:
        changes["OPENAI_API_KEY"] = config.server.keys[0].get_secret_value()
    elif environment("OPENAI_API_KEY") is None:
        changes["OPENAI_API_KEY"] = _PLACEHOLDER_KEY
    if any(environment(name) for name in _PROXY_VARIABLES):
        # Else the program would look for this machine's loopback beyond its HTTP proxy.
        exempt = environment("NO_PROXY") or environment("no_proxy")
        changes["NO_PROXY"] = changes["no_proxy"] = ",".join(filter(None, (exempt, _HOST)))
    return changes


def _child(command: list[str], variables: Mapping[str, str]) -> int:
    """Run the program to its end, passing signals on; its exit code as a shell gives it."""
    from llm_proxy.config import environment_for_child

    early: list[int] = []
    child: subprocess.Popen[bytes] = subprocess.Popen.__new__(subprocess.Popen)

    def forward(number: int, frame: FrameType | None) -> None:
        # The program may be there, and get the keyboard's signals, long before Popen returns.
        if getattr(child, "pid", None) is None:
            early.append(number)
        elif signal.Signals(number).name not in _KEYBOARD or not _is_foreground():
            child.send_signal(number)

    with _handled(forward):
        subprocess.Popen.__init__(child, command, env=environment_for_child(variables))
        for number in early:
            child.send_signal(number)
        code = _exit_code(child)
    return code if code >= 0 else 128 - code


def _exit_code(child: subprocess.Popen[bytes]) -> int:
    """Wait for a program in another thread, so that this one hears every signal.

    One that came between Python's last look at its signals and a wait without an end would be heard only when the
    program has ended.
    """
    codes: list[int] = []
    waiter = threading.Thread(target=lambda: codes.append(child.wait()), name="llm-proxy-wait")
    waiter.start()
    while waiter.is_alive():
        waiter.join(_HEAR_EVERY_S)
    return codes[0]


@contextmanager
def _handled(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield  # signals come to the main thread, and only it may say what to do with them
        return
    numbers = [getattr(signal, name) for name in _FORWARDED if hasattr(signal, name)]
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)


def _is_foreground() -> bool:
    """Whether the keyboard's signals go to the program as well: the terminal sends them to the whole group."""
    try:
        terminal = os.open(_TERMINAL, os.O_RDONLY | os.O_NOCTTY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)
