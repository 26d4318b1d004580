"""The files to deploy with: what they name exists, and tools that read such files accept them where they are there."""

from __future__ import annotations

import configparser
import json
import re
import shutil
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
from typer.main import get_command

from llm_proxy.config import Config, load, variable_of
from llm_proxy.faces.asgi import ProxyApp
from llm_proxy.faces.cli.app import app
from llm_proxy.faces.serve import server_config
from llm_proxy.runtime import Runtime
from tests.faces.asgi_kit import running
from tests.faces.cli_kit import invoke, invoke_json

FOLDER = Path(__file__).parent.parent / "examples" / "deploy"
DOCKERFILE = (FOLDER / "Dockerfile").read_text()
COMPOSE = (FOLDER / "compose.yaml").read_text()
UNIT = (FOLDER / "llm-proxy.service").read_text()
COMMANDS = set(get_command(app).commands)  # type: ignore[attr-defined]


def instructions() -> list[tuple[str, str]]:
    """The instructions of the Dockerfile, those over several lines as one."""
    joined = re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", DOCKERFILE, flags=re.MULTILINE))
    return [tuple(line.split(" ", 1)) for line in joined.splitlines() if line]  # type: ignore[misc]


def test_the_settings_load(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    assert list(load(FOLDER / "llm-proxy.toml").backends) == ["openai"]


@pytest.mark.parametrize("text", [DOCKERFILE, COMPOSE, UNIT], ids=["Dockerfile", "compose", "unit"])
def test_every_variable_is_one_of_a_setting(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    known = {variable_of(section, name) for section in ("cache", "server") for name in fields(section)}
    known |= {variable_of("backends", "ollama", name) for name in fields("backends")} | {"LLM_PROXY_CONFIG"}
    assert set(re.findall(r"LLM_PROXY_\w+", text)) <= known


def fields(section: str) -> list[str]:
    from llm_proxy.config import BackendConfig, CacheConfig, ServerConfig

    return list({"cache": CacheConfig, "server": ServerConfig, "backends": BackendConfig}[section].model_fields)


def test_what_the_image_runs_are_commands() -> None:
    words = [json.loads(text[text.index("[") :]) for name, text in instructions() if name in {"CMD", "HEALTHCHECK"}]
    assert words == [["llm-proxy", "health"], ["serve"]]
    assert {"health", "serve", "keys"} <= COMMANDS
    assert dict(instructions())["ENTRYPOINT"] == '["llm-proxy"]'


def test_the_image_runs_as_nobody_in_particular() -> None:
    found = instructions()
    names = [name for name, _ in found]
    assert names.count("FROM") == 2
    last = found[max(place for place, name in enumerate(names) if name == "FROM") :]
    assert dict(last)["USER"] == "10001:10001"
    assert [name for name, _ in last].index("USER") > max(
        place for place, (name, _) in enumerate(last) if name in {"RUN", "COPY"}
    )
    assert not re.search(r"api[_-]?key\s*=\s*\S", DOCKERFILE, re.IGNORECASE)


def test_the_image_adds_a_user_that_its_base_has_not() -> None:
    """Debian's base-passwd brings some; `useradd` fails for them, and the build with it."""
    debian = "root daemon bin sys sync games man lp mail news uucp proxy www-data backup list irc _apt nobody"
    [name] = re.findall(r"useradd .*nologin (\S+)", dict(instructions_of("useradd"))["RUN"])
    assert name not in debian.split()
    assert f"--owner {name} --group {name} " in DOCKERFILE


def instructions_of(word: str) -> list[tuple[str, str]]:
    return [(name, text) for name, text in instructions() if word in text]


def test_what_is_copied_is_there_and_let_in() -> None:
    let_in = {line[1:] for line in (FOLDER / "Dockerfile.dockerignore").read_text().splitlines() if line[:1] == "!"}
    for name, text in instructions():
        if name == "COPY" and not text.startswith("--from"):
            for source in text.split()[:-1]:
                assert (FOLDER.parent.parent / source).exists(), source
                assert source in let_in


def test_the_unit_reads_as_one_and_gives_little() -> None:
    unit = configparser.RawConfigParser(strict=False)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(UNIT)
    service = unit["Service"]
    assert (service["DynamicUser"], service["ProtectSystem"], service["CapabilityBoundingSet"]) == ("yes", "strict", "")
    assert int(service["TimeoutStopSec"]) > Config().server.drain_s
    assert service["ExecStart"].split()[-1] in COMMANDS
    assert "-HUP" in service["ExecReload"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not here")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    place = tmp_path / "llm-proxy.service"
    place.write_text(UNIT.replace("/usr/local/lib/llm-proxy/bin/llm-proxy", "/bin/true"))
    done = subprocess.run(["systemd-analyze", "verify", str(place)], capture_output=True, text=True, check=False)
    ours = [line for line in done.stderr.splitlines() if "llm-proxy" in line]
    assert (done.returncode, ours) == (0, [])


class Another(BaseHTTPRequestHandler):
    """A server that is no proxy of ours, and one that is broken."""

    replies: ClassVar[list[tuple[int, bytes]]] = []

    def do_GET(self) -> None:
        status, body = self.replies[0]
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class TestHealth:
    @pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "localhost"])
    def test_a_proxy_that_runs(self, host: str, tmp_path: Path) -> None:
        backends = {"b": {"base_url": "http://127.0.0.1:9/v1"}}
        config = Config(backends=backends, cache={"store": "memory", "semantic": False}, server={"keys": ["k"]})
        with running(ProxyApp(Runtime(server_config(config)))) as port:
            found = invoke_json("health", "--host", host, "--port", str(port))
            assert found == {"status": "ok", "cache": "ok", "encoder": "off"}
            assert "status ok" in invoke("health", "--host", host, "--port", str(port)).stdout

    def test_nobody_is_there(self) -> None:
        assert "no proxy answers" in invoke("health", "--port", "9", "--timeout", "1", code=1).stderr

    @pytest.mark.parametrize(
        "reply", [(503, b"{}"), (200, b"hello"), (200, b"[]"), (200, b'{"status": "up"}'), (200, b"")]
    )
    def test_somebody_else_is_there(self, reply: tuple[int, bytes]) -> None:
        with HTTPServer(("127.0.0.1", 0), Another) as server:
            Another.replies = [reply]
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            try:
                said = invoke("health", "--port", str(server.server_port), code=1).stderr
                assert "no proxy answers at 127.0.0.1" in said
            finally:
                server.shutdown()
                thread.join()
