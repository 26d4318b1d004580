"""%%chat and %llm_proxy in plain IPython, as somebody types them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import openai
import pytest
from IPython.core.error import UsageError

import llm_proxy
from llm_proxy.faces._http import httpx
from llm_proxy.types import Outcome
from tests.servers import Served

from .conftest import completed, ran

MESSAGES: Any = [{"role": "user", "content": "How do I reset my password?"}]


class TestChat:
    def test_the_answer_and_what_became_of_the_call(
        self, loaded: Any, provider: Served, capsys: pytest.CaptureFixture[str]
    ) -> None:
        ran(loaded, "%%chat --model m\nhello there\n")
        ran(loaded, "%%chat\nhello there\n")
        first, again = capsys.readouterr().out.split("]\n")[:2]
        assert first == "simulated: hello there\n[llm-proxy: miss, asked m, stored"
        assert again.startswith("simulated: hello there\n[llm-proxy: exact hit")
        assert len(provider.app.requests) == 1
        assert provider.app.requests[0]["stream"] is True

    def test_system_and_no_cache(self, loaded: Any, provider: Served) -> None:
        ran(loaded, '%%chat --model m --system "Be short: one word."\nhello')
        ran(loaded, '%%chat --no-cache --system="Be short: one word."\nhello')
        system = {"role": "system", "content": "Be short: one word."}
        assert [body["messages"][0] for body in provider.app.requests] == [system, system]

    def test_a_route_is_asked_by_its_name(
        self, shell: Any, provider: Served, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.delenv("OPENAI_API_KEY")
        monkeypatch.setenv("LLM_PROXY_BACKENDS_SIM_BASE_URL", f"{provider.url}/v1")
        monkeypatch.setenv("LLM_PROXY_BACKENDS_SIM_MODELS", "small,large")
        monkeypatch.setenv("LLM_PROXY_ROUTES_AUTO_CANDIDATES", "sim/small,sim/large")
        ran(shell, "%load_ext llm_proxy")
        ran(shell, "%%chat --route auto\nhello")
        assert "at sim, by route auto" in capsys.readouterr().out
        ran(shell, "%%chat\nhello again")
        assert [body["model"] for body in provider.app.requests] == ["small", "small"]
        assert "auto" in completed(shell, "%%chat --route ")
        assert {"sim/large", "sim/small"} <= set(completed(shell, "%%chat --model "))

    @pytest.mark.parametrize(
        ("cell", "said"),
        [
            ("%%chat --bake\nhello", "knows --model"),
            ("%%chat --model\nhello", "needs a value"),
            ("%%chat --model m --route r\nhello", "not both"),
            ("%%chat --route nope\nhello", "no such route; there are: none"),
            ('%%chat --system "half\nhello', "No closing quotation"),
            ("%%chat --model m\n   \n", "question"),
            ("%%chat\nhello", "--model NAME"),
        ],
    )
    def test_what_is_not_understood_is_one_line(self, cell: str, said: str, loaded: Any, provider: Served) -> None:
        with pytest.raises(UsageError, match=said):
            ran(loaded, cell)
        assert provider.app.requests == []

    def test_an_error_of_the_upstream_is_openais(self, loaded: Any, provider: Served) -> None:
        provider.app.status = 404
        with pytest.raises(openai.NotFoundError):
            ran(loaded, "%%chat --model m\nhello")

    def test_no_key_and_no_backend_is_openais_error(
        self, loaded: Any, provider: Served, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("OPENAI_API_KEY")
        with pytest.raises(openai.OpenAIError, match="OPENAI_API_KEY"):
            ran(loaded, "%%chat --model m\nhello")

    def test_what_came_before_it_broke_stays(
        self, loaded: Any, provider: Served, capsys: pytest.CaptureFixture[str]
    ) -> None:
        provider.app.cut_after = 3
        with pytest.raises(httpx.RemoteProtocolError):
            ran(loaded, "%%chat --model m\nhello")
        assert "broken off" in capsys.readouterr().out


class TestStatus:
    def test_the_card_in_plain_text(self, loaded: Any, capsys: pytest.CaptureFixture[str]) -> None:
        ran(loaded, "%llm_proxy")
        assert "0 calls, - hits" in capsys.readouterr().out
        client = openai.OpenAI()
        for _ in range(2):
            client.chat.completions.create(model="m", messages=MESSAGES)
        ran(loaded, "%llm_proxy")
        said = capsys.readouterr().out
        assert "2 calls, 50% hits" in said
        assert "1 exact hits, 0 semantic hits, 1 misses" in said
        assert "  m: 1" in said
        assert "last call, llm-proxy: exact hit" in said
        assert "all programs with these settings: 2 calls" in said

    @pytest.mark.parametrize(
        ("variable", "value", "said"),
        [
            ("LLM_PROXY_CACHE_STORE", "memory", "cache: memory, gone with this kernel; exact hits"),
            ("LLM_PROXY_CACHE_ENABLED", "false", "cache off"),
        ],
    )
    def test_the_card_of_other_settings(
        self,
        variable: str,
        value: str,
        said: str,
        shell: Any,
        provider: Served,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.setenv(variable, value)
        ran(shell, "%load_ext llm_proxy")
        ran(shell, "%llm_proxy")
        assert said in capsys.readouterr().out

    def test_a_ledger_that_cannot_be_read_is_a_trouble(
        self, loaded: Any, provider: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        ran(loaded, "%%chat --model m\nhello")
        ran(loaded, "%llm_proxy")
        assert "all programs" in capsys.readouterr().out
        (ledger,) = tmp_path.rglob("ledger.sqlite3")
        ledger.write_bytes(b"no database" * 1000)
        ran(loaded, "%llm_proxy")
        said = capsys.readouterr().out
        assert "1 calls" in said
        assert "all programs" not in said

    def test_the_last_call(self, loaded: Any) -> None:
        assert ran(loaded, "%llm_proxy last") is None
        openai.OpenAI().chat.completions.create(model="m", messages=MESSAGES)
        last = ran(loaded, "%llm_proxy last")
        assert isinstance(last, Outcome)
        assert (last.status, last.is_stored) == ("miss", True)

    def test_again_asks_and_replaces(self, loaded: Any, provider: Served, capsys: pytest.CaptureFixture[str]) -> None:
        client = openai.OpenAI()
        for _ in range(2):
            client.chat.completions.create(model="m", messages=MESSAGES)
        provider.app.answer = "simulated: something else"
        ran(loaded, "%llm_proxy again")
        assert "simulated: something else\n[llm-proxy: miss, asked m, stored]" in capsys.readouterr().out
        assert len(provider.app.requests) == 2
        kept = client.chat.completions.create(model="m", messages=MESSAGES)
        assert kept.choices[0].message.content == "simulated: something else"

    async def test_again_after_an_async_client(
        self, loaded: Any, provider: Served, capsys: pytest.CaptureFixture[str]
    ) -> None:
        async with openai.AsyncOpenAI() as client:
            for _ in range(2):
                async for _chunk in await client.chat.completions.create(model="m", messages=MESSAGES, stream=True):
                    pass
        ran(loaded, "%llm_proxy again")
        assert "simulated: How do I reset" in capsys.readouterr().out
        assert len(provider.app.requests) == 2

    @pytest.mark.parametrize("kind", [openai.OpenAI, llm_proxy.OpenAI])
    def test_the_hit_of_a_client_over_a_transport_of_ones_own(
        self, kind: Any, loaded: Any, provider: Served, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with httpx.Client(transport=llm_proxy.ProxyTransport()) as own:
            for client in (kind(http_client=own), kind(http_client=own).with_options(timeout=9.0)):
                client.chat.completions.create(model="m", messages=MESSAGES)
            assert len(own.event_hooks["response"]) == 1, "once, however many clients share it"
            ran(loaded, "%llm_proxy again")
            assert "simulated: How do I reset" in capsys.readouterr().out
            assert len(provider.app.requests) == 2
            loaded.run_line_magic("unload_ext", "llm_proxy")
            assert own.event_hooks == {"request": [], "response": []}
            loaded.run_line_magic("load_ext", "llm_proxy")

    def test_who_has_other_settings_is_not_listened_to(self, loaded: Any, tmp_path: Path) -> None:
        other = {"cache": {"enabled": False}, "observe": {"ledger": False}}
        with httpx.Client(transport=llm_proxy.ProxyTransport(llm_proxy=other)) as own:
            openai.OpenAI(http_client=own)
            assert own.event_hooks["response"] == []

    def test_again_that_upstream_refuses(self, loaded: Any, provider: Served) -> None:
        client = openai.OpenAI()
        for _ in range(2):
            client.chat.completions.create(model="m", messages=MESSAGES)
        provider.app.status = 404
        with pytest.raises(UsageError, match="upstream says 404"):
            ran(loaded, "%llm_proxy again")

    @pytest.mark.parametrize("word", ["undo", "again"])
    def test_without_a_hit(self, word: str, loaded: Any) -> None:
        with pytest.raises(UsageError, match="no hit"):
            ran(loaded, f"%llm_proxy {word}")

    def test_an_exact_hit_is_not_taken_back(self, loaded: Any) -> None:
        client = openai.OpenAI()
        for _ in range(2):
            client.chat.completions.create(model="m", messages=MESSAGES)
        with pytest.raises(UsageError, match="word for word"):
            ran(loaded, "%llm_proxy undo")

    def test_an_unknown_word(self, loaded: Any) -> None:
        with pytest.raises(UsageError, match="again, last, undo"):
            ran(loaded, "%llm_proxy bake")

    @pytest.mark.parametrize(
        ("line", "found"),
        [
            ("%%chat --mo", ["--model"]),
            ("%%chat --no-cache --", ["--model", "--route", "--system"]),
            ("%%chat --no-cache --r", ["--route"]),
            ("%%chat --system ", []),
            ("%llm_proxy ", ["again", "last", "undo"]),
            ("%llm_proxy un", ["undo"]),
            ("%llm_proxy undo ", []),
        ],
    )
    def test_completion(self, line: str, found: list[str], loaded: Any) -> None:
        assert [name for name in completed(loaded, line) if name in FOUND] == found


FOUND = {"--model", "--route", "--system", "--no-cache", "again", "last", "undo"}


def test_undo_of_a_semantic_hit(
    shell: Any, provider: Served, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the encoder and the guard that ship."""
    pytest.importorskip("onnxruntime")
    monkeypatch.delenv("LLM_PROXY_CACHE_SEMANTIC")
    monkeypatch.setenv("LLM_PROXY_ENCODER_WAIT_S", "60")
    ran(shell, "%load_ext llm_proxy")
    other: Any = [{"role": "user", "content": "How can I reset my password?"}]
    client = openai.OpenAI()
    for messages in (MESSAGES, other):
        client.chat.completions.create(model="m", messages=messages)
    assert ran(shell, "%llm_proxy last").kind == "semantic"
    ran(shell, "%llm_proxy undo")
    assert "Taken back" in capsys.readouterr().out
    client.chat.completions.create(model="m", messages=other)
    assert ran(shell, "%llm_proxy last").status == "miss"
    assert len(provider.app.requests) == 2
