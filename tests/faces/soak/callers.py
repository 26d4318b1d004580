"""The callers of the soak: what they ask, how they read, and what they must get."""

from __future__ import annotations

import asyncio
import io
import itertools
import json
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import aiohttp

from tests.faces.soak import questions
from tests.faces.soak.provider import embedding_of
from tests.faces.soak.tally import Reply, Tally

__all__ = ["MOST_BODY_BYTES", "PRICES", "TENANTS", "Callers"]

TENANTS = {"a1": "alpha", "a2": "alpha", "b": "beta", "c": "gamma", "p": "paced", "w": "watch"}
"""Names of the issued keys, and whose they are."""
PRICES = {"m": (1.0, 4.0), "small": (0.25, 1.0)}
"""Dollars per million tokens of prompt and answer."""
MOST_BODY_BYTES = 1 << 20
_CHAT = "/v1/chat/completions"
_POOL = 150
_TIMEOUT = aiohttp.ClientTimeout(total=90)
_FIRST_UNIQUE = 1_000_000
_OK = frozenset({200})


@dataclass(frozen=True)
class Ask:
    """One call to make.

    Attributes:
        kind: What it is counted as.
        body: JSON, or what aiohttp sends as it is.
        path: Where to.
        key: Name of the caller's key.
        headers: More of them.
        may: Statuses that it may have.
        times: Requests upstream; 0: it is refused before.
        is_call: Whether the engine answers it.
        method: Of HTTP.
        pause_s: Rest before each piece of the answer is read.
    """

    kind: str
    body: Any = None
    path: str = _CHAT
    key: str = "a1"
    headers: Mapping[str, str] | None = None
    may: frozenset[int] = _OK
    times: int = 1
    is_call: bool = True
    method: str = "POST"
    pause_s: float = 0.0


