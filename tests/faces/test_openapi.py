"""The document of the proxy's own endpoints: every one is in it, and what each answers is as it says."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llm_proxy import __version__
from llm_proxy.config import Config
from llm_proxy.faces import asgi, openapi, paths
from llm_proxy.faces._http import httpx
from llm_proxy.faces.asgi import ProxyApp
from llm_proxy.faces.serve import server_config
from llm_proxy.holders import Holder
from llm_proxy.runtime import Runtime
from llm_proxy.testing import FakeBackend
from tests.faces.asgi_kit import running, until, upstreams

DOCUMENT: dict[str, Any] = json.loads(openapi.document())
QUESTION = {"model": "auto", "messages": [{"role": "user", "content": "Why is the sea salty?"}]}
PAGE = {"accept": "text/html"}
MARK = {"x-llm-proxy-dashboard": "1"}


def validator(schema: Any) -> Any:
    """A validator of the document's own dialect, JSON Schema 2020-12."""
    jsonschema = pytest.importorskip("jsonschema")
    return jsonschema.Draft202012Validator({**schema, "components": DOCUMENT["components"]})


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("openapi")
    with upstreams(FakeBackend()) as [base]:
        backends = {"main": {"base_url": base}}
        cache = {"directory": folder, "semantic": False}
        routes = {"auto": {"candidates": ["main/m", "main/n"]}}
        runtime = Runtime(server_config(Config(backends=backends, cache=cache, routes=routes)))
        with running(ProxyApp(runtime)) as port:
            yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def answered(url: str) -> str:
    """The id by which a routed call is named."""
    found = httpx.post(f"{url}/v1/chat/completions", json=QUESTION).headers["x-llm-proxy-id"]
    httpx.post(f"{url}/v1/chat/completions", json=QUESTION)
    return str(found)


def described(path: str, method: str, response: httpx.Response) -> Any:
    """What the document says of this answer, after it was checked against it."""
    operation = DOCUMENT["paths"][path][method.lower()]
    answer = operation["responses"][str(response.status_code)]
    if "$ref" in answer:
        answer = DOCUMENT["components"]["responses"][answer["$ref"].rpartition("/")[2]]
    kind = response.headers["content-type"].partition(";")[0]
    schema = answer["content"][kind]["schema"]
    if kind == "application/json":
        validator(schema).validate(response.json())
    return answer


def test_it_is_served_to_anybody_with_the_version(url: str) -> None:
    response = httpx.get(url + openapi.PATH)
    assert (response.status_code, response.headers["content-type"]) == (200, "application/json")
    assert response.json()["info"]["version"] == __version__
    assert response.json() == DOCUMENT


def test_it_is_a_document_of_openapi() -> None:
    assert DOCUMENT["openapi"].startswith("3.1.")
    names = [operation["operationId"] for methods in DOCUMENT["paths"].values() for operation in methods.values()]
    assert len(set(names)) == len(names)
    for found in re.findall(r'"\$ref": "#/(.+?)"', json.dumps(DOCUMENT)):
        place = DOCUMENT
        for step in found.split("/"):
            place = place[step]
    for schema in DOCUMENT["components"]["schemas"].values():
        validator({}).check_schema(schema)


def test_every_path_of_the_proxys_own_is_in_it() -> None:
    source = "".join(
        Path(module.__file__ or "").read_text()
        for module in (asgi, __import__("llm_proxy.faces.dashboard.app").faces.dashboard.app)
    )
    named = set(re.findall(r"^ +(?:GET|POST|\*) +(/[\w./-]*)", source, re.MULTILINE))
    named |= {f"/llm-proxy/{name}" for name in re.findall(r'path == "(\w+)"', source)}
    named = {path.replace("/ID", "/{id}") for path in named if not path.startswith("/v1/")} | {"/readyz"}
    assert named == set(DOCUMENT["paths"])
    assert {path for path in paths.OWN if not path.startswith("/v1/")} <= set(DOCUMENT["paths"])


