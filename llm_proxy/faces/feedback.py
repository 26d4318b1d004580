"""Feedback on answers: in Python, by a header on any later request, and as a request of its own.

::

    llm_proxy.feedback(id, good)
    x-llm-proxy-feedback: ID; good | ID; bad | ID; score=0.5        told: noted, unknown, invalid, late, unavailable
    POST /llm-proxy/feedback  {"id": ID, "good": true | false | 0.5}                      200, 404, 400, 503

``ID`` is the header ``x-llm-proxy-id`` of the answer. Only whoever got an answer may say how good it was.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from llm_proxy.errors import CacheError, UnknownCallError
from llm_proxy.forking import working
from llm_proxy.types import ChatRequest, Outcome
from llm_proxy.wire.chat import error_body

if TYPE_CHECKING:
    from llm_proxy.holders import Holder
    from llm_proxy.runtime import Runtime, Settings

__all__ = ["HEADER", "MOST_BYTES", "PATH", "answer", "feedback", "heard", "heard_async"]

HEADER = "x-llm-proxy-feedback"
PATH = "/llm-proxy/feedback"
MOST_BYTES = 4096
"""Longest body of a request of its own."""

WAIT_S = 0.25
"""Longest time that a call waits until feedback in its header is looked up; it is taken even so."""

_MOST = 16  # in one header
_SAID = re.compile(r"\s*([\w-]{1,64})\s*;\s*(?:(good)|(bad)|score\s*=\s*([01](?:\.\d{0,17})?|\.\d{1,17}))\s*")


def feedback(call: Outcome | str, good: float, *, llm_proxy: Settings = None) -> None:
    """Say how good an answer was.

    Of an answer that a route decided, it is what `llm-proxy route train` learns from. A semantic hit that was bad is
    taken back. What is said later of the same answer replaces what was said before.

    Args:
        call: ``response.extensions["llm_proxy"]``, or the header ``x-llm-proxy-id`` of the answer.
        good: True, false, or a score in [0, 1].
        llm_proxy: Settings of the client that got the answer, see `llm_proxy.ProxyTransport`; None: all clients of this
            process are asked, or, where there is none, the settings of the file and the environment hold.

    Raises:
        UnknownCallError: No answer of that id is known: another directory has it, or it was not written yet by another
            process, which takes a second.
        ValueError: ``good`` is no such number.
        CacheError: It can't be looked up.
    """
    from llm_proxy.runtime import alive, runtime_for

    runtimes = alive() if llm_proxy is None else []
    for runtime in runtimes or [runtime_for(llm_proxy)]:
        try:
            runtime.feedback(call, good)
            return
        except UnknownCallError as exc:
            unknown = exc
    raise unknown


def heard(runtime: Runtime, value: str, headers: Mapping[str, str]) -> str:
    """Take the feedback of a header; one word that says what became of it.

    Args:
        runtime: Whose answers it is about.
        value: Of the header; several, with commas between them.
        headers: All headers of the request, names in lower case: they say who is asking.
    """
    try:
        return str(runtime.pool().submit(partial(_heard, runtime, value, headers)).result(WAIT_S))
    except TimeoutError:
        return "late"
    except RuntimeError:  # no thread to be had
        return "unavailable"


async def heard_async(runtime: Runtime, value: str, headers: Mapping[str, str], holder: Holder | None = None) -> str:
    """The same for async callers, who may hold an issued key; see `heard`."""
    with anyio.move_on_after(WAIT_S):
        return await anyio.to_thread.run_sync(partial(_heard, runtime, value, headers, holder), abandon_on_cancel=True)
    return "late"


def answer(runtime: Runtime, raw: bytes, headers: Mapping[str, str], holder: Holder | None = None) -> tuple[int, bytes]:
    """Take the feedback of a request of its own; status and body of the answer to it. May wait for the disk.

    Args:
        runtime: Whose answers it is about.
        raw: The request's body.
        headers: Its headers, names in lower case.
        holder: Who holds the issued key that it came with.
    """
    try:
        found = json.loads(raw)
        call_id, good = found["id"], found["good"]
        if not isinstance(call_id, str) or not isinstance(good, (bool, int, float)):
            raise TypeError
    except (ValueError, TypeError, KeyError, RecursionError):
        return 400, _error('expected {"id": "...", "good": true, false or a number from 0 to 1}', "invalid")
    caller = ChatRequest(body={"user": found.get("user")}, raw=b"", headers=headers, holder=holder)
    try:
        with working:
            runtime.learning.feedback.give(call_id, good, caller)
    except UnknownCallError as exc:
        return 404, _error(str(exc), "unknown_call")
    except ValueError as exc:
        return 400, _error(str(exc), "invalid")
    except CacheError as exc:
        runtime.troubles.note("outcomes", exc)
        return 503, _error(str(exc), "unavailable")
    return 200, json.dumps({"id": call_id, "status": "noted"}).encode()


def _error(message: str, code: str) -> bytes:
    return error_body(message, type="feedback", code=code)


def _heard(runtime: Runtime, value: str, headers: Mapping[str, str], holder: Holder | None = None) -> str:
    """The worst that became of any of them."""
    values = value.split(",")
    said = [_SAID.fullmatch(one) for one in values]
    if len(said) > _MOST:
        return "invalid"
    caller = ChatRequest(body={}, raw=b"", headers=headers, holder=holder)
    words = {"invalid" if one is None else _taken(runtime, *one.groups(), caller=caller) for one in said}
    return next(word for word in ("unavailable", "unknown", "invalid", "noted") if word in words)


def _taken(
    runtime: Runtime, call_id: str, good: str | None, bad: str | None, score: str | None, *, caller: ChatRequest
) -> str:
    try:
        with working:
            runtime.learning.feedback.give(call_id, float(score) if score else float(good is not None), caller)
    except UnknownCallError:
        return "unknown"
    except ValueError:
        return "invalid"
    except Exception as exc:  # noqa: BLE001 - the fail-open boundary: the call goes on
        runtime.troubles.note("outcomes", exc)
        return "unavailable"
    return "noted"
