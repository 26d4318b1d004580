"""``llm-proxy init``: what it finds it writes, what it writes loads, and it takes nobody's file or key."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llm_proxy.backends.discover import LocalServer, discover
from llm_proxy.config import load
from llm_proxy.faces.cli import _checks as checks
from llm_proxy.faces.cli._starting import Found, backend_names, settings_text
from tests.faces.cli_kit import invoke, invoke_json, settled
from tests.servers import serving

SECRET = "sk-very-secret-0123456789"
OLLAMA = LocalServer("Ollama", "http://127.0.0.1:11434/v1", ("llama3.2", "qwen3:8b", "nomic-embed-text"))
LLAMA = LocalServer("llama.cpp", "http://127.0.0.1:8080/v1", ("a.gguf",))
OTHER_LLAMA = LocalServer("llama.cpp", "http://127.0.0.1:8000/v1", ())
ODD = LocalServer("…", "http://127.0.0.1:1234/v1", ('say "hi" \\ ünïcode',))
EMBEDS = LocalServer("vLLM", "http://127.0.0.1:8000/v1", ("embed-only",))
OPENAI = "https://api.openai.com/v1"


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with settled(monkeypatch) as cache:
        found_here(monkeypatch)
        yield cache.parent


def found_here(monkeypatch: pytest.MonkeyPatch, *servers: LocalServer) -> None:
    """Have these be the servers of this machine: its real ports are not the test's."""
    monkeypatch.setattr("llm_proxy.backends.discover.discover", lambda: servers)
    monkeypatch.setattr(checks, "discover", lambda: servers)


