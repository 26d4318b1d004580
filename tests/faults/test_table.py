"""What becomes of a call whose upstream fails, over real sockets: each fault, both forms, three ways to ask.

The table of docs/reliability.md says the same in words.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest

from llm_proxy import AsyncOpenAI, OpenAI
from llm_proxy.observe.events import CallEvent
from llm_proxy.runtime import Runtime, runtime_for
from tests.faces.asgi_kit import proxied

from .kit import FAULTS, FaultyUpstream, closed_port, full_port, upstream

WHOLE, SPARE = "all is well here", "from the spare"
HALF = "all is"
WAYS = ("sync", "async", "proxy")


class Cell(NamedTuple):
    """What a caller sees, the exception empty for an answer; and how often the upstream was asked."""

    error: str
    status: int | None
    text: str
    requests: int


def answered(text: str = WHOLE) -> Cell:
    return Cell("", None, text, 1)


def refused(error: str, status: int) -> dict[str, Cell]:
    """A status, which the proxy asks for three times, and passes on."""
    return {"client": Cell(error, status, "", 1), "proxy": Cell(error, status, "", 3)}


def broken(status: int) -> dict[str, Cell]:
    """No answer, which the proxy calls a gateway's error once it has tried three times."""
    return {"client": Cell("APIConnectionError", None, "", 1), "proxy": Cell("InternalServerError", status, "", 3)}


def broken_off(error: str = "APIConnectionError") -> dict[str, Cell]:
    """A stream of which something was passed on."""
    return {"client": Cell(error, None, HALF, 1), "proxy": Cell("APIError", None, HALF, 1)}


def same(cell: Cell) -> dict[str, Cell]:
    return {"client": cell, "proxy": cell}


LATE = {"client": Cell("APITimeoutError", None, "", 1), "proxy": Cell("InternalServerError", 504, "", 3)}
BROKEN = (broken(503), broken(503))
# As aiohttp tells it; httpx tells a reset from an end (docs/reliability.md: 503 or 502).
CUT = (broken(502), broken(502))
NEVER_CAME = {way: cell._replace(requests=0) for way, cell in broken(503).items()}
TOO_LATE = {way: cell._replace(requests=0) for way, cell in LATE.items()}
TABLE: dict[str, tuple[dict[str, Cell], dict[str, Cell]]] = {
    "refused": (NEVER_CAME, NEVER_CAME),
    "silent before the connection": (TOO_LATE, TOO_LATE),
    "reset before headers": BROKEN,
    "reset after headers": CUT,
    "reset in mid-body": (broken(502), broken_off()),
    "reset in mid-event": (broken(502), broken_off()),
    "cut": (broken(502), broken_off()),
    "silent": (LATE, LATE),
    "silent after headers": (LATE, LATE),
    "silent in mid-body": (LATE, broken_off("APITimeoutError")),
    "invalid JSON": (same(Cell("JSONDecodeError", None, "", 1)), same(Cell("JSONDecodeError", None, "all", 1))),
    "wrong content type": (same(answered()), same(answered())),
    "slow drip": (same(answered()), same(answered())),
    "408": (refused("APIStatusError", 408),) * 2,
    "409": (refused("ConflictError", 409),) * 2,
    "429": (refused("RateLimitError", 429),) * 2,
    "429 asked to wait": (refused("RateLimitError", 429),) * 2,
    **{status: (refused("InternalServerError", int(status)),) * 2 for status in ("500", "502", "503", "529")},
}
HANDED_ON = {"invalid JSON", "wrong content type", "slow drip"}
"""Answers as they came: nobody else is asked."""
STORED = {"slow drip"}


@dataclass
class Bench:
    """One failing upstream, perhaps a spare one, and what was booked."""

    main: FaultyUpstream | None
    events: list[CallEvent]
    way: str
    client: Any
    wait_s: float

    def ask(self, *, is_stream: bool) -> Cell:
        before = len(self.main.asked) if self.main else 0
        asked = _asked_async if self.way == "async" else _asked
        error, text = asked(self.client, _options(self.wait_s, is_stream=is_stream), is_stream=is_stream)
        status = getattr(error, "status_code", None)
        name = "" if error is None else type(error).__name__
        return Cell(name, status, text, len(self.main.asked) - before if self.main else 0)


