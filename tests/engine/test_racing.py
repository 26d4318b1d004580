"""A local model beside a slow one: who is taken, what the other one cost, and that trouble changes nothing."""

from __future__ import annotations

from typing import Any

import pytest

from llm_proxy.engine.effects import Compute, Forward, Held, Hold, Race, Raced, Read
from llm_proxy.engine.racing import Racing
from llm_proxy.types import Head
from tests.engine.attempts_kit import BROKEN, JSON_TYPE, STREAM_TYPE
from tests.engine.flow_kit import Course
from tests.fakes import Rig, body_of, completion, events_of, request

REMOTE: dict[str, Any] = {
    "base_url": "https://far.test/v1",
    "race_with": "near/n",
    "race_after_s": 0.5,
    "prices": {"m": {"input_usd_per_mtok": 4e5, "output_usd_per_mtok": 1e6}},
}
NEAR: dict[str, Any] = {
    "base_url": "https://near.test/v1",
    "prices": {"n": {"input_usd_per_mtok": 1e5, "output_usd_per_mtok": 1e5}},
}
FAR, LOCAL = "Paris, says the large one.", "Paris, says the small one."


def rig(far: dict[str, Any] | None = None, near: dict[str, Any] | None = None, **sections: Any) -> Rig:
    backends = {"far": {**REMOTE, **(far or {})}, "near": {**NEAR, **(near or {})}}
    return Rig({"cache": {"semantic": False}, "backends": backends, **sections}, encoder=None)


class Racer:
    """One call whose flows are stepped."""

    def __init__(self, made: Rig, **fields: Any) -> None:
        self.rig = made
        self.course = Course(made, request("What is it?", **{"model": "far/m", **fields}))
        self.course.board()
        self.flight, self.flow = self.course.effect.flight, self.course.effect.asking
        self.opened = self.course.effect.opened
        self.head: Any = None
        self.effect: Any = None
        self.step(None)

    def step(self, value: Any) -> None:
        try:
            self.effect = self.flow.send(value)
        except StopIteration as stop:
            self.effect, self.head = None, stop.value

    @property
    def race(self) -> Race:
        assert isinstance(self.effect, Race)
        return self.effect

    @property
    def outcome(self) -> Any:
        return self.flight.ticket.outcome


def computed(flow: Any, effect: Compute) -> Any:
    try:
        found = effect.call()
    except RuntimeError as exc:
        return flow.throw(exc)
    return flow.send(found)


def driven(flow: Any, *answers: Any) -> Any:
    """What a flow returns that gets these answers; an exception is thrown in. Computes what it asks for."""
    left, effect = list(answers), next(flow)
    try:
        while True:
            if isinstance(effect, Compute):
                effect = computed(flow, effect)
                continue
            answer = left.pop(0)
            effect = flow.throw(answer) if isinstance(answer, BaseException) else flow.send(answer)
    except StopIteration as stop:
        assert left == []
        return stop.value


def whole(text: str, *, status: int = 200, model: str = "n", **fields: Any) -> Any:
    raw = body_of(completion(text, model=model, **fields))
    return Held(Head(status, JSON_TYPE, [raw]), raw, True)


class TestWhoIsTaken:
    def test_the_remote_one_where_it_begins_first(self) -> None:
        racer = Racer(rig())
        answer = whole(FAR).head
        racer.step(Raced(0, answer, False))
        assert racer.head is answer
        assert (racer.outcome.backend, racer.outcome.cost_usd) == ("far", None)

    def test_the_local_one_where_it_is_good(self) -> None:
        racer = Racer(rig())
        local = driven(racer.race.flows[1], whole(LOCAL))
        assert racer.race.wins(local)
        racer.step(Raced(1, local, True))
        assert racer.head is local
        found = racer.outcome
        assert (found.backend, found.model, found.attempts) == ("near", "n", "far/m overtaken, near/n")
        assert found.cost_usd == pytest.approx(2 * 0.4), "the prompt of the one that was cancelled"
        assert not racer.flight.ticket.is_storable, "nobody would have asked this model"

    def test_a_candidate_of_the_route_may_be_kept(self) -> None:
        made = rig(routes={"auto": {"candidates": ["near/n", "far/m"], "long_prompt_chars": 1}})
        racer = Racer(made, model="auto")
        racer.step(Raced(1, driven(racer.race.flows[1], whole(LOCAL)), True))
        assert racer.flight.ticket.is_storable

    @pytest.mark.parametrize(
        "answer",
        [
            whole(LOCAL, status=500),
            whole("", model="n"),
            BROKEN,
        ],
        ids=["error", "empty", "dead"],
    )
    def test_not_the_local_one_where_it_has_nothing_to_say(self, answer: Any) -> None:
        racer = Racer(rig())
        assert driven(racer.race.flows[1], answer) is None
        assert not racer.race.wins(None)

    def test_not_the_local_one_where_it_is_doubtful(self) -> None:
        made = rig()
        made.scorer.says = 0.69
        assert driven(Racer(made).race.flows[1], whole(LOCAL)) is None

    def test_a_sound_call_of_a_tool_needs_no_score(self) -> None:
        call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
        message = {"role": "assistant", "content": None, "tool_calls": [call]}
        said = whole("", choices=[{"index": 0, "message": message, "finish_reason": "tool_calls"}])
        made = rig()
        assert driven(Racer(made, functions=[{"name": "f"}]).race.flows[1], said) is said.head
        assert made.scorer.asked == []

    def test_an_answer_that_is_no_json_or_not_whole(self) -> None:
        racer = Racer(rig())
        odd = Held(Head(200, [("content-type", "text/plain")], [b"x"]), b"x", True)
        assert driven(racer.race.flows[1], odd) is None
        cut = Held(Head(200, JSON_TYPE, [b"{"]), b"{", False)
        assert driven(Racer(rig()).race.flows[1], cut) is None

    def test_trouble_with_the_scorer(self) -> None:
        made = rig()
        made.scorer.says = RuntimeError("no")
        assert driven(Racer(made).race.flows[1], whole(LOCAL)) is None
        assert made.troubles.counts["race"] == 1

    def test_an_error_of_the_remote_one_is_no_win(self) -> None:
        racer = Racer(rig())
        refused = whole(FAR, status=503)
        assert driven(racer.race.flows[0], refused.head, refused) is refused.head
        assert not racer.race.wins(whole(FAR, status=503).head)

    def test_streams(self) -> None:
        racer = Racer(rig(), stream=True)
        raw = b"".join(events_of("Paris, ", "says ", "it."))
        said = Held(Head(200, STREAM_TYPE, [raw]), raw, True)
        assert driven(racer.race.flows[1], said) is said.head
        begun = Head(200, STREAM_TYPE, [])
        flow = racer.race.flows[0]
        assert isinstance(next(flow), Forward)
        assert flow.send(begun) == Read(begun, 0, 0.0), "it has begun with its first bytes"


