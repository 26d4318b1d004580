"""Clients made between %load_ext and %unload_ext go through one engine; before and after they don't."""

from __future__ import annotations

import gc
import inspect
import threading
import weakref
from typing import Any

import openai
import pytest
from openai import OpenAI

import llm_proxy
from llm_proxy.faces.jupyter.extension import load, unload
from llm_proxy.faces.transport import AsyncProxyTransport, ProxyTransport, users_of
from llm_proxy.runtime import alive
from tests.servers import Served

AZURE: Any = {"azure_endpoint": "https://x.test", "api_version": "1", "api_key": "k"}


def ask(client: Any, text: str = "hi") -> str:
    """What the cache said of a call; ``none`` where nothing stood in front of the client."""
    messages: Any = [{"role": "user", "content": text}]
    raw = client.chat.completions.with_raw_response.create(model="m", messages=messages)
    return str(raw.headers.get("cache-status", "none"))


def transport(client: Any) -> Any:
    return client._client._transport


class TestWhileLoaded:
    @pytest.mark.parametrize("kind", ["OpenAI", "AsyncOpenAI", "AzureOpenAI", "AsyncAzureOpenAI"])
    def test_every_class_of_openai(self, kind: str, loaded: Any) -> None:
        client = getattr(openai, kind)(**(AZURE if "Azure" in kind else {}))
        assert isinstance(transport(client), AsyncProxyTransport if "Async" in kind else ProxyTransport)

    def test_a_name_imported_before(self, loaded: Any, provider: Served) -> None:
        client = OpenAI()
        assert [ask(client) for _ in range(2)] == ["llm-proxy; fwd=uri-miss; stored", 'llm-proxy; hit; detail="exact"']
        assert len(provider.app.requests) == 1

    def test_one_engine_for_all(self, loaded: Any) -> None:
        runtimes = {id(transport(client).runtime) for client in (OpenAI(), openai.AsyncOpenAI(), llm_proxy.OpenAI())}
        assert len(runtimes) == 1

    def test_a_client_of_before_stays_and_so_do_its_copies(self, shell: Any, provider: Served) -> None:
        client = OpenAI()
        load(shell)
        assert ask(client) == ask(client.with_options(timeout=5)) == "none"
        assert ask(OpenAI()) == "llm-proxy; fwd=uri-miss; stored"

    def test_copies_of_a_client_share_its_engine(self, loaded: Any) -> None:
        client = OpenAI()
        ask(client)
        assert ask(client.with_options(timeout=5)).startswith("llm-proxy; hit")

    def test_an_http_client_of_ones_own_is_not_changed(self, loaded: Any, provider: Served) -> None:
        with openai.DefaultHttpxClient() as own:
            before, hooks = own._transport, own.event_hooks
            client = OpenAI(http_client=own)
            assert ask(client) == "llm-proxy; fwd=uri-miss; stored"
            assert own._transport is before
            assert own.event_hooks == hooks

    def test_a_client_with_settings_of_its_own_keeps_them(self, loaded: Any) -> None:
        own = llm_proxy.OpenAI(llm_proxy={"cache": {"store": "memory", "semantic": False}})
        assert transport(own).runtime is not transport(OpenAI()).runtime

    def test_a_framework_that_makes_its_own_client(self, loaded: Any, provider: Served) -> None:
        langchain = pytest.importorskip("langchain_openai", reason="langchain-openai is not installed here")
        model = langchain.ChatOpenAI(model="m", include_response_headers=True)
        said = [model.invoke("hi").response_metadata["headers"]["cache-status"] for _ in range(2)]
        assert said == ["llm-proxy; fwd=uri-miss; stored", 'llm-proxy; hit; detail="exact"']
        assert len(provider.app.requests) == 1

    def test_signature_and_help_are_openais(self, loaded: Any) -> None:
        assert "max_retries" in inspect.signature(OpenAI).parameters

    def test_a_wrong_argument_is_openais_error(self, loaded: Any) -> None:
        with pytest.raises(TypeError, match="unheard_of"):
            OpenAI(unheard_of=1)  # type: ignore[call-arg]


