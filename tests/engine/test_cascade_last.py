"""The last of a cascade fails: the best answer that was held is handed on; and who is silent is not waited for."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llm_proxy.engine.effects import Compute, Forward, Held, Hold, Late
from llm_proxy.errors import LimitReached
from tests.engine.cascade_kit import Appraiser, Steps, held, rig
from tests.engine.flow_kit import Course
from tests.engine.test_gate import REFUSED, reserved, with_purse
from tests.fakes import FakeScorer, Rig, completion, events_of, request


def doubted(made: Rig, answer: Any = None, **fields: Any) -> Steps:
    """A call whose first answer was doubted; the last is asked."""
    course = Steps(made, **fields)
    course.hold(held(answer))
    while isinstance(course.effect, Compute):
        course.compute()
    course.forwarded()
    return course


def failures(made: Rig, model: str) -> int:
    """How many failures of a candidate its breaker knows."""
    state = made.selector.health._breakers._states.get(("b", model))
    return sum(is_failure for _, is_failure in state.calls) if state is not None else 0


def failed(status: int) -> Held:
    return held({"error": {"message": "overloaded"}}, status=status)


class TestHeldAnswers:
    @pytest.mark.parametrize(
        ("failure", "why"),
        [(ConnectionError(), "failed"), (failed(500), "status-500"), (failed(429), "status-429")],
    )
    def test_are_handed_on_where_the_last_one_fails(self, failure: Any, why: str) -> None:
        made = rig(scorer=FakeScorer(0.31))
        seen: list[Any] = []
        made.settler._appraiser = Appraiser(seen)
        course = doubted(made)
        course.hold(failure, "large")
        assert course.effect is None
        course.settle(course.answer)
        outcome = made.event.outcome
        assert (outcome.cascade, outcome.model, outcome.cost_usd) == (f"small 0.31, large {why}, small", "small", 1.5)
        assert (outcome.is_stored, outcome.detail, made.cache.entries) == (False, "doubtful", {})
        assert [call.model for call in seen] == ["small"], "learnt once"
        assert failures(made, "large") == 1
        assert failures(made, "small") == 0

    def test_the_best_of_several(self) -> None:
        scorer = FakeScorer(0.4)
        made = rig(models="small middle large", scorer=scorer, cascade_steps=3)
        course = Steps(made)
        for model, p_right in (("small", 0.4), ("middle", 0.2)):
            scorer.says = p_right
            course.hold(held(completion(model)), model)
            course.score()
            course.compute()
        course.hold(failed(503), "large")
        assert json.loads(b"".join(course.answer.body))["choices"][0]["message"]["content"] == "small"
        assert course.launch.flight.ticket.outcome.cascade == "small 0.40, middle 0.20, large status-503, small"

    def test_of_equals_the_stronger(self) -> None:
        made = rig(models="small middle large", scorer=FakeScorer(0.4), cascade_steps=3)
        course = Steps(made)
        for model in ("small", "middle"):
            course.hold(held(completion(model)), model)
            course.score()
            course.compute()
        course.hold(failed(503), "large")
        assert json.loads(b"".join(course.answer.body))["choices"][0]["message"]["content"] == "middle"

    def test_an_error_of_the_request_is_the_callers(self) -> None:
        course = doubted(rig(scorer=FakeScorer(0.31)))
        course.hold(failed(400), "large")
        assert (course.effect, course.answer.status) == (None, 400)
        assert course.launch.flight.ticket.is_storable

    @pytest.mark.parametrize("answer", [completion(""), completion("cut", finish="length"), completion("", choices=[])])
    def test_what_is_no_answer_is_not_kept(self, answer: Any) -> None:
        doubted(rig(scorer=FakeScorer(0.31)), answer).expect(Forward)

    def test_without_a_flight(self) -> None:
        made = rig(scorer=FakeScorer(0.31))
        course = doubted(made, temperature=1.5)
        course.hold(failed(500), "large")
        assert made.event.outcome.headers[-1] == ("x-llm-proxy-cascade", '"small 0.31, large status-500, small"')
        assert (made.event.outcome.detail, made.event.outcome.model) == ("temperature", "small")

    @pytest.mark.parametrize(("is_stream", "limit_s"), [(True, 0.0), (False, float("inf"))])
    def test_a_stream_of_the_last_one_is_passed_on_with_its_first_bytes(self, is_stream: bool, limit_s: float) -> None:
        made = rig(scorer=FakeScorer(0.31))
        course = doubted(made, events_of("he") if is_stream else None, stream=is_stream)
        assert course.expect(Hold).limit_s == limit_s


class TestWaiting:
    def test_who_is_late_is_passed_over(self) -> None:
        made = rig(cascade_wait_s=7)
        course = Steps(made)
        effect = course.expect(Hold)
        assert (effect.wait_s, effect.outgoing.timeout_s) == (7, 7)
        course.hold(Late())
        course.compute()
        course.expect(Forward)
        assert course.launch.flight.ticket.outcome.cascade == "small late, large"
        assert failures(made, "small") == 1

    def test_the_callers_own_limit_is_kept(self) -> None:
        made = rig()
        course = Steps.__new__(Steps)
        Course.__init__(course, made, request("hi", model="auto", timeout_s=3.0))
        course.board()
        course.flow = course.effect.asking
        course._step(lambda: next(course.flow))
        assert course.expect(Hold).outgoing.timeout_s == 3.0

    def test_the_wait_for_a_judge_is_not_the_models(self) -> None:
        made = rig(cascade_judge="b/judge")
        seen: list[Any] = []
        made.settler._appraiser = Appraiser(seen)
        course = Steps(made)
        made.clock.advance(2)
        course.hold(held())
        made.clock.advance(30)
        course.hold(held(completion("yes")), "judge")
        course.compute()
        course.settle(course.answer)
        assert [(call.model, call.latency_s) for call in seen] == [("judge", 30), ("small", 2)]


class TestLimits:
    """A full queue and a model that loads say nothing of a backend."""

    def made(self, *, is_cold: bool = False) -> Rig:
        """A cheap candidate on this machine, and a strong one with one slot."""
        local = {"base_url": "http://127.0.0.1:9/v1"}
        cloud = {"base_url": "https://c.test/v1", "concurrency": 1, "queue_length": 0}
        route = {"candidates": ["local/small", "cloud/large"], "cascade": True}
        sections = {"backends": {"local": local, "cloud": cloud}, "routes": {"auto": route}}
        settings = {**sections, "cache": {"semantic": False, "store": "memory"}}
        return Rig(settings, encoder=None, scorer=FakeScorer(0.31), has_cold_starts=is_cold)

    def test_the_last_one_s_queue_is_full(self) -> None:
        made = self.made()
        earlier = Course(made, request("earlier", model="cloud/large", temperature=2))
        course = Steps(made)
        course.hold(held())
        while isinstance(course.effect, Compute):
            course.compute()
        assert (course.effect, earlier.effect is None) == (None, False)
        course.settle(course.answer)
        assert made.event.outcome.cascade == "small 0.31, large busy, small"
        assert made.selector.health._breakers._states == {}

    def test_the_budget_is_spent(self) -> None:
        """It is not said to be busy, nor to have failed."""
        made = self.made()
        with_purse(made, "reserved", REFUSED)
        course = Steps(made)
        reserved(course)
        course.hold(held())
        while isinstance(course.effect, Compute):
            try:
                course.compute()
            except LimitReached as exc:
                course.throw(exc)
        course.settle(course.answer)
        assert made.event.outcome.cascade == "small 0.31, large over-budget, small"
        assert made.selector.health._breakers._states == {}

    def test_the_first_one_loads_its_model(self) -> None:
        made = self.made(is_cold=True)
        course = Steps(made)
        course.hold(held({"error": {"code": 503, "message": "Loading model"}}, status=503))
        course.forwarded()
        assert made.selector.health._breakers._states == {}
