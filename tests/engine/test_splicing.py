"""Steps the flow that asks for the rest of a stream that broke off."""

from __future__ import annotations

import contextlib
import json
import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from llm_proxy.boarding import Flights
from llm_proxy.drive import Driver
from llm_proxy.engine.effects import Forward, Held, Mend, Read
from llm_proxy.errors import Interrupted
from llm_proxy.faces._http import httpx
from llm_proxy.types import Head
from tests.engine.attempts_kit import BROKEN, JSON_TYPE, STREAM_TYPE, Attempting, rig
from tests.fakes import request

ROLE = b'data: {"id": "c1", "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}\n\n'
TEXT = b'data: {"id": "c1", "choices": [{"index": 0, "delta": {"content": "All is"}}]}\n\n'
REST = b'data: {"id": "c2", "choices": [{"index": 0, "delta": {"content": " well"}, "finish_reason": "stop"}]}\n\n'
PRICES = {"input_usd_per_mtok": 1e6, "output_usd_per_mtok": 1e6}


class Breaking:
    """A stream that has begun, and what keeps it going."""

    def __init__(self, *sent: bytes, main: Any = None, spare: Any = None, **fields: Any) -> None:
        made = rig({"fallbacks": ["spare"], **(main or {})}, {"can_prefill": "trailing", **(spare or {})})
        self.attempting = Attempting(made, request(model="main/m", stream=True, **fields))
        answer = self.attempting.begins(ROLE)
        self.mending = self.attempting.expect(Mend).mending
        self.attempting.send(answer)
        self.attempting.opens()
        self.out = b"".join(self.mending.passed(piece) for piece in (ROLE, *sent))
        self.effect: Any = None
        self.head: Any = None

    @property
    def rig(self) -> Any:
        return self.attempting.rig

    @property
    def outcome(self) -> Any:
        return self.attempting.flight.ticket.outcome

    def breaks(self, error: Exception | None = BROKEN) -> Any:
        self.flow = self.mending.going_on(error)
        return self.step(lambda: next(self.flow))

    def step(self, step: Any) -> Any:
        try:
            self.effect = step()
        except StopIteration as stop:
            self.effect, self.head = None, stop.value
        return self.effect

    def send(self, value: Any) -> Any:
        return self.step(lambda: self.flow.send(value))

    def asked(self) -> Any:
        assert isinstance(self.effect, Forward)
        return self.effect.outgoing

    def begins(self, status: int = 200, headers: Any = STREAM_TYPE) -> Head:
        self.asked()
        head = Head(status, headers, iter(()))
        assert self.send(head) == Read(head, 0, 0.0)
        self.send(Held(head, REST, False))
        return head


def test_the_rest_comes_from_who_can_go_on() -> None:
    made = Breaking(TEXT)
    made.breaks()
    outgoing = made.asked()
    assert outgoing.backend == "spare"
    assert json.loads(outgoing.body)["messages"][-1] == {"role": "assistant", "content": "All is"}
    assert made.rig.selector.health.under_way("main") == 0
    assert made.rig.selector.health.under_way("spare") == 1
    head = made.begins()
    assert made.head is head
    assert b'"c1"' in made.mending.passed(REST)
    assert (made.mending.ended(), made.mending.kept(), made.mending.is_broken) == (b"", b"", False)
    assert (made.outcome.backend, made.outcome.attempts) == ("spare", "main/m broke off, spare/m")


@pytest.mark.parametrize("error", [None, ValueError("odd"), BROKEN])
def test_whatever_broke_it_off(error: Exception | None) -> None:
    made = Breaking(TEXT)
    assert made.breaks(error) is not None


@pytest.mark.parametrize(
    "piece", [b'data: {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}\n\n', b"data: 7\n\n"]
)
def test_what_can_not_be_continued_is_not(piece: bytes) -> None:
    made = Breaking(TEXT, piece)
    made.breaks()
    assert (made.effect, made.head) == (None, None)
    assert made.outcome.attempts == ""


def test_nobody_can_go_on_with_a_text() -> None:
    made = Breaking(TEXT, b"data: {", main={"fallbacks": ["main/n"]})
    made.breaks()
    assert (made.effect, made.head) == (None, None)
    assert made.mending.kept() == b"data: {"


