"""Without extras: exact hits through every face, and semantic ones silently off."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

import llm_proxy
from llm_proxy.config import Config
from llm_proxy.faces.asgi import ProxyApp
from llm_proxy.faces.serve import server_config
from llm_proxy.runtime import Runtime, close_all, runtime_for
from llm_proxy.testing import FakeBackend
from tests.servers import Served, serving

from .conftest import HEAVY
from .kit import PIP_LINE, ask, give_vectors, records_of, stream

QUESTION = "How do I reset my password?"
REWORDED = "How can I reset my password?"


@pytest.fixture
def provider() -> Iterator[Served]:
    with serving(FakeBackend()) as served:
        yield served


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def client(provider: Served, directory: Path) -> Iterator[Any]:
    settings = {"cache": {"directory": str(directory)}}
    with llm_proxy.OpenAI(base_url=f"{provider.url}/v1", api_key="k", max_retries=0, llm_proxy=settings) as client:
        yield client


def test_every_public_name_loads() -> None:
    assert all(getattr(llm_proxy, name) is not None for name in llm_proxy.__all__)
    assert set(HEAVY) & set(sys.modules) == set()


@pytest.mark.parametrize("again", [ask, stream], ids=["plain", "stream"])
@pytest.mark.parametrize("first", [ask, stream], ids=["plain", "stream"])
def test_exact_hits(client: Any, provider: Served, first: Any, again: Any) -> None:
    said, outcome = first(client, QUESTION)
    assert (outcome.status, outcome.detail) == ("miss", "")
    heard, outcome = again(client, QUESTION)
    # A stream without token counts can't answer a plain request, which always has them.
    is_hit = first is ask or again is stream
    assert (outcome.status, outcome.kind) == (("hit", "exact") if is_hit else ("miss", ""))
    assert heard == said == "This is a simulated answer."
    assert len(provider.app.requests) == 2 - is_hit


@pytest.mark.anyio
async def test_exact_hits_of_the_async_client(provider: Served, directory: Path) -> None:
    settings = {"cache": {"directory": str(directory)}}
    options: Any = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": QUESTION}]}
    async with llm_proxy.AsyncOpenAI(base_url=f"{provider.url}/v1", api_key="k", llm_proxy=settings) as client:
        outcomes = []
        for _ in range(2):
            raw = await client.chat.completions.with_raw_response.create(**options)
            outcomes.append(raw.http_response.extensions["llm_proxy"])
    assert [(outcome.status, outcome.kind) for outcome in outcomes] == [("miss", ""), ("hit", "exact")]


@pytest.mark.parametrize("asked_for", [{}, {"semantic": True}], ids=["by default", "asked for"])
def test_semantic_hits_are_silently_off(
    provider: Served, directory: Path, caplog: pytest.LogCaptureFixture, asked_for: dict[str, Any]
) -> None:
    caplog.set_level(logging.INFO, "llm_proxy")
    settings = {"cache": {"directory": str(directory), **asked_for}}
    with llm_proxy.OpenAI(base_url=f"{provider.url}/v1", api_key="k", llm_proxy=settings) as client:
        ask(client, QUESTION)
        _, outcome = ask(client, REWORDED)
    assert (outcome.status, outcome.detail, outcome.similarity) == ("miss", "", None)
    assert len(provider.app.requests) == 2
    runtime = runtime_for(settings)
    assert runtime.encoder is None
    assert runtime.troubles.counts == {}
    assert [record.levelname for record in caplog.records] == ["INFO"]
    assert "llm-proxy[cpu]" in caplog.text


def test_the_proxy(provider: Served, directory: Path) -> None:
    config = Config(cache={"directory": str(directory)}, backends={"main": {"base_url": f"{provider.url}/v1"}})
    runtime = Runtime(server_config(config))
    with (
        serving(ProxyApp(runtime), lifespan="on") as proxy,
        openai.OpenAI(base_url=f"{proxy.url}/v1", api_key="k", max_retries=0) as client,
    ):
        _, first = ask(client, QUESTION)
        _, again = ask(client, QUESTION)
        _, streamed = stream(client, QUESTION)
        _, other = ask(client, REWORDED)
    assert first["cache-status"] == "llm-proxy; fwd=uri-miss; stored"
    assert again["cache-status"] == streamed["cache-status"] == 'llm-proxy; hit; detail="exact"'
    assert other["cache-status"] == "llm-proxy; fwd=uri-miss; stored"
    assert len(provider.app.requests) == 2


def test_a_directory_of_an_installation_with_extras(client: Any, provider: Served, directory: Path) -> None:
    said, _ = ask(client, QUESTION)
    ask(client, REWORDED)
    close_all()
    written = give_vectors(directory)
    snapshot = (directory / "index.snapshot").read_bytes()
    settings = {"cache": {"directory": str(directory)}}
    with llm_proxy.OpenAI(base_url=f"{provider.url}/v1", api_key="k", llm_proxy=settings) as client:
        heard, outcome = ask(client, QUESTION)
        assert (heard, outcome.status, outcome.kind) == (said, "hit", "exact")
        ask(client, "Something new?")
        cache = runtime_for(settings).cache
        assert cache is not None
        assert cache.stats().entries == 3
    close_all()
    found = records_of(directory)
    assert {key: found[key] for key in written} == written, "what this one can't use it leaves as it was"
    assert (directory / "index.snapshot").read_bytes() == snapshot


def test_what_the_encoders_need() -> None:
    from llm_proxy.cache.index.faiss import FaissIndex
    from llm_proxy.encode.onnx import OnnxEncoder
    from llm_proxy.encode.sentence_transformers import SentenceTransformersEncoder

    for made, extra in (
        (OnnxEncoder, "cpu"),
        (lambda: SentenceTransformersEncoder("any"), "sentence-transformers"),
        (lambda: FaissIndex(4), "cpu"),
    ):
        with pytest.raises(llm_proxy.MissingDependencyError) as caught:
            made()
        assert f'pip install "llm-proxy[{extra}]"' in str(caught.value)
        assert isinstance(caught.value, ImportError)
    assert PIP_LINE == 'pip install "llm-proxy[cpu]"'
