"""Requests about a response that a server keeps: to read, delete or cancel it. Only who made it knows it.

::

    GET DELETE  /responses/ID
    GET         /responses/ID/input_items
    POST        /responses/ID/cancel

An id is looked up as it is, decoded, and nothing else is made of it: what would lead elsewhere, such as ``..`` or an
encoded slash, is no id that anybody was answered, and goes where it would go by itself.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote

from llm_proxy.types import ChatRequest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llm_proxy.engine.effects import Flow
    from llm_proxy.holders import Holder
    from llm_proxy.runtime import Runtime

__all__ = ["About", "about", "keeper_of"]

_ABOUT = re.compile(r"/responses/([^/?#\\]{1,1000})(/cancel|/input_items)?\Z")
_METHODS = {None: ("GET", "DELETE"), "/cancel": ("POST",), "/input_items": ("GET",)}


class About(NamedTuple):
    """A response, by its id, and the path of the request below a base URL, still encoded."""

    named: str
    path: str


def about(method: str, path: str) -> About | None:
    """Which response a request is about, by how its path ends; None for none.

    Args:
        method: HTTP method.
        path: Path as it came, still encoded, without a query.
    """
    found = _ABOUT.search(path)
    if found is None or method not in _METHODS[found[2]]:
        return None
    named = unquote(found[1])
    return About(named, found[0]) if named.isprintable() and not {"/", "\\"} & set(named) else None


def keeper_of(
    runtime: Runtime, one: About | None, headers: Mapping[str, str], holder: Holder | None = None
) -> Flow[str]:
    """The backend that keeps a response that the caller was answered; empty where that is not known.

    Args:
        runtime: What served the call that was answered so.
        one: The response, if the request is about one.
        headers: Request headers, names in lower case: they say who asks.
        holder: Who holds the issued key that the request came with.
    """
    if one is None:
        return ""
    asked = ChatRequest({}, b"", headers, holder=holder, api="responses")
    return (yield from runtime.chains.keeper(asked, one.named))
