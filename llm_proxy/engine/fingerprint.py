"""What makes two requests the same: scope, exact key and the text to compare, or a reason to stay out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from llm_proxy.backends.openai_compatible import ACCOUNT_HEADERS, credentials_of
from llm_proxy.types import CHAT, Bypass, Fingerprint, texts_of
from llm_proxy.wire.apis import OTHERS

if TYPE_CHECKING:
    from llm_proxy.config import CacheConfig
    from llm_proxy.types import ChatRequest

__all__ = ["conversation_of", "fingerprint", "narrowed", "owner_of", "payer_of", "tenant_of"]

# These fields name the caller, the transport or the bill; the model's answer does not depend on them.
_NOT_IN_SCOPE = frozenset({
    "user", "metadata", "store", "stream", "stream_options", "service_tier",
    "safety_identifier", "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention",
})  # fmt: skip
_EXACT_ONLY = ("include", "top_logprobs")  # of responses: more than the text of an answer is wanted
# The same bytes are parsed to the same object (`llm_proxy.wire.chat`), which nobody changes: its fingerprint stays.
_known: dict[tuple[int, str, str, str, str], tuple[Mapping[str, Any], Fingerprint]] = {}
_REMEMBERED, _REMEMBERED_BYTES = 256, 16_384
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def fingerprint(request: ChatRequest, *, destination: str, settings: CacheConfig) -> Fingerprint | Bypass:
    """Where an answer to ``request`` may be found, or why the cache has nothing to do with it.

    The scope is a SHA-256 over canonical JSON (keys sorted, integral parameters as integers) of the tenant, the
    destination and every field of the body that changes the answer, without the last user text; the key adds it. With
    ``context = "similar"`` the scope is without the user's earlier texts, too; the key is the same as ever.

    Args:
        request: The call.
        destination: Identity of the route, or of the upstream and the model.
        settings: ``max_temperature``, ``tenant`` and ``context`` are read.

    Raises:
        RecursionError: The body is nested too deeply for canonical JSON.
        ValueError: It holds a number that JSON has no word for, such as what Python reads ``1e999`` as.
    """
    reason = _bypass_reason(request, settings)
    if reason:
        return Bypass(reason)
    tenant = tenant_of(request, settings.tenant)
    place = (id(request.body), tenant, destination, settings.context, request.api)
    known = _known.get(place)
    if known is not None and known[0] is request.body:
        return known[1]
    found = _fingerprint(request, tenant, destination, settings)
    if len(request.raw) <= _REMEMBERED_BYTES:
        if len(_known) >= _REMEMBERED:
            _known.clear()
        _known[place] = (request.body, found)
    return found


def _fingerprint(request: ChatRequest, tenant: str, destination: str, settings: CacheConfig) -> Fingerprint:
    body, of_api = _scoped(request)
    if of_api and not OTHERS[request.api].replaced:
        scope = _digest([tenant, destination, body, *of_api])
        return Fingerprint(key=scope, scope=scope, text=None)
    last, parts = _split(request.messages[-1])
    body["messages"] = [*request.messages[:-1], last]
    scope = _digest([tenant, destination, body, *of_api])
    if not parts:
        return Fingerprint(key=scope, scope=scope, text=None)
    text = "\n".join(parts)
    key = _digest([scope, parts])
    if not text.strip() or _is_exact_only(request.body):
        return Fingerprint(key=key, scope=scope, text=None)
    turns: tuple[str, ...] = ()
    if settings.context == "similar":
        earlier, turns = _without_turns(request.messages[:-1])
        if turns:
            body["messages"] = [*earlier, last]
            scope = _digest([tenant, destination, body, *of_api, "similar"])
    return Fingerprint(key=key, scope=scope, text=text, turns=turns)


def _scoped(request: ChatRequest) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The fields of a body that belong to its scope, and what names its API there; nothing names chat completions."""
    of_api: tuple[str, ...] = ()
    left_out = _NOT_IN_SCOPE
    if request.api != CHAT:
        other = OTHERS[request.api]
        left_out, of_api = (_NOT_IN_SCOPE | other.replaced) - other.kept, (f"api:{request.api}",)
    body = {name: _number(value) for name, value in request.body.items() if name not in left_out}
    body.pop("model", None)
    return body, of_api


def narrowed(scope: str, text: str, seen_chars: int) -> str:
    """The scope to search when a vector stands for the first ``seen_chars`` characters only.

    The unseen rest becomes part of the scope, so that two long texts meet only where it is equal.
    """
    return scope if seen_chars >= len(text) else _digest([scope, text[seen_chars:]])


