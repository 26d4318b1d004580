"""How the engine gives a route the vector it needs, and what it tells of calls that end."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from llm_proxy.engine.effects import Board, Compute, Forward, Late, Launch
from llm_proxy.engine.fingerprint import conversation_of
from llm_proxy.engine.flights import Flight
from llm_proxy.errors import CacheError, LLMProxyError, RouterError
from llm_proxy.route.base import Prediction
from llm_proxy.testing import FakeEncoder, FakeHead
from llm_proxy.types import ChatRequest
from tests.fakes import Rig, body_of, completion, head, request

SECTIONS: Any = {
    "backends": {
        "cloud": {"base_url": "https://cloud.test/v1", "api_key": "secret"},
        "local": {"base_url": "http://localhost:1/v1"},
    },
    "routes": {"auto": {"candidates": ["local/small", "cloud/big"]}},
}
SYSTEM: Any = {"role": "system", "content": "be brief"}
HARD = {"small": 0.2, "big": 0.9}
TOOL_RESULT = [
    {"role": "user", "content": "what is the weather?"},
    {"role": "assistant", "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": ""}}]},
    {"role": "tool", "tool_call_id": "1", "content": "rain"},
]


def says(text: str) -> dict[str, float]:
    return HARD if "hard" in text or "weather" in text else {"small": 0.9, "big": 0.9}


def rig_with(oracle: FakeHead | None = None, **options: Any) -> Rig:
    sections = {**SECTIONS, "cache": options.pop("cache_settings", {})}
    return Rig(sections, heads={"auto": oracle or FakeHead(says, models=("small", "big"))}, **options)


class Course:
    """Steps a call to the request that it sends, and keeps the effects on the way there."""

    def __init__(self, rig: Rig, call: ChatRequest, *, late: Late | None = None) -> None:
        self.rig, self.computed, self.flight = rig, [], None
        self.flow = rig.engine.answer(call)
        effect: Any = next(self.flow)
        while not isinstance(effect, (Forward, Launch)):
            if isinstance(effect, Compute) and late is not None:
                self.computed.append(effect)
                effect = self.flow.throw(late)
            elif isinstance(effect, Compute):
                self.computed.append(effect)
                effect = self._tried(effect)
            else:
                assert isinstance(effect, Board)
                self.flight = Flight(effect.ticket, lock=threading.RLock(), on_over=lambda flight: None)
                effect = self.flow.send((self.flight, self.flight.join()))
        self.effect = effect

    def _tried(self, effect: Compute) -> Any:
        try:
            found = effect.call()
        except (LLMProxyError, RuntimeError) as exc:
            return self.flow.throw(exc)
        return self.flow.send(found)

    @property
    def asked(self) -> str:
        return str(self.effect.outgoing.model)

    def end(self, status: int = 200) -> Any:
        """Let the upstream answer; returns the answer."""
        answered = head((body_of(completion()),), status=status)
        if isinstance(self.effect, Launch):
            self.effect.opened(answered)
        with pytest.raises(StopIteration) as stop:
            self.flow.send(answered)
        return stop.value.value

    def settle(self) -> None:
        """Let a recorded answer end well."""
        assert self.flight is not None
        ticket = self.flight.ticket
        ticket.recorder.feed(body_of(completion()))
        ticket.recorder.end()
        flow, result = self.rig.settler.settle(ticket), None
        try:
            while True:
                result = flow.send(result).call()
        except StopIteration:
            return

    def throw(self, exc: BaseException) -> None:
        with pytest.raises(type(exc)):
            self.flow.throw(exc)


class TestVector:
    @pytest.mark.parametrize(("text", "model"), [("an easy one", "small"), ("a hard one", "big")])
    def test_the_one_of_the_cache_s_search_decides(self, text: str, model: str) -> None:
        rig = rig_with()
        course = Course(rig, request(text, model="auto"))
        assert (course.asked, rig.encoder.texts, len(course.computed)) == (model, [text], 1)

    @pytest.mark.parametrize(
        ("control", "cache_settings"),
        [("", {"semantic": False}), ("no-store", {}), ("no-cache", {}), ("", {"enabled": False})],
    )
    def test_where_the_cache_makes_none_it_is_made_for_the_route(self, control: str, cache_settings: Any) -> None:
        rig = rig_with(cache_settings=cache_settings)
        course = Course(rig, request("a hard one", model="auto", control=control))
        assert (course.asked, rig.encoder.texts) == ("big", ["a hard one"])
        (effect,) = course.computed
        assert (effect.limit_s, effect.is_quick) == (rig.config.encoder.wait_s, False)

    def test_a_quick_encoder_needs_no_thread(self) -> None:
        rig = rig_with(cache_settings={"enabled": False})
        rig.encoder.slowest_s = 0.001
        assert Course(rig, request("a hard one", model="auto")).computed[0].is_quick

    def test_a_tool_s_result_is_decided_by_the_user_s_last_text(self) -> None:
        rig = rig_with()
        course = Course(rig, request(model="auto", messages=TOOL_RESULT))
        assert (course.asked, rig.encoder.texts) == ("big", ["what is the weather?"])
        assert course.flight is not None
        assert course.flight.ticket.encoding is None, "it is not the vector of what is stored"

    def test_the_cache_gets_it_when_it_stores_the_answer(self) -> None:
        rig = rig_with()
        course = Course(rig, request("a hard one", model="auto", control="no-cache"))
        course.end()
        course.settle()
        (stored,) = rig.cache.entries.values()
        assert stored.vector is not None
        assert (rig.encoder.texts, rig.cache.attached) == (["a hard one"], {})

    def test_but_not_where_it_is_not_searched_by_vectors(self) -> None:
        rig = rig_with(cache_settings={"semantic": False})
        course = Course(rig, request("a hard one", model="auto"))
        course.end()
        course.settle()
        (stored,) = rig.cache.entries.values()
        assert (stored.vector, stored.encoder) == (None, "")

    @pytest.mark.parametrize(
        "call",
        [
            request("a hard one", model="local/small"),
            request(" ", model="auto"),
            request(model="auto", messages=[SYSTEM]),
        ],
        ids=["a model that was named", "no text", "nothing of the user's"],
    )
    def test_it_is_not_made_for_nothing(self, call: ChatRequest) -> None:
        rig = rig_with(cache_settings={"semantic": False})
        assert (Course(rig, call).asked, rig.encoder.texts) == ("small", [])

    def test_nor_for_a_route_without_a_head_or_with_one_that_knows_too_little(self) -> None:
        for heads in (None, {"auto": FakeHead({"small": 0.1})}):
            rig = Rig({**SECTIONS, "cache": {"enabled": False}}, heads=heads)
            assert (Course(rig, request("hard", model="auto")).asked, rig.encoder.texts) == ("small", [])

    def test_nor_without_an_encoder(self) -> None:
        rig = rig_with(cache_settings={"enabled": False}, encoder=None)
        assert Course(rig, request("hard", model="auto")).asked == "small"

    def test_nor_while_the_encoder_rests(self) -> None:
        rig = rig_with(cache_settings={"enabled": False})
        rig.encoder.is_open = True
        assert (Course(rig, request("hard", model="auto")).asked, rig.encoder.texts) == ("small", [])


class TestTrouble:
    @pytest.mark.parametrize(("late", "counted"), [(Late(), 1), (Late(is_begun=False), 0)])
    @pytest.mark.parametrize("cache_settings", [{}, {"enabled": False}])
    def test_a_late_vector_leaves_it_to_the_rules_and_is_asked_for_once(
        self, cache_settings: Any, late: Late, counted: int
    ) -> None:
        class Counting(FakeEncoder):
            late = 0

            def note_timeout(self) -> None:
                self.late += 1

        rig = rig_with(cache_settings=cache_settings, encoder=Counting())
        course = Course(rig, request("a hard one", model="auto"), late=late)
        assert (course.asked, len(course.computed), rig.encoder.late) == ("small", 1, counted)

    @pytest.mark.parametrize(
        ("error", "part"), [(CacheError("no weights"), "encoder"), (RuntimeError("the pool is closed"), "engine")]
    )
    def test_an_encoder_that_fails_leaves_it_to_the_rules(self, error: Exception, part: str) -> None:
        rig = rig_with(cache_settings={"enabled": False}, encoder=FakeEncoder(error=error))
        assert Course(rig, request("a hard one", model="auto")).asked == "small"
        assert rig.troubles.counts == {part: 1}

    def test_one_that_failed_for_the_cache_is_not_asked_again(self) -> None:
        rig = rig_with(encoder=FakeEncoder(error=CacheError("no weights")))
        course = Course(rig, request("a hard one", model="auto"))
        assert (course.asked, rig.encoder.texts, rig.troubles.counts) == ("small", ["a hard one"], {"encoder": 1})

    @pytest.mark.parametrize(
        "oracle",
        [
            FakeHead(HARD, error=RouterError("no provider")),
            FakeHead({"small": 0.2, "big": float("nan")}),
            FakeHead({"small": 0.2}, models=("small", "big")),
        ],
        ids=["raises", "nan", "silent"],
    )
    def test_a_head_that_fails_leaves_it_to_the_rules(self, oracle: FakeHead) -> None:
        rig = rig_with(oracle)
        assert Course(rig, request("a hard one", model="auto")).asked == "small"
        assert rig.troubles.counts == {"router": 1}

    def test_a_head_with_a_bug_means_the_strongest(self) -> None:
        rig = rig_with(FakeHead({"small": 0.9, "big": 0.9}, error=KeyError("bug")))
        course = Course(rig, request("an easy one", model="auto"))
        assert (course.asked, rig.troubles.counts) == ("big", {"router": 1})
        assert course.end().outcome.reason == "default: KeyError"

    def test_so_does_a_request_that_nobody_can_take(self) -> None:
        backends = {name: {**settings, "has_tools": False} for name, settings in SECTIONS["backends"].items()}
        sections = {**SECTIONS, "backends": backends}
        course = Course(Rig(sections), request("hi", model="auto", tools=[{"type": "function"}]))
        assert course.asked == "big"
        assert course.end().outcome.reason == (
            "default: route 'auto': no candidate takes this request: local/small (no tools), cloud/big (no tools)"
        )


class TestOutcome:
    def test_it_says_why(self) -> None:
        course = Course(rig_with(), request("a hard one", model="auto"))
        assert course.end().outcome.reason == "p_good 0.90"

    def test_not_where_the_model_was_named(self) -> None:
        assert Course(rig_with(), request("hi", model="cloud/big")).end().outcome.reason == ""

    def test_a_foretold_length_is_compared_with_what_came(self) -> None:
        rig = rig_with(FakeHead({"small": 0.1, "big": Prediction(0.9, 70.0)}))
        learnt: list[Any] = []
        rig.selector.observe = learnt.append  # type: ignore[method-assign]
        rig.settler._appraiser = rig.selector
        course = Course(rig, request("why?", model="auto"))
        course.end()
        course.settle()
        assert [(call.model, call.foretold_tokens) for call in learnt] == [("big", 70.0)]


class TestHealth:
    def rest(self, rig: Rig) -> float:
        return rig.selector.health.resting_s("local", "small")

    def ended(self, status: int = 0, *, error: BaseException | None = None, control: str = "") -> Rig:
        """Three calls that end so."""
        rig = rig_with(cache_settings={"semantic": False})
        for number in range(3):
            course = Course(rig, request(f"{number}", model="local/small", control=control))
            assert rig.selector.health.under_way("local") == 1
            if error is None:
                course.end(status)
            else:
                course.throw(error)
        assert rig.selector.health.under_way("local") == 0
        return rig

    @pytest.mark.parametrize("control", ["", "no-store"])
    @pytest.mark.parametrize(
        ("status", "is_resting"), [(500, True), (503, True), (429, True), (400, False), (401, False), (404, False)]
    )
    def test_by_status(self, status: int, is_resting: bool, control: str) -> None:
        assert bool(self.rest(self.ended(status, control=control))) is is_resting

    @pytest.mark.parametrize("control", ["", "no-store"])
    def test_by_what_the_transport_raises(self, control: str) -> None:
        assert self.rest(self.ended(error=OSError("refused"), control=control)) == 30.0

    def test_not_by_callers_who_leave(self) -> None:
        assert self.rest(self.ended(error=GeneratorExit(), control="no-store")) == 0.0

    def test_a_candidate_that_rests_is_passed_over(self) -> None:
        rig = self.ended(500)
        course = Course(rig, request("an easy one", model="auto"))
        assert course.asked == "big"
        assert course.end().outcome.reason == "p_good 0.90; 1 resting after failures"

    def test_an_answer_makes_it_well(self) -> None:
        rig = self.ended(500)
        course = Course(rig, request("x", model="local/small"))
        course.end()
        assert rig.selector.health.under_way("local") == 1
        course.settle()
        assert (self.rest(rig), rig.selector.health.under_way("local")) == (0.0, 0)

    def test_so_does_one_that_nobody_records(self) -> None:
        rig = self.ended(500)
        Course(rig, request("x", model="local/small", control="no-store")).end()
        assert self.rest(rig) == 0.0

    @pytest.mark.parametrize(
        ("reason", "is_resting"), [("aborted", False), ("incomplete", True), ("ReadError", True), ("too-large", False)]
    )
    def test_by_how_an_answer_breaks_off(self, reason: str, is_resting: bool) -> None:
        rig = rig_with(cache_settings={"semantic": False, "max_entry_bytes": 10})
        for number in range(3):
            course = Course(rig, request(f"{number}", model="local/small"))
            course.end()
            assert course.flight is not None
            ticket = course.flight.ticket
            if reason == "too-large":
                ticket.recorder.feed(b" " * 11)
            ticket.lost(ticket, "incomplete" if reason == "too-large" else reason)
        assert bool(self.rest(rig)) is is_resting
        assert rig.selector.health.under_way("local") == 0

    def test_what_was_never_sent_says_nothing(self) -> None:
        rig = Rig(SECTIONS)
        flow = rig.engine.answer(request("x", model="local/small", control="only-if-cached"))
        effect = next(flow)
        with pytest.raises(StopIteration) as stop:
            flow.send(effect.call())
        assert stop.value.value.status == 504
        assert len(rig.selector.health._breakers) == 0


class TestConversation:
    def of(self, *messages: Any, tenant: str = "api_key", **headers: str) -> str:
        call = ChatRequest({"messages": list(messages)}, b"", {"authorization": "Bearer a", **headers})
        return conversation_of(call, tenant)

    def test_it_is_the_same_at_every_turn(self) -> None:
        first = {"role": "user", "content": "hi"}
        later = [{"role": "assistant", "content": "hello"}, {"role": "user", "content": "why?"}]
        assert self.of(SYSTEM, first) == self.of(SYSTEM, first, *later) != ""
        parts = {"role": "user", "content": [{"type": "text", "text": "hi"}]}
        assert self.of(SYSTEM, first) == self.of(SYSTEM, parts)

    def test_another_beginning_or_another_caller_is_another_one(self) -> None:
        first = {"role": "user", "content": "hi"}
        known = {
            self.of(SYSTEM, first),
            self.of(first),
            self.of(first, authorization="Bearer b"),
            self.of({"role": "user", "content": "hi!"}),
            self.of({"role": "system", "content": "hi"}, first),
            self.of({"role": "developer", "content": "hi"}, first),
        }
        assert len(known) == 6

    def test_images_are_not_read(self) -> None:
        parts = [{"type": "text", "text": "hi"}, {"type": "image_url", "image_url": {"url": "x" * 9}}]
        assert self.of({"role": "user", "content": parts}) == self.of({"role": "user", "content": "hi"})

    @pytest.mark.parametrize("messages", [[], [None, 3], [{"role": "system", "content": "be brief"}]])
    def test_without_a_user_there_is_none(self, messages: list[Any]) -> None:
        assert self.of(*messages) == ""