class Callers:
    """Makes mixed calls until it is told to end; see `weights` for the mix.

    Args:
        url: The proxy's, without ``/v1``.
        keys: Issued keys by name, of `TENANTS`.
        seed: Of all chance.
    """

    def __init__(self, url: str, keys: Mapping[str, str], *, seed: int = 1) -> None:
        self.url, self.keys = url, keys
        self.tally = Tally()
        self.chance = random.Random(seed)
        self.is_over = False
        self.crowded_until_s = self.rests_until_s = 0.0
        self._numbers, self._uniques = itertools.count(1), itertools.count(_FIRST_UNIQUE)
        self._session: aiohttp.ClientSession

    def weights(self) -> dict[Callable[[], Awaitable[None]], int]:
        """Every kind of call, and how often it is made among all."""
        return {
            self.exact: 300, self.semantic: 130, self.new: 150, self.stream: 60, self.slow: 30, self.left: 30,
            self.responses: 50, self.embeddings: 40, self.completions: 30, self.tools: 30, self.route: 40,
            self.controls: 50, self.files: 10, self.refused_upstream: 15, self.retried: 4, self.cut: 8,
            self.reset: 4, self.too_big: 5, self.no_entry: 20, self.malformed: 10, self.narrow: 30, self.paced: 15,
        }  # fmt: skip

    async def run(self, callers: int, pause_s: float) -> None:
        """Many callers at a time, each with a rest of up to twice ``pause_s`` between calls."""
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(self.url, connector=connector, timeout=_TIMEOUT) as self._session:
            await asyncio.gather(*(self._one(pause_s) for _ in range(callers)))

    async def _one(self, pause_s: float) -> None:
        kinds = self.weights()
        ways, shares = list(kinds), list(kinds.values())
        while not self.is_over:
            if time.monotonic() < self.rests_until_s:
                await asyncio.sleep(0.2)
                continue
            way = self.chance.choices(ways, shares)[0]
            try:
                await way()
            except (aiohttp.ClientError, TimeoutError, ValueError, LookupError) as exc:
                self.tally.complain(f"{getattr(way, '__name__', way)}: {type(exc).__name__} {exc}")
            await asyncio.sleep(self.chance.uniform(0, 2 * pause_s))

    # -- one call ------------------------------------------------------------------------------------------------

    async def ask(self, ask: Ask) -> Reply:
        """Make a call and read its answer; statuses that must not be are problems."""
        call = str(next(self._numbers))
        is_json = isinstance(ask.body, dict) or ask.body is None
        headers = {"authorization": f"Bearer {self.keys.get(ask.key, ask.key)}", "x-soak-call": call}
        if is_json:
            headers["content-type"] = "application/json"
        data = json.dumps(ask.body) if isinstance(ask.body, dict) else ask.body
        async with self._session.request(
            ask.method, ask.path, data=data, headers={**headers, **(ask.headers or {})}
        ) as response:
            pieces = []
            async for piece in response.content.iter_chunked(4096 if ask.pause_s else 65536):
                pieces.append(piece)
                await asyncio.sleep(ask.pause_s)
            reply = Reply(response.status, response.headers, b"".join(pieces))
        return self._booked(call, ask, reply)

    def _booked(self, call: str, ask: Ask, reply: Reply) -> Reply:
        tally = self.tally
        tally.statuses[ask.kind][reply.status] += 1
        is_forwarded = tally.book(call, reply, times=ask.times, is_call=ask.is_call)
        is_crowded = reply.error == "too_many_connections" and time.monotonic() < self.crowded_until_s
        if reply.status not in ask.may and not is_crowded:
            tally.complain(f"{ask.kind}: {reply.status} {reply.raw[:200]!r}")
        # Of calls past the cache the ledger has no tokens: their answers are not read.
        if is_forwarded and ask.is_call and reply.status == 200 and reply.raw and "=bypass" not in reply.cache_status:
            for prompt, completion in _usages(reply.raw):
                tally.used(prompt, completion, PRICES.get(_model_in(reply.raw), (0.0, 0.0)))
        return reply

    async def text(self, ask: Ask, subject: str) -> None:
        """Make a call whose answer has to be the one to its question, whole, and no other tenant's."""
        reply = await self.ask(ask)
        if reply.status != 200:
            return
        answer = _text_in(reply.raw)
        serial = questions.serial_in(answer, subject)
        if serial is None:
            self.tally.complain(
                f"{ask.kind}: asked about {subject!r}, was answered {answer[:60]!r} ... {answer[-30:]!r}"
            )
        else:
            self.tally.own(serial, TENANTS[ask.key])

    # -- kinds of calls ------------------------------------------------------------------------------------------

    def _body(self, question: str, *, model: str = "m", stream: bool = False, **more: Any) -> dict[str, Any]:
        body = {"model": model, "messages": [{"role": "user", "content": question}], **more}
        return {**body, "stream": True, "stream_options": {"include_usage": True}} if stream else body

    def _known(self) -> int:
        return int(_POOL * self.chance.random() ** 2)

    def _unique(self) -> int:
        return next(self._uniques)

    def _key(self) -> str:
        return self.chance.choice(("a1", "a2", "b", "c"))

    def _half(self) -> bool:
        return self.chance.random() < 0.5

    async def exact(self) -> None:
        which = self._known()
        body = self._body(questions.number(which), stream=self._half())
        await self.text(Ask("exact", body, key=self._key()), f"number {which}")

    async def semantic(self) -> None:
        question = questions.make(self.chance)
        await self.text(Ask("semantic", self._body(question), key=self._key()), questions.subject_of(question))

    async def new(self) -> None:
        which = self._unique()
        await self.text(Ask("new", self._body(questions.number(which)), key=self._key()), f"number {which}")

    async def stream(self) -> None:
        await self._story("stream", 0.0)

    async def slow(self) -> None:
        await self._story("slow", self.chance.choice((0.02, 0.05, 0.1)))

    async def _story(self, kind: str, pause_s: float) -> None:
        which = self._unique()
        body = self._body(questions.story(which), stream=True)
        await self.text(Ask(kind, body, key=self._key(), pause_s=pause_s), f"story {which}")

    async def left(self) -> None:
        """Leave in the middle of a stream."""
        call, which = str(next(self._numbers)), self._unique()
        headers = {"authorization": f"Bearer {self.keys['b']}", "x-soak-call": call, "x-soak-pause-ms": "50"}
        body = self._body(questions.story(which), stream=True)
        async with self._session.post(_CHAT, json=body, headers=headers) as response:
            reply = Reply(response.status, response.headers, b"")
            if response.status == 200:
                await response.content.readuntil(b"word")
            else:
                reply = Reply(response.status, response.headers, await response.read())
            response.close()
        self._booked(call, Ask("left", body), reply)
        if reply.status == 200:
            self.tally.left.add(call)

    async def responses(self) -> None:
        which = self._known()
        body = {"model": "m", "input": questions.number(which), "stream": self._half(), "store": False}
        await self.text(Ask("responses", body, "/v1/responses", self._key()), f"number {which}")

    async def completions(self) -> None:
        which = self._known()
        body = {"model": "m", "prompt": questions.number(which)}
        reply = await self.ask(Ask("completions", body, "/v1/completions", self._key()))
        if reply.status == 200 and questions.serial_in(_text_in(reply.raw), f"number {which}") is None:
            self.tally.complain(f"completions: {reply.raw[:200]!r}")

    async def embeddings(self) -> None:
        text = questions.number(self._known() if self._half() else self._unique())
        reply = await self.ask(Ask("embeddings", {"model": "m", "input": text}, "/v1/embeddings", self._key()))
        if reply.status == 200 and json.loads(reply.raw)["data"][0]["embedding"] != embedding_of(text):
            self.tally.complain(f"embeddings: {text!r} has those of another text")

    async def tools(self) -> None:
        which = self._known()
        parameters = {"type": "object", "properties": {"about": {"const": f"number {which}"}}}
        tool = {"type": "function", "function": {"name": "look_up", "parameters": parameters}}
        body = self._body(questions.number(which), stream=self._half(), tools=[tool])
        reply = await self.ask(Ask("tools", body, key=self._key()))
        if reply.status == 200 and f'about": "number {which}"' not in _arguments_in(reply.raw):
            self.tally.complain(f"tools: asked about number {which}, was answered {reply.raw[:300]!r}")

    async def route(self) -> None:
        which = self._unique()
        body = self._body(questions.number(which), model="auto")
        await self.text(Ask("route", body, key=self._key()), f"number {which}")

    async def controls(self) -> None:
        which, control = self._known(), self.chance.choice(("no-store", "no-cache", "only-if-cached", "max-age=20"))
        may = frozenset({200, 504}) if control == "only-if-cached" else _OK
        headers, body = {"cache-control": control}, self._body(questions.number(which), stream=self._half())
        await self.text(Ask(control, body, key=self._key(), headers=headers, may=may), f"number {which}")

    async def narrow(self) -> None:
        """A backend with one place and few to wait."""
        which = self._unique()
        body = self._body(questions.number(which), model="narrow/m")
        await self.text(Ask("narrow", body, may=frozenset({200, 429})), f"number {which}")

    async def refused_upstream(self) -> None:
        status = self.chance.choice((400, 404, 429))
        body = self._body(questions.number(self._unique()), model=f"error-{status}", stream=self._half())
        await self.ask(Ask(f"error {status}", body, may=frozenset({status}), times=3 if status == 429 else 1))

    async def retried(self) -> None:
        which = self._unique()
        if self._half():
            body = self._body(questions.number(which), model=f"flaky-503-2-{which}")
            await self.text(Ask("flaky", body, times=3), f"number {which}")
        else:
            body = self._body(questions.number(which), model="error-500")
            await self.ask(Ask("error 500", body, may=frozenset({500}), times=3))

    async def cut(self) -> None:
        body = self._body(questions.story(self._unique()), model="cut", stream=True)
        reply = await self.ask(Ask("cut", body))
        if reply.status == 200 and b"stream_interrupted" not in reply.raw:
            self.tally.complain(f"cut: {reply.raw[-200:]!r}")

    async def reset(self) -> None:
        model, is_stream = self.chance.choice(("at-once", "late")), self._half()
        body = self._body(questions.number(self._unique()), model=f"broken/{model}", stream=is_stream)
        if model == "late" and is_stream:
            reply = await self.ask(Ask("reset late", body))
            if reply.status == 200 and b"stream_interrupted" not in reply.raw:
                self.tally.complain(f"reset: {reply.raw[-200:]!r}")
        else:
            await self.ask(Ask(f"reset {model}", body, may=frozenset({502, 503}), times=3))

    async def files(self) -> None:
        form = aiohttp.FormData({"purpose": "user_data"})
        form.add_field("file", b"x" * 20_000, filename="notes.txt")
        made = await self.ask(Ask("files", form, "/v1/files", is_call=False))
        if made.status == 200:
            path = f"/v1/files/{json.loads(made.raw)['id']}"
            got = await self.ask(Ask("files", None, f"{path}/content", is_call=False, method="GET"))
            await self.ask(Ask("files", None, path, is_call=False, method="DELETE"))
            if got.status == 200 and b"x" * 20_000 not in got.raw:
                self.tally.complain(f"files: {got.raw[:100]!r}")

    async def too_big(self) -> None:
        size = MOST_BODY_BYTES + 1000
        with suppress(aiohttp.ClientConnectionError):  # the answer may come before all is sent
            body = io.BytesIO(b" " * size) if self._half() else _in_pieces(size)
            await self.ask(Ask("too big", body, may=frozenset({413}), times=0, is_call=False))

    async def no_entry(self) -> None:
        """Wrong keys, and a key that may not ask this model."""
        body = self._body(questions.number(self._known()))
        if self._half():
            await self.ask(Ask("wrong key", body, key="lp-wrong", may=frozenset({401}), times=0, is_call=False))
        else:
            body["model"] = "secret"
            await self.ask(Ask("wrong model", body, key="c", may=frozenset({403}), times=0, is_call=False))

    async def malformed(self) -> None:
        body = self.chance.choice((b"{", b"[]", b'{"model": "m", "messages": []}', b"\xff\xfe"))
        await self.ask(Ask("malformed", body, may=frozenset({400}), times=0, is_call=False))

    async def paced(self) -> None:
        """A key that may ask a few times a minute: refused once it has."""
        which = self._known()
        reply = await self.ask(
            Ask("paced", self._body(questions.number(which)), key="p", may=frozenset({200, 429}), times=1)
        )
        if reply.status == 429 and reply.error != "rate_limit_exceeded":
            self.tally.complain(f"paced: {reply.raw[:200]!r}")


