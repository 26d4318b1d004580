"""Steps the checks of semantic hits through every path: what is asked, what it may cost, and what becomes of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from llm_proxy.cache.evidence import Observation
from llm_proxy.cache.judge import ModelJudge
from llm_proxy.engine.allowance import MOST_AT_ONCE
from llm_proxy.engine.effects import Aside, Background, Board, Compute, Effect, Fetch, Fetched, Late
from llm_proxy.engine.shadow import LIMIT_S, Doubted
from llm_proxy.errors import CacheError
from llm_proxy.types import Outcome
from tests.engine.flow_kit import Course
from tests.fakes import Found, Rig, body_of, completion, entry, head, request, weighed

PRICES = {"gpt-4o-mini": {"input_usd_per_mtok": 0.0, "output_usd_per_mtok": 1000.0}}
SETTINGS = {
    "cache": {"check_share": 0.25, "check_usd_per_day": 1.0},
    "backends": {"own": {"base_url": "https://own.test/v1", "prices": PRICES, "models": ["gpt-4o-mini", "judge"]}},
}
JSON_HEAD = (("content-type", "application/json"),)


def settings(**cache: Any) -> dict[str, Any]:
    return {**SETTINGS, "cache": {**SETTINGS["cache"], **cache}}


def served(rig: Rig, call: Any = None, similarity: float = 0.97, **fields: Any) -> Any:
    """A semantic hit; the effect that is there once it was found: an `Aside`, or None when the flow is over."""
    rig.cache.found = Found(entry(**fields), similarity)
    rig.cache.entries.setdefault("k" * 64, rig.cache.found.entry)
    course = Course(rig, call or request())
    course.board()
    course.search()
    return course


def answered(value: Any, status: int = 200) -> Fetched:
    return Fetched(status, JSON_HEAD, value if isinstance(value, bytes) else body_of(value))


def checked(course: Any, *answers: Any) -> list[Fetch]:
    """Drive what goes on beside the call; each answer is fetched, or raised. Returns what was asked."""
    aside = course.expect(Aside)
    course.send(None)
    assert course.answer.status == 200
    left, asked = list(answers), []

    def perform(effect: Effect) -> Any:
        if isinstance(effect, Compute):
            return effect.call()
        assert isinstance(effect, Fetch)
        asked.append(effect)
        answer = left.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    drive(aside.flow, perform)
    aside.ended()
    assert not left
    return asked


def drive(flow: Any, perform: Callable[[Effect], Any]) -> None:
    try:
        effect = next(flow)
        while True:
            try:
                result = perform(effect)
            except Exception as exc:  # noqa: BLE001 - every outcome belongs to the flow
                effect = flow.throw(exc)
            else:
                effect = flow.send(result)
    except StopIteration:
        pass


@pytest.fixture
def rig() -> Rig:
    return Rig(SETTINGS)


class TestDrawing:
    @pytest.mark.parametrize(("chance", "is_drawn"), [(0.0, True), (0.249, True), (0.25, False), (0.9, False)])
    def test_a_share_of_hits_is_drawn(self, chance: float, is_drawn: bool) -> None:
        assert isinstance(served(Rig(SETTINGS, chance=chance)).effect, Aside) is is_drawn

    def test_none_by_default(self) -> None:
        assert served(Rig()).answer.status == 200

    def test_exact_hits_are_not(self, rig: Rig) -> None:
        key = Course(rig, request()).expect(Board).ticket.fingerprint.key
        rig.cache.entries[key] = entry(key)
        assert Course(rig, request()).answer.outcome.kind == "exact"

    @pytest.mark.parametrize(
        "call",
        [
            request(tools=[{"type": "function", "function": {"name": "f"}}]),
            request(functions=[{"name": "f"}]),
            request(web_search_options={"user_location": None}),
        ],
    )
    def test_what_may_have_effects_is_not_asked_again(self, rig: Rig, call: Any) -> None:
        assert served(rig, call).answer.status == 200

    def test_who_wants_nothing_from_upstream_gets_nothing_from_there(self, rig: Rig) -> None:
        rig.cache.found = Found(entry(), 0.97)
        course = Course(rig, request(control="only-if-cached"))
        course.search()
        assert course.answer.status == 200

    def test_few_at_a_time(self, rig: Rig) -> None:
        asides = [served(rig).expect(Aside) for _ in range(MOST_AT_ONCE)]
        assert served(rig).answer.status == 200
        asides[0].ended()
        served(rig).expect(Aside)

    def test_the_answer_is_there_before_it_begins(self, rig: Rig) -> None:
        course = served(rig)
        course.expect(Aside)
        assert rig.event.outcome.kind == "semantic"

    def test_what_hits_changed_is_written_as_well(self, rig: Rig) -> None:
        rig.cache.is_tending_due = True
        course = served(rig)
        course.expect(Background)
        course.send(None)
        course.expect(Aside)

    def test_trouble_with_it_is_no_concern_of_the_caller(self, rig: Rig) -> None:
        course = served(rig)
        course.expect(Aside)
        course.throw(MemoryError())
        assert (course.answer.status, rig.troubles.counts) == (200, {"check": 1})


class TestSame:
    def test_it_becomes_evidence(self, rig: Rig) -> None:
        (asked,) = checked(served(rig), answered(completion("Hello.")))
        assert (asked.limit_bytes, asked.limit_s) == (rig.config.cache.max_entry_bytes, LIMIT_S)
        outgoing = asked.outgoing
        assert (outgoing.url, outgoing.timeout_s) == ("https://own.test/v1/chat/completions", LIMIT_S)
        assert rig.cache.learnt == [(rig.cache.found.weighed, "shadow", True)]
        assert rig.cache.served == [rig.cache.found.weighed]
        (event,) = rig.checks
        assert (event.source, event.is_same, event.key, event.similarity) == ("shadow", True, "k" * 64, 0.97)
        assert (event.asked, event.scope, event.model) == (rig.event.outcome.asked, "s" * 64, "gpt-4o-mini")
        assert event.cost_usd == pytest.approx(5 * 1000 / 1e6)
        assert len(rig.cache.entries) == 1, "only another answer is worth keeping"
        assert rig.troubles.counts == {}

    def test_a_stream_is_asked_plainly(self, rig: Rig) -> None:
        call = request(stream=True, stream_options={"include_usage": True}, seed=7)
        (asked,) = checked(served(rig, call), answered(completion()))
        sent = json.loads(asked.outgoing.body)
        assert sent == {name: value for name, value in call.body.items() if name not in ("stream", "stream_options")}

    def test_it_leaves_nothing_upstream_and_is_no_retry_of_the_call(self, rig: Rig) -> None:
        call = request(store=True, metadata={"a": "b"})
        call = replace(call, headers={**call.headers, "idempotency-key": "x", "x-other": "y"})
        (asked,) = checked(served(rig, call), answered(completion()))
        assert {"store", "metadata"}.isdisjoint(json.loads(asked.outgoing.body))
        names = {name.lower() for name, _ in asked.outgoing.headers}
        assert "idempotency-key" not in names
        assert "x-other" in names

    def test_a_plain_request_is_sent_as_it_came(self, rig: Rig) -> None:
        call = request()
        (asked,) = checked(served(rig, call), answered(completion()))
        assert asked.outgoing.body == call.raw

    def test_a_backend_that_gives_up_sooner_is_left_to(self) -> None:
        own = {**SETTINGS["backends"]["own"], "timeout_s": 3.0}
        (asked,) = checked(served(Rig({**SETTINGS, "backends": {"own": own}})), answered(completion()))
        assert asked.outgoing.timeout_s == 3.0

    def test_a_route_decides_as_it_would(self) -> None:
        rig = Rig({**SETTINGS, "routes": {"auto": {"candidates": ["own/gpt-4o-mini"]}}})
        (asked,) = checked(served(rig, request(model="auto")), answered(completion()))
        assert json.loads(asked.outgoing.body)["model"] == "gpt-4o-mini"
        assert rig.checks[0].route == "auto"


class TestDifferent:
    def test_the_pair_is_wrong_evidence_and_the_answer_is_kept_for_its_question(self, rig: Rig) -> None:
        course = served(rig)
        checked(course, answered(completion("goodbye")))
        asked = rig.event.outcome.asked
        assert rig.cache.learnt == [(rig.cache.found.weighed, "shadow", False)]
        seen = Observation(rig.clock.time(), 0.97, None, False, "shadow")
        assert rig.cache.observed == [(asked, seen)]
        kept = rig.cache.entries[asked]
        assert (json.loads(kept.completion), kept.text, kept.backend) == (completion("goodbye"), "hi", "own")
        assert (kept.model, kept.encoder, kept.has_usage) == ("gpt-4o-mini", rig.encoder.name, True)
        assert rig.checks[0].is_same is False
        assert len(rig.events) == 1, "nobody called"

    def test_the_answer_is_not_kept_against_the_upstream_s_word(self, rig: Rig) -> None:
        fetched = Fetched(200, (*JSON_HEAD, ("cache-control", "no-store")), body_of(completion("goodbye")))
        checked(served(rig), fetched)
        assert ([is_same for *_, is_same in rig.cache.learnt], rig.cache.observed) == ([False], [])

    def test_nor_where_there_is_no_room(self, rig: Rig) -> None:
        rig.cache.keeps = False
        checked(served(rig), answered(completion("goodbye")))
        assert ([is_same for *_, is_same in rig.cache.learnt], rig.cache.observed) == ([False], [])


class TestNoVerdict:
    @pytest.mark.parametrize(
        "answer",
        [
            answered({"error": {}}, 500),
            Fetched(200, (("content-type", "text/html"),), b"<html>"),
            answered(b"{"),
            answered(completion(finish="length")),
            answered(completion("")),
            answered(completion(None, choices=[{
                "index": 0, "finish_reason": "tool_calls",
                "message": {"content": "x", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]},
            }])),
        ],
        ids=["500", "html", "damaged", "cut", "empty", "tool call"],
    )  # fmt: skip
    def test_of_an_answer_that_is_none(self, rig: Rig, answer: Fetched) -> None:
        checked(served(rig), answer)
        assert (rig.cache.learnt, rig.checks[0].is_same) == ([], None)
        assert rig.troubles.counts == {}

    @pytest.mark.parametrize("error", [OSError("refused"), Late()])
    def test_of_one_that_does_not_come(self, rig: Rig, error: Exception) -> None:
        checked(served(rig), error)
        assert (rig.cache.learnt, rig.checks[0].is_same) == ([], None)
        assert rig.checks[0].cost_usd is not None, "it may have been paid for"
        assert rig.troubles.counts == {}, "an upstream's trouble is none of ours"

    def test_of_one_that_is_cut_off(self, rig: Rig) -> None:
        course = served(rig)
        flow = course.expect(Aside).flow
        effect = next(flow)
        while isinstance(effect, Compute):
            effect = flow.send(effect.call())
        assert isinstance(effect, Fetch)
        flow.close()
        assert (rig.checks[0].is_same, rig.troubles.counts) == (None, {})
        assert rig.checks[0].cost_usd is not None, "it was asked, and paid for"

    def test_of_an_entry_that_says_nothing(self, rig: Rig) -> None:
        parts = [{"type": "text", "text": "hello"}]
        checked(served(rig, completion=body_of(completion(parts))), answered(completion()))  # type: ignore[arg-type]
        assert (rig.cache.learnt, rig.checks[0].is_same) == ([], None)

    def test_evidence_that_cannot_be_written_is_trouble_of_the_check_alone(self, rig: Rig) -> None:
        rig.cache.failing = {"learn"}
        checked(served(rig), answered(completion()))
        assert (rig.checks[0].is_same, rig.troubles.counts) == (None, {"check": 1})


class TestAllowance:
    def test_nothing_is_asked_beyond_the_day_s_dollars(self) -> None:
        rig = Rig(SETTINGS, spent_usd=0.99)
        assert checked(served(rig)) == []
        assert (rig.checks, rig.troubles.counts) == ([], {})

    def test_what_is_under_way_is_booked_when_the_process_ends(self, rig: Rig) -> None:
        course = served(rig)
        flow = course.expect(Aside).flow
        effect = next(flow)
        while isinstance(effect, Compute):
            effect = flow.send(effect.call())
        rig.checker.close()
        (event,) = rig.checks
        assert (event.is_same, event.cost_usd) == (None, rig.allowance._spent_usd)
        flow.close()
        rig.checker.close()
        assert len(rig.checks) == 1, "once"

    def test_what_was_asked_counts(self) -> None:
        rig = Rig(settings(check_usd_per_day=0.2))
        long = completion(usage={"prompt_tokens": 1, "completion_tokens": 190})
        assert len(checked(served(rig), answered(long))) == 1
        assert checked(served(rig)) == []
        rig.clock.advance(86_400)
        assert len(checked(served(rig), answered(long))) == 1, "the next day"

    def test_where_the_answer_says_nothing_of_tokens_the_guess_counts(self, rig: Rig) -> None:
        checked(served(rig), answered(completion(usage=None)))
        guess_usd = len(body_of(completion())) // 4 * 1000 / 1e6
        assert rig.checks[0].cost_usd == pytest.approx(guess_usd)

    def test_and_what_came_where_that_is_more(self, rig: Rig) -> None:
        endless = b'{"choices": [{"message": {"content": "' + b"x" * 4000
        checked(served(rig), answered(endless))
        assert rig.checks[0].cost_usd == pytest.approx(len(endless) // 4 * 1000 / 1e6)

    def test_what_other_processes_spend_counts_a_minute_later(self) -> None:
        rig = Rig(settings(check_usd_per_day=0.5))
        assert rig.allowance.spend(0.2)
        rig.spent_usd = 0.4
        assert rig.allowance.spend(0.1)
        rig.clock.advance(60)
        assert not rig.allowance.spend(0.15)
        rig.spent_usd = 0.0
        rig.clock.advance(60)
        assert not rig.allowance.spend(0.15), "what is not booked yet was spent even so"

    def test_without_a_price_nothing_is_asked(self) -> None:
        rig = Rig(settings())
        course = served(rig, request(model="own/unheard-of"))
        assert checked(course) == []
        assert (rig.checks, rig.troubles.counts) == ([], {"check": 1})

    def test_a_model_on_this_machine_is_free(self) -> None:
        local = {"own": {"base_url": "http://127.0.0.1:1/v1", "models": ["gpt-4o-mini"]}}
        rig = Rig({"cache": {"check_share": 1.0, "check_usd_per_day": 0.0}, "backends": local})
        assert len(checked(served(rig), answered(completion()))) == 1
        assert rig.checks[0].cost_usd == 0.0


class TestModelJudge:
    def rig(self, **cache: Any) -> Rig:
        own = {**SETTINGS["backends"]["own"], "prices": {**PRICES, "judge": PRICES["gpt-4o-mini"]}}
        return Rig({**settings(**cache), "backends": {"own": own}}, judge=ModelJudge("judge"))

    @pytest.mark.parametrize(("said", "is_same"), [("Yes", True), ("no.", False), ("They differ.", None)])
    def test_it_is_asked(self, said: str, is_same: Any) -> None:
        rig = self.rig()
        course = served(rig, request("why?"))
        _, asked = checked(course, answered(completion("goodbye")), answered(completion(said)))
        body = json.loads(asked.outgoing.body)
        assert (body["model"], asked.outgoing.url) == ("judge", "https://own.test/v1/chat/completions")
        assert '"question": "why?"' in body["messages"][0]["content"]
        assert [found for *_, found in rig.cache.learnt] == ([] if is_same is None else [is_same])
        assert rig.checks[0].is_same is is_same
        assert rig.checks[0].cost_usd == pytest.approx(2 * 5 * 1000 / 1e6)

    def test_not_where_the_answers_are_plainly_the_same(self) -> None:
        rig = self.rig()
        assert len(checked(served(rig), answered(completion("HELLO")))) == 1
        assert rig.checks[0].is_same is True

    def test_not_where_the_address_names_another_model(self) -> None:
        rig = self.rig()
        endpoint = "https://own.test/openai/deployments/gpt-4o-mini/chat/completions"
        course = served(rig, request(endpoint=endpoint))
        assert len(checked(course, answered(completion("goodbye")))) == 1
        assert (rig.checks[0].is_same, rig.troubles.counts) == (None, {"check": 1})

    def test_its_failure_is_no_verdict(self) -> None:
        rig = self.rig()
        checked(served(rig), answered(completion("goodbye")), answered({}, 429))
        assert (rig.checks[0].is_same, rig.cache.learnt) == (None, [])

    def test_nor_is_it_asked_beyond_the_day_s_dollars(self) -> None:
        rig = self.rig(check_usd_per_day=0.1)
        long = completion("goodbye", usage={"prompt_tokens": 1, "completion_tokens": 101})
        assert len(checked(served(rig), answered(long))) == 1
        assert rig.checks[0].is_same is None


class TestUndo:
    def test_the_pair_becomes_wrong_evidence(self, rig: Rig) -> None:
        rig.chance = 1.0
        outcome = served(rig).answer.outcome
        assert rig.checker.undo(outcome)
        ((weighed, source, is_same),) = rig.cache.learnt
        assert (weighed.key, weighed.similarity, source, is_same) == ("k" * 64, 0.97, "undo", False)
        assert (weighed.p_same, weighed.decision.p_wrong) == (1 - 0.002, outcome.p_wrong)
        (event,) = rig.checks
        assert (event.source, event.is_same, event.asked, event.cost_usd) == ("undo", False, outcome.asked, None)

    def test_an_entry_that_is_gone(self, rig: Rig) -> None:
        rig.chance = 1.0
        outcome = served(rig).answer.outcome
        rig.cache.entries.clear()
        assert not rig.checker.undo(outcome)

    @pytest.mark.parametrize("outcome", [Outcome("miss"), Outcome("hit", "exact", similarity=1.0)])
    def test_only_a_semantic_hit_can_be_taken_back(self, rig: Rig, outcome: Outcome) -> None:
        with pytest.raises(ValueError, match="only a semantic hit"):
            rig.checker.undo(outcome)

    def test_without_a_cache(self) -> None:
        assert not Rig(cache=None).checker.undo(Outcome("hit", "semantic", similarity=0.9))


class TestExploring:
    """A question that was asked upstream because of an entry's evidence, or by chance, tells of that entry."""

    doubt = weighed("d" * 64, 0.95)
    drawn = weighed("d" * 64, 0.95, ask=0.2)

    def asked(self, rig: Rig, answer: str = "Hello.", doubt: Any = doubt, text: str = "hi", **fields: Any) -> Any:
        """Settle a call that was not served an entry; returns the effects of its settlement."""
        doubted = entry("d" * 64, **fields)
        rig.cache.found = Found(None, 0.96, "evidence", doubted, doubt)
        course = Course(rig, request(text))
        flight = course.board()
        course.search()
        course.launch(head())
        ticket = flight.ticket
        assert ticket.recorder is not None
        ticket.recorder.feed(body_of(completion(answer)))
        ticket.recorder.end()
        effects: list[Effect] = []

        def perform(effect: Effect) -> Any:
            effects.append(effect)
            return None if isinstance(effect, Aside) else effect.call()  # type: ignore[union-attr]

        drive(ticket.settle(ticket), perform)
        drive(ticket.settle(ticket), perform)
        return effects

    @pytest.mark.parametrize(("answer", "is_same"), [("Hello.", True), ("goodbye", False)])
    def test_the_answers_are_compared_for_nothing(self, rig: Rig, answer: str, is_same: bool) -> None:
        effects = self.asked(rig, answer)
        assert [type(effect) for effect in effects] == [Compute, Background]
        key = rig.event.outcome.key
        seen = Observation(rig.clock.time(), 0.95, None, is_same, "explore")
        assert rig.cache.learnt == [(self.doubt, "explore", is_same)]
        assert rig.cache.observed == ([] if is_same else [(key, seen)])
        (event,) = rig.checks
        assert (event.source, event.is_same, event.key, event.asked) == ("explore", is_same, "d" * 64, key)
        assert (event.scope, event.model, event.cost_usd) == ("s" * 64, "gpt-4o-mini", None)

    def test_an_answer_that_is_not_kept_has_no_evidence(self, rig: Rig) -> None:
        rig.cache.keeps = False
        self.asked(rig, "goodbye")
        assert ([found for *_, found in rig.cache.learnt], rig.cache.observed) == ([False], [])

    def test_what_says_nothing_is_left_open(self, rig: Rig) -> None:
        self.asked(rig, completion=body_of(completion(None)))
        assert (rig.cache.learnt, rig.checks[0].is_same) == ([], None)

    def test_an_answer_that_may_not_be_stored_tells_nothing(self, rig: Rig) -> None:
        self.asked(rig, "")
        assert (rig.cache.learnt, rig.checks) == ([], [])

    def test_a_model_is_not_asked_for_what_was_doubted_anyway(self) -> None:
        rig = Rig(SETTINGS, judge=ModelJudge("judge"))
        self.asked(rig)
        assert (rig.cache.learnt, rig.checks) == ([], [])

    @pytest.mark.parametrize("verb", ["learn", "observe"])
    def test_trouble_is_counted(self, rig: Rig, verb: str) -> None:
        rig.cache.failing = {verb}
        self.asked(rig, "goodbye")
        assert (rig.checks, rig.troubles.counts) == ([], {"check": 1})

    def by_model(self, rig: Rig, answer: str, *answers: Any, **fields: Any) -> None:
        *_, beside = self.asked(rig, answer, self.drawn, **fields)
        assert isinstance(beside, Aside)
        left = list(answers)

        def perform(effect: Effect) -> Any:
            if isinstance(effect, Compute):
                return effect.call()
            assert isinstance(effect, Fetch)
            return left.pop(0)

        drive(beside.flow, perform)
        beside.ended()
        assert not left

    def judged(self) -> Rig:
        own = {**SETTINGS["backends"]["own"], "prices": {**PRICES, "judge": PRICES["gpt-4o-mini"]}}
        return Rig({**SETTINGS, "backends": {"own": own}}, judge=ModelJudge("judge"))

    @pytest.mark.parametrize(("said", "is_same"), [("Yes", True), ("no.", False), ("They differ.", None)])
    def test_a_model_is_asked_for_what_chance_drew(self, said: str, is_same: bool | None) -> None:
        rig = self.judged()
        self.by_model(rig, "goodbye", answered(completion(said)))
        assert rig.cache.learnt == ([] if is_same is None else [(self.drawn, "explore", is_same)])
        (event,) = rig.checks
        assert (event.source, event.is_same, event.p_wrong) == ("explore", is_same, 0.002)
        assert event.cost_usd is not None

    def test_not_where_the_answers_are_plainly_the_same_or_say_nothing(self) -> None:
        rig = self.judged()
        self.by_model(rig, "HELLO")
        self.by_model(rig, "Hello.", text="why?", completion=body_of(completion(None)))
        assert [(event.is_same, event.cost_usd) for event in rig.checks] == [(True, None), (None, None)]

    def test_its_trouble_is_counted(self) -> None:
        rig = self.judged()
        rig.cache.failing = {"learn"}
        self.by_model(rig, "goodbye", answered(completion("Yes")))
        assert rig.troubles.counts == {"check": 1}
        assert rig.checks[0].cost_usd is not None, "it was paid for"

    def test_few_at_a_time(self) -> None:
        rig = self.judged()
        beside = [self.asked(rig, "goodbye", self.drawn, str(number))[-1] for number in range(MOST_AT_ONCE)]
        assert not any(isinstance(effect, Aside) for effect in self.asked(rig, "goodbye", self.drawn))
        for effect in beside:
            effect.ended()

    def test_no_threads_are_no_trouble_for_the_caller(self, rig: Rig) -> None:
        flight_ticket = Course(rig, request()).expect(Board).ticket
        flight_ticket.doubted, flight_ticket.entry = object(), entry()
        flow = rig.checker.explore(flight_ticket)
        assert isinstance(next(flow), Background)
        with pytest.raises(StopIteration):
            flow.throw(RuntimeError("can't start new thread"))
        assert rig.troubles.counts == {"check": 1}


