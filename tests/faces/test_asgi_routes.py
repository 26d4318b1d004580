"""Several backends behind one proxy: names, aliases, routes, whose key goes where, and the list of models."""

from __future__ import annotations

import gzip
import json
import threading

import openai
import pytest

from llm_proxy.config import Config
from llm_proxy.errors import ConfigError
from llm_proxy.faces._http import httpx
from llm_proxy.faces.asgi import ProxyApp
from llm_proxy.runtime import Runtime
from tests.faces.asgi_kit import Cache, Raw, RawUpstream, ask, completion, proxied, raw_response


def naming(name: str):
    """An upstream that answers with its name, the model and the key it was asked with."""

    def handler(request: Raw) -> None:
        key = request.header("authorization")
        if request.target.endswith("/models"):
            rows = [{"id": f"{name}-1", "object": "model", "owned_by": name, "x": 1}, {"id": "shared"}, {"no": "id"}, 7]
            request.send(raw_response(json.dumps({"object": "list", "data": rows}).encode()))
        else:
            model = json.loads(request.body)["model"]
            request.send(raw_response(completion(f"{name} {model} {key}", model=model)))

    return handler


@pytest.fixture
def two():
    with RawUpstream(naming("cloud")) as cloud, RawUpstream(naming("local")) as local:
        yield {
            "cloud": {"base_url": cloud.url},
            "local": {"base_url": local.url, "models": ["tiny"], "has_tools": False},
        }


ROUTES = {
    "routes": {"auto": {"candidates": ["local/tiny", "cloud/big"], "long_prompt_chars": 100}},
    "aliases": {"gpt-4o": "auto", "small": "local/tiny", "plain": "other"},
}


@pytest.mark.parametrize(
    ("model", "answer"),
    [
        ("anything", "cloud anything Bearer sk-caller"),
        ("tiny", "local tiny None"),
        ("local/other", "local other None"),
        ("cloud/x/y", "cloud x/y Bearer sk-caller"),
        ("nobody/x", "cloud nobody/x Bearer sk-caller"),
        ("small", "local tiny None"),
        ("plain", "cloud other Bearer sk-caller"),
        ("auto", "local tiny None"),
        ("gpt-4o", "local tiny None"),
    ],
)
def test_a_name_leads_to_its_backend(two, model, answer):
    with proxied(two, **ROUTES) as proxy:
        assert ask(proxy.client(), model=model) == answer


def test_a_route_decides_by_what_is_asked(two):
    with proxied(two, **ROUTES) as proxy:
        client = proxy.client()
        tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
        raw = client.chat.completions.with_raw_response
        short = raw.create(model="auto", messages=[{"role": "user", "content": "hi"}])
        long = raw.create(model="auto", messages=[{"role": "user", "content": "why " * 100}])
        with_tools = raw.create(model="auto", messages=[{"role": "user", "content": "hi"}], tools=tools)
        assert [answer.headers["x-llm-proxy-backend"] for answer in (short, long, with_tools)] == [
            "local", "cloud", "cloud",
        ]  # fmt: skip
        assert short.headers["x-llm-proxy-route"] == "auto"
        assert short.parse().model == "tiny"


def test_answers_of_one_name_do_not_serve_another(two):
    with proxied(two, **ROUTES) as proxy:
        client = proxy.client()
        assert ask(client, model="small") == ask(client, model="tiny") == "local tiny None"
        assert ask(client, model="shared") == "cloud shared Bearer sk-caller"
        assert ask(client, model="local/shared") == "local shared None"


def test_callers_with_different_keys_share_nothing(two):
    with proxied(two) as proxy:
        assert ask(proxy.client(api_key="one")) == "cloud m Bearer one"
        assert ask(proxy.client(api_key="two")) == "cloud m Bearer two"
        assert ask(proxy.client(api_key="one")) == "cloud m Bearer one"


def test_a_backends_own_key_and_the_fallback(two, monkeypatch):
    monkeypatch.setenv("CLOUD_KEY", "env")
    backends = {
        "cloud": {**two["cloud"], "auth": "caller", "api_key_env": "CLOUD_KEY"},
        "local": {**two["local"], "api_key": "own"},
    }
    with proxied(backends) as proxy:
        assert ask(proxy.client(), model="tiny") == "local tiny Bearer own"
        assert ask(proxy.client()) == "cloud m Bearer sk-caller"
        body = {"model": "m", "messages": [{"role": "user", "content": "no key"}]}
        answer = httpx.post(proxy.url + "/v1/chat/completions", json=body).json()
        assert answer["choices"][0]["message"]["content"] == "cloud m Bearer env"


