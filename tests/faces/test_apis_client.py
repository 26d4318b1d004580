"""Responses, completions and embeddings through the client face, as the real openai clients see them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import openai
import pytest

import llm_proxy
from llm_proxy.config import Config
from llm_proxy.faces._http import httpx
from llm_proxy.observe.events import CallEvent
from llm_proxy.runtime import Runtime
from llm_proxy.testing import FakeEncoder
from tests.apis_kit import TEXT, Provider, response
from tests.faces.asgi_kit import Cache
from tests.servers import Served, serving

FUNCTION = {"type": "function", "name": "weather", "parameters": {"type": "object", "properties": {}}}
QUESTION = "Tell me of cats"


class Sync:
    """The sync client, with an engine of its own, before the simulated provider."""

    kind: Any = llm_proxy.OpenAI

    def __init__(self, url: str, provider: Provider, **sections: Any) -> None:
        self.provider, self.events, self.cache = provider, list[CallEvent](), Cache()
        sections = {"observe": {"ledger": False}, "cache": {"store": "memory"}, "encoder": {"wait_s": 5}, **sections}
        self.runtime = Runtime(Config(**sections), cache=self.cache, encoder=FakeEncoder(), sinks=(self.events.append,))
        self.url = url
        self.client = self.made()

    def made(self) -> Any:
        return self.kind(base_url=self.url, api_key="k", max_retries=0, timeout=10, llm_proxy=self.runtime)

    def raw(self, resource: str, **body: Any) -> Any:
        """The parsed answer, its headers beside it."""
        raw = _at(self.client, resource).with_raw_response.create(**body)
        return raw.parse(), raw.headers.get("cache-status", "")

    def events_in(self, **body: Any) -> tuple[list[Any], str]:
        """All events of a stream, and what was said of it."""
        with self.client.responses.create(stream=True, **body) as stream:
            return list(stream), stream.response.headers.get("cache-status", "")

    def assembled(self, **body: Any) -> Any:
        """The response that the client puts together from a stream."""
        with self.client.responses.stream(**body) as stream:
            for _ in stream:
                pass
            return stream.get_final_response()

    def chunks_in(self, **body: Any) -> tuple[list[Any], str]:
        with self.client.completions.create(stream=True, **body) as stream:
            return list(stream), stream.response.headers.get("cache-status", "")

    def close(self) -> None:
        self.client.close()
        self.runtime.close()


class Async(Sync):
    """The async client, each call in a loop of its own."""

    kind = llm_proxy.AsyncOpenAI

    def _run(self, call: Callable[[Any], Any]) -> Any:
        async def inside() -> Any:
            async with self.made() as client:
                return await call(client)

        return asyncio.run(inside())

    def raw(self, resource: str, **body: Any) -> Any:
        async def call(client: Any) -> Any:
            raw = await _at(client, resource).with_raw_response.create(**body)
            return raw.parse(), raw.headers.get("cache-status", "")

        return self._run(call)

    def events_in(self, **body: Any) -> tuple[list[Any], str]:
        return self._streamed("responses", body)

    def chunks_in(self, **body: Any) -> tuple[list[Any], str]:
        return self._streamed("completions", body)

    def _streamed(self, resource: str, body: Any) -> Any:
        async def call(client: Any) -> Any:
            stream = await _at(client, resource).create(stream=True, **body)
            async with stream:
                return [item async for item in stream], stream.response.headers.get("cache-status", "")

        return self._run(call)

    def assembled(self, **body: Any) -> Any:
        async def call(client: Any) -> Any:
            async with client.responses.stream(**body) as stream:
                async for _ in stream:
                    pass
                return await stream.get_final_response()

        return self._run(call)

    def close(self) -> None:
        self.runtime.close()


def _at(client: Any, resource: str) -> Any:
    return getattr(client, resource)


@contextmanager
def calling(kind: type[Sync], served: Served, **sections: Any) -> Iterator[Sync]:
    served.app.requests.clear()
    caller = kind(f"{served.url}/v1", served.app, **sections)
    try:
        yield caller
    finally:
        caller.close()


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with serving(Provider()) as made:
        yield made


@pytest.fixture(params=[Sync, Async])
def caller(request: pytest.FixtureRequest, served: Served) -> Iterator[Sync]:
    with calling(request.param, served) as made:
        yield made


EXACT = 'llm-proxy; hit; detail="exact"'
STORED = "llm-proxy; fwd=uri-miss; stored"


class TestResponses:
    @pytest.mark.parametrize("model", ["m", "calls", "custom", "thinks", "both"])
    @pytest.mark.parametrize("first", ["plain", "stream"])
    def test_plain_and_stream_share_an_entry(self, caller: Sync, model: str, first: str) -> None:
        body = {"model": model, "input": QUESTION, "tools": [FUNCTION]}
        if first == "plain":
            assert caller.raw("responses", **body)[1] == STORED
        else:
            assert caller.events_in(**body)[1] == "llm-proxy; fwd=uri-miss"
        plain, plain_status = caller.raw("responses", **body)
        events, stream_status = caller.events_in(**body)
        assert (plain_status, stream_status) == (EXACT, EXACT)
        assert len(caller.provider.requests) == 1
        assert plain.to_dict() == events[-1].response.to_dict() == response({**body, "model": model})

    @pytest.mark.parametrize("model", ["m", "calls", "thinks", "both"])
    def test_the_client_puts_a_hit_together_as_it_does_the_provider_s_own(self, caller: Sync, model: str) -> None:
        body = {"model": model, "input": QUESTION, "tools": [FUNCTION]}
        missed, hit = caller.assembled(**body), caller.assembled(**body)
        assert hit.to_dict() == missed.to_dict()
        assert len(caller.provider.requests) == 1

    def test_another_wording_is_a_semantic_hit(self, caller: Sync) -> None:
        items = [{"role": "user", "content": [{"type": "input_text", "text": "cats of me tell"}]}]
        caller.raw("responses", model="m", input="Tell me of cats", instructions="Be brief")
        answer, status = caller.raw("responses", model="m", input=items, instructions="Be brief")
        assert status.startswith('llm-proxy; hit; detail="semantic; similarity=1.000')
        assert answer.output_text == TEXT
        _, status = caller.raw("responses", model="m", input=items, instructions="Be verbose")
        assert status == STORED

    def test_a_tool_call_is_for_the_same_words_only(self, caller: Sync) -> None:
        caller.raw("responses", model="calls", input="Tell me of cats", tools=[FUNCTION])
        _, status = caller.raw("responses", model="calls", input="of cats Tell me", tools=[FUNCTION])
        assert status == STORED

    @pytest.mark.parametrize(
        ("fields", "detail"),
        [
            ({"previous_response_id": "resp_1"}, "previous-response"),
            ({"conversation": "conv_1"}, "conversation"),
            ({"background": True}, "background"),
            ({"tools": [{"type": "web_search"}]}, "server-tools"),
            ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "item-reference"),
        ],
    )
    def test_what_is_not_wholly_known_is_passed_on_and_said(
        self, caller: Sync, fields: dict[str, Any], detail: str
    ) -> None:
        body = {"model": "m", "input": QUESTION, **fields}
        for _ in range(2):
            answer, status = caller.raw("responses", **body)
            assert status == f'llm-proxy; fwd=bypass; detail="{detail}"'
            assert answer.output_text == TEXT
        assert [sent for _, sent in caller.provider.requests] == [body, body]

    @pytest.mark.parametrize("model", ["cut", "fails", "refuses"])
    @pytest.mark.parametrize("is_stream", [False, True])
    def test_bad_answers_are_handed_on_and_never_stored(self, caller: Sync, model: str, *, is_stream: bool) -> None:
        for _ in range(2):
            if is_stream:
                events, _ = caller.events_in(model=model, input=QUESTION)
                seen = events[-1].response
            else:
                seen, _ = caller.raw("responses", model=model, input=QUESTION)
            assert seen.status == {"cut": "incomplete", "fails": "failed", "refuses": "completed"}[model]
        assert len(caller.provider.requests) == 2
        assert caller.cache.entries == {}

    @pytest.mark.parametrize("model", ["errs", "breaks"])
    def test_a_stream_that_ends_badly_does_so_for_the_caller_and_is_not_stored(self, caller: Sync, model: str) -> None:
        for _ in range(2):
            try:
                events, _ = caller.events_in(model=model, input=QUESTION)
            except (openai.APIError, httpx.TransportError):  # which of them is the client's own choice
                assert model == "breaks"
            else:
                assert (model, events[-1].type) == ("errs", "error")
        assert len(caller.provider.requests) == 2
        assert caller.cache.entries == {}

    def test_who_wants_it_stored_upstream_gets_none_that_is_not(self, caller: Sync) -> None:
        caller.raw("responses", model="m", input=QUESTION, store=False)
        answer, status = caller.raw("responses", model="m", input=QUESTION)
        assert (answer.id, status) == ("resp_2", STORED)

    def test_a_hit_repeats_the_caller_s_own_metadata(self, caller: Sync) -> None:
        caller.raw("responses", model="m", input=QUESTION, metadata={"trace": "1"}, user="ann")
        answer, status = caller.raw("responses", model="m", input=QUESTION, metadata={"trace": "2"})
        assert (answer.metadata, answer.user, status) == ({"trace": "2"}, None, EXACT)

    def test_its_tokens_are_booked(self, caller: Sync) -> None:
        caller.raw("responses", model="m", input=QUESTION)
        usage = caller.events[-1].usage
        assert usage is not None
        assert (usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens) == (9, 5, 4)


class TestCompletions:
    @pytest.mark.parametrize("first", ["plain", "stream"])
    @pytest.mark.parametrize("fields", [{}, {"n": 2}, {"echo": True}, {"logprobs": 1, "best_of": 2}])
    def test_plain_and_stream_share_an_entry(self, caller: Sync, first: str, fields: dict[str, Any]) -> None:
        body = {"model": "m", "prompt": "One", "stream_options": {"include_usage": True}, **fields}
        plainly = {name: value for name, value in body.items() if name != "stream_options"}
        if first == "plain":
            caller.raw("completions", **plainly)
        else:
            caller.chunks_in(**body)
        plain, plain_status = caller.raw("completions", **plainly)
        chunks, stream_status = caller.chunks_in(**body)
        assert (plain_status, stream_status) == (EXACT, EXACT)
        texts = [""] * len(plain.choices)
        for choice in (choice for chunk in chunks for choice in chunk.choices):
            texts[choice.index] += choice.text
        assert texts == [choice.text for choice in plain.choices]
        assert chunks[-1].usage == plain.usage
        assert len(caller.provider.requests) == 1

    def test_it_is_for_the_very_same_prompt(self, caller: Sync) -> None:
        caller.raw("completions", model="m", prompt="One two")
        _, status = caller.raw("completions", model="m", prompt="two One")
        assert status == STORED

    def test_cut_answers_are_never_stored(self, caller: Sync) -> None:
        for _ in range(2):
            answer, _ = caller.raw("completions", model="cut", prompt="One")
            assert answer.choices[0].finish_reason == "length"
        assert caller.cache.entries == {}


class TestEmbeddings:
    def test_a_batch_is_served_again(self, caller: Sync) -> None:
        body = {"model": "m", "input": ["one", "three"], "encoding_format": "float"}
        first, status = caller.raw("embeddings", **body)
        again, hit_status = caller.raw("embeddings", **body)
        assert (status, hit_status) == (STORED, EXACT)
        assert again == first
        assert again.usage.prompt_tokens == 8

    def test_the_client_s_own_coding_is_served_again(self, caller: Sync) -> None:
        vectors = [caller.raw("embeddings", model="m", input="one")[0].data[0].embedding for _ in range(2)]
        assert vectors == [[0.375, 0.5, -0.25]] * 2
        assert caller.provider.requests[0][1]["encoding_format"] == "base64"
        assert len(caller.provider.requests) == 1

    @pytest.mark.parametrize(
        "fields", [{"dimensions": 2}, {"encoding_format": "base64"}, {"input": ["one"]}, {"input": "eno"}]
    )
    def test_what_changes_the_answer_is_in_the_key(self, caller: Sync, fields: dict[str, Any]) -> None:
        body = {"model": "m", "input": "one", "encoding_format": "float"}
        caller.raw("embeddings", **body)
        _, status = caller.raw("embeddings", **{**body, **fields})
        assert status == STORED

    def test_who_asks_is_not(self, caller: Sync) -> None:
        caller.raw("embeddings", model="m", input="one", user="ann")
        assert caller.raw("embeddings", model="m", input="one", user="bob")[1] == EXACT


class TestAll:
    def test_the_same_body_is_another_question_for_each_api(self, caller: Sync) -> None:
        embedded, _ = caller.raw("embeddings", model="m", input=QUESTION, encoding_format="float")
        answered, status = caller.raw("responses", model="m", input=QUESTION)
        assert (embedded.object, answered.object, status) == ("list", "response", STORED)
        raw = json.dumps({"model": "m", "input": QUESTION}).encode()
        for path in ("/embeddings", "/responses", "/embeddings"):
            client = openai.OpenAI(base_url=caller.url, api_key="k", http_client=_http(caller))
            found = client.post(path, cast_to=object, body=json.loads(raw))
            assert found["object"] == {"/embeddings": "list", "/responses": "response"}[path]
            client.close()

    @pytest.mark.parametrize("resource", ["embeddings", "completions"])
    def test_a_route_is_refused_where_none_may_choose(self, served: Served, resource: str) -> None:
        sections = {
            "backends": {"here": {"base_url": "http://127.0.0.1:9/v1", "auth": "caller"}},
            "routes": {"auto": {"candidates": ["here/m"]}},
        }
        body = {"model": "auto", ("prompt" if resource == "completions" else "input"): "one"}
        for kind in (Sync, Async):
            with calling(kind, served, **sections) as made, pytest.raises(openai.BadRequestError, match="route 'auto'"):
                made.raw(resource, **body)

    @pytest.mark.parametrize("resource", ["embeddings", "completions", "responses"])
    def test_an_error_is_the_provider_s_own(self, caller: Sync, resource: str) -> None:
        body = {"model": "missing", ("prompt" if resource == "completions" else "input"): "one"}
        with pytest.raises(openai.NotFoundError, match="there is no such thing"):
            caller.raw(resource, **body)

    def test_a_body_that_is_none_is_the_provider_s_to_judge(self, caller: Sync) -> None:
        answer, status = caller.raw("embeddings", model="m", input=[], encoding_format="float")
        assert (answer.data, status) == ([], "")


def _http(caller: Sync) -> Any:
    """A sync HTTP client with the engine of a caller in front."""
    client = llm_proxy.OpenAI(base_url=caller.url, api_key="k", llm_proxy=caller.runtime)
    return client._client


def test_wrapped_clients_answer_them_too() -> None:
    with serving(Provider()) as served, openai.OpenAI(base_url=f"{served.url}/v1", api_key="k") as bare:
        runtime = Runtime(Config(observe={"ledger": False}), cache=Cache(), encoder=FakeEncoder())
        client = llm_proxy.wrap(bare, llm_proxy=runtime)
        for _ in range(2):
            assert client.responses.create(model="m", input=QUESTION).output_text == TEXT
            assert client.embeddings.create(model="m", input="one").data[0].embedding == [0.375, 0.5, -0.25]
            assert client.completions.create(model="m", prompt="One").choices[0].text == " and on"
        assert len(served.app.requests) == 3
        runtime.close()
