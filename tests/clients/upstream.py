"""A simulated OpenAI provider over a real socket: it says so in every answer, and asks no model.

It has chat, responses, embeddings, completions, models, files and speech, plain and streamed, with tools and structured
output, and it fails where the model's name says so:

::

    error-404        that status, always
    flaky-503-2      that status twice, then an answer
    cut              a stream that breaks off in the middle
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import struct
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

__all__ = ["SimulatedProvider", "filled"]

JSON = dict[str, Any]
_CREATED = 1_700_000_000
_SPEECH = bytes(range(256)) * 16
_KINDS = {400: "invalid_request_error", 401: "authentication_error", 404: "not_found", 429: "rate_limit_exceeded"}


def filled(schema: Mapping[str, Any], root: Mapping[str, Any] | None = None) -> Any:
    """A value that a JSON schema allows: the first of every choice."""
    root = schema if root is None else root
    if "$ref" in schema:
        found: Any = root
        for step in schema["$ref"].removeprefix("#/").split("/"):
            found = found[step]
        return filled(found, root)
    for name in ("anyOf", "oneOf", "allOf"):
        if name in schema:
            return filled(schema[name][0], root)
    if "const" in schema or "enum" in schema:
        return schema.get("const", (schema.get("enum") or [None])[0])
    kind = schema.get("type", "object")
    if kind == "object":
        return {name: filled(part, root) for name, part in schema.get("properties", {}).items()}
    if kind == "array":
        return [filled(schema.get("items", {"type": "string"}), root)]
    return {"string": "Paris", "integer": 3, "number": 0.5, "boolean": True}.get(kind)


def said_by(body: Mapping[str, Any]) -> str:
    """What is said where nothing else is asked for: the last text of the user."""
    given = body.get("messages") or body.get("input") or body.get("prompt") or ""
    if isinstance(given, str):
        return f"simulated: {given}"
    content = given[-1].get("content") if isinstance(given[-1], dict) else given[-1]
    if isinstance(content, list):
        content = " ".join(part.get("text", "") for part in content if isinstance(part, dict))
    return f"simulated: {content or given[-1].get('output', '')}"


class SimulatedProvider:
    """The provider as an ASGI application.

    Args:
        said: What it says to a request that asks for text.

    Attributes:
        requests: Path and body of every request, oldest first; a body that is not JSON is bytes.
    """

    def __init__(self, said: Callable[[Mapping[str, Any]], str] = said_by) -> None:
        self._said = said
        self.requests: list[tuple[str, Any]] = []
        self._failed: Counter[str] = Counter()
        self._files: dict[str, tuple[JSON, bytes]] = {}
        self._file_numbers = itertools.count(1)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        raw, more = b"", True
        while more:
            message = await receive()
            raw, more = raw + message.get("body", b""), message.get("more_body", False)
        path, method = scope["path"], scope["method"]
        if path == "/simulated/calls":
            await _json(send, 200, {"calls": len(self.requests)})
            return
        is_json = any(name == b"content-type" and b"json" in value for name, value in scope["headers"])
        body = json.loads(raw) if is_json and raw else raw
        self.requests.append((path, body))
        await self._answer(method, path, body, send)

    async def _answer(self, method: str, path: str, body: Any, send: Any) -> None:
        model = body.get("model", "") if isinstance(body, dict) else ""
        status = self._failure(model)
        if status:
            error = {
                "message": f"simulated failure {status}",
                "type": _KINDS.get(status, "server_error"),
                "code": "sim",
            }
            await _json(send, status, {"error": error}, **({"retry-after": "0"} if status in (429, 503) else {}))
        elif path == "/v1/chat/completions":
            await self._chat(body, send)
        elif path == "/v1/responses":
            await self._responses(body, send)
        elif path == "/v1/embeddings":
            await _json(send, 200, _embeddings(body))
        elif path == "/v1/completions":
            choice = {"index": 0, "text": self._said(body), "finish_reason": "stop", "logprobs": None}
            answer = {"id": "cmpl-simulated", "object": "text_completion", "created": _CREATED, "model": model}
            await _json(send, 200, {**answer, "choices": [choice], "usage": _usage(self._said(body))})
        elif path == "/v1/audio/speech":
            await _bytes(send, _SPEECH, "audio/mpeg")
        elif path == "/v1/models":
            rows = [{"id": "simulated", "object": "model", "created": _CREATED, "owned_by": "simulated"}]
            await _json(send, 200, {"object": "list", "data": rows})
        elif path.startswith("/v1/files"):
            await self._file(method, path, body, send)
        else:
            await _json(send, 404, {"error": {"message": f"no {path} here", "type": "not_found", "code": "sim"}})

    def _failure(self, model: str) -> int:
        """The status that a model's name asks for; 0 for none."""
        kind, _, rest = model.partition("-")
        if kind == "error":
            return int(rest)
        if kind == "flaky":
            status, most = rest.split("-")[:2]
            self._failed[model] += 1
            return int(status) if self._failed[model] <= int(most) else 0
        return 0

    # -- chat ----------------------------------------------------------------------------------------------------

    async def _chat(self, body: JSON, send: Any) -> None:
        message, finish = self._message(body), "stop"
        if message.get("tool_calls"):
            finish = "tool_calls"
        whole = {"id": "chatcmpl-simulated", "created": _CREATED, "model": body["model"]}
        usage = _usage(message["content"] or "")
        if body.get("stream"):
            wants_usage = (body.get("stream_options") or {}).get("include_usage")
            rows = [*_deltas(message), ({}, finish)]
            chunks = [
                {**whole, "object": "chat.completion.chunk", "choices": [_choice(delta, reason)]}
                for delta, reason in rows
            ]
            if wants_usage:
                chunks.append({**whole, "object": "chat.completion.chunk", "choices": [], "usage": usage})
            events = [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks]
            await _stream(send, [*events, "data: [DONE]\n\n"], is_cut=body["model"] == "cut")
            return
        choice = {"index": 0, "message": message, "finish_reason": finish, "logprobs": None}
        await _json(send, 200, {**whole, "object": "chat.completion", "choices": [choice], "usage": usage})

    def _message(self, body: JSON) -> JSON:
        wanted = _wanted_tool(body, body["messages"][-1].get("role") == "tool")
        if wanted:
            function = {"name": wanted["name"], "arguments": json.dumps(filled(wanted.get("parameters") or {}))}
            call = {"id": "call_simulated", "type": "function", "function": function}
            return {"role": "assistant", "content": None, "refusal": None, "tool_calls": [call]}
        form = body.get("response_format") or {}
        text = self._said(body)
        if form.get("type") == "json_schema":
            text = json.dumps(filled(form["json_schema"]["schema"]))
        elif form.get("type") == "json_object" and not text.startswith("{"):
            text = json.dumps({"simulated": text})
        return {"role": "assistant", "content": text, "refusal": None}

    # -- responses -----------------------------------------------------------------------------------------------

    async def _responses(self, body: JSON, send: Any) -> None:
        item = self._item(body)
        text = item["content"][0]["text"] if item["type"] == "message" else ""
        whole = {
            "id": "resp_simulated", "object": "response", "created_at": _CREATED, "model": body["model"], "error": None,
            "status": "completed", "output": [item], "parallel_tool_calls": True, "tool_choice": "auto", "metadata": {},
            "tools": body.get("tools") or [], "incomplete_details": None, "instructions": None, "temperature": 1.0,
            "top_p": 1.0, "usage": _response_usage(text),
        }  # fmt: skip
        if not body.get("stream"):
            await _json(send, 200, whole)
            return
        events = list(_response_events(whole, item))
        lines = [
            f"event: {event['type']}\ndata: {json.dumps({**event, 'sequence_number': number})}\n\n"
            for number, event in enumerate(events)
        ]
        await _stream(send, lines)

    def _item(self, body: JSON) -> JSON:
        given = body.get("input")
        is_told = isinstance(given, list) and given[-1].get("type") == "function_call_output"
        wanted = _wanted_tool(body, is_told)
        if wanted:
            arguments = json.dumps(filled(wanted.get("parameters") or {}))
            call = {"id": "fc_simulated", "call_id": "call_simulated", "name": wanted["name"], "arguments": arguments}
            return {"type": "function_call", "status": "completed", **call}
        form = (body.get("text") or {}).get("format") or {}
        text = json.dumps(filled(form["schema"])) if form.get("type") == "json_schema" else self._said(body)
        content = [{"type": "output_text", "text": text, "annotations": []}]
        return {
            "type": "message",
            "id": "msg_simulated",
            "status": "completed",
            "role": "assistant",
            "content": content,
        }

    # -- files ---------------------------------------------------------------------------------------------------

    async def _file(self, method: str, path: str, body: Any, send: Any) -> None:
        name, _, rest = path.removeprefix("/v1/files").strip("/").partition("/")
        if method == "POST":
            row = {
                "id": f"file-{next(self._file_numbers)}", "object": "file", "bytes": len(body), "created_at": _CREATED,
                "filename": "notes.txt", "purpose": "user_data", "status": "processed",
            }  # fmt: skip
            self._files[row["id"]] = row, body
            await _json(send, 200, row)
        elif not name:
            await _json(send, 200, {"object": "list", "data": [row for row, _ in self._files.values()]})
        elif name not in self._files:
            await _json(send, 404, {"error": {"message": f"no file {name}", "type": "not_found", "code": "sim"}})
        elif method == "DELETE":
            del self._files[name]
            await _json(send, 200, {"id": name, "object": "file", "deleted": True})
        elif rest == "content":
            await _bytes(send, self._files[name][1], "application/octet-stream")
        else:
            await _json(send, 200, self._files[name][0])