def test_without_a_cache_what_is_found_is_booked_alone() -> None:
    """No hit comes then; a cache that was taken away must not be missed."""
    rig = Rig(SETTINGS)
    course = served(rig)
    aside = course.expect(Aside)
    explored = TestExploring().asked(rig, "goodbye")
    assert isinstance(explored[-1], Background)
    rig.checker._cache = None
    assert len(checked(served(rig, request("why?")), answered(completion("goodbye")))) == 1
    ticket = Course(rig, request("how?")).expect(Board).ticket
    ticket.doubted, ticket.entry = Doubted(entry("d" * 64), weighed("d" * 64, 0.9)), entry(completion=b"{}")
    ticket.entry = replace(ticket.entry, completion=body_of(completion("goodbye")))
    ticket.outcome = ticket.outcome.with_changes(is_stored=True)
    drive(rig.checker.explore(ticket), lambda effect: effect.call())  # type: ignore[union-attr]
    assert [event.source for event in rig.checks] == ["explore", "shadow", "explore"]
    assert rig.troubles.counts == {}
    aside.ended()


def test_the_ledger_that_cannot_be_read_stops_the_check_alone() -> None:
    rig = Rig(SETTINGS)

    def unreadable(at_s: float) -> float:
        raise CacheError("no ledger")

    rig.allowance._spent_since = unreadable
    assert checked(served(rig)) == []
    assert rig.troubles.counts == {"check": 1}


def test_a_hit_says_how_likely_it_is_wrong(rig: Rig) -> None:
    rig.chance = 1.0
    rig.cache.found = Found(entry(), 0.971, weighed=weighed("k" * 64, 0.971, p_wrong=0.0042))
    course = Course(rig, request())
    course.board()
    course.search()
    headers = dict(course.answer.headers)
    assert headers["cache-status"] == 'llm-proxy; hit; detail="semantic; similarity=0.971; p_wrong=0.004"'
    assert headers["x-llm-proxy-id"] == course.answer.outcome.asked[:16]
    assert (course.answer.outcome.scope, course.answer.outcome.p_wrong) == ("s" * 64, 0.0042)
