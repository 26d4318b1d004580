"""What the real server and the real model do, so that tests built on them know what to expect."""

from __future__ import annotations

import json
import os
import threading
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import openai
import pytest

from . import conftest, server
from .corpus import families
from .server import LocalModelServer

if TYPE_CHECKING:
    from collections.abc import Callable

    from openai.types.chat import ChatCompletion, ChatCompletionChunk

pytestmark = pytest.mark.local_model

FRANCE = "What is the capital of France?"
PARIS = "The capital of France is Paris."
END_TOKEN = "1"  # with a bias of -100 the model talks on until max_tokens or the end of its window
NO_END = {END_TOKEN: -100}


def ask(client: openai.OpenAI, text: str, **fields: Any) -> ChatCompletion:
    fields = {"temperature": 0, "messages": [{"role": "user", "content": text}], **fields}
    completion: ChatCompletion = client.chat.completions.create(model="tiny", **fields)
    return completion


def stream(client: openai.OpenAI, text: str, **fields: Any) -> list[ChatCompletionChunk]:
    messages: Any = [{"role": "user", "content": text}]
    return list(client.chat.completions.create(model="tiny", temperature=0, stream=True, messages=messages, **fields))


def said(chunks: list[ChatCompletionChunk]) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)


def wait_for(happened: Callable[[], bool], limit_s: float = 10.0) -> bool:
    """Look again every 20 ms: the server is another process, with a clock of its own."""
    deadline = time.monotonic() + limit_s
    while not happened() and time.monotonic() < deadline:
        time.sleep(0.02)
    return happened()


class TestPlain:
    def test_answers_stops_and_counts(self, client: openai.OpenAI) -> None:
        completion = ask(client, FRANCE)
        assert completion.object == "chat.completion"
        assert completion.id.startswith("chatcmpl-")
        assert completion.model == "tiny"
        choice = completion.choices[0]
        assert (choice.message.role, choice.message.content, choice.finish_reason) == ("assistant", PARIS, "stop")
        usage = completion.usage
        assert usage is not None
        assert min(usage.prompt_tokens, usage.completion_tokens) > 5
        assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens

    def test_greedy_answers_are_equal_and_ids_are_not(self, client: openai.OpenAI) -> None:
        first, second = ask(client, "Tell me a story about a fox."), ask(client, "Tell me a story about a fox.")
        assert first.choices == second.choices
        assert first.id != second.id

    def test_max_tokens_ends_with_length(self, client: openai.OpenAI) -> None:
        completion = ask(client, FRANCE, max_tokens=3)
        assert completion.choices[0].finish_reason == "length"
        assert completion.usage is not None
        assert completion.usage.completion_tokens == 3
        assert PARIS.startswith(completion.choices[0].message.content or "-")

    def test_stop_sequence(self, client: openai.OpenAI) -> None:
        choice = ask(client, FRANCE, stop=[" is"]).choices[0]
        assert (choice.message.content, choice.finish_reason) == ("The capital of France", "stop")

    def test_system_message_changes_the_answer(self, client: openai.OpenAI) -> None:
        brief = [{"role": "system", "content": "Answer in one word."}, {"role": "user", "content": FRANCE}]
        assert ask(client, "", messages=brief).choices[0].message.content == "Paris"

    def test_conversation_so_far_changes_the_answer(self, client: openai.OpenAI) -> None:
        turns = {
            FRANCE: (PARIS, "And Spain?", "The capital of Spain is Madrid."),
            "What colour is grass?": ("The colour of grass is green.", "And snow?", "The colour of snow is white."),
        }
        for question, (answer, again, expected) in turns.items():
            roles = zip(("user", "assistant", "user"), (question, answer, again), strict=True)
            messages = [{"role": role, "content": content} for role, content in roles]
            assert ask(client, "", messages=messages).choices[0].message.content == expected

    def test_content_parts(self, client: openai.OpenAI) -> None:
        parts = [{"role": "user", "content": [{"type": "text", "text": FRANCE}]}]
        assert ask(client, "", messages=parts).choices[0].message.content == PARIS

    def test_unknown_fields_are_ignored(self, client: openai.OpenAI) -> None:
        assert ask(client, FRANCE, extra_body={"colour_of_answer": {"deep": [1]}}).choices[0].message.content == PARIS

    def test_models(self, client: openai.OpenAI) -> None:
        assert [model.id for model in client.models.list()] == ["tiny"]


