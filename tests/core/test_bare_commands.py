"""Without extras: the commands work, and those that are asked say which pip line adds semantic hits."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

import llm_proxy
from llm_proxy.config import environment_for_child
from llm_proxy.faces.cli import _checks, demo
from llm_proxy.runtime import close_all
from llm_proxy.testing import FakeBackend
from tests.servers import Served, serving

from .kit import ENCODER, PIP_LINE, ask, command, command_json, give_vectors

QUESTION = "How do I reset my password?"


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LLM_PROXY_CACHE_DIRECTORY", str(tmp_path / "cache"))
    monkeypatch.setattr(_checks, "discover", lambda: ())
    monkeypatch.chdir(tmp_path)
    return tmp_path / "cache"


@pytest.fixture
def provider() -> Iterator[Served]:
    with serving(FakeBackend()) as served:
        yield served


@pytest.fixture
def filled(provider: Served) -> Any:
    """Two answers in the cache, and three calls in the ledger."""
    with llm_proxy.OpenAI(base_url=f"{provider.url}/v1", api_key="k") as client:
        for text in (QUESTION, "Who are you?", QUESTION):
            ask(client, text)
    close_all()


@pytest.mark.usefixtures("filled")
class TestTheirWork:
    def test_ls(self) -> None:
        assert {row["question"] for row in command_json("cache", "ls")["entries"]} == {QUESTION, "Who are you?"}
        assert QUESTION in command("cache", "ls").stdout

    def test_show_check_rm_and_clear(self) -> None:
        key = command_json("cache", "ls")["entries"][0]["key"]
        assert command_json("cache", "show", key)["has_vector"] is False
        assert command_json("cache", "check")["findings"] == []
        assert command_json("cache", "rm", key)["removed"] == 1
        assert command_json("cache", "clear", "--yes")["removed"] == 1

    def test_entries_with_vectors(self, directory: Path) -> None:
        give_vectors(directory)
        listed = command_json("cache", "ls")["entries"]
        assert len(listed) == 2
        shown = command_json("cache", "show", listed[0]["key"])
        assert (shown["encoder"], shown["question"]) == (ENCODER, listed[0]["question"])
        assert command_json("cache", "check") == {"entries": 2, "damaged": 0, "findings": [], "repaired": False}
        assert "2 entries" in _topic(command_json("doctor"), "cache")[0]["message"]

    def test_stats(self) -> None:
        sums = command_json("stats")
        assert (sums["calls"], sums["exact_hits"], sums["semantic_hits"], sums["misses"]) == (3, 1, 0, 2)
        assert "hit rate" in command("stats").stdout


class TestRoutes:
    def test_explain_by_the_rules(self) -> None:
        backend = '[backends.main]\nbase_url = "http://127.0.0.1:9/v1"\n'
        Path("llm-proxy.toml").write_text(f'{backend}[routes.auto]\ncandidates = ["main/small", "main/big"]\n')
        found = command_json("route", "explain", QUESTION)
        assert (found["decided_by"], found["without_head"], found["chosen"]) == ("rules", "no head", "main/small")


class TestWhatTheySay:
    def test_doctor(self) -> None:
        report = command_json("doctor")
        assert report["problems"] == 0, "less is installed than could be; nothing is wrong"
        for topic in ("extras", "encoder"):
            (finding,) = _topic(report, topic)
            assert (finding["state"], finding["remedy"]) == ("warning", PIP_LINE)
        assert PIP_LINE in command("doctor").stdout

    def test_demo(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(demo, "SIMULATED_LATENCY_S", 0.0)
        result = command("demo", "--provider", "simulated")
        assert PIP_LINE in " ".join(result.stdout.split())

    def test_serve(self, provider: Served, directory: Path) -> None:
        process = subprocess.Popen(
            [sys.executable, "-m", "llm_proxy", "serve", "--port", "0", "--json"],
            env=environment_for_child({"LLM_PROXY_BACKENDS_MAIN_BASE_URL": f"{provider.url}/v1"}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdout is not None
            facts = json.loads(process.stdout.readline())
            assert (facts["semantic"], facts["directory"]) == (False, str(directory))
            with openai.OpenAI(base_url=facts["base_url"], api_key="k", max_retries=0) as client:
                found = [ask(client, QUESTION)[1]["cache-status"] for _ in range(2)]
            assert found == ["llm-proxy; fwd=uri-miss; stored", 'llm-proxy; hit; detail="exact"']
        finally:
            process.send_signal(signal.SIGTERM)
            _, complained = process.communicate(timeout=30)
        assert process.returncode == 0
        assert PIP_LINE in complained
        assert complained.count("\n") == 1


def _topic(report: Any, topic: str) -> list[dict[str, Any]]:
    return [finding for finding in report["findings"] if finding["topic"] == topic]
