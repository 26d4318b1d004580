"""What differs from API to API: how a request is read, what puts a stream together, how an answer is written again.

Chat completions are what the rest of this folder is about; the others are rows of a table, so that the engine need not
know which API a call is of. Entries of different APIs never meet: the API is part of their scope.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from llm_proxy.types import CHAT, ChatRequest, HeaderList

from . import completions, embeddings, responses, responses_replay
from .assemble import Assembler
from .chat import parse_request
from .recorder import Chunks, Recorder
from .recorder import recorder_for as recorder_with
from .replay import Replay
from .replay import replay as replay_chat

__all__ = ["OTHERS", "Dialect", "parse_call", "recorder_for", "replay_as"]


@dataclass(frozen=True, slots=True)
class Dialect:
    """One API other than chat completions.

    Attributes:
        check: Raises WireError where a request's body lacks what it must have.
        view: The request in the form of messages.
        replay: Writes a stored answer as the answer to a request.
        rejection: Why an answer to a request may not be stored; empty when it may.
        chunks: Makes what puts a stream together.
        bypass: Why an answer depends on more than the request; empty when it does not.
        is_call: Whether an answer that may be stored is for exact keys only.
        replaced: Fields of the body that the view stands for, in a scope that leaves the last text open; none where
            an answer is served to the very same request only.
        kept: Fields that are no part of the scope of a chat completion, and of this API's.
        is_routed: Whether a route may choose the model.
    """

    check: Callable[[Mapping[str, Any]], None]
    view: Callable[[Mapping[str, Any]], Sequence[Any]]
    replay: Callable[[bytes, ChatRequest], Replay]
    rejection: Callable[[Mapping[str, Any], Mapping[str, Any]], str]
    chunks: Callable[[], Chunks] = Assembler
    bypass: Callable[[Mapping[str, Any]], str] = lambda body: ""
    is_call: Callable[[Mapping[str, Any]], bool] = lambda answer: False
    replaced: frozenset[str] = frozenset()
    kept: frozenset[str] = frozenset()
    is_routed: bool = False


OTHERS: Mapping[str, Dialect] = {
    "completions": Dialect(
        completions.check, completions.view_of, completions.replay, completions.rejection, completions.TextChunks
    ),
    "embeddings": Dialect(embeddings.check, embeddings.view_of, embeddings.replay, embeddings.rejection),
    "responses": Dialect(
        responses.check,
        responses.view_of,
        responses_replay.replay,
        responses.rejection,
        responses.ResponseEvents,
        responses.bypass,
        responses.is_call,
        replaced=frozenset({"input"}),
        kept=frozenset({"store"}),  # who wants a response that can be gone on from must get one that upstream knows
        is_routed=True,
    ),
}
"""By name, see `llm_proxy.types.API_PATHS`; without chat completions."""


def parse_call(
    raw: bytes,
    *,
    api: str,
    headers: Mapping[str, str],
    endpoint: str = "",
    received_s: float = 0.0,
    timeout_s: float | None = None,
) -> ChatRequest:
    """Read a request of any API; see `llm_proxy.wire.chat.parse_request`.

    Args:
        raw: Body of the request, UTF-8 JSON.
        api: One of `llm_proxy.types.API_PATHS`.
        headers: Request headers, names in lower case.
        endpoint: URL that the call would go to by itself; empty where the face has none.
        received_s: Unix time of arrival.
        timeout_s: How long the caller is ready to wait for a byte, or None for ever.

    Raises:
        WireError: The body is no request of this API.
    """
    other = OTHERS.get(api)
    request = parse_request(
        raw,
        headers=headers,
        endpoint=endpoint,
        received_s=received_s,
        timeout_s=timeout_s,
        check=None if other is None else other.check,
    )
    return request if other is None else replace(request, api=api, view=other.view(request.body))


def recorder_for(headers: HeaderList, *, limit_bytes: int, api: str = CHAT) -> Recorder | None:
    """A recorder for the body of an answer of any API; see `llm_proxy.wire.recorder.recorder_for`."""
    chunks = OTHERS[api].chunks if api in OTHERS else Assembler
    return recorder_with(headers, limit_bytes=limit_bytes, chunks=chunks)


def replay_as(answer: bytes, request: ChatRequest) -> Replay:
    """Write a stored answer of any API as the answer to a request; see `llm_proxy.wire.replay.replay`."""
    return (OTHERS[request.api].replay if request.api in OTHERS else replay_chat)(answer, request)