def tenant_of(request: ChatRequest, rule: str) -> str:
    """Who is asking, as a short public name: a hash where the name is a secret.

    By ``api_key`` it is a hash of every key that the request presents, since only the upstream knows which of them it
    obeys, and of the account that it names. Of an issued key it is that key's tenant, whatever the rule; ``user`` and
    ``header:NAME`` divide the tenant further.

    Args:
        request: The call.
        rule: ``api_key``, ``user``, ``header:NAME`` or ``fixed:NAME``.
    """
    kind, _, name = rule.partition(":")
    if request.holder is not None:
        tenant = f"tenant:{request.holder.tenant}"
        within = "" if kind in {"api_key", "fixed"} else tenant_of(replace(request, holder=None), rule)
        return f"{tenant} {within}" if within else tenant  # a tenant's name holds no space
    if kind == "fixed":
        return f"fixed:{name}"
    if kind == "user":
        return f"user:{request.body.get('user') or ''}"
    if kind == "header":
        return f"header:{request.headers.get(name.lower(), '')}"
    get = request.headers.get
    return _tenant_by_key(credentials_of(request.headers), tuple([get(name, "") for name in ACCOUNT_HEADERS]))


def payer_of(request: ChatRequest, rule: str, keys: frozenset[str]) -> str:
    """Whose budget and turn a call takes: of a proxy with keys of its own that key's, whatever else its caller says.

    Args:
        request: The call.
        rule: See `tenant_of`.
        keys: The proxy's own; empty for none.
    """
    if request.holder is not None:
        return tenant_of(request, "api_key")
    known = sorted(secret for _, secret in credentials_of(request.headers) if secret in keys)
    return _tenant_by_key((("", known[0]),), ()) if known and rule == "api_key" else tenant_of(request, rule)


@lru_cache(maxsize=256)
def _tenant_by_key(credentials: tuple[tuple[str, str], ...], accounts: tuple[str, ...]) -> str:
    return "key:" + _digest([credentials, accounts])[:32]


def owner_of(call_id: str, tenant: str) -> str:
    """Who may speak of an answer or go on from it, as a hash: it tells nothing of the tenant, and differs by answer."""
    return _digest([call_id, tenant])[:32]


def conversation_of(request: ChatRequest, tenant: str) -> str:
    """What a call belongs to, as a hash: who asks, and all texts up to the user's first; empty where that is missing.

    Args:
        request: The call.
        tenant: As for `tenant_of`.
    """
    start: list[object] = []
    for message in request.messages:
        if not isinstance(message, Mapping):
            continue
        start.append([str(message.get("role")), texts_of(message.get("content"))])
        if message.get("role") == "user":
            return _digest([tenant_of(request, tenant), start])
    return ""


def _bypass_reason(request: ChatRequest, settings: CacheConfig) -> str:
    if not settings.enabled:
        return "disabled"
    if request.controls.no_store:
        return "no-store"
    if request.api != CHAT:
        reason = OTHERS[request.api].bypass(request.body)
        if reason:
            return reason
    elif not request.messages or not isinstance(request.messages[-1], Mapping):
        return "no-messages"
    temperature = request.body.get("temperature")
    if isinstance(temperature, (int, float)) and temperature > settings.max_temperature:
        return "temperature"
    return ""


def _is_exact_only(body: Mapping[str, Any]) -> bool:
    n = body.get("n")
    return bool(
        (isinstance(n, int) and n > 1)
        or body.get("logprobs")
        or body.get("modalities") not in (None, ["text"])
        or any(body.get(name) for name in _EXACT_ONLY)
    )


def _split(message: Mapping[str, Any]) -> tuple[Mapping[str, Any], list[str]]:
    """The last message without its text, and the parts of the text when it is a user's and nothing but text."""
    content = message.get("content")
    if message.get("role") != "user":
        return message, []
    if isinstance(content, str):
        return {**message, "content": ""}, [content]
    if isinstance(content, list) and all(_is_text_part(part) for part in content):
        # Several SDKs send a plain string as one text part, so both forms count as the same question.
        return {**message, "content": ""}, [part["text"] for part in content]
    return message, []


def _without_turns(messages: Sequence[Any]) -> tuple[list[Any], tuple[str, ...]]:
    """Messages without the texts of the user, and these texts."""
    bare, turns = [], []
    for message in messages:
        without, parts = _split(message) if isinstance(message, Mapping) else (message, [])
        bare.append(without)
        if parts:
            turns.append("\n".join(parts))
    return bare, tuple(turns)


def _is_text_part(part: object) -> bool:
    return isinstance(part, dict) and part.keys() == {"type", "text"} and isinstance(part["text"], str)


def _number(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _digest(value: object) -> str:
    return hashlib.sha256(_CANONICAL.encode(value).encode("ascii")).hexdigest()
