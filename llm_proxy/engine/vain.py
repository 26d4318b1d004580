"""What requests took whose answers nobody takes: they were sent, and are paid for as the others are.

::

    no connection, a break, an error   nothing
    late                               the prompt: what was made of an answer nobody tells
    cut, too long, no answer at all    the prompt, and what came
    whole                              what it says of itself; what it does not say is estimated

Source: as for `llm_proxy.wire.chat.usage_of`; four characters a token, of a stream one event.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from llm_proxy.backends.retry import failed_by
from llm_proxy.types import CHARS_PER_TOKEN, Usage, texts_of
from llm_proxy.wire.chat import answer_tokens, usage_of

from .effects import Late

if TYPE_CHECKING:
    from llm_proxy.types import Head, Outgoing

    from .effects import Flow

__all__ = [
    "came_of",
    "counted",
    "estimated",
    "is_late",
    "less",
    "noted",
    "prompt_of",
    "said_by",
    "sent_tokens",
    "text_tokens",
]

T = TypeVar("T")

_EVENT = b"data:"
_BLOB = re.compile(rb"[A-Za-z0-9+/_=-]{1000,}")  # no text has such words: the base64 of an image, a sound, a file
_LEAST_BLOB = 1000
_NOT_YET = frozenset({"queued", "in_progress"})  # of a response made in the background


def is_late(error: BaseException) -> bool:
    """Whether a request was sent, and its answer not waited for any longer: by its time-out, or since its caller left.

    Args:
        error: What was raised while it was waited for.
    """
    if isinstance(error, Late) or not isinstance(error, Exception):
        return True
    failure = failed_by(error)
    return failure is not None and failure.cause == "timeout" and not failure.is_refused


def noted(flow: Flow[T], came: list[T | BaseException]) -> Flow[T]:
    """The same flow; what it brings, or raises, is there for whoever else looks."""
    try:
        found = yield from flow
    except BaseException as exc:
        came.append(exc)
        raise
    came.append(found)
    return found


def prompt_of(outgoing: Outgoing) -> Usage:
    """Token counts of a request that nobody answers, estimated."""
    return Usage(sent_tokens(outgoing.body))


def sent_tokens(body: bytes) -> int:
    """About how many tokens a request's body has; an image has as many as its model pleases, none by its bytes."""
    chars = len(body)
    if chars > _LEAST_BLOB:
        chars -= sum(found.end() - found.start() for found in _BLOB.finditer(body))
    return chars // CHARS_PER_TOKEN


def text_tokens(messages: Sequence[Mapping[str, Any]]) -> int:
    """About how many tokens the text of messages has, without images."""
    return sum(len(text) for message in messages for text in texts_of(message.get("content"))) // CHARS_PER_TOKEN


def came_of(outgoing: Outgoing, head: Head, body: bytes) -> Usage:
    """Token counts of an answer that can't be read, or not to its end; estimated.

    Args:
        outgoing: The request.
        head: Its answer's.
        body: What came of the answer.
    """
    is_stream = head.header("content-type").lower().startswith("text/event-stream")
    tokens = body.count(_EVENT) if is_stream else len(body) // CHARS_PER_TOKEN
    return Usage(sent_tokens(outgoing.body), tokens)


def counted(completion: Mapping[str, Any], prompt_tokens: int) -> Usage:
    """Token counts of a whole answer of any API; what it does not say of them is estimated.

    Args:
        completion: The answer.
        prompt_tokens: About the length of the prompt, >= 0.
    """
    return usage_of(completion, prompt_tokens=prompt_tokens) or Usage(prompt_tokens, answer_tokens(completion))


def estimated(completion: Mapping[str, Any] | None, prompt_tokens: int) -> Usage | None:
    """Token counts of an answer that says none; None where none came, or is only begun: nobody knows what it takes."""
    if completion is None or completion.get("status") in _NOT_YET:
        return None
    return Usage(prompt_tokens, answer_tokens(completion))


def less(usage: Usage, parted: Usage | None) -> Usage:
    """Token counts of an answer without those of its parts that broke off, which are booked."""
    if parted is None:
        return usage
    prompt, answer = (usage.prompt_tokens, parted.prompt_tokens), (usage.completion_tokens, parted.completion_tokens)
    return replace(usage, prompt_tokens=max(0, prompt[0] - prompt[1]), completion_tokens=max(0, answer[0] - answer[1]))


def said_by(outgoing: Outgoing, body: bytes, *, echoed_chars: int = 0) -> Usage:
    """Token counts of an answer in one piece, whether or not it is the one that was asked for.

    Args:
        outgoing: The request.
        body: The answer's, as it came.
        echoed_chars: How many characters of its text are the request's own.
    """
    prompt_tokens = sent_tokens(outgoing.body)
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict):
        return Usage(prompt_tokens, len(body) // CHARS_PER_TOKEN)
    usage = usage_of(said, prompt_tokens=prompt_tokens)
    return usage or Usage(prompt_tokens, max(0, answer_tokens(said) - echoed_chars // CHARS_PER_TOKEN))
