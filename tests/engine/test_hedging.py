"""Steps the flow that sends a second request beside one that takes long."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from llm_proxy.backends.delays import AT_LEAST
from llm_proxy.engine.effects import Held, Race, Raced
from llm_proxy.types import ChatRequest, Head
from tests.engine.attempts_kit import BACKENDS, BROKEN, JSON_TYPE, Attempting, rig
from tests.engine.test_flow import Course
from tests.fakes import ENDPOINT, Rig, request


class TestHedging:
    def made(self, **sections: Any) -> Rig:
        """One whose answers begin after 0.1 s."""
        made = rig({"hedge": True, "fallbacks": ["spare"]}, **sections)
        for number in range(AT_LEAST):
            course = Attempting(made, request(str(number), model="main/m"))
            course.forwarded()
            made.clock.advance(0.1)
            course.answers()
        return made

    def race(self, call: ChatRequest | None = None) -> tuple[Attempting, Race, list[Iterator[Any]]]:
        made = Attempting(self.made(), call or request("late", model="main/m"))
        race = made.expect(Race)
        return made, race, [race.flows[0], race.flows[1]]

    def test_not_while_little_is_known(self) -> None:
        made = Attempting(rig({"hedge": True}), request(model="main/m"))
        assert made.forwarded().backend == "main"

    def test_the_rival_is_who_would_be_asked_next(self) -> None:
        _, race, (first, second) = self.race()
        assert race.after_s == pytest.approx(0.1)
        assert [next(first).outgoing.backend, next(second).outgoing.backend] == ["main", "spare"]
        assert race.wins(Head(200, [], ()))

    def test_or_the_same_again_without_its_key(self) -> None:
        made = rig({"hedge": True})
        for number in range(AT_LEAST):
            Attempting(made, request(str(number), model="main/m")).answers()
        call = request("late", model="main/m")
        keyed = ChatRequest(call.body, call.raw, {**call.headers, "idempotency-key": "k"}, ENDPOINT)
        race = Attempting(made, keyed).expect(Race)
        sent = [next(flow).outgoing for flow in race.flows]
        assert [one.backend for one in sent] == ["main", "main"]
        assert [("idempotency-key", "k") in one.headers for one in sent] == [True, False]

    def test_the_first_wins_alone(self) -> None:
        made, _, (first, _) = self.race()
        next(first)
        answer = Head(200, JSON_TYPE, iter(()))
        made.send(Raced(0, answer, False))
        assert (made.head, made.attempts) == (answer, "")

    def test_the_first_wins_of_two(self) -> None:
        made, _, flows = self.race()
        for flow in flows:
            next(flow)
        assert made.rig.selector.health.under_way("spare") == 1
        made.send(Raced(0, Head(200, JSON_TYPE, iter(())), True))
        assert made.rig.selector.health.under_way("spare") == 0

    def test_the_rival_wins(self) -> None:
        made, _, flows = self.race()
        for flow in flows:
            next(flow)
        answer = Head(200, JSON_TYPE, iter(()))
        made.send(Raced(1, answer, True))
        assert (made.head, made.attempts) == (answer, "main/m overtaken, spare/m")
        assert made.flight.ticket.outcome.backend == "spare"
        assert made.rig.selector.health.under_way("main") == 0
        assert made.rig.selector.health.resting_s("main", "m") == 0.0

    def test_nobody_wins(self) -> None:
        made, race, flows = self.race()
        for flow in flows:
            next(flow)
        with pytest.raises(StopIteration) as stop:
            flows[0].throw(BROKEN)  # type: ignore[attr-defined]
        failure = stop.value.value
        assert not race.wins(failure)
        made.send(Raced(0, failure, True))
        assert made.attempts == "main/m broken"
        assert made.forwarded().backend == "spare"

    def test_what_the_loser_cost_is_taken_to_be_its_prompt(self) -> None:
        prices = {"m": {"input_usd_per_mtok": 1e6, "output_usd_per_mtok": 0.0}}
        backends = {"main": {**BACKENDS["main"], "hedge": True, "prices": prices}}
        sections = {"cache": {"semantic": False}, "backends": backends, "attempts": {"hedge_share": 1.0}}
        made = Rig(sections, encoder=None)
        for number in range(AT_LEAST):
            Attempting(made, request(str(number), model="main/m")).answers()
        late = Attempting(made, request("x" * 40, model="main/m"))
        late.expect(Race)
        late.send(Raced(1, Head(200, JSON_TYPE, iter(())), True))
        assert late.flight.ticket.outcome.cost_usd == 10.0
        late = Attempting(made, request("y" * 20, model="main/m"))
        late.send(Raced(0, Head(200, JSON_TYPE, iter(())), True))
        assert late.flight.ticket.outcome.cost_usd == 5.0

    def test_without_a_flight(self) -> None:
        made = rig({"hedge": True}, cache={"enabled": False})
        for number in range(AT_LEAST + 1):
            course = Course(made, request(str(number), model="main/m"))
            answer = Head(200, JSON_TYPE, iter(()))
            if number < AT_LEAST:
                course.send(answer)
                course.send(Held(answer, b"{}", True))
        assert isinstance(course.effect, Race)
        course.send(Raced(0, answer, True))
        assert course.answer.head is answer
