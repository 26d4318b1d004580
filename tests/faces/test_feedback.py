"""Feedback through every face: in Python, by a header, as a request of its own; for one's own answers alone."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import openai
import pytest

import llm_proxy
from llm_proxy.config import Config
from llm_proxy.errors import CacheError, UnknownCallError
from llm_proxy.faces import feedback as module
from llm_proxy.faces._http import httpx
from llm_proxy.faces.asgi import ProxyApp
from llm_proxy.faces.serve import server_config
from llm_proxy.observe.outcome_rows import logged
from llm_proxy.runtime import Runtime, alive
from llm_proxy.testing import FakeBackend, FakeEncoder
from tests.faces.asgi_kit import running
from tests.servers import Served, serving

HEADER = module.HEADER
QUESTION = [{"role": "user", "content": "how far is it to the moon?"}]


@pytest.fixture
def provider() -> Iterator[Served]:
    with serving(Keeping()) as served:
        yield served


class Keeping(FakeBackend):
    """A provider that keeps the headers and paths it got."""

    def __init__(self) -> None:
        super().__init__("far")
        self.seen: list[tuple[str, dict[str, str]]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.seen.append((scope["path"], headers))
        await super().__call__(scope, receive, send)


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine may take longer than a call waits."""
    monkeypatch.setattr(module, "WAIT_S", 30.0)


def config(provider: Served, folder: Path, **sections: Any) -> Config:
    backends = {"b": {"base_url": f"{provider.url}/v1"}}
    routes = {"auto": {"candidates": ["b/small", "b/large"]}}
    cache = {"directory": str(folder / "cache"), **sections.pop("cache", {})}
    return Config(backends=backends, routes=routes, cache=cache, **sections)


@pytest.fixture
def runtime(provider: Served, tmp_path: Path) -> Iterator[Runtime]:
    made = Runtime(server_config(config(provider, tmp_path)), encoder=FakeEncoder())
    yield made
    made.close()


@pytest.fixture
def proxy(runtime: Runtime) -> Iterator[Any]:
    with running(ProxyApp(runtime)) as port, httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
        yield client


def ask(client: Any, key: str = "mine", **headers: str) -> Any:
    body = {"model": "auto", "messages": QUESTION}
    head = {"authorization": f"Bearer {key}", "cache-control": "no-cache", **headers}
    answer = client.post("/v1/chat/completions", json=body, headers=head)
    assert answer.status_code == 200, answer.text
    return answer


def tell(client: Any, body: Any, key: str = "mine") -> tuple[int, Any]:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = client.post(module.PATH, content=content, headers={"authorization": f"Bearer {key}"})
    return answer.status_code, answer.json()


def scores(runtime: Runtime) -> list[float]:
    """What was said, in the order of the calls."""
    runtime.learning._log.flush()  # type: ignore[union-attr]
    path = runtime.config.cache.directory / "outcomes.sqlite3"
    return [grade.score for row in logged(path) for grade in row.grades]