class TestAnswers:
    @pytest.mark.parametrize("path", [path for path in DOCUMENT["paths"] if "get" in DOCUMENT["paths"][path]])
    def test_of_every_path_that_is_read(self, url: str, answered: str, path: str) -> None:
        if path == "/llm-proxy/events":
            self.streamed(url)
            return
        target = path
        if "{id}" in path:
            until(lambda: httpx.get(f"{url}/llm-proxy/calls").json()["calls"])
            target = path.replace("{id}", httpx.get(f"{url}/llm-proxy/calls").json()["calls"][-1]["id"])
        response = httpx.get(url + target, headers=PAGE if path == "/" else {})
        assert response.status_code == 200
        assert described(path, "get", response)

    def streamed(self, url: str) -> None:
        seen: dict[str, Any] = {}
        with httpx.stream("GET", f"{url}/llm-proxy/events") as response:
            assert response.headers["content-type"] == "text/event-stream"
            name = ""
            for line in response.iter_lines():
                name = line.removeprefix("event: ") if line.startswith("event: ") else name
                if line.startswith("data: "):
                    seen[name] = json.loads(line.removeprefix("data: "))
                if len(seen) == 2:
                    break
        validator({"type": "array", "items": DOCUMENT["components"]["schemas"]["Call"]}).validate(seen["calls"])
        validator(DOCUMENT["components"]["schemas"]["Summary"]).validate(seen["summary"])

    @pytest.mark.parametrize("name", ["hour", "day", "week", "all"])
    def test_of_every_range(self, url: str, name: str) -> None:
        assert described("/llm-proxy/summary", "get", httpx.get(f"{url}/llm-proxy/summary?range={name}"))

    def test_of_feedback(self, url: str, answered: str) -> None:
        path = "/llm-proxy/feedback"
        bodies: list[tuple[Any, int]] = [
            ({"id": answered, "good": True}, 200),
            ({"id": answered, "good": 0.5}, 200),
            ({"id": "nobody", "good": True}, 404),
            ({"id": 7}, 400),
        ]
        for body, status in bodies:
            response = httpx.post(url + path, json=body)
            assert response.status_code == status
            assert described(path, "post", response)
        assert described(path, "post", httpx.post(url + path, content=b"x" * 5000)).keys() >= {"content"}

    def test_of_undo(self, url: str, answered: str) -> None:
        path = "/llm-proxy/undo"
        name = httpx.get(f"{url}/llm-proxy/calls").json()["calls"][-1]["id"]
        for body, headers, status in (
            ({"id": name}, MARK, 409),
            ({"id": "nobody"}, MARK, 409),
            ({}, MARK, 400),
            ({"id": name}, {}, 403),
            ({"id": "x" * 5000}, MARK, 413),
        ):
            response = httpx.post(url + path, json=body, headers=headers)
            assert response.status_code == status, response.text
            assert described(path, "post", response)

    @pytest.mark.parametrize(
        ("path", "target", "status"),
        [
            ("/llm-proxy/summary", "/llm-proxy/summary?range=year", 400),
            ("/llm-proxy/calls/{id}", "/llm-proxy/calls/nobody", 404),
        ],
    )
    def test_of_mistakes(self, url: str, path: str, target: str, status: int) -> None:
        response = httpx.get(url + target)
        assert response.status_code == status
        assert described(path, "get", response)
        response = httpx.get(url + target, headers={"x-long": "x" * 65_530})
        assert response.status_code == 431
        assert described(path, "get", response)

    @pytest.mark.parametrize("path", [path for path in DOCUMENT["paths"] if path != "/"])
    def test_of_other_methods(self, url: str, path: str) -> None:
        known = {method.upper() for method in DOCUMENT["paths"][path]}
        for method in {"GET", "POST", "PUT", "DELETE", "PATCH"} - known:
            response = httpx.request(method, url + path.replace("{id}", "x"))
            assert (response.status_code, response.headers["allow"].split(", ")[0]) == (405, next(iter(known)))
            assert described(path, next(iter(known)), response)


def test_with_keys(tmp_path: Path) -> None:
    from llm_proxy.faces.keys import add

    keys = tmp_path / "keys.json"
    key, _ = add(keys, Holder("", "a", "a", requests_per_minute=0), now_s=1.0)
    config = Config(
        backends={"main": {"base_url": "http://127.0.0.1:9/v1"}},
        cache={"store": "memory", "semantic": False},
        server={"keys_file": str(keys)},
    )
    with running(ProxyApp(Runtime(server_config(config)))) as port:
        url, own = f"http://127.0.0.1:{port}", {"authorization": f"Bearer {key}"}
        for path, headers, status in (
            ("/llm-proxy/calls", {}, 401),
            ("/llm-proxy/calls", own, 403),
            ("/metrics", {}, 401),
            ("/readyz", {}, 200),
            ("/healthz", {}, 200),
            (openapi.PATH, {}, 200),
        ):
            response = httpx.get(url + path, headers=headers)
            assert response.status_code == status
            assert described(path, "get", response)
        response = httpx.post(url + "/llm-proxy/feedback", headers=own, json={})
        assert response.status_code == 429
        assert "retry-after" in described("/llm-proxy/feedback", "post", response)["headers"]