async def _in_pieces(size: int) -> AsyncIterator[bytes]:
    for _ in range(0, size, 65536):
        yield b" " * 65536


def _events(raw: bytes) -> list[dict[str, Any]]:
    """The JSON objects of an answer: one, or one an event."""
    if not raw.startswith((b"data:", b"event:")):
        return [json.loads(raw)]
    lines = (line[5:].strip() for line in raw.split(b"\n") if line.startswith(b"data:"))
    return [json.loads(line) for line in lines if line != b"[DONE]"]


def _text_in(raw: bytes) -> str:
    """The text of an answer of any of the APIs, streamed or not."""
    found = []
    for event in _events(raw):
        if event.get("object") == "response":
            found += [part["text"] for item in event["output"] for part in item["content"]]
        elif event.get("type") == "response.output_text.delta":
            found.append(event["delta"])
        for choice in event.get("choices", ()):
            part = choice.get("delta") or choice.get("message") or choice
            found.append(part.get("content") or part.get("text") or "")
    return "".join(found)


def _arguments_in(raw: bytes) -> str:
    calls = [
        call
        for event in _events(raw)
        for choice in event["choices"]
        for call in (choice.get("delta") or choice.get("message") or {}).get("tool_calls") or ()
    ]
    return "".join(call["function"]["arguments"] for call in calls)


def _usages(raw: bytes) -> list[tuple[int, int]]:
    """Tokens of prompt and answer, as said at the end."""
    found = [event.get("usage") or (event.get("response") or {}).get("usage") for event in _events(raw)]
    return [
        (usage.get("prompt_tokens", usage.get("input_tokens", 0)),
         usage.get("completion_tokens", usage.get("output_tokens", 0)))
        for usage in found if usage
    ]  # fmt: skip


def _model_in(raw: bytes) -> str:
    first = _events(raw)[0]
    return str(first.get("model") or first["response"]["model"])