class TestRequest:
    @pytest.mark.parametrize(("good", "score"), [(True, 1.0), (False, 0.0), (0.25, 0.25), (1, 1.0)])
    def test_is_kept(self, proxy: Any, runtime: Runtime, good: Any, score: float) -> None:
        call_id = ask(proxy).headers["x-llm-proxy-id"]
        assert tell(proxy, {"id": call_id, "good": good}) == (200, {"id": call_id, "status": "noted"})
        assert scores(runtime) == [score]

    def test_later_replaces(self, proxy: Any, runtime: Runtime) -> None:
        call_id = ask(proxy).headers["x-llm-proxy-id"]
        for good in (True, False, 0.5):
            assert tell(proxy, {"id": call_id, "good": good})[0] == 200
        assert scores(runtime) == [0.5]

    def test_of_somebody_elses_answer(self, proxy: Any, runtime: Runtime) -> None:
        call_id = ask(proxy).headers["x-llm-proxy-id"]
        status, said = tell(proxy, {"id": call_id, "good": False}, key="other")
        assert (status, said["error"]["code"]) == (404, "unknown_call")
        assert scores(runtime) == []

    @pytest.mark.parametrize("call_id", ["r0123456789abcdef01234567", "0" * 16, "", "x" * 500])
    def test_of_nothing(self, proxy: Any, call_id: str) -> None:
        ask(proxy)
        assert tell(proxy, {"id": call_id, "good": True})[0] == 404

    @pytest.mark.parametrize(
        "body", [b"", b"[]", b"{", b'{"id": 7, "good": true}', b'{"id": "r1", "good": "yes"}', b'{"id": "r1"}']
    )
    def test_that_is_none(self, proxy: Any, body: bytes) -> None:
        status, said = tell(proxy, body)
        assert (status, said["error"]["code"]) == (400, "invalid")

    @pytest.mark.parametrize("good", [1.5, -1, float("nan"), 10**400])
    def test_with_a_number_out_of_range(self, proxy: Any, good: float) -> None:
        call_id = ask(proxy).headers["x-llm-proxy-id"]
        assert tell(proxy, json.dumps({"id": call_id, "good": good}).encode())[0] == 400

    def test_too_long(self, proxy: Any) -> None:
        assert tell(proxy, {"id": "x" * module.MOST_BYTES, "good": True})[0] == 413

    def test_a_log_that_can_not_be_read(self, proxy: Any, runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
        def broken(call_id: str) -> None:
            raise CacheError("no")

        monkeypatch.setattr(runtime.learning._log, "find", broken)
        assert tell(proxy, {"id": "r1", "good": True})[0] == 503
        assert ask(proxy, **{HEADER: "r1; good"}).headers[HEADER] == "unavailable"

    def test_is_for_nobody_further_on(self, proxy: Any, provider: Served) -> None:
        tell(proxy, {"id": "r1", "good": True})
        assert provider.app.seen == []

    def test_needs_a_key_where_all_do(self, provider: Served, tmp_path: Path) -> None:
        settings = server_config(config(provider, tmp_path, server={"keys": ["mine", "other"]}))
        made = Runtime(settings, encoder=FakeEncoder())
        with running(ProxyApp(made)) as port, httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
            call_id = ask(client).headers["x-llm-proxy-id"]
            assert tell(client, {"id": call_id, "good": True}, key="stranger")[0] == 401
            assert tell(client, {"id": call_id, "good": True}, key="other")[0] == 404
            assert tell(client, {"id": call_id, "good": True})[0] == 200

    def test_where_callers_are_told_apart_by_the_body(self, provider: Served, tmp_path: Path) -> None:
        made = Runtime(server_config(config(provider, tmp_path, cache={"tenant": "user"})), encoder=FakeEncoder())
        with running(ProxyApp(made)) as port, httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
            body = {"model": "auto", "messages": QUESTION, "user": "ann"}
            call_id = client.post("/v1/chat/completions", json=body).headers["x-llm-proxy-id"]
            assert tell(client, {"id": call_id, "good": True, "user": "bob"})[0] == 404
            assert tell(client, {"id": call_id, "good": True, "user": "ann"})[0] == 200


class TestHeader:
    @pytest.mark.parametrize(
        ("said", "score"), [("good", 1.0), ("bad", 0.0), ("score=0.5", 0.5), ("score = .25", 0.25), ("score=1", 1.0)]
    )
    def test_on_any_later_call(self, proxy: Any, runtime: Runtime, provider: Served, said: str, score: float) -> None:
        call_id = ask(proxy).headers["x-llm-proxy-id"]
        assert ask(proxy, **{HEADER: f"{call_id};{said}"}).headers[HEADER] == "noted"
        assert scores(runtime) == [score]
        assert all(HEADER not in headers for _, headers in provider.app.seen)

    def test_on_a_request_that_is_passed_on(self, proxy: Any, runtime: Runtime, provider: Served) -> None:
        call_id = ask(proxy).headers["x-llm-proxy-id"]
        head = {"authorization": "Bearer mine", HEADER: f"{call_id}; bad"}
        assert proxy.get("/v1/files", headers=head).headers[HEADER] == "noted"
        assert scores(runtime) == [0.0]
        assert [path for path, _ in provider.app.seen] == ["/v1/chat/completions", "/v1/files"]
        assert all(HEADER not in headers for _, headers in provider.app.seen)

    def test_of_several_answers(self, proxy: Any, runtime: Runtime) -> None:
        one, other = (ask(proxy).headers["x-llm-proxy-id"] for _ in range(2))
        assert ask(proxy, **{HEADER: f"{one}; good, {other}; bad"}).headers[HEADER] == "noted"
        assert scores(runtime) == [1.0, 0.0]

    @pytest.mark.parametrize(
        ("value", "said"),
        [
            ("r0123456789abcdef; good", "unknown"),
            ("ID; perhaps", "invalid"),
            ("ID", "invalid"),
            ("ID; score=7", "invalid"),
            ("ID; score=1.5", "invalid"),
            ("", "invalid"),
            (", ".join(["ID; good"] * 17), "invalid"),
            ("ID; good, r1; bad", "unknown"),
        ],
    )
    def test_that_is_wrong_keeps_no_call_up(self, proxy: Any, value: str, said: str) -> None:
        call_id = ask(proxy).headers["x-llm-proxy-id"]
        assert ask(proxy, **{HEADER: value.replace("ID", call_id)}).headers[HEADER] == said

    def test_of_somebody_elses_answer(self, proxy: Any, runtime: Runtime) -> None:
        call_id = ask(proxy).headers["x-llm-proxy-id"]
        assert ask(proxy, "other", **{HEADER: f"{call_id}; bad"}).headers[HEADER] == "unknown"
        assert scores(runtime) == []

    def test_that_takes_long_is_not_waited_for(
        self, proxy: Any, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        call_id = ask(proxy).headers["x-llm-proxy-id"]
        monkeypatch.setattr(module, "WAIT_S", 0.01)
        may_go_on, is_done = threading.Event(), threading.Event()
        real = runtime.learning._log.find  # type: ignore[union-attr]

        def slow(one: str) -> Any:
            may_go_on.wait(30)
            found = real(one)
            is_done.set()
            return found

        monkeypatch.setattr(runtime.learning._log, "find", slow)
        assert ask(proxy, **{HEADER: f"{call_id}; good"}).headers[HEADER] == "late"
        may_go_on.set()
        assert is_done.wait(30)


class Opening:
    """Makes clients, which close with the test."""

    @pytest.fixture(autouse=True)
    def _closed(self) -> Iterator[None]:
        with ExitStack() as self.opened:
            yield

    def client(self, runtime: Runtime, api_key: str = "mine") -> openai.OpenAI:
        made = llm_proxy.OpenAI(api_key=api_key, base_url="http://127.0.0.1:1/v1", llm_proxy=runtime)
        return self.opened.enter_context(made)


class TestClients(Opening):
    def ask(self, client: Any, **headers: str) -> Any:
        create = client.chat.completions.with_raw_response.create
        return create(model="auto", messages=QUESTION, extra_headers={"cache-control": "no-cache", **headers})

    def test_by_the_function(self, runtime: Runtime) -> None:
        answer = self.ask(self.client(runtime))
        llm_proxy.feedback(answer.headers["x-llm-proxy-id"], True)
        assert scores(runtime) == [1.0]
        outcome = answer.http_response.extensions["llm_proxy"]
        llm_proxy.feedback(outcome, 0.5, llm_proxy=runtime)
        assert scores(runtime) == [0.5]
        runtime.feedback(outcome, False)
        assert scores(runtime) == [0.0]

    def test_of_nothing(self, runtime: Runtime) -> None:
        assert runtime in alive()
        with pytest.raises(UnknownCallError, match="no answer with the id 'r1'"):
            llm_proxy.feedback("r1", True)
        with pytest.raises(ValueError, match="from 0 to 1"):
            llm_proxy.feedback("r1", 7.0, llm_proxy=runtime)

    def test_where_none_is_kept(self, provider: Served, tmp_path: Path) -> None:
        runtime = Runtime(config(provider, tmp_path, observe={"outcomes": False}), encoder=FakeEncoder())
        answer = self.ask(self.client(runtime))
        assert "x-llm-proxy-id" not in answer.headers
        with pytest.raises(UnknownCallError):
            runtime.feedback("r1", True)
        runtime.close()
        assert runtime not in alive()

    def test_by_a_header(self, runtime: Runtime, provider: Served) -> None:
        client = self.client(runtime)
        call_id = self.ask(client).headers["x-llm-proxy-id"]
        assert self.ask(client, **{HEADER: f"{call_id}; bad"}).headers[HEADER] == "noted"
        assert scores(runtime) == [0.0]
        assert all(HEADER not in headers for _, headers in provider.app.seen)

    def test_by_a_header_when_no_thread_is_to_be_had(self, runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
        def none() -> Any:
            raise RuntimeError

        monkeypatch.setattr(runtime, "pool", none)
        assert module.heard(runtime, "r1; good", {}) == "unavailable"

    def test_by_a_header_that_takes_long(self, runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
        may_end = threading.Event()
        monkeypatch.setattr(module, "WAIT_S", 0.01)
        monkeypatch.setattr(module, "_heard", lambda *given: may_end.wait(30))
        assert module.heard(runtime, "r1; good", {}) == "late"
        may_end.set()

    async def test_by_a_header_of_an_async_client(self, runtime: Runtime) -> None:
        transport = llm_proxy.AsyncProxyTransport(llm_proxy=runtime)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:1") as client:
            body = {"model": "auto", "messages": QUESTION}
            head = {"authorization": "Bearer mine", "cache-control": "no-cache"}
            first = await client.post("/v1/chat/completions", json=body, headers=head)
            said = f"{first.headers['x-llm-proxy-id']}; good"
            second = await client.post("/v1/chat/completions", json=body, headers={**head, HEADER: said})
            assert second.headers[HEADER] == "noted"
        assert scores(runtime) == [1.0]


class TestHits(Opening):
    """A semantic hit that was bad is taken back."""

    def served(self, runtime: Runtime, key: str = "mine") -> tuple[Any, Any]:
        client = self.client(runtime, key)
        create = client.chat.completions.with_raw_response.create
        assert runtime.cache is not None
        runtime.cache.open()

        def ask(text: str) -> Any:
            return create(model="b/small", messages=[{"role": "user", "content": text}])

        ask("How do I reset my password?")
        return ask("how do I reset my password"), ask

    @pytest.fixture
    def runtime(self, provider: Served, tmp_path: Path) -> Iterator[Runtime]:
        made = Runtime(config(provider, tmp_path, encoder={"wait_s": 60.0}))
        yield made
        made.close()

    def test_bad(self, runtime: Runtime) -> None:
        hit, ask = self.served(runtime)
        assert "semantic" in hit.headers["cache-status"]
        runtime.feedback(hit.headers["x-llm-proxy-id"], True)
        assert "semantic" in ask("how do I reset my password").headers["cache-status"]
        runtime.feedback(hit.headers["x-llm-proxy-id"], False)
        assert "semantic" not in ask("how do I reset my password").headers["cache-status"]