def test_before_any_text_everybody_can() -> None:
    made = Breaking(main={"can_prefill": "prefix"}, spare={"can_prefill": "no"})
    made.breaks()
    assert made.asked().backend == "spare"
    assert len(json.loads(made.asked().body)["messages"]) == 1


def test_the_next_one_is_asked_where_one_fails() -> None:
    made = Breaking(TEXT, main={"fallbacks": ["spare/a", "spare/b", "spare/c"]})
    made.breaks()
    made.step(lambda: made.flow.throw(BROKEN))
    refusal = Head(500, JSON_TYPE, iter(()))
    made.send(refusal)
    assert made.send(Held(refusal, b"no", False)) == Read(refusal, 0, 0.0, keeps_rest=False)
    made.send(Held(refusal, b"no", False))
    made.begins()
    assert made.outcome.attempts == "main/m broke off, spare/a broken, spare/b 500, spare/c"
    assert made.rig.selector.health.under_way("spare") == 1


@pytest.mark.parametrize(("status", "failures"), [(400, 0), (422, 0), (404, 0), (429, 1), (500, 1), (200, 1)])
def test_who_refuses_the_form_of_what_was_asked_is_none_the_worse(status: int, failures: int) -> None:
    made = Breaking(TEXT, main={"fallbacks": ["spare/a", "spare/b"]})
    noted: list[tuple[str, bool | None]] = []
    health = made.rig.selector.health
    ended = health.ended
    health.ended = lambda backend, model, call, **more: (
        noted.append((model, more["is_well"])),
        ended(backend, model, call, **more),
    )
    made.breaks()
    refusal = made.begins(status, JSON_TYPE)
    made.send(Held(refusal, b"no", False))
    assert made.asked().model == "b", "the next one is asked in any case"
    assert noted == [("m", False), ("a", False if failures else None)]
    made.begins()
    assert made.outcome.attempts == f"main/m broke off, spare/a {status}, spare/b"
    assert health.under_way("spare") == 1


def test_an_error_of_nobodys_ends_it() -> None:
    made = Breaking(TEXT)
    made.breaks()
    made.step(lambda: made.flow.throw(ValueError("odd")))
    assert made.head is None
    assert made.outcome.attempts == "main/m broke off"


@pytest.mark.parametrize("headers", [JSON_TYPE, [*STREAM_TYPE, ("content-encoding", "gzip")]])
def test_what_is_no_plain_stream_is_no_rest(headers: Any) -> None:
    made = Breaking(TEXT)
    made.breaks()
    made.begins(200, headers)
    assert isinstance(made.effect, Read)
    made.send(Held(Head(200, headers, iter(())), b"", False))
    assert made.head is None


def test_the_budget_ends() -> None:
    made = Breaking(TEXT, main={"can_prefill": "trailing", "fallbacks": []})
    for _ in range(3):
        made.breaks()
        assert made.asked().backend == "main"
        made.begins()
        made.mending.passed(TEXT)
    made.breaks()
    assert (made.effect, made.head) == (None, None)


def test_trouble_of_ours_ends_it() -> None:
    made = Breaking(TEXT)
    made.mending._splice.sent = lambda: 1 / 0
    made.breaks()
    assert made.head is None
    assert made.rig.troubles.counts == {"splice": 1}


@pytest.mark.parametrize("wants_usage", [False, True])
def test_what_the_part_that_broke_off_cost(wants_usage: bool) -> None:
    """One token of prompt ("hihi"), one of answer."""
    prices = {"prices": {"m": PRICES}}
    options = {"stream_options": {"include_usage": True}} if wants_usage else {}
    messages = [{"role": "user", "content": "hihi"}]
    made = Breaking(TEXT, main=prices, spare=prices, messages=messages, **options)
    made.breaks()
    made.begins()
    assert made.outcome.cost_usd == 2.0


@pytest.mark.parametrize(("failure", "cost_usd"), [(httpx.ReadTimeout(""), 1.0), (BROKEN, None)])
def test_a_rest_that_is_late_costs_its_prompt(failure: Exception, cost_usd: float | None) -> None:
    messages = [{"role": "user", "content": "hihi"}]
    made = Breaking(TEXT, spare={"prices": {"m": PRICES}}, messages=messages)
    made.breaks()
    made.asked()
    made.step(lambda: made.flow.throw(failure))
    assert made.mending._call.outcome.cost_usd == cost_usd
    assert made.head is None
    assert made.outcome.cost_usd == cost_usd, "in what is booked, too, where nobody goes on"


