"""Responses on the wire: what a request depends on, what ends a stream, what may be stored, and its replay."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from llm_proxy.errors import WireError
from llm_proxy.types import ChatRequest
from llm_proxy.wire.apis import parse_call, recorder_for, replay_as
from llm_proxy.wire.chat import usage_of
from llm_proxy.wire.responses import bypass, id_in_front, is_call, rejection, said_in
from tests.apis_kit import CALL, CUSTOM, REASONING, REFUSAL, TEXT, events_of, message, response, sse, streamed_response

STREAM = [("content-type", "text/event-stream; charset=utf-8")]
PLAIN = [("content-type", "application/json")]
EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
FUNCTION = {"type": "function", "name": "weather", "parameters": {}}


def asked(**fields: Any) -> ChatRequest:
    body = {"model": "m", "input": "Tell me of cats", **fields}
    return parse_call(json.dumps(body).encode(), api="responses", headers={}, endpoint="https://x.test/v1/responses")


def stream_of(whole: dict[str, Any]) -> bytes:
    return b"".join(sse(event, event["type"]) for event in streamed_response(whole))


def recorded(stream: bytes, step: int = 1 << 20) -> tuple[str, Any]:
    recorder = recorder_for(STREAM, limit_bytes=1 << 20, api="responses")
    assert recorder is not None
    ends = [recorder.feed(stream[start : start + step]) for start in range(0, len(stream), step)]
    assert sum([*ends, recorder.end()]) == (recorder.reason == "")
    return recorder.reason, recorder.completion()


def replayed(whole: dict[str, Any], **fields: Any) -> list[dict[str, Any]]:
    answer = replay_as(json.dumps(whole).encode(), asked(stream=True, **fields))
    assert answer.content_type == "text/event-stream; charset=utf-8"
    return events_of(answer.body)


class TestParse:
    @pytest.mark.parametrize(
        ("body", "words"),
        [
            ({"model": 7, "input": "x"}, "'model' is 7"),
            ({"model": "m", "input": 7}, "'input' is 7"),
            ({"model": "m", "input": {}}, "'input' is empty"),
            ([], "a JSON list; send a JSON object"),
        ],
    )
    def test_a_body_of_wrong_types_is_none(self, body: Any, words: str) -> None:
        with pytest.raises(WireError, match=words):
            parse_call(json.dumps(body).encode(), api="responses", headers={})

    def test_model_and_input_may_be_absent(self) -> None:
        call = parse_call(b'{"prompt": {"id": "p"}}', api="responses", headers={})
        assert (call.model, list(call.messages), call.question) == ("", [], "")

    def test_the_input_is_read_as_messages(self) -> None:
        items = [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi"}]}, CALL, "odd"]
        call = asked(instructions="Be kind", input=items)
        user = {"role": "user", "content": [{"type": "input_text", "text": "Hi"}]}
        assert call.messages == [{"role": "system", "content": "Be kind"}, user, CALL]
        assert call.question == "Hi"
        assert asked().messages == [{"role": "user", "content": "Tell me of cats"}]

    def test_it_knows_its_place(self) -> None:
        assert (asked().path, asked().base_url) == ("/responses", "https://x.test/v1")

    def test_callers_share_bytes_only_where_the_answer_repeats_the_same_of_them(self) -> None:
        assert asked(metadata={"a": "1"}).form != asked().form
        assert asked(metadata={"a": "1"}).form == asked(metadata={"a": "1"}, input="other").form

    def test_token_counts_are_always_wanted(self) -> None:
        assert asked(stream=True).wants_usage


class TestBypass:
    @pytest.mark.parametrize(
        ("fields", "reason"),
        [
            ({}, ""),
            ({"tools": [FUNCTION, {"type": "custom", "name": "run"}]}, ""),
            ({"tools": None, "previous_response_id": None, "background": False}, ""),
            ({"previous_response_id": "resp_1"}, "previous-response"),
            ({"conversation": "conv_1"}, "conversation"),
            ({"background": True}, "background"),
            ({"prompt": {"id": "p"}}, "stored-prompt"),
            ({"input": None}, "no-input"),
            ({"input": []}, "no-input"),
            ({"model": None}, "no-input"),
            ({"tools": [FUNCTION, {"type": "web_search"}]}, "server-tools"),
            ({"tools": {}}, ""),
            ({"tools": "all"}, "server-tools"),
            ({"tools": [7]}, "server-tools"),
            ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "item-reference"),
            ({"input": [{"role": "user", "content": "x"}, 7]}, "item-reference"),
        ],
    )
    def test_what_depends_on_more_than_the_request_is_passed_on(self, fields: dict[str, Any], reason: str) -> None:
        assert bypass({"model": "m", "input": "x", **fields}) == reason


@pytest.mark.parametrize(
    ("raw", "found"),
    [
        (b'{"id":"resp_0a-1","object":', "resp_0a-1"),
        (b' {\n  "id" : "resp_1", ', "resp_1"),
        (b'{"object": "response", "id": "resp_1"', ""),
        (b'{"id": "a\\u0062"', ""),
        (b'{"id": 7', ""),
        (b"\x1f\x8b", ""),
        (b"", ""),
    ],
)
def test_an_id_in_front_is_read_from_a_beginning(raw: bytes, found: str) -> None:
    assert id_in_front(raw) == found


class TestRecording:
    @pytest.mark.parametrize("model", ["m", "calls", "custom", "thinks", "both", "cut", "fails"])
    def test_the_last_event_holds_the_answer(self, model: str) -> None:
        whole = response({"model": model})
        assert recorded(stream_of(whole)) == ("", whole)

    @pytest.mark.parametrize("output", ["other", [], None, ["x"], [message(content="other")]])
    def test_a_last_event_that_says_something_else_is_no_answer(self, output: Any) -> None:
        whole = response({"model": "m"})
        first, _, last = stream_of(whole).rpartition(b"event: response.completed")
        output = (
            [message(content=[{**whole["output"][0]["content"][0], "text": output}])] if output == "other" else output
        )
        last = sse({"type": "response.completed", "response": {**whole, "output": output}}, "response.completed")
        assert recorded(first + last) == ("damaged", None)
        without = b"".join(part + b"\n\n" for part in first.split(b"\n\n") if part and b"output_text.delta" not in part)
        assert recorded(without + last)[0] == "", "who says nothing before contradicts nothing"

    def test_any_split_of_the_bytes_gives_the_same(self) -> None:
        whole = response({"model": "thinks"})
        assert recorded(stream_of(whole), step=7) == ("", whole)

    def test_a_stream_without_its_last_event_is_cut(self) -> None:
        events = stream_of(response({"model": "m"})).split(b"\n\n")
        assert recorded(b"\n\n".join(events[:-2]) + b"\n\n") == ("truncated", None)

    @pytest.mark.parametrize(
        ("tail", "reason"),
        [
            (b'event: error\ndata: {"type": "error", "message": "x"}\n\n', "error"),
            (b'data: {"type": "error", "message": "x"}\n\n', "damaged"),
            (b'data: {"type": "response.completed", "response": null}\n\n', "damaged"),
            (b"data: [DONE]\n\n", "damaged"),
        ],
    )
    def test_a_stream_that_ends_otherwise_is_no_answer(self, tail: bytes, reason: str) -> None:
        assert recorded(b'data: {"type": "response.created", "response": {}}\n\n' + tail) == (reason, None)

    def test_a_plain_answer_is_kept_as_it_came(self) -> None:
        raw = json.dumps(response({"model": "m"}), indent=1).encode()
        recorder = recorder_for(PLAIN, limit_bytes=1 << 20, api="responses")
        assert recorder is not None
        recorder.feed(raw)
        assert recorder.end()
        assert recorder.raw_completion() == raw

    def test_its_tokens_are_counted(self) -> None:
        usage = usage_of(response({"model": "m"}))
        assert usage is not None
        counts = usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens, usage.reasoning_tokens
        assert counts == (9, 5, 4, 2)


class TestRejection:
    @pytest.mark.parametrize("model", ["m", "calls", "custom", "thinks", "both"])
    def test_whole_answers_may_be_stored(self, model: str) -> None:
        assert rejection(response({"model": model}), {}) == ""

    @pytest.mark.parametrize(
        ("fields", "reason"),
        [
            ({"error": {"code": "x"}}, "error"),
            ({"status": "failed"}, "error"),
            ({"status": "incomplete"}, "incomplete"),
            ({"status": "in_progress"}, "incomplete"),
            ({"status": None}, "incomplete"),
            ({"incomplete_details": {"reason": "content_filter"}}, "incomplete"),
            ({"output": None}, "malformed"),
            ({"output": ["x"]}, "malformed"),
            ({"output": []}, "empty"),
            ({"output": [REASONING]}, "empty"),
            ({"output": [message(text=" ")]}, "empty"),
            ({"output": [REFUSAL]}, "refusal"),
            ({"output": [message(status="incomplete")]}, "incomplete"),
            ({"output": [message(content="text")]}, "malformed"),
            ({"output": [message(content=["text"])]}, "malformed"),
            ({"output": [message(content=[{"type": "output_text"}])]}, "malformed"),
            ({"output": [{**CALL, "name": None}]}, "malformed"),
            ({"output": [{**CALL, "arguments": {}}]}, "malformed"),
            ({"output": [{**CUSTOM, "input": None}]}, "malformed"),
            ({"output": [message(), {"type": "web_search_call", "status": "completed"}]}, "unknown-item"),
        ],
    )
    def test_nothing_else_may(self, fields: dict[str, Any], reason: str) -> None:
        assert rejection(response({"model": "m"}, **fields), {}) == reason

    def test_calls_are_told_from_texts(self) -> None:
        assert [is_call(response({"model": model})) for model in ("m", "thinks", "calls", "both")] == [
            False, False, True, True,
        ]  # fmt: skip
        assert said_in(response({"model": "thinks"})) == TEXT
        assert said_in(response({"model": "both"})) is None


class TestReplay:
    @pytest.mark.parametrize("model", ["m", "calls", "custom", "thinks", "both"])
    def test_a_stream_has_the_events_of_the_provider(self, model: str) -> None:
        whole = response({"model": model})
        events, original = replayed(whole), streamed_response(whole)
        assert _without_deltas(events) == _without_deltas(original)
        assert _joined_deltas(events) == _joined_deltas(original)
        assert [event["sequence_number"] for event in events] == list(range(len(events)))

    @pytest.mark.parametrize("model", ["m", "calls", "custom", "thinks", "both"])
    def test_a_recorder_reads_the_same_response_back(self, model: str) -> None:
        whole = response({"model": model})
        stream = replay_as(json.dumps(whole).encode(), asked(stream=True)).body
        assert recorded(stream) == ("", whole)

    @pytest.mark.parametrize("model", ["m", "calls", "custom", "thinks", "both"])
    def test_every_event_has_all_that_its_type_must_have(self, model: str) -> None:
        for event in replayed(response({"model": model})):
            EVENT.validate_python(event, strict=False)

    def test_log_probabilities_go_with_their_text(self) -> None:
        items = [{"token": word, "logprob": -0.1, "top_logprobs": []} for word in ("Cats ", "are ", "liquid.")]
        part = {"type": "output_text", "text": TEXT, "annotations": [], "logprobs": items}
        events = replayed(response({"model": "m"}, output=[message(content=[part])]))
        deltas = [event for event in events if event["type"] == "response.output_text.delta"]
        assert [(delta["delta"], delta["logprobs"]) for delta in deltas] == [(item["token"], [item]) for item in items]

    def test_annotations_and_unknown_parts_are_kept(self) -> None:
        note = {"type": "url_citation", "url": "https://x.test", "title": "x", "start_index": 0, "end_index": 4}
        part = {"type": "output_text", "text": "", "annotations": [note]}
        odd = {"type": "output_smell", "smell": "roses"}
        events = replayed(response({"model": "m"}, output=[message(content=[part, odd])]))
        kinds = [event["type"].removeprefix("response.") for event in events]
        assert kinds[3:9] == [
            "content_part.added", "output_text.annotation.added", "output_text.done", "content_part.done",
            "content_part.added", "content_part.done",
        ]  # fmt: skip
        assert events[4]["annotation"] == note
        assert events[3]["part"] == {**part, "annotations": []}
        assert events[7]["part"] == events[8]["part"] == odd

    def test_the_text_of_reasoning_is_said_again(self) -> None:
        thought = {**REASONING, "summary": [], "content": [{"type": "reasoning_text", "text": "Hm."}], "status": None}
        events = replayed(response({"model": "m"}, output=[thought, message()]))
        shown = [event for event in events if event["type"].startswith("response.reasoning_text")]
        assert [(event["type"][24:], event.get("delta", event.get("text"))) for event in shown] == [
            ("delta", "Hm."), ("done", "Hm."),
        ]  # fmt: skip
        assert events[2]["item"] == {**thought, "content": []}

    def test_a_plain_answer_is_the_stored_one(self) -> None:
        raw = json.dumps(response({"model": "m"}), indent=1).encode()
        answer = replay_as(raw, asked())
        assert answer == ("application/json", raw)

    def test_it_repeats_what_this_caller_sent(self) -> None:
        whole = response({"model": "m", "metadata": {"trace": "1"}, "user": "ann"})
        raw = json.dumps(whole).encode()
        assert json.loads(replay_as(raw, asked()).body) == {**whole, "metadata": {}, "user": None}
        mine = {"metadata": {"trace": "2"}, "user": "bob"}
        assert json.loads(replay_as(raw, asked(**mine)).body) == {**whole, **mine}
        assert replayed(whole, **mine)[-1]["response"] == {**whole, **mine}

    def test_what_the_provider_does_not_repeat_stays_away(self) -> None:
        whole = response({"model": "m"})
        del whole["metadata"], whole["user"]
        assert json.loads(replay_as(json.dumps(whole).encode(), asked(metadata={"a": "b"})).body) == whole

    @pytest.mark.parametrize("raw", [b"{", b"[]", b'{"output": [7]}', b'{"output": [{"type": "function_call"}]}'])
    def test_damage_is_told(self, raw: bytes) -> None:
        with pytest.raises(WireError, match="can't be replayed"):
            replay_as(raw, asked(stream=True))

    def test_the_client_reads_a_plain_answer(self) -> None:
        whole = response({"model": "thinks"})
        read = Response.model_validate(json.loads(replay_as(json.dumps(whole).encode(), asked()).body))
        assert read.output_text == TEXT


def _without_deltas(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    kept = [event for event in events if not event["type"].endswith("delta")]
    return [{name: value for name, value in event.items() if name != "sequence_number"} for event in kept]


def _joined_deltas(events: list[dict[str, Any]]) -> dict[tuple[str, int], str]:
    texts: dict[tuple[str, int], str] = {}
    for event in events:
        if event["type"].endswith("delta"):
            place = event["type"], event["output_index"]
            texts[place] = texts.get(place, "") + event["delta"]
    return texts