def _wanted_tool(body: Mapping[str, Any], is_told: bool) -> JSON | None:
    """The first tool of a request, where it is to be called."""
    tools = body.get("tools") or []
    if is_told or not tools or body.get("tool_choice") == "none":
        return None
    return tools[0].get("function") or tools[0]


def _deltas(message: JSON) -> list[tuple[JSON, None]]:
    """A message in pieces."""
    pieces: list[JSON] = [{"role": "assistant", "content": None if message.get("tool_calls") else ""}]
    for call in message.get("tool_calls") or ():
        name, said = call["function"]["name"], call["function"]["arguments"]
        head = {"index": 0, "id": call["id"], "type": "function", "function": {"name": name, "arguments": ""}}
        parts = [said[: len(said) // 2], said[len(said) // 2 :]]
        pieces += [{"tool_calls": [head]}]
        pieces += [{"tool_calls": [{"index": 0, "function": {"arguments": part}}]} for part in parts if part]
    pieces += [{"content": piece} for piece in _words(message["content"] or "")]
    return [(piece, None) for piece in pieces]


def _choice(delta: JSON, finish: str | None) -> JSON:
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}


def _words(text: str) -> list[str]:
    words = text.split(" ")
    return [word + (" " if place < len(words) - 1 else "") for place, word in enumerate(words) if text]


def _response_events(whole: JSON, item: JSON) -> Any:
    begun = {**whole, "status": "in_progress", "output": [], "usage": None}
    yield {"type": "response.created", "response": begun}
    yield {"type": "response.in_progress", "response": begun}
    place = {"output_index": 0, "item_id": item["id"]}
    if item["type"] == "function_call":
        started = {**item, "arguments": "", "status": "in_progress"}
        yield {"type": "response.output_item.added", "output_index": 0, "item": started}
        yield {"type": "response.function_call_arguments.delta", **place, "delta": item["arguments"]}
        done = {"arguments": item["arguments"], "name": item["name"]}
        yield {"type": "response.function_call_arguments.done", **place, **done}
    else:
        text = item["content"][0]["text"]
        part = {**place, "content_index": 0}
        empty = {"type": "output_text", "text": "", "annotations": []}
        started = {**item, "content": [], "status": "in_progress"}
        yield {"type": "response.output_item.added", "output_index": 0, "item": started}
        yield {"type": "response.content_part.added", **part, "part": empty}
        for word in _words(text):
            yield {"type": "response.output_text.delta", **part, "delta": word, "logprobs": []}
        yield {"type": "response.output_text.done", **part, "text": text, "logprobs": []}
        yield {"type": "response.content_part.done", **part, "part": item["content"][0]}
    yield {"type": "response.output_item.done", "output_index": 0, "item": item}
    yield {"type": "response.completed", "response": whole}


def _embeddings(body: JSON) -> JSON:
    given = body["input"] if isinstance(body["input"], list) else [body["input"]]
    rows = []
    for place, text in enumerate(given):
        vector = [len(str(text)) / 64, -0.5, 0.25]
        packed = base64.b64encode(struct.pack("<3f", *vector)).decode()
        value = packed if body.get("encoding_format") == "base64" else vector
        rows.append({"object": "embedding", "index": place, "embedding": value})
    usage = {"prompt_tokens": 4, "total_tokens": 4}
    return {"object": "list", "model": body["model"], "data": rows, "usage": usage}


def _usage(text: str) -> JSON:
    said = max(1, len(text) // 4)
    return {"prompt_tokens": 10, "completion_tokens": said, "total_tokens": 10 + said}


def _response_usage(text: str) -> JSON:
    said = max(1, len(text) // 4)
    details = {"input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0}}
    return {"input_tokens": 10, "output_tokens": said, "total_tokens": 10 + said, **details}


async def _json(send: Any, status: int, value: Any, **headers: str) -> None:
    await _bytes(send, json.dumps(value).encode(), "application/json", status, **headers)


async def _bytes(send: Any, body: bytes, kind: str, status: int = 200, **headers: str) -> None:
    rows = [(b"content-type", kind.encode()), (b"content-length", str(len(body)).encode())]
    rows += [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": rows})
    await send({"type": "http.response.body", "body": body})


async def _stream(send: Any, events: list[str], *, is_cut: bool = False) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
    async for event in _slowly(events[: len(events) // 2] if is_cut else events):
        await send({"type": "http.response.body", "body": event.encode(), "more_body": True})
    if is_cut:
        raise ConnectionAbortedError("simulated break in mid-stream")
    await send({"type": "http.response.body", "body": b""})


async def _slowly(events: list[str]) -> AsyncIterator[str]:
    """One event after the other, each in a packet of its own as far as that can be had."""
    for event in events:
        yield event
        await asyncio.sleep(0)
