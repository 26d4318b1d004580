"""Real language model servers that die in mid-stream, hang, and come back: through the clients and the proxy.

The servers that die are llama-cpp-python's and ``transformers serve``, slow enough to be caught in the middle; the one
that goes on with their text is llama.cpp's own, with the same model at temperature 0.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import openai
import pytest

from llm_proxy.backends import retry
from tests.local_model.kit import COUNTED, FRANCE, PARIS, TO_THIRTY, asking, joined, until
from tests.local_model.native import SLOW_START
from tests.local_model.server import LocalModelServer, NativeServer, TransformersServer

from .real_kit import PRICES, WAYS, Asker, Told, asked_through, running, slowed, usd, whole, without

pytestmark = pytest.mark.local_model

FORMS = ("continue_final_message", "trailing")
STORY = "Tell me a story about a cat."
TOLD = (
    "Once there was a cat who lived near the garden. One day the cat lost its way and was afraid. An old owl showed "
    "the cat the road home. They shared some bread and became friends. Since then the cat has never walked alone."
)
CAN_WAIT_S = 60
SLOW = partial(NativeServer, n_ctx=SLOW_START)
ALONE = {  # a server that never answers, a stream that breaks off
    "sync": (("APITimeoutError", None), ("APIConnectionError", None)),
    "async": (("APITimeoutError", None), ("APIConnectionError", None)),
    "proxy": (("InternalServerError", 504), ("APIError", None)),
}


@pytest.fixture(scope="module")
def spare() -> Iterator[LocalModelServer]:
    """A server that goes on with a text; nobody ends it."""
    with running(NativeServer()) as server:
        yield server


@pytest.fixture(scope="module", params=[LocalModelServer, TransformersServer], ids=["llama-cpp-python", "transformers"])
def mortal(request: pytest.FixtureRequest) -> Iterator[LocalModelServer]:
    with running(request.param()) as server:
        yield server


@pytest.fixture
def main(mortal: LocalModelServer) -> Iterator[LocalModelServer]:
    """The server that is asked first; whatever a test does to it, the next one finds it well."""
    yield mortal
    mortal.thaw() if mortal.is_alive else mortal.begin_again()
    assert until(mortal.is_ready, CAN_WAIT_S)


def backends(main: LocalModelServer, spare: LocalModelServer | None = None, **more: Any) -> dict[str, Any]:
    """Settings of the one, and of the other as its fallback."""
    named: dict[str, Any] = {"main": {"base_url": main.base_url, "prices": PRICES, **more}}
    if spare is not None:
        named["main"]["fallbacks"] = ["spare/tiny"]
        named["spare"] = {"base_url": spare.base_url, "prices": PRICES, "can_prefill": "trailing"}
    return named


def straight(server: LocalModelServer, text: str, **more: Any) -> Any:
    """A plain answer, from the server itself."""
    with openai.OpenAI(base_url=server.base_url, api_key="none", max_retries=0) as client:
        return client.chat.completions.create(**asking(text, **more))


def seen(told: Told) -> tuple[str, list[str], openai.OpenAIError | None]:
    return told.text, told.ends, told.error


class TestKilledInMidStream:
    @pytest.mark.parametrize("way", WAYS)
    @pytest.mark.parametrize(("form", "text", "answer", "at"), [
        ("continue_final_message", TO_THIRTY, COUNTED, 20),
        ("trailing", TO_THIRTY, COUNTED, 1),
        ("trailing", STORY, TOLD, 40),
    ])  # fmt: skip
    def test_the_joined_text_is_that_of_the_unbroken_answer(
        self, main: LocalModelServer, spare: LocalModelServer, way: str, form: str, text: str, answer: str, at: int
    ) -> None:
        for server in (main, spare):
            assert straight(server, text).choices[0].message.content == answer
        named = backends(main, spare)
        named["spare"]["can_prefill"] = form
        with asked_through(way, named) as asker:
            with slowed(main):
                told = asker.ask(text, stream=True, at=at, then=main.kill)
            assert seen(told) == whole(answer)
            assert (len(told.ids), told.roles) == (1, 1)
            (event,) = asker.events
            assert event.outcome.attempts == "main/tiny broke off, spare/tiny"
            assert event.outcome.is_stored is True
            assert event.outcome.cost_usd == pytest.approx(usd(told.usage))
            again = asker.ask(text)
            assert again.text == answer
            assert asker.events[1].outcome.status == "hit"

    def test_llama_cpp_itself(self, spare: LocalModelServer) -> None:
        with running(NativeServer()) as main, asked_through("async", backends(main, spare)) as asker:
            with slowed(main):
                told = asker.ask(TO_THIRTY, stream=True, at=1, then=main.kill)
            assert seen(told) == whole(COUNTED)
            assert asker.events[0].outcome.attempts == "main/tiny broke off, spare/tiny"

    @pytest.mark.parametrize("at", range(8, len(COUNTED) - 40, 9))
    def test_wherever_it_breaks(self, spare: LocalModelServer, at: int) -> None:
        """Without a death each time: the spare is asked for the rest as it would be."""
        begun = COUNTED[:at]
        more = {"messages": [*asking(TO_THIRTY)["messages"], {"role": "assistant", "content": begun.rstrip()}]}
        with openai.OpenAI(base_url=spare.base_url, api_key="none", max_retries=0) as client:
            rest = joined(client.chat.completions.create(**{**asking(TO_THIRTY, stream=True), **more}))
        assert begun.rstrip() + rest == COUNTED

    @pytest.mark.parametrize("way", WAYS)
    def test_without_a_fallback_it_ends_with_the_error(self, main: LocalModelServer, way: str) -> None:
        with asked_through(way, backends(main)) as asker:
            with slowed(main):
                told = asker.ask(TO_THIRTY, stream=True, at=20, then=main.kill)
            assert told.outcome == ALONE[way][1]
            assert getattr(told.error, "code", None) == ("stream_interrupted" if way == "proxy" else None)
            assert COUNTED.startswith(told.text)
            assert told.ends == []
            (event,) = asker.events
            assert (event.outcome.is_stored, event.usage, event.outcome.cost_usd) == (False, None, None)
            assert event.error

    @pytest.mark.parametrize("way", WAYS)
    def test_a_plain_answer_is_asked_for_elsewhere(
        self, main: LocalModelServer, spare: LocalModelServer, way: str
    ) -> None:
        main.kill()
        with asked_through(way, backends(main, spare)) as asker:
            for is_stream in (False, True):
                told = asker.ask(f"{FRANCE}{' ' * is_stream}", stream=is_stream)
                assert seen(told) == whole(PARIS)
            assert asker.events[0].outcome.attempts == "main/tiny refused, spare/tiny"

    def test_one_that_can_only_begin_anew(self, main: LocalModelServer) -> None:
        """Either closes the assistant's message in any case; ``transformers serve`` refuses to be told otherwise."""
        for more in ({}, {"continue_final_message": True, "add_generation_prompt": False}):
            asked = [*asking(STORY)["messages"], {"role": "assistant", "content": TOLD[:20]}]
            if more and isinstance(main, TransformersServer):
                with pytest.raises(openai.UnprocessableEntityError) as refused:
                    straight(main, STORY, messages=asked, extra_body=more)
                assert "continue_final_message" in refused.value.response.text
                continue
            answer = straight(main, STORY, messages=asked, extra_body=more)
            assert TOLD[:20] + (answer.choices[0].message.content or "") != TOLD


