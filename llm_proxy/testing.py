"""Stand-ins for your own tests: a simulated provider, a clock that you move, an encoder and a head without a model.

Nothing here talks to a network or loads a model; `FakeBackend` is a simulated provider and its answers say so.

Example:
    >>> from llm_proxy import OpenAI
    >>> from llm_proxy.testing import FakeBackend
    >>> backend = FakeBackend()
    >>> client = OpenAI(api_key="any", http_client=backend.client(), llm_proxy={"cache": {"store": "memory"}})
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from llm_proxy.encode.base import Encoding
from llm_proxy.route.base import Prediction
from llm_proxy.types import ChatRequest
from llm_proxy.wire.chat import error_body
from llm_proxy.wire.replay import replay

if TYPE_CHECKING:
    from collections.abc import MutableMapping

__all__ = ["FakeBackend", "FakeClock", "FakeEncoder", "FakeHead"]


class FakeClock:
    """A clock that stands still until it is moved; see `llm_proxy.engine.ports.Clock`."""

    def __init__(self, now_s: float = 1_700_000_000.0) -> None:
        self._now_s = now_s

    def time(self) -> float:
        """Unix time, seconds."""
        return self._now_s

    def monotonic(self) -> float:
        """The same, as a monotonic clock."""
        return self._now_s

    def advance(self, seconds: float) -> None:
        """Move on by ``seconds``, >= 0."""
        self._now_s += seconds


class FakeEncoder:
    """Vectors from words: equal bags of words are equal, texts that share words are near; no model, no meaning.

    Args:
        dim: Length of a vector.
        window_chars: Characters that a vector stands for.
        error: Raised by every call, when given.
    """

    is_open = False
    is_ready = True
    slowest_s = float("inf")

    def __init__(self, dim: int = 64, *, window_chars: int = 1 << 20, error: Exception | None = None) -> None:
        self.dim, self.window_chars, self.error = dim, window_chars, error
        self.name = f"fake-{dim}"
        self.texts: list[str] = []

    def encode(self, text: str) -> Encoding:
        """One unit vector of ``dim`` float32 values."""
        import numpy as np

        self.texts.append(text)
        if self.error is not None:
            raise self.error
        seen = text[: self.window_chars]
        vector = np.full(self.dim, 1e-6, np.float32)
        for word in seen.lower().split():
            vector[hashlib.sha256(word.encode("utf-8", "surrogatepass")).digest()[0] % self.dim] += 1
        return Encoding(vector / np.linalg.norm(vector), len(seen))

    def may_take_s(self, *texts: str) -> float:
        """``slowest_s``, whatever the texts."""
        return self.slowest_s

    def start(self, submit: Callable[[Callable[[], None]], object]) -> None:
        """Nothing to load."""

    def after_fork(self) -> None:
        """Nothing to renew."""

    def note_timeout(self) -> None:
        """Nothing to count."""

    def note_success(self) -> None:
        """Nothing to count."""


class FakeHead:
    """Says of models what it is told to; no weights, no meaning. See `llm_proxy.route.base.Head`.

    Args:
        predictions: Probability of a good answer by model, or a whole `Prediction`; or a function of the question that
            gives such a table.
        models: The models that it claims to know; those of the table by default.
        name: Its name.
        error: Raised by every call, when given.

    Attributes:
        texts: Questions that it was asked about, oldest first.
    """

    def __init__(
        self,
        predictions: Mapping[str, float | Prediction] | Callable[[str], Mapping[str, float | Prediction]],
        *,
        models: tuple[str, ...] = (),
        name: str = "fake-head",
        error: Exception | None = None,
    ) -> None:
        self.predictions, self.name, self.error = predictions, name, error
        self.models = models or (() if callable(predictions) else tuple(predictions))
        self.texts: list[str] = []

    def predict(self, text: str, encoding: Encoding) -> Mapping[str, Prediction]:
        """What it was told to say."""
        self.texts.append(text)
        if self.error is not None:
            raise self.error
        said = self.predictions(text) if callable(self.predictions) else self.predictions
        return {model: p if isinstance(p, Prediction) else Prediction(p) for model, p in said.items()}


class FakeBackend:
    """A simulated OpenAI-compatible provider.

    Args:
        answer: The text to answer with, or a function of the request body that returns it, or a whole
            ``chat.completion`` object.
        latency_s: Wait before the first byte.
        status: HTTP status; any but 200 gives an error body of OpenAI's shape.
        headers: Further response headers.
        cut_after: Break a stream off after this many pieces, as a provider that fails in mid-stream.

    Attributes:
        requests: Bodies received, oldest first.
    """

    def __init__(
        self,
        answer: str | Callable[[Mapping[str, Any]], str | Mapping[str, Any]] = "This is a simulated answer.",
        *,
        latency_s: float = 0.0,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        cut_after: int | None = None,
    ) -> None:
        self.answer, self.latency_s, self.status, self.cut_after = answer, latency_s, status, cut_after
        self.headers = dict(headers or {})
        self.requests: list[Mapping[str, Any]] = []

    def respond(self, raw: bytes) -> tuple[int, dict[str, str], list[bytes]]:
        """Status, headers and pieces of the body for one request; 400 for a body that is no JSON object."""
        try:
            body = json.loads(raw)
        except ValueError:
            body = None
        if not isinstance(body, dict):
            return self._refusal(400, "simulated: the body is not a JSON object")
        self.requests.append(body)
        if self.status != 200:
            return self._refusal(self.status, f"simulated status {self.status}")
        request = ChatRequest(body=body, raw=raw, headers={})
        replayed = replay(_json(self._completion(body)), request)
        pieces = replayed.body.split(b"\n\n") if request.is_stream else [replayed.body]
        if request.is_stream:
            pieces = [piece + b"\n\n" for piece in pieces if piece]
        return 200, {"content-type": replayed.content_type, **self.headers}, pieces

    def client(self) -> Any:
        """A sync HTTP client, of the family of the installed openai package, that asks this provider."""
        from llm_proxy.faces._http import httpx

        return httpx.Client(transport=httpx.MockTransport(self._sync))

    def async_client(self) -> Any:
        """The same for async clients."""
        from llm_proxy.faces._http import httpx

        return httpx.AsyncClient(transport=httpx.MockTransport(self._async))

    @contextmanager
    def serving(self) -> Iterator[str]:
        """Serve on a free port of this machine while the block lasts; gives the base URL, up to and with ``/v1``."""
        import uvicorn

        server = uvicorn.Server(uvicorn.Config(self, log_level="error", lifespan="off"))
        with socket.create_server(("127.0.0.1", 0)) as listener:
            run = threading.Thread(
                target=server.run, kwargs={"sockets": [listener]}, name="simulated-provider", daemon=True
            )
            run.start()
            try:
                yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
            finally:
                server.should_exit = True
                run.join()

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        """The provider as an ASGI application."""
        if scope["type"] != "http":
            return
        raw, more = b"", True
        while more:
            message = await receive()
            raw, more = raw + message.get("body", b""), message.get("more_body", False)
        await asyncio.sleep(self.latency_s)
        status, headers, pieces = self.respond(raw)
        rows = [(name.encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": status, "headers": rows})
        for index, piece in enumerate(pieces):
            if index == self.cut_after:
                return
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    def _refusal(self, status: int, message: str) -> tuple[int, dict[str, str], list[bytes]]:
        body = error_body(message, type="simulated")
        return status, {"content-type": "application/json", **self.headers}, [body]

    def _completion(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        answer = self.answer(body) if callable(self.answer) else self.answer
        if not isinstance(answer, str):
            return answer
        prompt_tokens = max(1, len(json.dumps(body.get("messages"))) // 4)
        completion_tokens = max(1, len(answer) // 4)
        return {
            "id": f"chatcmpl-simulated-{len(self.requests)}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": body.get("model", "simulated"),
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": answer, "refusal": None},
                    "logprobs": None,
                    "finish_reason": "stop",
                }
            ],
            "usage": {
                "prompt_tokens": prompt_tokens,
                "completion_tokens": completion_tokens,
                "total_tokens": prompt_tokens + completion_tokens,
            },
        }

    def _sync(self, request: Any) -> Any:
        from llm_proxy.faces._http import httpx

        time.sleep(self.latency_s)
        status, headers, pieces = self.respond(request.content)
        return httpx.Response(status, headers=headers, content=self._pieces(pieces))

    async def _async(self, request: Any) -> Any:
        from llm_proxy.faces._http import httpx

        await asyncio.sleep(self.latency_s)
        status, headers, pieces = self.respond(request.content)
        return httpx.Response(status, headers=headers, content=self._apieces(pieces))

    def _pieces(self, pieces: list[bytes]) -> Iterator[bytes]:
        from llm_proxy.faces._http import httpx

        for index, piece in enumerate(pieces):
            if index == self.cut_after:
                raise httpx.RemoteProtocolError("simulated break in mid-stream")
            yield piece

    async def _apieces(self, pieces: list[bytes]) -> AsyncIterator[bytes]:
        for piece in self._pieces(pieces):
            yield piece


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