def test_other_paths_go_to_the_default_backend(two):
    with proxied(two, default_backend="local") as proxy:
        assert [row["id"] for row in httpx.get(proxy.url + "/x/models").json()["data"][:1]] == ["local-1"]


def test_the_list_of_models_is_that_of_all(two):
    with proxied(two, **ROUTES) as proxy:
        models = proxy.client().models.list().data
        assert [model.id for model in models] == [
            "cloud-1", "shared", "local/local-1", "local/shared", "tiny", "auto", "gpt-4o", "small", "plain",
        ]  # fmt: skip
        assert models[0].model_extra == {"x": 1}
        assert models[-1].owned_by == "llm-proxy"
        assert proxy.client().models.retrieve("auto").owned_by == "llm-proxy"


def test_a_single_backends_list_passes_as_it_is():
    with RawUpstream(naming("only")) as upstream, proxied(upstream.url) as proxy:
        response = httpx.get(proxy.url + "/v1/models")
        assert response.json()["data"][-1] == 7
        assert response.headers["x-llm-proxy-backend"] == "main"


def garbage(data: bytes):
    def handler(request: Raw) -> None:
        request.send(data)
        raise EOFError

    return handler


GARBAGE = {
    "an error": raw_response(b"{}", status="500 Oops"),
    "HTML": raw_response(b"<html>", content_type="text/html"),
    "another shape": raw_response(b'{"data": {"id": "x"}}'),
    "a list": raw_response(b"[]"),
    "too much": raw_response(b'{"data": [' + b" " * (5 << 20) + b"]}"),
    "too deep": raw_response(b"[" * 100_000),
    "a broken body": raw_response(b'{"data": []}', length=500),
    "a broken head": b"nonsense\r\n\r\n",
    "a coded body": raw_response(gzip.compress(b'{"data": [{"id": "hidden"}]}'), "content-encoding: gzip"),
}


@pytest.mark.parametrize("data", GARBAGE.values(), ids=GARBAGE)
def test_a_backend_without_a_good_list_is_represented_by_the_configuration(two, data):
    with (
        RawUpstream(garbage(data)) as bad,
        proxied({**two, "bad": {"base_url": bad.url, "models": ["known"]}}) as proxy,
    ):
        ids = [model.id for model in proxy.client().models.list().data]
        assert ids == ["cloud-1", "shared", "local/local-1", "local/shared", "tiny", "known"]


def test_a_backend_that_is_down_or_silent_does_not_hold_the_list_up(two, monkeypatch):
    monkeypatch.setattr("llm_proxy.faces._models._WAIT_S", 0.2)
    hold = threading.Event()
    with RawUpstream(lambda request: hold.wait(5)) as silent:
        down = {"base_url": "http://127.0.0.1:9/v1", "models": ["d"]}
        with proxied({**two, "down": down, "silent": {"base_url": silent.url}}) as proxy:
            ids = [model.id for model in proxy.client(timeout=2).models.list().data]
            assert ids == ["cloud-1", "shared", "local/local-1", "local/shared", "tiny", "d"]
        hold.set()


def test_only_the_default_backend_sees_the_callers_key_when_models_are_listed(two):
    with proxied(two, **ROUTES) as proxy:
        conditional = {"authorization": "Bearer sk", "if-none-match": "x", "range": "bytes=0-1", "cookie": "a=b"}
        assert httpx.get(proxy.url + "/v1/models", headers=conditional).status_code == 200


def test_a_proxy_without_a_backend_is_refused():
    config = Config(cache={"store": "memory"})
    with pytest.raises(ConfigError, match="no backend is configured"):
        ProxyApp(Runtime(config, cache=Cache()))


def test_a_model_that_only_routes_know_is_not_found_upstream(two):
    with (
        RawUpstream(lambda request: request.send(raw_response(b"{}", status="404 Not Found"))) as upstream,
        proxied(upstream.url) as proxy,
        pytest.raises(openai.NotFoundError),
    ):
        proxy.client().models.retrieve("gpt-99")