def test_a_late_rest_where_there_is_nothing_to_book_it_in() -> None:
    messages = [{"role": "user", "content": "hihi"}]
    made = Breaking(TEXT, spare={"prices": {"m": PRICES}}, messages=messages)
    made.breaks()
    made.asked()
    made.mending._call.ticket = None
    made.step(lambda: made.flow.throw(httpx.ReadTimeout("")))
    assert made.mending._call.outcome.cost_usd == 1.0


class TestBills:
    """What a stream in parts costs in the end; each token is one dollar of the first backend, ten of the other."""

    COUNTS = b'data: {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}}\n\n'
    MORE = b'data: {"id": "c2", "choices": [{"index": 0, "delta": {"content": " we"}}]}\n\n'
    END = b"data: [DONE]\n\n"

    def read(self, *parts: tuple[bytes, ...], wants_usage: bool = False) -> Any:
        """One call whose parts break off, but for one that comes to its end; what is booked of it."""
        left = list(parts)
        dear = {"input_usd_per_mtok": 1e7, "output_usd_per_mtok": 1e7}
        main = {"fallbacks": [], "can_prefill": "trailing"} if len(parts) > 2 else {"fallbacks": ["spare"]}
        spare = {"can_prefill": "trailing", "prices": {"m": dear}}
        made = rig({"prices": {"m": PRICES}, **main}, spare)

        def pieces(part: tuple[bytes, ...]) -> Any:
            yield from part
            if part[-1] != self.END:
                raise BROKEN

        options = {"stream_options": {"include_usage": True}} if wants_usage else {}
        self.call = request("hihi", model="main/m", stream=True, **options)
        with ThreadPoolExecutor(1) as pool:
            driver = Driver(Flights(), lambda: pool)
            served = driver.serve(made.engine.answer(self.call), lambda _: Head(200, STREAM_TYPE, pieces(left.pop(0))))
            with contextlib.suppress(type(BROKEN), Interrupted):
                list(served.rest or ())
        assert left == []
        return made.events[-1].outcome

    @pytest.mark.parametrize("wants_usage", [False, True], ids=["not asked for", "asked for"])
    def test_with_counts(self, wants_usage: bool) -> None:
        told = self.read((ROLE, TEXT), (REST, self.COUNTS, self.END), wants_usage=wants_usage)
        assert told.cost_usd == pytest.approx(2 + 70)

    def test_with_counts_of_parts_that_came_in_few_pieces(self) -> None:
        """What is added to the counts that the last one tells is the first one's, and at its price."""
        piece = b'data: {"id": "c1", "choices": [{"index": 0, "delta": {"content": "' + b"x" * 80 + b'"}}]}\n\n'
        told = self.read((ROLE, piece), (REST, self.COUNTS, self.END), wants_usage=True)
        assert told.cost_usd == pytest.approx(1 + 10 + 70)

    def test_without_counts(self) -> None:
        told = self.read((ROLE, TEXT), (REST, self.END))
        prompt, answer = len(self.call.raw) // 4, len("All is well") / 4
        assert told.cost_usd == pytest.approx(2 + 10 * (prompt + math.ceil(answer) - 1))

    @pytest.mark.parametrize("wants_usage", [False, True], ids=["not asked for", "asked for"])
    def test_of_three_parts(self, wants_usage: bool) -> None:
        parts = (ROLE, TEXT), (self.MORE,), (REST, self.COUNTS, self.END)
        assert self.read(*parts, wants_usage=wants_usage).cost_usd == pytest.approx(2 + 2 + 7)

    @pytest.mark.parametrize("wants_usage", [False, True], ids=["not asked for", "asked for"])
    def test_of_one_that_has_no_end(self, wants_usage: bool) -> None:
        parts = [(ROLE, TEXT), (self.MORE,), (self.MORE,), (self.MORE,)]
        assert self.read(*parts, wants_usage=wants_usage).cost_usd == pytest.approx(2 + 2 + 2)


def test_without_a_ticket_nothing_is_booked() -> None:
    made = Breaking(TEXT)
    made.mending._call.ticket = None
    made.breaks()
    made.begins()
    assert made.head is not None