class TestStream:
    def test_says_what_the_plain_answer_says(self, client: openai.OpenAI) -> None:
        for text in (FRANCE, "Hello", "Count to 12.", "What is the capital of Iceland?"):
            assert said(stream(client, text)) == ask(client, text).choices[0].message.content

    def test_shape_of_the_chunks(self, client: openai.OpenAI) -> None:
        chunks = stream(client, FRANCE)
        assert chunks[0].choices[0].delta.role == "assistant"
        assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
        assert len({(chunk.id, chunk.created, chunk.model) for chunk in chunks}) == 1
        reasons = [chunk.choices[0].finish_reason for chunk in chunks]
        assert reasons == [None] * (len(chunks) - 1) + ["stop"]
        assert len(chunks) > 8

    def test_length(self, client: openai.OpenAI) -> None:
        assert stream(client, FRANCE, max_tokens=3)[-1].choices[0].finish_reason == "length"

    def test_bytes(self, client: openai.OpenAI) -> None:
        body = {"model": "tiny", "messages": [{"role": "user", "content": FRANCE}], "stream": True}
        request = urllib.request.Request(
            f"{str(client.base_url).rstrip('/')}/chat/completions",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as response:
            assert response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
            raw = response.read()
        assert raw.endswith(b"\n\ndata: [DONE]\n\n")
        assert b"\r" not in raw

    def test_usage_is_not_sent_even_when_asked_for(self, client: openai.OpenAI) -> None:
        chunks = stream(client, FRANCE, stream_options={"include_usage": True})
        assert all(chunk.usage is None and chunk.choices for chunk in chunks)

    @pytest.mark.anyio
    async def test_async_client(self, local_model: LocalModelServer) -> None:
        async with openai.AsyncOpenAI(base_url=local_model.base_url, api_key="none", max_retries=0) as client:
            chunks = await client.chat.completions.create(
                model="tiny", temperature=0, stream=True, messages=[{"role": "user", "content": FRANCE}]
            )
            assert said([chunk async for chunk in chunks]) == PARIS

    def test_client_that_leaves_in_mid_stream(self, client: openai.OpenAI, local_model: LocalModelServer) -> None:
        before = local_model.log_path.read_text().count("Disconnected from client")
        chunks = client.chat.completions.create(
            model="tiny", stream=True, logit_bias=NO_END, messages=[{"role": "user", "content": "Count to 30."}]
        )
        next(iter(chunks))
        chunks.close()
        assert ask(client, FRANCE).choices[0].message.content == PARIS
        assert wait_for(lambda: local_model.log_path.read_text().count("Disconnected from client") > before)

    def test_two_clients_wait_for_each_other(self, client: openai.OpenAI) -> None:
        heard: dict[str, str] = {}

        def listen(text: str) -> None:
            heard[text] = said(stream(client, text))

        texts = [f"Count to {number}." for number in (12, 20, 30)]
        threads = [threading.Thread(target=listen, args=(text,)) for text in texts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert heard == {text: said(stream(client, text)) for text in texts}


class TestTools:
    """A forced tool is answered through a grammar: real tool calls, plain and streamed."""

    CITY: ClassVar[Any] = {"type": "object", "properties": {"city": {"enum": ["Paris", "Rome"]}}, "required": ["city"]}
    FORCED: ClassVar[Any] = {
        "tools": [{"type": "function", "function": {"name": "show", "parameters": CITY}}],
        "tool_choice": {"type": "function", "function": {"name": "show"}},
    }

    def test_plain(self, client: openai.OpenAI) -> None:
        choice = ask(client, FRANCE, **self.FORCED).choices[0]
        assert (choice.finish_reason, choice.message.content) == ("tool_calls", None)
        (call,) = choice.message.tool_calls or []
        assert call.type == "function"
        assert (call.function.name, json.loads(call.function.arguments)) == ("show", {"city": "Paris"})

    def test_every_delta_repeats_name_and_id(self, client: openai.OpenAI) -> None:
        """Unlike the original, where only the first delta has them: whoever joins deltas must not join these."""
        chunks = stream(client, FRANCE, **self.FORCED)
        calls = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or []]
        assert len(calls) > 5
        assert {(call.index, call.function and call.function.name) for call in calls} == {(0, "show")}
        assert len({call.id for call in calls}) == 1
        arguments = "".join(call.function.arguments or "" for call in calls if call.function)
        assert json.loads(arguments) == {"city": "Paris"}
        assert chunks[-1].choices[0].finish_reason == "tool_calls"

    def test_json_by_schema(self, client: openai.OpenAI) -> None:
        choice = ask(client, FRANCE, response_format={"type": "json_object", "schema": self.CITY}).choices[0]
        assert json.loads(choice.message.content or "") == {"city": "Paris"}


class TestErrors:
    def test_too_long(self, client: openai.OpenAI) -> None:
        with pytest.raises(openai.BadRequestError) as caught:
            ask(client, "word " * 600)
        assert caught.value.code == "context_length_exceeded"

    def test_too_long_for_a_stream_is_an_empty_success(self, client: openai.OpenAI) -> None:
        """Status 200, no event, no `[DONE]`: the server has sent its headers before it looks at the prompt."""
        assert stream(client, "word " * 600) == []

    def test_bad_request_is_a_server_error_here(self, client: openai.OpenAI) -> None:
        with pytest.raises(openai.InternalServerError):
            ask(client, "", messages="not a list")
        assert ask(client, FRANCE).choices[0].message.content == PARIS

    def test_wrong_key(self) -> None:
        with LocalModelServer(api_key="right") as guarded:
            good = openai.OpenAI(base_url=guarded.base_url, api_key="right", max_retries=0)
            bad = openai.OpenAI(base_url=guarded.base_url, api_key="wrong", max_retries=0)
            with good, bad:
                assert ask(good, FRANCE).choices[0].message.content == PARIS
                with pytest.raises(openai.AuthenticationError):
                    ask(bad, FRANCE)

    def test_interrupted_stream_ends_without_a_reason(self) -> None:
        """The server's default: a newer request cuts the older stream, which still ends in `[DONE]`."""
        with (
            LocalModelServer(interrupt_requests=True) as impatient,
            openai.OpenAI(base_url=impatient.base_url, api_key="none", max_retries=0) as client,
        ):
            messages: Any = [{"role": "user", "content": "Count to 30."}]
            chunks = client.chat.completions.create(model="tiny", stream=True, logit_bias=NO_END, messages=messages)
            heard = [next(iter(chunks))]
            newer = threading.Thread(target=ask, args=(client, FRANCE))
            newer.start()
            heard += chunks
            newer.join()
        assert len(heard) < 400
        assert {chunk.choices[0].finish_reason for chunk in heard} == {None}


class TestModel:
    @pytest.mark.parametrize("name", sorted(set(families()) - {"sum", "count", "echo"}))
    def test_knows_its_tables(self, client: openai.OpenAI, name: str) -> None:
        family = families()[name]
        for item in family.items[:10]:
            answer = ask(client, family.wordings[0].format(x=item[0])).choices[0].message.content
            assert answer == family.reply(item, short=False)

    def test_says_so_when_it_does_not_know(self, client: openai.OpenAI) -> None:
        for text in ("Why has my transfer not arrived?", "wie geht es dir heute", "SELECT * FROM users;", "🤖🤖"):
            choice = ask(client, text).choices[0]
            assert choice.finish_reason == "stop"
            assert choice.message.content

    def test_reads_text_as_its_recipe_does(self, local_model: LocalModelServer) -> None:
        samples = json.loads((Path(__file__).parent / "tokens.json").read_text(encoding="utf-8"))
        assert len(samples) > 5
        for text, expected in samples.items():
            request = urllib.request.Request(
                local_model.base_url.removesuffix("/v1") + "/extras/tokenize",
                json.dumps({"input": text}).encode(),
                {"Content-Type": "application/json"},
            )
            with urllib.request.urlopen(request, timeout=30) as response:
                start, *ids = json.load(response)["tokens"]
            assert (start, ids) == (0, expected), text

    def test_scores_a_given_text(self, client: openai.OpenAI) -> None:
        completion: Any = client.completions.create(
            model="tiny", prompt="The capital of France is Paris", max_tokens=1, echo=True, logprobs=1, temperature=0
        )
        scores = completion.choices[0].logprobs
        assert "".join(scores.tokens[:-1]) == "The capital of France is Paris"
        assert scores.token_logprobs[0] is None
        assert all(score <= 0 for score in scores.token_logprobs[1:])


class TestLifetime:
    def test_stops_and_cleans_up(self) -> None:
        with LocalModelServer() as running:
            pid, log_path = running.pid, running.log_path
            os.kill(pid, 0)
            assert log_path.is_file()
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
        assert not log_path.exists()
        running.stop()

    def test_stops_under_an_open_stream(self) -> None:
        with LocalModelServer() as running, openai.OpenAI(base_url=running.base_url, api_key="none") as client:
            chunks = client.chat.completions.create(
                model="tiny", stream=True, messages=[{"role": "user", "content": "Count to 30."}]
            )
            next(iter(chunks))
            running.stop()
            chunks.close()
        with pytest.raises(ProcessLookupError):
            os.kill(running.pid, 0)

    def test_says_why_it_did_not_start(self) -> None:
        broken = LocalModelServer(n_ctx="many")
        with pytest.raises(RuntimeError, match="invalid int value: 'many'"), broken:
            pass
        assert not broken.log_path.exists()

    def test_start_time_is_bounded(self) -> None:
        slow = LocalModelServer(start_timeout_s=0.0)
        with pytest.raises(RuntimeError, match="did not start in 0 s"), slow:
            pass

    def test_says_how_to_install(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr(server, "READY", tmp_path / "absent")
        with pytest.raises(FileNotFoundError, match=r"scripts/local-model"), LocalModelServer():
            pass

    @pytest.mark.parametrize(("value", "outcome"), [("1", "failed"), ("", "skipped")])
    def test_absence_fails_only_where_it_is_required(
        self, monkeypatch: pytest.MonkeyPatch, value: str, outcome: str
    ) -> None:
        monkeypatch.setattr(conftest, "is_installed", lambda: False)
        monkeypatch.setenv(conftest.REQUIRED, value)
        expected = {"failed": pytest.fail.Exception, "skipped": pytest.skip.Exception}[outcome]
        with pytest.raises(expected, match=r"scripts/local-model"):
            next(conftest.serve())