def _options(wait_s: float, *, is_stream: bool) -> dict[str, Any]:
    messages = [{"role": "user", "content": "hi"}]
    return {"model": "main/m", "messages": messages, "timeout": wait_s, **({"stream": True} if is_stream else {})}


def _text(answer: Any) -> str:
    return answer if isinstance(answer, str) else answer.choices[0].message.content


def _asked(client: Any, options: dict[str, Any], *, is_stream: bool) -> tuple[Exception | None, str]:
    text = ""
    try:
        answer = client.chat.completions.create(**options)
        if not is_stream:
            return None, _text(answer)
        for chunk in answer:
            text += (chunk.choices[0].delta.content or "") if chunk.choices else ""
    except Exception as exc:  # noqa: BLE001 - whatever a caller may see
        return exc, text
    return None, text


def _asked_async(client: Any, options: dict[str, Any], *, is_stream: bool) -> tuple[Exception | None, str]:
    async def ask() -> tuple[Exception | None, str]:
        text = ""
        try:
            async with client:
                answer = await client.chat.completions.create(**options)
                if not is_stream:
                    return None, _text(answer)
                async for chunk in answer:
                    text += (chunk.choices[0].delta.content or "") if chunk.choices else ""
        except Exception as exc:  # noqa: BLE001 - whatever a caller may see
            return exc, text
        return None, text

    return asyncio.run(ask())


@contextmanager
def bench(way: str, fault: str, *, has_spare: bool = False) -> Iterator[Bench]:
    ports = {"refused": closed_port, "silent before the connection": full_port}
    failing = ports[fault]() if fault in ports else upstream(lambda body: WHOLE, fault)
    with failing as main, upstream(lambda body: SPARE) as spare:
        url, faulty = (main, None) if isinstance(main, str) else (main.url, main)
        backends: dict[str, Any] = {"main": {"base_url": url}}
        is_silent = fault.startswith("silent")
        if is_silent and (way == "proxy" or has_spare):
            backends["main"]["timeout_s"] = 0.2
        wait_s = 0.3 if is_silent and not (way == "proxy" or has_spare) else 20.0
        if has_spare:
            backends["main"]["fallbacks"] = ["spare"]
            backends["spare"] = {"base_url": spare.url}
        if way == "proxy":
            with proxied(backends) as proxy:
                yield Bench(faulty, proxy.events, way, proxy.client(), wait_s)
            return
        settings = {"cache": {"store": "memory", "semantic": False}, "observe": {"ledger": False}}
        events: list[CallEvent] = []
        runtime = Runtime(runtime_for({**settings, "backends": backends}).config, sinks=(events.append,))
        kind = AsyncOpenAI if way == "async" else OpenAI
        made = kind(base_url=url, api_key="k", max_retries=0, llm_proxy=runtime)
        yield Bench(faulty, events, way, made, wait_s)
        if isinstance(made, OpenAI):
            made.close()
        runtime.close()


def test_every_fault_has_its_row() -> None:
    assert set(TABLE) == {"refused", "silent before the connection", *FAULTS}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("is_stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize("fault", TABLE)
class TestFault:
    def test_alone(self, fault: str, is_stream: bool, way: str) -> None:
        expected = TABLE[fault][is_stream]["proxy" if way == "proxy" else "client"]
        with bench(way, fault) as made:
            found = made.ask(is_stream=is_stream)
        assert found == expected
        (event,) = made.events
        assert (event.outcome.is_stored is True) == (fault in STORED)

    def test_with_a_fallback(self, fault: str, is_stream: bool, way: str) -> None:
        alone = TABLE[fault][is_stream]["proxy" if way == "proxy" else "client"]
        expected = answered(SPARE)._replace(requests=alone.requests and 1)
        if fault in HANDED_ON or alone.text:  # something was passed on: nobody else is asked
            expected = alone
        with bench(way, fault, has_spare=True) as made:
            found = made.ask(is_stream=is_stream)
        assert found == expected
        (event,) = made.events
        if found.text == SPARE:
            assert (event.outcome.backend, event.outcome.is_stored) == ("spare", True)
            assert event.outcome.attempts.startswith("main/m ")
            assert event.outcome.attempts.endswith(", spare/m")
