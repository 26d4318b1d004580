"""A simulated model server: it knows its answers by heart, and takes the time that a model would; no model runs here.

`Knowing` is what it says, without any time; `KnowingApp` serves it over HTTP with a clock. Tokens are words with the
space before them, or what ``split`` makes of a text.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn

__all__ = ["FORM", "Knowing", "KnowingApp", "Timing", "knowing", "words"]

FORM = "<|{role}|>{content}<|end|>"
"""How its models read a chat."""

_TURN = re.compile(r"<\|(\w+)\|>(.*?)<\|end\|>", re.DOTALL)
_ANSWER = "<|assistant|>"
_LIKELY, _UNLIKELY, _LESS = -0.01, -9.0, -9.5


def words(text: str) -> list[str]:
    """The tokens of a text: words with the white space before them."""
    return re.findall(r"\s*\S+|\s+\Z", text)


@dataclass
class Knowing:
    """A model that knows what to say.

    Attributes:
        answers: Answers by question; to others it says that it does not know.
        split: Tokens of a text.
        acceptance: Share of its tokens that are those of the answer; the others are wrong, by chance.
        seed: Of the chance.
        sent: Bodies of the requests that came.
        billed: Tokens of prompts and of answers, as it would bill them.
    """

    answers: Mapping[str, str]
    split: Callable[[str], list[str]] = words
    acceptance: float = 1.0
    seed: int = 0
    sent: list[dict[str, Any]] = field(default_factory=list)
    billed: Counter[str] = field(default_factory=Counter)

    def answer(self, question: str) -> str:
        """What it says to a question."""
        return self.answers.get(question, "I do not know.")

    def next_tokens(self, question: str, said: str, most: int) -> list[str]:
        """What it goes on with; fewer tokens than ``most`` where the answer ends."""
        tokens, text = list[str](), said
        while len(tokens) < most:
            token = self.chosen(question, text)
            if not token:
                break
            tokens.append(token)
            text += token
        return tokens

    def chosen(self, question: str, said: str) -> str:
        """The token after a text; empty at the end of the answer. After what it would not have said, it rambles."""
        answer = self.answer(question)
        if not answer.startswith(said):
            return " er"
        rest = self.split(answer[len(said) :])
        chance = random.Random(f"{self.seed}|{question}|{len(said)}").random()
        return (rest[0] if chance < self.acceptance else " um") if rest else ""

    def complete(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to a completion; its prompt is a chat in `FORM`."""
        prompt = body["prompt"]
        head, _, said = prompt.rpartition(_ANSWER)
        question = _TURN.findall(head)[-1][1]
        most = body.get("max_tokens", 16)
        new = self.next_tokens(question, said, most)
        finish = "length" if len(new) == most else "stop"
        given = [*self.split(head + _ANSWER), *self.split(said)]
        choice: dict[str, Any] = {"index": 0, "text": "".join(new), "finish_reason": finish, "logprobs": None}
        if body.get("echo"):
            choice["text"] = prompt + choice["text"]
            choice["logprobs"] = self._logged(question, head + _ANSWER, said, new)
        counts = self._counted(len(given), len(new))
        frame = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": body["model"]}
        return {**frame, "choices": [choice], "usage": counts}

    def _logged(self, question: str, head: str, said: str, new: list[str]) -> dict[str, Any]:
        tokens = [(token, _UNLIKELY, {token: _UNLIKELY}) for token in self.split(head)]
        text = ""
        for token in [*self.split(said), *new]:
            top = self.chosen(question, text)
            logprob = _LIKELY if token == top else _UNLIKELY
            others = {top: _LIKELY} if top else {"</s>": _LIKELY}
            tokens.append((token, logprob, {**others, "…": _LESS, token: logprob}))
            text += token
        names = ("tokens", "token_logprobs", "top_logprobs")
        return dict(zip(names, map(list, zip(*tokens, strict=True)), strict=True))

    def chat(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The plain answer to a chat."""
        question = body["messages"][-1]["content"]
        most = body.get("max_tokens") or 10_000
        tokens = self.next_tokens(question, "", most)
        text, finish = "".join(tokens), "length" if len(tokens) == most else "stop"
        stops = [body["stop"]] if isinstance(body.get("stop"), str) else body.get("stop") or []
        for count in range(1, len(tokens) + 1):
            so_far = "".join(tokens[:count])
            ends = [so_far.find(stop) for stop in stops if stop in so_far]
            if ends:
                text, finish, tokens = so_far[: min(ends)], "stop", tokens[:count]
                break
        prompt = "".join(f"<|{row['role']}|>{row['content']}<|end|>" for row in body["messages"]) + _ANSWER
        counts = self._counted(len(self.split(prompt)), len(tokens))
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}
        frame = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": body["model"]}
        return {**frame, "choices": [choice], "usage": counts}

    def _counted(self, prompt: int, answer: int) -> dict[str, int]:
        self.billed.update(prompt=prompt, answer=answer)
        return {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer}

    def chunks(self, body: Mapping[str, Any]) -> list[bytes]:
        """The events of the same as a stream: one a token."""
        whole = self.chat(body)
        choice = whole["choices"][0]
        frame = {**{name: whole[name] for name in ("id", "created", "model")}, "object": "chat.completion.chunk"}
        deltas: list[tuple[dict[str, Any], str | None]] = [({"role": "assistant", "content": ""}, None)]
        deltas += [({"content": token}, None) for token in self.split(choice["message"]["content"])]
        deltas += [({}, choice["finish_reason"])]
        rows = [{**frame, "choices": [{"index": 0, "delta": d, "finish_reason": end}]} for d, end in deltas]
        if (body.get("stream_options") or {}).get("include_usage"):
            rows.append({**frame, "choices": [], "usage": whole["usage"]})
        return [*(f"data: {json.dumps(row)}\n\n".encode() for row in rows), b"data: [DONE]\n\n"]


@dataclass(frozen=True)
class Timing:
    """How long a model server takes.

    Attributes:
        network_s: From a request to the server, and back.
        pass_s: One pass of the model, whatever its width, up to ``capacity`` tokens at a time.
        capacity: Tokens that a pass takes without getting slower; of wider ones the time grows in proportion.
        scored_s: What a token of a text that is scored adds, beside the pass.
        tail_share: Share of chats that are not begun at once, in [0, 1], by chance.
        tail_s: How long those wait; they are billed even if nobody waits for them.
    """

    network_s: float = 0.0
    pass_s: float = 0.0
    capacity: int = 64
    scored_s: float = 0.0
    tail_share: float = 0.0
    tail_s: float = 0.0


class KnowingApp:
    """Serves a model over ASGI; passes take longer the more tokens all requests have in them."""

    def __init__(self, model: Knowing, timing: Timing) -> None:
        self.model, self.timing = model, timing
        self._width = 0
        self._said: dict[str, str] = {}
        self._chance = random.Random(model.seed)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        raw, is_more = b"", True
        while is_more:
            message = await receive()
            raw, is_more = raw + message.get("body", b""), message.get("more_body", False)
        body = json.loads(raw)
        self.model.sent.append(body)
        is_stream = bool(body.get("stream"))
        kind = b"text/event-stream" if is_stream else b"application/json"
        await asyncio.sleep(self.timing.network_s)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
        async for piece in self._pieces(scope["path"], body, is_stream=is_stream):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def _pieces(self, path: str, body: dict[str, Any], *, is_stream: bool) -> AsyncIterator[bytes]:
        if path.endswith("/chat/completions"):
            events, answer = self.model.chunks(body) if is_stream else [], {} if is_stream else self.model.chat(body)
            if self._chance.random() < self.timing.tail_share:
                await asyncio.sleep(self.timing.tail_s)
            for event in events:
                await self._pass(1)
                yield event
            if is_stream:
                return
            for _ in range(answer["usage"]["completion_tokens"]):
                await self._pass(1)
        else:
            answer = self.model.complete(body)
            new = self._new(body["prompt"]) if body.get("echo") else 0
            await self._pass(1 + new, new * self.timing.scored_s)
            for _ in range(answer["usage"]["completion_tokens"] - 1):
                await self._pass(1)
        yield json.dumps(answer).encode()

    def _new(self, prompt: str) -> int:
        """Tokens of an answer so far that were not in the last prompt of the same chat: others are cached."""
        head, _, said = prompt.rpartition(_ANSWER)
        before, self._said[head] = self._said.get(head, ""), said
        same = next((at for at in range(len(said)) if said[at : at + 1] != before[at : at + 1]), len(said))
        return len(self.model.split(said[same:]))

    async def _pass(self, tokens: int, more_s: float = 0.0) -> None:
        if not self.timing.pass_s:
            return
        self._width += tokens
        try:
            await asyncio.sleep(self.timing.pass_s * max(1.0, self._width / self.timing.capacity) + more_s)
        finally:
            self._width -= tokens


@contextmanager
def knowing(model: Knowing, timing: Timing) -> Iterator[str]:
    """The base URL of a model's server on loopback, in a thread, while the block is entered."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(KnowingApp(model, timing), log_level="critical", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        while not server.started:
            time.sleep(0.005)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()