class TestHung:
    @pytest.mark.parametrize("is_stream", [False, True], ids=["plain", "stream"])
    @pytest.mark.parametrize("way", WAYS)
    def test_before_the_answer(
        self, main: LocalModelServer, spare: LocalModelServer, way: str, is_stream: bool
    ) -> None:
        main.freeze()
        with asked_through(way, backends(main, spare, timeout_s=main.longest_silence_s)) as asker:
            assert seen(asker.ask(FRANCE, stream=is_stream)) == whole(PARIS)
            assert asker.events[0].outcome.attempts == "main/tiny timeout, spare/tiny"
        with asked_through(way, backends(main, timeout_s=main.longest_silence_s, retries=0)) as asker:
            assert asker.ask(FRANCE, stream=is_stream).outcome == ALONE[way][0]
            assert asker.events[0].outcome.is_stored is not True
            main.thaw()
            assert seen(asker.ask(FRANCE, stream=is_stream)) == whole(PARIS)

    @pytest.mark.parametrize("way", WAYS)
    def test_in_mid_stream(self, main: LocalModelServer, spare: LocalModelServer, way: str) -> None:
        with asked_through(way, backends(main, spare, timeout_s=main.longest_silence_s)) as asker:
            assert seen(asker.ask(TO_THIRTY, stream=True, at=20, then=main.freeze)) == whole(COUNTED)
            assert asker.events[0].outcome.attempts == "main/tiny broke off, spare/tiny"
        main.thaw()
        with asked_through(way, backends(main, timeout_s=main.longest_silence_s)) as asker:
            told = asker.ask(TO_THIRTY, stream=True, at=20, then=main.freeze)
            assert told.outcome in (ALONE[way][1], ("APITimeoutError", None))
            assert asker.events[0].outcome.is_stored is False

    @pytest.mark.parametrize("kind", [NativeServer, without("the system holds 2,048 connections for uvicorn")])
    def test_no_room_for_a_connection(self, kind: type[LocalModelServer], spare: LocalModelServer) -> None:
        with running(kind()) as server, full(server):
            with asked_through("sync", backends(server, spare, timeout_s=server.longest_silence_s)) as asker:
                assert seen(asker.ask(FRANCE)) == whole(PARIS)
            assert asker.events[0].outcome.attempts == "main/tiny refused, spare/tiny"