class TestUnloading:
    def test_everything_is_as_before(self, shell: Any, provider: Served) -> None:
        inits = [kind.__dict__["__init__"] for kind in (openai.OpenAI, openai.AsyncOpenAI)]
        magics = {kind: dict(table) for kind, table in shell.magics_manager.magics.items()}
        completers = dict(shell.strdispatchers["complete_command"].strs)
        threads = set(threading.enumerate())
        load(shell)
        assert openai.OpenAI.__init__ is not inits[0]
        ask(OpenAI())
        unload(shell)
        assert [kind.__dict__["__init__"] for kind in (openai.OpenAI, openai.AsyncOpenAI)] == inits
        assert {kind: dict(table) for kind, table in shell.magics_manager.magics.items()} == magics
        assert shell.strdispatchers["complete_command"].strs == completers
        assert set(threading.enumerate()) == threads
        assert alive() == []

    def test_clients_made_meanwhile_go_on_without_it(self, shell: Any, provider: Served) -> None:
        load(shell)
        with openai.DefaultHttpxClient() as own:
            client, copy = OpenAI(), OpenAI(http_client=own)
            ask(client)
            unload(shell)
            assert ask(client) == ask(copy) == ask(OpenAI()) == "none"
        assert client._client.event_hooks == copy._client.event_hooks == {"request": [], "response": []}

    def test_the_engine_goes_on_for_llm_proxys_own_clients(
        self, shell: Any, provider: Served, capsys: pytest.CaptureFixture[str]
    ) -> None:
        load(shell)
        own, other = llm_proxy.OpenAI(), OpenAI()
        ask(other)
        unload(shell)
        assert ask(own) == 'llm-proxy; hit; detail="exact"'
        assert ask(other) == "none"
        assert "llm_proxy's own clients" in capsys.readouterr().out

    def test_an_engine_of_before_goes_on(self, shell: Any, provider: Served) -> None:
        with llm_proxy.OpenAI() as own:
            load(shell)
            unload(shell)
            (runtime,) = alive()
            assert users_of(runtime) == [transport(own)]
            assert ask(own) == "llm-proxy; fwd=uri-miss; stored"

    def test_a_magic_of_the_same_name_comes_back(self, shell: Any, provider: Served) -> None:
        def chat(line: str, cell: str) -> str:
            return "mine"

        shell.register_magic_function(chat, "cell", "chat")
        load(shell)
        unload(shell)
        assert shell.run_cell_magic("chat", "", "?") == "mine"
        del shell.magics_manager.magics["cell"]["chat"]

    def test_a_constructor_changed_by_somebody_else_is_theirs(
        self, shell: Any, provider: Served, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        original = openai.OpenAI.__dict__["__init__"]
        load(shell)
        ours = openai.OpenAI.__init__

        def theirs(client: Any, *args: Any, **options: Any) -> None:
            ours(client, *args, **options)

        monkeypatch.setattr(openai.OpenAI, "__init__", theirs)
        unload(shell)
        assert openai.OpenAI.__dict__["__init__"] is theirs
        assert ask(OpenAI()) == "none", "ours inside it does nothing any more"
        openai.OpenAI.__init__ = original  # type: ignore[method-assign]
        monkeypatch.undo()
        openai.OpenAI.__init__ = original  # type: ignore[method-assign]

    def test_twice_is_once(self, shell: Any, provider: Served) -> None:
        original = openai.OpenAI.__dict__["__init__"]
        load(shell)
        load(shell)
        unload(shell)
        unload(shell)
        assert openai.OpenAI.__dict__["__init__"] is original
        assert alive() == []

    def test_clients_are_not_kept_alive(self, loaded: Any) -> None:
        client = OpenAI()
        ask(client)
        seen = weakref.ref(client._client)
        client.close()
        del client
        gc.collect()
        assert seen() is None
