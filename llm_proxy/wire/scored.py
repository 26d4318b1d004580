"""What a server says of a text that it was given: which of its tokens it would have chosen itself.

Two forms: completions with ``echo`` and ``logprobs``, and chat answers with vLLM's ``prompt_logprobs``.

Source: OpenAI's API reference, "Completions" (``echo``, ``logprobs``); vLLM's documentation, "OpenAI-compatible
server".
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from llm_proxy.types import Usage

from .chat import usage_of

__all__ = ["TOPS", "Scored", "Token", "read_chat", "read_echo"]

TOPS = 3
"""How many of the likeliest tokens a completion is to tell, for each of its tokens."""

_SPECIAL = re.compile(r"</?[^<>\s]+>\Z")


class Token(NamedTuple):
    """One token of a scored text.

    Attributes:
        text: Its characters; empty where it is not whole characters, or none.
        is_top: Whether it is certain that the server would have chosen it.
        top: What it would have chosen, where that is another one; empty where that can't be told: it may be the end.
    """

    text: str
    is_top: bool = False
    top: str = ""


class Scored(NamedTuple):
    """A scored text, and what came after it.

    Attributes:
        tokens: Of the text, perhaps without some at its beginning; then of the answer.
        answered: How many of them are the answer's, >= 0.
        text: The answer.
        is_end: Whether the model ended there, by itself.
        usage: Token counts, as they are billed.
        id: Of the answer.
        model: That answered.
        created: Unix time, seconds.
    """

    tokens: tuple[Token, ...]
    answered: int
    text: str
    is_end: bool
    usage: Usage
    id: str = ""
    model: str = ""
    created: int = 0


def read_echo(body: bytes, prompt: str) -> Scored | None:
    """Read a completion whose request had ``echo`` and `TOPS` ``logprobs``; None where it is none.

    Args:
        body: The response, JSON.
        prompt: The text that was sent, which it repeats.
    """
    try:
        answer = json.loads(body)
        choice = answer["choices"][0]
        text, logged = choice["text"], choice["logprobs"]
        rows = zip(logged["tokens"], logged["token_logprobs"], logged["top_logprobs"], strict=True)
        tokens = tuple(_token(text, logprob, tops or {}) for text, logprob, tops in rows)
        return _scored(answer, choice, tokens, text[len(prompt) :]) if text.startswith(prompt) else None
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None


def read_chat(body: bytes) -> Scored | None:
    """Read a chat answer whose request had ``prompt_logprobs`` and ``logprobs``; None where it is none.

    Args:
        body: The response, JSON. Of the prompt's tokens each row has the token itself first, then the likeliest.
    """
    try:
        answer = json.loads(body)
        choice = answer["choices"][0]
        prompt = [_row(row) for row in answer["prompt_logprobs"]]
        said = [_token(row["token"], 0.0, {}) for row in (choice.get("logprobs") or {}).get("content") or ()]
        return _scored(answer, choice, (*prompt, *said), choice["message"]["content"] or "")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None


def _scored(answer: Any, choice: Any, tokens: tuple[Token, ...], text: str) -> Scored | None:
    usage = usage_of(answer)
    if usage is None or usage.completion_tokens > len(tokens):
        return None
    known = str(answer.get("id") or ""), str(answer.get("model") or ""), int(answer.get("created") or 0)
    return Scored(tokens, usage.completion_tokens, text, choice.get("finish_reason") == "stop", usage, *known)


def _row(row: Any) -> Token:
    """One of vLLM's: entries by id, that of the token itself first, each with its rank."""
    if not row:
        return Token("")
    own, *others = row.values()
    top = next((_clear(other["decoded_token"]) for other in others if other["rank"] == 1), "")
    return Token(_clear(own["decoded_token"]), own["rank"] == 1, _plain(top))


def _token(text: str, logprob: float | None, tops: Mapping[str, float]) -> Token:
    """One of those that are known by their texts alone.

    Different tokens may have one text: parts of characters are shown without what is missing. Then the one hides the
    other, so what is said is taken only where nothing can be hidden that is likelier.
    """
    known = _clear(text)
    others = sorted((value for other, value in tops.items() if other != text), reverse=True)
    if logprob is None or not tops:
        return Token(known)
    p_own, best = math.exp(logprob), others[0] if others else -math.inf
    if logprob > best:
        return Token(known, is_top=len(others) == TOPS - 1 or p_own > 0.5)
    is_own_among = len(others) == TOPS - 1 and logprob > others[-1]
    is_certain = len(others) == TOPS or is_own_among or 2 * math.exp(best) + p_own > 1
    if not is_certain or logprob == best or others[1:2] == [best]:  # a draw: who would win is not ours to say
        return Token(known)
    return Token(known, top=_plain(_clear(next(other for other, value in tops.items() if value == best))))


def _plain(text: str) -> str:
    """The text of a token that the answer may have; nothing for one that looks like the mark of an end."""
    return "" if _SPECIAL.match(text) else text


def _clear(text: str) -> str:
    """The text of a token; nothing where it is a part of a character."""
    return "" if "\ufffd" in text or text.startswith("bytes:\\x") else text