@contextmanager
def full(server: LocalModelServer) -> Iterator[None]:
    """A server that stands still, with as many connections as its system holds for it."""
    address = "127.0.0.1", int(server.base_url.removesuffix("/v1").rpartition(":")[2])
    server.freeze()
    with ExitStack() as stack:
        for _ in range(1000):
            waiting = stack.enter_context(socket.socket())
            waiting.settimeout(0.2)
            try:
                waiting.connect(address)
            except TimeoutError:
                break
        else:
            pytest.fail("there is always room")
        yield
    server.thaw()


class TestComesBack:
    @pytest.mark.parametrize("way", WAYS)
    def test_the_breaker_opens_and_closes(self, main: LocalModelServer, spare: LocalModelServer, way: str) -> None:
        """Without a restart of the proxy: the dead one is passed over, probed after two seconds, and asked again."""
        route = {"candidates": ["main/tiny", "spare/tiny"]}
        with asked_through(way, backends(main, spare), cache={"enabled": False}, routes={"auto": route}) as asker:
            assert answering(asker) == ("main", "")
            main.kill()
            assert answering(asker) == ("spare", "main/tiny refused, spare/tiny")
            opened_s = time.monotonic()
            assert [answering(asker) for _ in range(5)] == [("spare", "")] * 5
            main.begin_again()
            assert until(main.is_ready, CAN_WAIT_S)
            assert until(lambda: answering(asker) == ("main", ""))
            assert time.monotonic() - opened_s >= 2
            assert [answering(asker) for _ in range(3)] == [("main", "")] * 3

    @pytest.mark.parametrize("is_stream", [False, True], ids=["plain", "stream"])
    @pytest.mark.parametrize("way", WAYS)
    @pytest.mark.parametrize("kind", [SLOW, without("it listens once it has its model, and never says 503")])
    def test_a_model_that_loads_is_no_outage(
        self, kind: Callable[[], LocalModelServer], way: str, is_stream: bool
    ) -> None:
        """Killed and started anew: no connection for a moment, then 503 for a second, then the answer."""
        with running(kind()) as server, asked_through(way, backends(server)) as asker:
            server.kill()
            server.begin_again()
            assert until(server.is_loading)
            assert seen(asker.ask(FRANCE, stream=is_stream)) == whole(PARIS)
            (event,) = asker.events
            assert (event.outcome.attempts, event.http_status, event.outcome.is_stored) == ("", 200, True)

    @pytest.mark.parametrize("kind", [SLOW, TransformersServer], ids=["llama.cpp", "transformers"])
    def test_one_that_does_not_listen_yet(
        self, kind: Callable[[], LocalModelServer], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """To whom it refuses a connection it tells nothing of a model: retries bridge that.

        llama.cpp's is then waited for; ``transformers serve`` listens once it has its model, and never says 503.
        """
        monkeypatch.setattr(retry, "_FIRST_PAUSE_S", 0.5)
        with (
            running(kind()) as server,
            asked_through("proxy", backends(server, retries=12), attempts={"most": 14}) as asker,
        ):
            server.kill()
            server.begin_again()
            assert seen(asker.ask(FRANCE)) == whole(PARIS)
            assert set(asker.events[0].outcome.attempts.split(", ")) == {"main/tiny refused", "main/tiny"}


def answering(asker: Asker) -> tuple[str, str]:
    """Who answers a call to the route, and what was tried."""
    told = asker.ask(FRANCE, model="auto")
    assert seen(told) == whole(PARIS)
    outcome = asker.events[-1].outcome
    return outcome.backend, outcome.attempts
