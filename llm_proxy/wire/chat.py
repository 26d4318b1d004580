"""Chat-completion requests, bytes to `ChatRequest`, and the bits of OpenAI's and HTTP's vocabulary nearby."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any, NoReturn

from llm_proxy.errors import WireError
from llm_proxy.types import CHARS_PER_TOKEN, JSON, ChatRequest, Controls, HeaderList, Usage, texts_of

__all__ = [
    "MAX_DEPTH",
    "answer_tokens",
    "answering_model",
    "check_model",
    "error_body",
    "model_of",
    "named_model",
    "parse_controls",
    "parse_request",
    "response_says_no_store",
    "shown",
    "unpredicted",
    "usage_of",
    "without_prediction",
]

MAX_DEPTH = 200
"""Most levels of lists and objects in a request: to serialise it again takes stack for each."""

_ANY = Controls()
_PREDICTED = ("accepted_prediction_tokens", "rejected_prediction_tokens")
_REMEMBERED_BYTES = 16_384
_MOST_TOKENS = 1_000_000_000  # no call has more: beyond it a mistake would outweigh all that statistics add up
_TIERS = frozenset({"flex", "priority", "batch", "fast"})  # those with prices of their own; all else is as usual
# One directive: up to a comma that is not inside a quoted string. Each alternative consumes, so it is linear.
_DIRECTIVE = re.compile(r'(?:[^,"]|"(?:[^"\\]|\\.)*+"?)+', re.DOTALL)


def parse_request(
    raw: bytes,
    *,
    headers: Mapping[str, str],
    endpoint: str = "",
    received_s: float = 0.0,
    timeout_s: float | None = None,
    check: Callable[[Mapping[str, Any]], None] | None = None,
) -> ChatRequest:
    """Read a chat-completion request and check what every later step relies on; unknown fields are kept.

    Escaped lone surrogates are legal JSON and are kept as they are.

    Args:
        raw: Body of the request, UTF-8 JSON.
        headers: Request headers, names in lower case; several ``cache-control`` values joined by commas.
        endpoint: URL that the call would go to by itself; empty where the face has none.
        received_s: Unix time of arrival.
        timeout_s: How long the caller is ready to wait for a byte, or None for ever.
        check: Raises WireError where the body lacks what another API's must have; None for chat completions.

    Raises:
        WireError: The body is not UTF-8, not JSON (NaN, Infinity, a number too large for a float, and a key twice
            in one object included: two readers may differ on them, so such a body has no key), nested more than
            `MAX_DEPTH` levels deep, or lacks a model or messages. The message says which, and what to send.
    """
    body = _remembered(raw, check) if len(raw) <= _REMEMBERED_BYTES else _checked(raw, check)
    control = headers.get("cache-control")
    return ChatRequest(
        body=body,
        raw=raw,
        headers=headers,
        endpoint=endpoint,
        controls=parse_controls(control) if control else _ANY,
        timeout_s=timeout_s,
        received_s=received_s,
    )


def _checked(raw: bytes, check: Callable[[Mapping[str, Any]], None] | None) -> JSON:
    body = _parse_json(raw)
    if not isinstance(body, dict):
        wanted = "a JSON object" if check else "an object with 'model' and 'messages'"
        raise WireError(f"request body is a JSON {_kind(body)}; send {wanted}")
    (check or _check_fields)(body)
    if raw.count(b"[") + raw.count(b"{") > MAX_DEPTH and _is_deeper(body, MAX_DEPTH):
        _refuse_depth()
    return body


@lru_cache(maxsize=256)
def _remembered(raw: bytes, check: Callable[[Mapping[str, Any]], None] | None) -> JSON:
    """Popular questions come again and again: the same bytes are the same object, which nobody changes."""
    return _checked(raw, check)


def model_of(raw: bytes) -> str:
    """The model that a JSON body names; empty where it names none, or readers may differ on which.

    Some servers read names without regard to capitals, so that ``Model`` beside ``model`` may be the one they ask.

    Raises:
        WireError: It is not JSON as `parse_request` takes it.
    """
    return named_model(_parse_json(raw))


def named_model(body: Any) -> str:
    """The same of a parsed body."""
    if not isinstance(body, dict) or [name for name in body if name.casefold() == "model"] != ["model"]:
        return ""
    model = body["model"]
    return model if isinstance(model, str) else ""


def parse_controls(cache_control: str) -> Controls:
    """Read the request directives no-store, no-cache, only-if-cached and max-age=N; others are ignored.

    Malformed ones are ignored as well; of a repeated ``max-age`` the first counts.

    Args:
        cache_control: Value of the header; several header lines joined by commas.

    Source: RFC 9111 sections 4.2.1, 5.2 and 5.2.1.
    """
    names: set[str] = set()
    max_age_s: float | None = None
    for name, argument in _directives(cache_control):
        if name == "max-age":
            digits = argument.strip('"')
            if max_age_s is None and digits.isascii() and digits.isdigit():
                max_age_s = float(digits)
        else:
            names.add(name)
    return Controls(
        no_store="no-store" in names,
        no_cache="no-cache" in names,
        only_if_cached="only-if-cached" in names,
        max_age_s=max_age_s,
    )


def response_says_no_store(headers: HeaderList) -> bool:
    """Whether an upstream's ``Cache-Control`` forbids keeping its answer. Source: RFC 9111 section 5.2.2.5.

    Args:
        headers: Response headers, names in lower case.
    """
    return any(
        name == "cache-control" and any(directive == "no-store" for directive, _ in _directives(value))
        for name, value in headers
    )


def usage_of(completion: Mapping[str, Any], *, prompt_tokens: int | None = None) -> Usage | None:
    """Token counts of an answer of any API; None when it has none of the prompt and none of the answer.

    A count of a wrong type, below zero or above a thousand million is treated as absent. Providers differ: some say
    beside ``prompt_tokens`` how much of it was cached, and some leave reasoning out of ``completion_tokens``, which is
    seen by their total.

    Args:
        completion: A ``chat.completion`` object, or what another API answers with.
        prompt_tokens: About the length of the prompt, >= 0: where one of the two counts is absent it is estimated, the
            answer's by `answer_tokens`. None: it is 0.

    Source: OpenAI, API reference, the chat completion object and the response object: ``usage`` and ``service_tier``;
        DeepSeek, API reference: ``prompt_cache_hit_tokens``; xAI, API reference: ``reasoning_tokens`` beside
        ``completion_tokens``.
    """
    usage = completion.get("usage")
    if not isinstance(usage, Mapping):
        return None
    of_prompt, of_answer = usage.get("prompt_tokens_details"), usage.get("completion_tokens_details")
    prompt, answer = _count(usage, "prompt_tokens"), _count(usage, "completion_tokens")
    if prompt is None and answer is None:
        of_prompt, of_answer = usage.get("input_tokens_details"), usage.get("output_tokens_details")
        prompt, answer = _count(usage, "input_tokens"), _count(usage, "output_tokens")
    if prompt is None and answer is None:
        return None
    if prompt is None:
        prompt = prompt_tokens or 0
    if answer is None:
        answer = 0 if prompt_tokens is None else answer_tokens(completion)
    reasoning = _count(of_answer, "reasoning_tokens") or 0
    if reasoning and _count(usage, "total_tokens") == prompt + answer + reasoning:
        answer += reasoning
    tier = completion.get("service_tier")
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=answer,
        cached_tokens=_first(
            (of_prompt, "cached_tokens"), (usage, "prompt_cache_hit_tokens"), (usage, "cache_read_input_tokens")
        ),
        reasoning_tokens=reasoning,
        cache_write_tokens=_first((of_prompt, "cache_write_tokens"), (usage, "cache_creation_input_tokens")),
        prompt_audio_tokens=_first((of_prompt, "audio_tokens")),
        completion_audio_tokens=_first((of_answer, "audio_tokens")),
        accepted_tokens=_first((of_answer, "accepted_prediction_tokens")),
        rejected_tokens=_first((of_answer, "rejected_prediction_tokens")),
        service_tier=tier if isinstance(tier, str) and tier in _TIERS else "",
    )


def answering_model(completion: Mapping[str, Any]) -> str:
    """The model that an answer says it is of, often a dated snapshot of the one asked; empty where it says none."""
    model = completion.get("model")
    return model if isinstance(model, str) else ""


def answer_tokens(completion: Mapping[str, Any]) -> int:
    """About how many tokens an answer of any API has that does not say it; what is not in its form counts nothing."""
    chars = 0
    for choice in _rows(completion.get("choices")):
        message = choice.get("message")
        message = message if isinstance(message, dict) else {}
        thought = message.get("reasoning_content") or message.get("reasoning")  # some servers say it under both names
        said = choice.get("text"), message.get("content"), message.get("refusal"), thought
        chars += sum(len(text) for value in said for text in texts_of(value))
        functions = [call.get("function") for call in _rows(message.get("tool_calls"))] + [message.get("function_call")]
        chars += sum(len(str(function.get("arguments"))) for function in functions if isinstance(function, dict))
    for item in _rows(completion.get("output")):
        chars += sum(map(len, texts_of(item.get("content"))))
        chars += len(str(item.get("arguments") or item.get("input") or ""))
    return -(-chars // CHARS_PER_TOKEN)


def unpredicted(usage: Usage) -> Usage:
    """What the same answer would have counted without a prediction."""
    tokens = max(0, usage.completion_tokens - usage.rejected_tokens)
    return replace(usage, completion_tokens=tokens, accepted_tokens=0, rejected_tokens=0)


def without_prediction(completion: Mapping[str, Any]) -> bytes:
    """A completion as UTF-8 JSON, with the token counts that it would have had without a predicted output.

    Args:
        completion: A ``chat.completion`` object; left as it is.

    Source: OpenAI, API reference, ``completion_tokens_details``: rejected tokens count as completion tokens.
    """
    usage = completion.get("usage")
    details = usage.get("completion_tokens_details") if isinstance(usage, Mapping) else None
    if isinstance(usage, Mapping) and isinstance(details, Mapping):
        rejected = _count(details, "rejected_prediction_tokens") or 0
        totals = {name: _count(usage, name) for name in ("completion_tokens", "total_tokens")}
        less = {name: max(0, count - rejected) for name, count in totals.items() if count is not None}
        none = {name: 0 for name in _PREDICTED if name in details}
        usage = {**usage, **less, "completion_tokens_details": {**details, **none}}
        completion = {**completion, "usage": usage}
    return json.dumps(completion, separators=(",", ":")).encode()


def error_body(message: str, *, type: str, code: str | None = None, param: str | None = None) -> bytes:
    """An error in the shape that OpenAI's clients read, as JSON.

    Args:
        message: What is wrong and what to do.
        type: Class of the error, e.g. ``invalid_request_error``.
        code: Machine-readable name, e.g. ``model_not_found``.
        param: Field of the request that is at fault.
    """
    error = {"message": message, "type": type, "param": param, "code": code}
    return json.dumps({"error": error}, separators=(",", ":")).encode()


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        times = Counter(name for name, _ in pairs)
        twice = next(name for name in times if times[name] > 1)
        raise WireError(f"request body has the key {shown(twice)} twice in one object; send each key once")
    return result


def _refuse_constant(name: str) -> NoReturn:
    raise WireError(f"request body holds {name}, which is not JSON; send a number or null")


def _refuse_depth() -> NoReturn:
    raise WireError(f"request body is nested more than {MAX_DEPTH} levels deep; send a flatter one")


def _finite(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise WireError(f"request body holds the number {digits[:40]}, which is too large; send one below 1.8e308")
    return value


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse_constant, parse_float=_finite)


def _parse_json(raw: bytes) -> Any:
    try:
        return _DECODER.decode(raw.decode())
    except UnicodeDecodeError as exc:
        byte = raw[exc.start]
        raise WireError(f"request body is not UTF-8: byte {byte:#04x} at offset {exc.start}; send UTF-8 JSON") from exc
    except RecursionError:
        _refuse_depth()
    except ValueError as exc:  # JSONDecodeError, and integers beyond Python's limit of digits
        raise WireError(f"request body is not JSON: {exc}; send one JSON object") from exc


def check_model(body: Mapping[str, Any]) -> None:
    """Raise WireError where a request names no model."""
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise WireError(f"'model' is {shown(model)}; send the name of a model")


def _check_fields(body: Mapping[str, Any]) -> None:
    check_model(body)
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise WireError(f"'messages' is {shown(messages)}; send a list of at least one message")
    for position, message in enumerate(messages):
        if not isinstance(message, dict):
            raise WireError(f"messages[{position}] is {shown(message)}; send an object with 'role' and 'content'")


def _is_deeper(value: Any, limit: int) -> bool:
    """Whether lists and objects nest more than ``limit`` levels; level by level, so without recursion."""
    level = [value]
    for _ in range(limit):
        inner: list[Any] = []
        for item in level:
            inner += [child for child in _children(item) if isinstance(child, (dict, list))]
        if not inner:
            return False
        level = inner
    return True


def _children(value: Any) -> Any:
    return value.values() if isinstance(value, dict) else value


def _directives(value: str) -> list[tuple[str, str]]:
    parts = _DIRECTIVE.findall(value) if '"' in value else value.split(",")
    pairs = (part.partition("=") for part in parts)
    return [(name.strip().lower(), argument.strip()) for name, _, argument in pairs]


def _count(source: Any, name: str) -> int | None:
    value = source.get(name) if isinstance(source, Mapping) else None
    return value if type(value) is int and 0 <= value <= _MOST_TOKENS else None


def _first(*places: tuple[Any, str]) -> int:
    """The first of some counts that is there."""
    found = (_count(source, name) for source, name in places)
    return next((count for count in found if count is not None), 0)


def _rows(value: object) -> list[JSON]:
    return [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []


def _kind(value: Any) -> str:
    names = {list: "list", str: "string", bool: "boolean", int: "number", float: "number", type(None): "null"}
    return names[type(value)]


def shown(value: Any) -> str:
    """A value for an error message: short, printable, and never a whole prompt."""
    if value is None:
        return "absent or null"
    text = ascii(value) if isinstance(value, (str, int, float)) else type(value).__name__
    if value in ([], {}):
        text = "empty"
    return text if len(text) <= 60 else text[:57] + "..."
