"""Routes with heads through the real clients: one vector a call, conversations, and what fails is never the call."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llm_proxy import AsyncOpenAI, OpenAI
from llm_proxy.config import Config
from llm_proxy.errors import ConfigError
from llm_proxy.faces._http import httpx
from llm_proxy.route.lazy import LazyHeads
from llm_proxy.runtime import Runtime
from llm_proxy.testing import FakeBackend, FakeEncoder, FakeHead

BACKENDS: Any = {
    "cloud": {
        "base_url": "http://127.0.0.1/cloud/v1",
        "prices": {"big": {"input_usd_per_mtok": 9, "output_usd_per_mtok": 9}},
    },
    "local": {"base_url": "http://127.0.0.1/local/v1"},
}
ROUTES: Any = {"auto": {"candidates": ["local/small", "cloud/big"]}}


def says(text: str) -> dict[str, float]:
    return {"small": 0.1 if "hard" in text else 0.9, "big": 0.9}


class Bench:
    """Runtimes over one simulated provider."""

    def __init__(self) -> None:
        self.provider, self.encoder, self.runtimes = FakeBackend(), FakeEncoder(), list[Runtime]()

    def client(self, heads: Any = None, **cache: Any) -> OpenAI:
        settings = {"store": "memory", **cache}
        # A vector that is late is made anew in the background, and the first one may well be: numpy is imported for it.
        config = Config(backends=BACKENDS, routes=ROUTES, cache=settings, encoder={"wait_s": 30.0})
        head = FakeHead(says, models=("small", "big"))
        runtime = Runtime(config, encoder=self.encoder, heads=heads or {"auto": head})  # type: ignore[arg-type]
        self.runtimes.append(runtime)
        return OpenAI(api_key="k", http_client=self.provider.client(), llm_proxy=runtime, max_retries=0)

    def ask(self, client: OpenAI, text: str, **options: Any) -> Any:
        """The outcome of one call."""
        raw = client.chat.completions.with_raw_response.create(
            model="auto", messages=[{"role": "user", "content": text}], **options
        )
        return raw.http_response.extensions["llm_proxy"]


@pytest.fixture
def bench() -> Iterator[Bench]:
    found = Bench()
    yield found
    for runtime in found.runtimes:
        runtime.close()


@pytest.mark.parametrize("cache", [{}, {"semantic": False}, {"enabled": False}])
def test_one_vector_a_call_decides_the_model(bench: Bench, cache: Any) -> None:
    client = bench.client(**cache)
    found = [bench.ask(client, text).model for text in ("an easy one", "a hard one")]
    assert found == ["small", "big"]
    assert bench.encoder.texts == ["an easy one", "a hard one"]


def test_a_stream_is_decided_likewise(bench: Bench) -> None:
    stream = bench.client().chat.completions.create(
        model="auto", messages=[{"role": "user", "content": "a hard one"}], stream=True
    )
    assert {chunk.model for chunk in stream} == {"big"}


async def test_async(bench: Bench) -> None:
    runtime = bench.client(enabled=False)
    assert runtime is not None
    client = AsyncOpenAI(
        api_key="k", http_client=bench.provider.async_client(), llm_proxy=bench.runtimes[0], max_retries=0
    )
    answer = await client.chat.completions.create(model="auto", messages=[{"role": "user", "content": "a hard one"}])
    assert (answer.model, bench.encoder.texts) == ("big", ["a hard one"])


def test_semantic_hits_stay_off_where_they_are_off(bench: Bench) -> None:
    client = bench.client(semantic=False)
    bench.ask(client, "one two three")
    assert bench.ask(client, "three one two").status == "miss", "the same bag of words, which this encoder takes for it"
    assert bench.ask(bench.client(), "one two three").status == "miss"


def test_the_reason_is_in_the_outcome(bench: Bench) -> None:
    client = bench.client()
    assert bench.ask(client, "a hard one").reason.startswith("p_good 0.90; the only one that is good enough, about $")
    assert bench.ask(client, "a hard one").reason == "", "a hit is not routed"


def test_a_backend_that_fails_is_left_alone_for_a_while(bench: Bench) -> None:
    client = bench.client()
    asked = []

    def broken(request: Any) -> Any:
        if "/local/" in str(request.url):
            asked.append(request)
            raise httpx.ConnectError("refused")
        return bench.provider._sync(request)

    client = client.with_options(http_client=httpx.Client(transport=httpx.MockTransport(broken)))
    found = [bench.ask(client, f"an easy one {number}") for number in range(5)]
    assert [outcome.model for outcome in found] == ["big"] * 5, "the other candidate answers"
    assert len(asked) == 1, "where there is no connection to be had, one try tells"
    assert [bool(outcome.attempts) for outcome in found] == [True, False, False, False, False]


def test_heads_load_in_the_background(bench: Bench) -> None:
    waiting: list[Callable[[], None]] = []
    heads = LazyHeads(
        {"auto": Path("head")},
        lambda folder: FakeHead(says, models=("small", "big")),
        note=lambda part, exc: None,
    )
    client = bench.client(heads)
    (runtime,) = bench.runtimes
    runtime.pool = lambda: SimpleNamespace(submit=waiting.append)  # type: ignore[method-assign,assignment,return-value]
    runtime.start()
    assert bench.ask(client, "a hard one").model == "small"
    for call in waiting:
        call()
    assert bench.ask(client, "another hard one").model == "big"


def test_or_at_once_where_somebody_waits_for_them(bench: Bench) -> None:
    def load(folder: Path) -> Any:
        raise ConfigError(f"{folder} has no head")

    bench.client(LazyHeads({"auto": Path("head")}, load, note=lambda part, exc: None))
    with pytest.raises(ConfigError, match="head has no head"):
        bench.runtimes[0].prepare()


def test_an_encoder_is_opened_for_a_route_alone(tmp_path: Path) -> None:
    off: Any = {"enabled": False, "directory": tmp_path}
    config = Config(backends=BACKENDS, routes=ROUTES, cache=off, observe={"ledger": False})
    found = []
    for heads in (None, {}, {"auto": FakeHead(says)}):
        runtime = Runtime(config, heads=heads)
        found.append(runtime.encoder is not None)
        runtime.close()
    assert found == [True, False, True], "one may be trained later"


@pytest.mark.parametrize("is_quiet", [True, False])
def test_a_child_goes_on_with_its_heads(bench: Bench, is_quiet: bool) -> None:
    heads = LazyHeads(
        {"auto": Path("head")}, lambda folder: FakeHead(says, models=("small", "big")), note=lambda part, exc: None
    )
    client = bench.client(heads)
    (runtime,) = bench.runtimes
    runtime.prepare()
    runtime.after_fork(is_quiet=is_quiet)
    assert bench.ask(client, "a hard one").model == ("big" if is_quiet else "small")
    assert (runtime.encoder is None) is not is_quiet
