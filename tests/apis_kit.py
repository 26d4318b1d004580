"""A simulated provider of the other APIs: responses, completions and embeddings, with the events as documented.

What it answers depends on the model's name: ``m`` says something, ``calls`` calls a tool, ``thinks`` reasons first,
``refuses``, ``cut`` (by its length), ``fails`` (in mid-stream), ``errs`` (an error event), ``breaks`` (the stream
breaks off). The streams are spelt out here and not made by `llm_proxy`, so that they can be compared with it.
"""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Any

__all__ = ["Provider", "events_of", "sse", "streamed_response", "text_chunks"]

USAGE = {
    "input_tokens": 9, "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 0}, "output_tokens": 5,
    "output_tokens_details": {"reasoning_tokens": 2}, "total_tokens": 14,
}  # fmt: skip
WORDS = ["Cats ", "are ", "liquid."]
TEXT = "".join(WORDS)


def message(*, text: str = TEXT, **more: Any) -> dict[str, Any]:
    part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    return {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": [part], **more}


CALL = {
    "id": "fc_1", "type": "function_call", "status": "completed", "call_id": "call_1", "name": "weather",
    "arguments": '{"city": "Rome"}',
}  # fmt: skip
CUSTOM = {
    "id": "ctc_1", "type": "custom_tool_call", "status": "completed", "call_id": "call_2", "name": "run",
    "input": "print(1)",
}  # fmt: skip
REASONING = {
    "id": "rs_1", "type": "reasoning", "summary": [{"type": "summary_text", "text": "It asks about cats."}],
}  # fmt: skip
REFUSAL = message(content=[{"type": "refusal", "refusal": "I can't."}])
OUTPUTS: dict[str, list[dict[str, Any]]] = {
    "calls": [CALL], "custom": [CUSTOM], "thinks": [REASONING, message()], "refuses": [REFUSAL],
    "both": [message(), CALL],
}  # fmt: skip


def response(body: Mapping[str, Any], *, number: int = 1, **fields: Any) -> dict[str, Any]:
    """A response object as the provider would store it."""
    model = str(body["model"])
    status = {"cut": "incomplete", "fails": "failed"}.get(model, "completed")
    value: dict[str, Any] = {
        "id": f"resp_{number}", "object": "response", "created_at": 1, "status": status, "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if model == "cut" else None,
        "instructions": body.get("instructions"), "metadata": body.get("metadata") or {}, "model": model,
        "output": OUTPUTS.get(model, [message()]), "parallel_tool_calls": True, "previous_response_id": None,
        "store": body.get("store", True), "temperature": 1.0, "text": {"format": {"type": "text"}},
        "tool_choice": "auto", "tools": body.get("tools") or [], "top_p": 1.0, "usage": USAGE,
        "user": body.get("user"),
    }  # fmt: skip
    if model == "fails":
        value |= {"error": {"code": "server_error", "message": "simulated"}, "output": [], "usage": None}
    return {**value, **fields}


def _deltas(item: Mapping[str, Any], at: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """What comes between the events that open and close an item."""
    here = {"item_id": item["id"], **at}
    if item["type"] == "function_call":
        for piece in ('{"city": ', '"Rome"}'):
            yield {"type": "response.function_call_arguments.delta", **here, "delta": piece}
        done = {"name": item["name"], "arguments": item["arguments"]}
        yield {"type": "response.function_call_arguments.done", **here, **done}
    if item["type"] == "custom_tool_call":
        yield {"type": "response.custom_tool_call_input.delta", **here, "delta": item["input"]}
        yield {"type": "response.custom_tool_call_input.done", **here, "input": item["input"]}
    if item["type"] == "reasoning":
        here = {**here, "summary_index": 0}
        part = item["summary"][0]
        yield {"type": "response.reasoning_summary_part.added", **here, "part": {**part, "text": ""}}
        yield {"type": "response.reasoning_summary_text.delta", **here, "delta": part["text"]}
        yield {"type": "response.reasoning_summary_text.done", **here, "text": part["text"]}
        yield {"type": "response.reasoning_summary_part.done", **here, "part": part}
    if item["type"] == "message":
        yield from _message_deltas(item["content"][0], {**here, "content_index": 0})


def _message_deltas(part: Mapping[str, Any], here: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    name = "text" if part["type"] == "output_text" else "refusal"
    kind = "response.output_text" if name == "text" else "response.refusal"
    more = {"logprobs": []} if name == "text" else {}
    yield {"type": "response.content_part.added", **here, "part": {**part, name: ""}}
    for piece in WORDS if name == "text" else [part[name]]:
        yield {"type": f"{kind}.delta", **here, "delta": piece, **more}
    yield {"type": f"{kind}.done", **here, name: part[name], **more}
    yield {"type": "response.content_part.done", **here, "part": dict(part)}


def _emptied(item: Mapping[str, Any]) -> dict[str, Any]:
    empty = {"content": [], "summary": [], "arguments": "", "input": "", "status": "in_progress"}
    return {name: empty.get(name, value) for name, value in item.items()}


def streamed_response(whole: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The events of a response, in the documented order."""
    begun = {**whole, "status": "in_progress", "output": [], "usage": None, "error": None, "incomplete_details": None}
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": begun}, {"type": "response.in_progress", "response": begun},
    ]  # fmt: skip
    for index, item in enumerate(whole["output"]):
        at = {"output_index": index}
        events.append({"type": "response.output_item.added", **at, "item": _emptied(item)})
        events += _deltas(item, at)
        events.append({"type": "response.output_item.done", **at, "item": item})
    events.append({"type": f"response.{whole['status']}", "response": whole})
    return [{"type": event.pop("type"), "sequence_number": number, **event} for number, event in enumerate(events)]


def sse(value: Mapping[str, Any], name: str = "") -> bytes:
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {json.dumps(value)}\n\n".encode()


def events_of(stream: bytes) -> list[dict[str, Any]]:
    """The data of a stream's events, ``[DONE]`` left out; each that has a type is named by it."""
    found = []
    for block in stream.decode().split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines())
        if lines and lines["data"] != "[DONE]":
            data = json.loads(lines["data"])
            assert lines.get("event", "") == data.get("type", "")
            found.append(data)
    return found


def text_chunks(whole: Mapping[str, Any], *, has_usage: bool) -> list[dict[str, Any]]:
    """The chunks of a streamed completion of before chat."""
    top = {name: value for name, value in whole.items() if name not in {"choices", "usage"}}
    top |= {"usage": None} if has_usage else {}
    chunks = []
    for choice in whole["choices"]:
        known = {"index": choice["index"], "logprobs": None}
        pieces = [choice["text"][:4], choice["text"][4:]]
        chunks += [{**top, "choices": [{**known, "text": piece, "finish_reason": None}]} for piece in pieces]
        chunks.append({**top, "choices": [{**known, "text": "", "finish_reason": choice["finish_reason"]}]})
    return [*chunks, {**top, "choices": [], "usage": whole["usage"]}] if has_usage else chunks


def text_completion(body: Mapping[str, Any], number: int) -> dict[str, Any]:
    prompts = body["prompt"] if isinstance(body["prompt"], list) else [body["prompt"]]
    finish = "length" if body["model"] == "cut" else "stop"
    texts = [f"{text if body.get('echo') else ''} and on" for text in prompts for _ in range(body.get("n") or 1)]
    choices = [
        {"text": text, "index": index, "logprobs": None, "finish_reason": finish} for index, text in enumerate(texts)
    ]
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    top = {"id": f"cmpl-{number}", "object": "text_completion", "created": 1, "model": body["model"]}
    return {**top, "choices": choices, "usage": usage}


def embeddings(body: Mapping[str, Any]) -> dict[str, Any]:
    texts = body["input"] if isinstance(body["input"], list) else [body["input"]]
    data = []
    for index, text in enumerate(texts):
        vector = [len(text) / 8, 0.5, -0.25][: body.get("dimensions") or 3]
        packed = base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
        coded = packed if body.get("encoding_format") == "base64" else vector
        data.append({"object": "embedding", "index": index, "embedding": coded})
    usage = {"prompt_tokens": 4 * len(texts), "total_tokens": 4 * len(texts)}
    return {"object": "list", "data": data, "model": body["model"], "usage": usage}


class Provider:
    """The provider as an ASGI application.

    Attributes:
        requests: Path and body of each request, oldest first.
        delay: Awaited before it answers.
    """

    def __init__(self, delay: Callable[[], Any] | None = None) -> None:
        self.requests: list[tuple[str, Any]] = []
        self.delay = delay

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        raw, more = b"", True
        while more:
            came = await receive()
            raw, more = raw + came.get("body", b""), came.get("more_body", False)
        self.requests.append((scope["path"], json.loads(raw) if raw else None))
        if self.delay is not None:
            await self.delay()
        status, kind, pieces, is_broken = self.respond(*self.requests[-1])
        rows = [(b"content-type", kind.encode()), (b"x-request-id", b"simulated")]
        await send({"type": "http.response.start", "status": status, "headers": rows})
        for piece in pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        if not is_broken:
            await send({"type": "http.response.body", "body": b""})

    def respond(self, path: str, body: Any) -> tuple[int, str, list[bytes], bool]:
        """Status, content type and pieces of an answer, and whether it breaks off there."""
        if body is None or body.get("model") == "missing":
            error = {"message": "simulated: there is no such thing", "type": "invalid_request_error", "code": None}
            return 404, "application/json", [json.dumps({"error": error}).encode()], False
        if path.endswith("/responses"):
            return self._responses(body)
        if path.endswith("/embeddings"):
            return 200, "application/json", [json.dumps(embeddings(body)).encode()], False
        whole = text_completion(body, len(self.requests))
        if not body.get("stream"):
            return 200, "application/json", [json.dumps(whole).encode()], False
        has_usage = (body.get("stream_options") or {}).get("include_usage") is True
        pieces = [sse(chunk) for chunk in text_chunks(whole, has_usage=has_usage)]
        is_broken = body["model"] == "breaks"
        return 200, "text/event-stream", pieces[:1] if is_broken else [*pieces, b"data: [DONE]\n\n"], is_broken

    def _responses(self, body: Any) -> tuple[int, str, list[bytes], bool]:
        whole = response(body, number=len(self.requests))
        if not body.get("stream"):
            return 200, "application/json", [json.dumps(whole).encode()], False
        events = streamed_response(whole)
        pieces = [sse(event, event["type"]) for event in events]
        if body["model"] == "breaks":
            return 200, "text/event-stream", pieces[:5], True
        if body["model"] == "errs":
            error = {"type": "error", "code": "server_error", "message": "simulated", "param": None}
            pieces = [*pieces[:5], sse({**error, "sequence_number": 5}, "error")]
        return 200, "text/event-stream", pieces, False