class TestCosts:
    def test_of_a_local_answer_that_was_not_taken(self) -> None:
        racer = Racer(rig())
        racer.rig.scorer.says = 0.1
        assert driven(racer.race.flows[1], whole(LOCAL)) is None
        racer.step(Raced(0, whole(FAR).head, True))
        assert racer.outcome.cost_usd == pytest.approx(1.5), "15 tokens"
        assert racer.outcome.backend == "far"

    def test_of_one_that_says_no_counts_an_estimate(self) -> None:
        racer = Racer(rig())
        racer.rig.scorer.says = 0.1
        assert driven(racer.race.flows[1], whole(LOCAL, usage=None)) is None
        racer.step(Raced(0, whole(FAR).head, True))
        assert racer.outcome.cost_usd == pytest.approx(0.9), "2 tokens of the prompt, 7 of the answer"

    def test_of_a_local_answer_that_was_not_taken_where_the_remote_one_breaks(self) -> None:
        made = rig()
        racer = Racer(made)
        made.scorer.says = 0.1
        assert driven(racer.race.flows[1], whole(LOCAL)) is None
        with pytest.raises(type(BROKEN)):
            racer.flow.throw(BROKEN)
        assert racer.outcome.cost_usd == pytest.approx(1.5)
        assert made.selector.health.under_way("near") == 0

    def test_without_a_cache_the_call_is_booked_too(self) -> None:
        made = rig()
        call = request("What is it?", model="far/m", control="no-store")
        course = Course(made, call)
        effect = course.effect
        assert isinstance(effect, Race)
        local = driven(effect.flows[1], whole(LOCAL))
        course.send(Raced(1, local, True))
        assert course.answer.head is local
        assert made.events[-1].outcome.backend == "near"


class TestWhen:
    def test_by_default_where_it_is_slower_than_nearly_all(self) -> None:
        made = rig({"race_after_s": None})
        for number in range(20):
            racer = Racer(made, seed=number)
            assert isinstance(racer.effect, Forward), "nothing is known yet"
            made.clock.advance(1.0 + number / 100)
            answer = whole(FAR)
            racer.step(answer.head)
            racer.step(answer)
            assert racer.head is answer.head
        racer = Racer(made, seed=99)
        assert racer.race.after_s == pytest.approx(1.18)
        racer.step(Raced(1, whole(LOCAL).head, True))
        assert isinstance(Racer(made, seed=100).effect, Forward), "one call of twenty at most"

    @pytest.mark.parametrize(
        ("far", "fields"), [({"race_with": ""}, {}), ({}, {"n": 2})], ids=["nobody", "several-choices"]
    )
    def test_others_are_sent_as_ever(self, far: dict[str, Any], fields: dict[str, Any]) -> None:
        course = Course(rig(far), request("What is it?", model="far/m", **fields))
        course.board()
        assert course.effect.asking is None

    def test_without_a_scorer_too(self) -> None:
        made = rig()
        made.scorer.is_usable = False
        course = Course(made, request("What is it?", model="far/m"))
        course.board()
        assert course.effect.asking is None

    def test_a_backend_that_calls_are_sent_to_again(self) -> None:
        racer = Racer(rig({"retries": 1}), endpoint="")
        assert isinstance(next(racer.race.flows[0]), Forward)

    def test_a_local_model_that_has_no_room(self) -> None:
        made = rig(near={"concurrency": 1, "queue_length": 0})
        first = Racer(made, seed=1)
        assert isinstance(next(first.race.flows[1]), Hold)
        second = Racer(made, seed=2)
        with pytest.raises(StopIteration) as stop:
            next(second.race.flows[1])
        assert stop.value.value is None

    def test_trouble_in_making_the_request(self) -> None:
        made = rig()
        assert isinstance(made.drafting, Racing)
        made.drafting._dispatcher = None  # type: ignore[assignment]
        racer = Racer(made)
        assert isinstance(racer.effect, Forward)
        assert made.troubles.counts["race"] == 1