async def models_server(scope: Any, receive: Any, send: Any) -> None:
    """A simulated model server: it lists two models and knows nothing else."""
    is_list = scope["path"] == "/v1/models"
    rows = [{"id": name, "object": "model", "owned_by": "vllm"} for name in ("embed-small", "small")]
    body = json.dumps({"object": "list", "data": rows}).encode() if is_list else b"{}"
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200 if is_list else 404, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class TestTheCommand:
    def test_what_it_writes_satisfies_the_doctor(self, folder: Path) -> None:
        report = invoke_json("init")
        assert report == {"file": "llm-proxy.toml", "has_key": False, "servers": [], "missing": []}
        findings = json.loads(invoke("doctor", "--json").stdout)["findings"]
        assert {row["state"] for row in findings} == {"ok"}
        assert [row["message"] for row in findings if row["topic"] == "settings"] == ["llm-proxy.toml"]
        assert (folder / "llm-proxy.toml").stat().st_mode & 0o077 == 0, "it may come to hold keys"
        assert [path.name for path in folder.iterdir()] == ["llm-proxy.toml"], "nothing else is left"

    def test_with_a_key_and_a_server(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OPENAI_API_KEY", SECRET)
        found_here(monkeypatch, OLLAMA)
        result = invoke("init")
        text = (folder / "llm-proxy.toml").read_text(encoding="utf-8")
        assert SECRET not in text + result.stdout + result.stderr
        assert "OPENAI_API_KEY: set" in result.stdout
        assert "Ollama at http://127.0.0.1:11434/v1: 3 model(s)" in result.stdout
        config = load()
        assert config.default_backend == "openai"
        assert config.backends["openai"].api_key_env == "OPENAI_API_KEY"
        assert config.backends["ollama"].models == OLLAMA.models
        assert config.routes["auto"].candidates == ("ollama/llama3.2", "openai/gpt-4o-mini", "openai/gpt-4o")
        assert {row["state"] for row in json.loads(invoke("doctor", "--json").stdout)["findings"]} == {"ok"}

    def test_a_real_server_is_found(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with serving(models_server) as server:
            port = int(server.url.rpartition(":")[2])
            monkeypatch.setattr("llm_proxy.backends.discover.discover", lambda: discover({port: "vLLM"}))
            (row,) = invoke_json("init")["servers"]
        assert row == {"backend": "vllm", "base_url": f"{server.url}/v1", "models": ["small", "embed-small"]}
        assert load().default_backend == "vllm", "without a key, calls would fail anywhere else"

    def test_it_names_what_is_not_installed(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("llm_proxy.encode.extras.find_spec", lambda name: None if name == "faiss" else name)
        assert 'faiss not installed: pip install "llm-proxy[cpu]"' in invoke("init").stdout
        assert "# Only repeated questions are answered: faiss not installed." in (folder / "llm-proxy.toml").read_text()

    def test_a_file_that_is_there_stays(self, folder: Path) -> None:
        (folder / "llm-proxy.toml").write_text("# mine\n")
        result = invoke("init", code=2)
        assert result.stderr == (
            "llm-proxy: llm-proxy.toml is there already: name another file, or add --force to replace it\n"
        )
        assert (folder / "llm-proxy.toml").read_text() == "# mine\n"
        invoke("init", "--force")
        assert load().default_backend == "openai"

    def test_one_that_comes_meanwhile_stays_too(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def slow() -> tuple[LocalServer, ...]:
            (folder / "llm-proxy.toml").write_text("# somebody was quicker\n")
            return ()

        monkeypatch.setattr("llm_proxy.backends.discover.discover", slow)
        assert "is there already" in invoke("init", code=2).stderr
        assert [path.read_text() for path in folder.iterdir()] == ["# somebody was quicker\n"]

    def test_where_it_goes(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        assert invoke_json("--config", "one.toml", "init")["file"] == "one.toml"
        assert invoke_json("--config", "one.toml", "init", "two.toml")["file"] == "two.toml"
        monkeypatch.setenv("LLM_PROXY_CONFIG", "three.toml")
        assert invoke_json("init")["file"] == "three.toml"
        assert sorted(path.name for path in folder.iterdir()) == ["one.toml", "three.toml", "two.toml"]
        assert (
            "absent/x.toml can't be written: No such file or directory"
            in invoke("init", "absent/x.toml", code=2).stderr
        )

    @pytest.mark.parametrize(
        ("said", "written"),
        [
            ("https://h.example/v1/", "https://h.example/v1"),
            (f"https://me:{SECRET}@h.example/v1", OPENAI),
            ("nonsense", OPENAI),
            ("http://127.0.0.1:8080/v1", OPENAI),
        ],
    )
    def test_the_address_of_the_environment(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, said: str, written: str
    ) -> None:
        monkeypatch.setenv("OPENAI_BASE_URL", said)
        monkeypatch.setenv("OPENAI_API_KEY", SECRET)
        invoke("init")
        assert SECRET not in (folder / "llm-proxy.toml").read_text()
        config = load()
        assert config.backends["openai"].base_url == written
        assert bool(config.routes) == (written == OPENAI), "what others call their models is not known"


class TestTheText:
    @pytest.mark.parametrize("has_key", [False, True])
    @pytest.mark.parametrize(
        "servers", [(), (OLLAMA,), (LLAMA, OTHER_LLAMA), (ODD, EMBEDS)], ids=["none", "one", "alike", "odd"]
    )
    @pytest.mark.parametrize("missing", [(), ("faiss", "numpy")], ids=["all", "core"])
    def test_it_loads_as_it_is_and_with_every_idea(
        self, folder: Path, has_key: bool, servers: tuple[LocalServer, ...], missing: tuple[str, ...]
    ) -> None:
        text = settings_text(Found(has_key, OPENAI, servers, missing))
        config = load(**tomllib.loads(text))
        assert [config.backends[name].models for name in backend_names(servers)] == [one.models for one in servers]
        ideas = re.sub(r'^# (?=\[|[a-z_]+ = |"gpt-4o" = )', "", text, flags=re.MULTILINE)
        assert ideas.count("\n# ") < text.count("\n# ")
        wished = load(**tomllib.loads(ideas))
        assert wished.cache == load().cache.model_copy(update={"ttl_s": 604_800.0})
        assert wished.server.port == load().server.port
        assert wished.aliases == {"gpt-4o": "auto"}

    def test_names_tell_servers_apart(self) -> None:
        assert backend_names([LLAMA, OTHER_LLAMA, ODD]) == ["llama-cpp", "llama-cpp-8000", "local"]
        assert backend_names([LocalServer("OpenAI", "http://127.0.0.1:1/v1", ())]) == ["openai-1"]

    def test_many_models_are_cut(self) -> None:
        many = LocalServer("Ollama", "http://127.0.0.1:11434/v1", tuple(f"m{number}" for number in range(30)))
        text = settings_text(Found(False, OPENAI, [many]))
        assert len(tomllib.loads(text)["backends"]["ollama"]["models"]) == 20
        assert "# and 10 more" in text

    def test_what_only_embeds_is_no_candidate(self) -> None:
        text = settings_text(Found(True, OPENAI, [EMBEDS]))
        assert tomllib.loads(text)["routes"]["auto"]["candidates"] == ["openai/gpt-4o-mini", "openai/gpt-4o"]
