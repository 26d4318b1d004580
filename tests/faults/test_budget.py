"""One budget of attempts, whoever retries: how often the upstreams are asked, and what the caller then sees."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import openai
import pytest

from llm_proxy import OpenAI
from llm_proxy.config import Config
from llm_proxy.runtime import Runtime
from tests.faces.asgi_kit import ask, proxied

from .kit import upstream


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.01)


@contextmanager
def client(backends: dict[str, Any], **options: Any) -> Iterator[openai.OpenAI]:
    config = Config(cache={"store": "memory", "semantic": False}, observe={"ledger": False}, backends=backends)
    url = backends["main"]["base_url"]
    with OpenAI(base_url=url, api_key="k", llm_proxy=Runtime(config), **options) as made:
        yield made


@pytest.mark.parametrize("fault", ["500", "429 asked to wait", "reset before headers", "reset in mid-body"])
@pytest.mark.parametrize("max_retries", [0, 2, 9])
def test_the_proxy_and_the_openai_client_share_one(max_retries: int, fault: str) -> None:
    with upstream(fault=fault) as main, proxied(main.url) as proxy, pytest.raises(openai.APIError):
        ask(proxy.client(max_retries=max_retries))
    assert len(main.asked) == 3


@pytest.mark.parametrize(("max_retries", "requests"), [(0, 1), (2, 3)])
def test_a_clients_own_retries_are_all_there_are(max_retries: int, requests: int) -> None:
    with (
        upstream(fault="500") as main,
        client({"main": {"base_url": main.url, "retries": 5}}, max_retries=max_retries) as asking,
        pytest.raises(openai.InternalServerError),
    ):
        ask(asking, model="main/m")
    assert len(main.asked) == requests


@pytest.mark.parametrize(("max_retries", "requests"), [(0, 2), (1, 4), (9, 4)])
def test_with_a_fallback_they_end_when_the_budget_does(max_retries: int, requests: int) -> None:
    with upstream(fault="500") as main, upstream(fault="503") as spare:
        backends = {"main": {"base_url": main.url, "fallbacks": ["spare"]}, "spare": {"base_url": spare.url}}
        is_told = pytest.raises(openai.InternalServerError, match="told to say 500")
        with client(backends, max_retries=max_retries) as asking, is_told:
            ask(asking, model="main/m")
    assert len(main.asked) + len(spare.asked) == requests


@pytest.mark.parametrize(("max_retries", "requests"), [(0, 2), (1, 4), (2, 5)])
def test_where_no_answer_comes_at_all_nothing_is_added_to_a_clients_own(max_retries: int, requests: int) -> None:
    with upstream(fault="cut") as main, upstream(fault="cut") as spare:
        backends = {"main": {"base_url": main.url, "fallbacks": ["spare"]}, "spare": {"base_url": spare.url}}
        with client(backends, max_retries=max_retries) as asking, pytest.raises(openai.APIConnectionError):
            ask(asking, model="main/m")
    assert len(main.asked) + len(spare.asked) == requests


def test_an_answer_comes_once() -> None:
    faults = iter(["503", "reset before headers", ""])
    with upstream(fault=lambda body: next(faults)) as main, proxied(main.url) as proxy:
        raw = proxy.client().chat.completions.with_raw_response.create(
            model="m", messages=[{"role": "user", "content": "hi"}]
        )
    assert raw.headers["x-llm-proxy-attempts"] == '"main/m 503, main/m broken, main/m"'
    assert raw.parse().choices[0].message.content == "all is well here"
    assert sum(main.answered.values()) == 1


def test_one_key_for_one_request() -> None:
    faults = iter(["503", ""])
    with upstream(fault=lambda body: next(faults)) as main, upstream(fault="503") as spare:
        backends = {"main": {"base_url": main.url, "fallbacks": ["spare"]}, "spare": {"base_url": spare.url}}
        with proxied(backends) as proxy:
            ask(proxy.client(), extra_headers={"idempotency-key": "one"})
    assert [asked.headers.get("idempotency-key") for asked in main.asked] == ["one", "one"]
    assert [asked.headers.get("idempotency-key") for asked in spare.asked] == [None]
