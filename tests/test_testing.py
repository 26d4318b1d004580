"""The stand-ins that are shipped for users do what their page says."""

from __future__ import annotations

import doctest
import json
import threading
from typing import Any

import openai
import pytest

import llm_proxy.testing
from llm_proxy.faces._http import httpx
from llm_proxy.route.base import Prediction
from llm_proxy.testing import FakeBackend, FakeClock, FakeEncoder, FakeHead
from tests.servers import serving

np = pytest.importorskip("numpy")
MESSAGES: Any = [{"role": "user", "content": "hi"}]


def ask(client: openai.OpenAI, **options: Any) -> Any:
    return client.chat.completions.create(model="m", messages=MESSAGES, **options)


def test_its_own_example_runs() -> None:
    results = doctest.testmod(llm_proxy.testing)
    assert (results.failed, results.attempted) == (0, 4)


class TestClock:
    def test_it_stands_still_until_it_is_moved(self) -> None:
        clock = FakeClock(100.0)
        assert (clock.time(), clock.monotonic()) == (100.0, 100.0)
        clock.advance(2.5)
        assert (clock.time(), clock.monotonic()) == (102.5, 102.5)


class TestEncoder:
    def test_equal_bags_of_words_are_equal(self) -> None:
        encoder = FakeEncoder()
        one, two, other = (encoder.encode(text).vector for text in ("a cat sat", "Sat a cat", "no dogs here"))
        assert one.dtype == np.float32
        assert float(np.linalg.norm(one)) == pytest.approx(1)
        assert float(one @ two) == pytest.approx(1)
        assert float(one @ other) < 0.5
        assert encoder.texts == ["a cat sat", "Sat a cat", "no dogs here"]

    def test_it_sees_its_window_only(self) -> None:
        encoder = FakeEncoder(8, window_chars=3)
        assert (encoder.name, encoder.encode("abcdef").seen_chars, encoder.encode("").seen_chars) == ("fake-8", 3, 0)

    def test_it_fails_where_it_is_told_to(self) -> None:
        with pytest.raises(OSError, match="gone"):
            FakeEncoder(error=OSError("gone")).encode("x")

    def test_it_is_a_lazy_encoder(self) -> None:
        encoder = FakeEncoder()
        encoder.start(lambda load: pytest.fail("nothing to load"))
        encoder.note_timeout()
        encoder.note_success()
        assert (encoder.is_ready, encoder.is_open) == (True, False)


class TestBackend:
    def client(self, backend: FakeBackend) -> openai.OpenAI:
        return openai.OpenAI(api_key="any", http_client=backend.client(), max_retries=0)

    def test_plain_and_streamed_say_the_same(self) -> None:
        backend = FakeBackend("one two three")
        client = self.client(backend)
        plain = ask(client)
        assert (plain.choices[0].message.content, plain.model) == ("one two three", "m")
        assert "simulated" in plain.id
        streamed = ask(client, stream=True, stream_options={"include_usage": True})
        chunks = list(streamed)
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        assert (text, chunks[-1].usage.total_tokens) == ("one two three", plain.usage.total_tokens)
        assert [request.get("stream", False) for request in backend.requests] == [False, True]

    def test_the_answer_may_depend_on_the_request(self) -> None:
        whole = {"id": "x", "object": "chat.completion", "created": 1, "model": "other", "choices": []}
        assert ask(self.client(FakeBackend(lambda body: body["model"] * 3))).choices[0].message.content == "mmm"
        assert ask(self.client(FakeBackend(lambda body: whole))).model == "other"

    def test_statuses_come_in_openais_shape(self) -> None:
        with pytest.raises(openai.RateLimitError, match="simulated status 429") as caught:
            ask(self.client(FakeBackend(status=429, headers={"retry-after": "7"})))
        assert caught.value.response.headers["retry-after"] == "7"

    @pytest.mark.parametrize("raw", [b"", b"{", b"\xff", b"[]"])
    def test_what_is_no_request_is_refused(self, raw: bytes) -> None:
        backend = FakeBackend()
        status, headers, pieces = backend.respond(raw)
        assert (status, headers["content-type"], backend.requests) == (400, "application/json", [])
        assert "not a JSON object" in json.loads(pieces[0])["error"]["message"]

    def test_a_stream_breaks_off_where_it_is_told_to(self) -> None:
        chunks = iter(ask(self.client(FakeBackend("one two", cut_after=2)), stream=True))
        assert [next(chunks) for _ in range(2)]
        with pytest.raises(openai.APIConnectionError):
            next(chunks)

    async def test_async(self) -> None:
        backend = FakeBackend("hello", latency_s=0.001)
        async with openai.AsyncOpenAI(api_key="any", http_client=backend.async_client()) as client:
            completion = await client.chat.completions.create(model="m", messages=MESSAGES)
            assert completion.choices[0].message.content == "hello"
            backend.cut_after = 1
            with pytest.raises(openai.APIConnectionError):
                async for _ in await client.chat.completions.create(model="m", messages=MESSAGES, stream=True):
                    pass

    def test_over_a_socket(self) -> None:
        backend = FakeBackend("hello")
        with serving(backend) as served, httpx.Client() as http:
            with openai.OpenAI(base_url=f"{served.url}/v1", api_key="any", max_retries=0) as client:
                assert ask(client).choices[0].message.content == "hello"
                assert "".join(chunk.choices[0].delta.content or "" for chunk in ask(client, stream=True)) == "hello"
                backend.cut_after = 0
                with pytest.raises(openai.APIConnectionError):
                    list(ask(client, stream=True))
            backend.cut_after = None
            assert http.get(f"{served.url}/v1/models").status_code == 400

    def test_it_serves_on_a_port_of_its_own(self) -> None:
        before = threading.active_count()
        with FakeBackend("Hello.").serving() as base_url:
            asked = {"model": "m", "messages": []}
            with httpx.Client() as client:
                answer = client.post(f"{base_url}/chat/completions", json=asked).json()
            assert answer["choices"][0]["message"]["content"] == "Hello."
        assert threading.active_count() == before

    async def test_it_serves_nothing_but_http(self) -> None:
        await FakeBackend()({"type": "lifespan"}, None, None)


class TestHead:
    def test_it_says_what_it_is_told(self) -> None:
        head, encoding = FakeHead({"a": 0.5, "b": Prediction(0.9, 7.0)}), FakeEncoder().encode("why?")
        assert head.models == ("a", "b")
        assert head.predict("why?", encoding) == {"a": Prediction(0.5), "b": Prediction(0.9, 7.0)}
        assert (head.name, head.texts) == ("fake-head", ["why?"])

    def test_by_the_question(self) -> None:
        head = FakeHead(lambda text: {"a": float(len(text) > 4)}, models=("a",), name="mine")
        encoding = FakeEncoder().encode("why?")
        assert [head.predict(text, encoding)["a"].p_good for text in ("why?", "and why?")] == [0.0, 1.0]
        assert (head.name, head.models) == ("mine", ("a",))

    def test_or_raises(self) -> None:
        with pytest.raises(OSError, match="gone"):
            FakeHead({"a": 0.5}, error=OSError("gone")).predict("x", FakeEncoder().encode("x"))
