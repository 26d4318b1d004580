"""Steps `Engine.answer` to its upstream: routes, a store that opens, what is tended, what is forwarded."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llm_proxy.engine.effects import Background, Board, Compute, Forward, Late
from llm_proxy.errors import BackendUnavailable, CacheError, RouterError
from llm_proxy.types import ChatRequest
from tests.engine.flow_kit import Course, flown, led_by, stored
from tests.fakes import ENDPOINT, Rig, head, request


@pytest.fixture
def rig() -> Rig:
    return Rig()


ROUTED: Any = {
    "backends": {
        "cloud": {"base_url": "https://cloud.test/v1", "api_key": "secret", "models": ["big"]},
        "local": {"base_url": "http://localhost:1/v1", "timeout_s": 9},
    },
    "routes": {"auto": {"candidates": ["local/small", "cloud/big"], "long_prompt_chars": 100}},
    "aliases": {"gpt-4o": "auto", "mini": "gpt-4o-mini"},
}


class TestRouting:
    @pytest.mark.parametrize(
        ("model", "text", "backend", "asked"),
        [
            ("auto", "hi", "local", "small"),
            ("gpt-4o", "hi" * 100, "cloud", "big"),
            ("big", "hi", "cloud", "big"),
            ("local/x", "hi", "local", "x"),
        ],
    )
    def test_a_name_leads_to_a_backend(self, model: str, text: str, backend: str, asked: str) -> None:
        rig = Rig(ROUTED)
        course, _ = led_by(rig, request(text, model=model))
        outgoing = course.effect.outgoing
        assert (outgoing.backend, outgoing.model, json.loads(outgoing.body)["model"]) == (backend, asked, asked)
        assert outgoing.url.startswith(rig.config.backends[backend].base_url)
        course.launch(head())
        is_route = model in ("auto", "gpt-4o")
        outcome = course.answer.outcome
        assert (outcome.backend, outcome.route, outcome.model) == (backend, "auto" if is_route else "", asked)

    def test_bypassed_calls_are_routed_too(self) -> None:
        course = Course(Rig(ROUTED), request(model="auto", control="no-store"))
        assert course.expect(Forward).outgoing.backend == "local"

    def test_an_alias_renames_where_the_call_would_go_anyway(self) -> None:
        course, _ = led_by(Rig(ROUTED), request(model="mini"))
        outgoing = course.effect.outgoing
        assert (outgoing.url, json.loads(outgoing.body)["model"]) == ("", "gpt-4o-mini")

    def test_who_is_good_enough_is_remembered_for_the_answer_s_worth(self) -> None:
        rig = Rig(ROUTED)
        _, flight = led_by(rig, request(model="auto"))
        names = [f"{backend}/{model}" for backend, model in flight.ticket.rivals]
        assert names == list(rig.config.routes["auto"].candidates)
        assert led_by(Rig(ROUTED), request(model="mini"))[1].ticket.rivals == ()

    @pytest.mark.parametrize("error", [RouterError("no"), KeyError("bug")])
    def test_a_failing_router_means_the_strongest_candidate(self, error: Exception) -> None:
        class Failing:
            def score(self, request: ChatRequest, encoding: Any) -> Any:
                raise error

        rig = Rig(ROUTED)
        rig.selector._planner._routers["auto"] = Failing()
        course, _ = led_by(rig, request(model="auto"))
        assert course.effect.outgoing.backend == "cloud"
        assert rig.troubles.counts == {"router": 1}

    def test_without_a_backend_it_says_so(self, rig: Rig) -> None:
        course = Course(rig, request(endpoint="", model="m"))
        flight = course.board()
        with pytest.raises(BackendUnavailable, match=r"no backend serves the model 'm'; configure one"):
            course.search()
        assert (flight.state, rig.event.error, rig.event.http_status) == ("failed", "BackendUnavailable", 0)


def test_the_base_url_is_the_address_without_path_and_query() -> None:
    assert request(endpoint=f"{ENDPOINT}?api-version=1").base_url == "https://api.openai.com/v1"
    assert request(endpoint="").base_url == ""


class TestOpening:
    """A store that is not open yet is opened off the event loop, and within bounds."""

    def test_the_lookup_waits_for_it(self, rig: Rig) -> None:
        stored(rig, request())
        rig.cache.is_open = False
        course = Course(rig, request())
        effect = course.expect(Compute)
        assert (effect.call, effect.limit_s, effect.is_quick) == (rig.cache.open_store, 1.0, True)
        course.search()
        assert course.answer.outcome.kind == "exact"

    @pytest.mark.parametrize(
        ("outcome", "detail", "troubles"),
        [(Late(), "cache-late", {}), (CacheError("locked"), "trouble", {"cache": 1})],
    )
    def test_a_call_goes_on_without_it(self, rig: Rig, outcome: Exception, detail: str, troubles: Any) -> None:
        stored(rig, request())
        rig.cache.is_open = False
        course = Course(rig, request())
        course.throw(outcome)
        flight = flown(course.expect(Board).ticket)
        flight.has_forerunner = True
        course.board(flight)
        course.launch(head())
        assert course.answer.outcome.cache_status == f'llm-proxy; fwd=miss; detail="{detail}"'
        assert (course.answer.flight, rig.troubles.counts) == (flight, troubles)
        assert rig.cache.timeouts == isinstance(outcome, Late)

    def test_nothing_is_found_in_it(self, rig: Rig) -> None:
        rig.cache.is_open = False
        course = Course(rig, request(control="only-if-cached"))
        course.throw(Late())
        assert (course.answer.status, course.answer.outcome.detail) == (504, "cache-late")


class TestTending:
    """What hits changed is written in the background."""

    def tended(self, rig: Rig) -> Course:
        rig.cache.is_tending_due = True
        stored(rig, request())
        return Course(rig, request())

    def test_a_hit_waits_for_no_disk(self, rig: Rig) -> None:
        course = self.tended(rig)
        effect = course.expect(Background)
        assert (len(rig.events), rig.cache.tended) == (1, 0)
        course.send(None)
        assert course.answer.status == 200
        effect.call()
        assert rig.cache.tended == 1

    def test_its_trouble_is_counted(self, rig: Rig) -> None:
        effect = self.tended(rig).expect(Background)
        rig.cache.failing = {"tend"}
        effect.call()
        assert rig.troubles.counts == {"cache": 1}

    def test_no_threads_are_no_trouble_for_the_caller(self, rig: Rig) -> None:
        course = self.tended(rig)
        course.throw(RuntimeError("can't start new thread"))
        assert (course.answer.status, len(rig.events), rig.troubles.counts) == (200, 1, {"cache": 1})

    def test_without_a_cache_there_is_nothing_to_write(self) -> None:
        for effect in Rig(cache=None).settler.tend():
            effect.call()  # type: ignore[union-attr]


class TestForwarded:
    """Why a call went upstream. Source: RFC 9211 section 2.2."""

    def status(self, rig: Rig, **options: Any) -> str:
        course = Course(rig, request(**options))
        if isinstance(course.effect, Board):
            course.board(is_shareable=course.effect.is_shareable)
        if isinstance(course.effect, Compute):
            course.search()
        if isinstance(course.effect, Forward):
            course.send(head())
        elif course.effect is not None:
            course.launch(head())
        found: str = course.answer.outcome.cache_status
        return found

    def test_the_reasons(self, rig: Rig) -> None:
        assert self.status(rig) == "llm-proxy; fwd=uri-miss"
        assert self.status(rig, control="no-store") == 'llm-proxy; fwd=bypass; detail="no-store"'
        stored(rig, request())
        assert self.status(rig, control="no-cache") == "llm-proxy; fwd=request"
        assert self.status(rig, control="max-age=1") == "llm-proxy; fwd=request"

    def test_an_entry_that_does_not_do(self, rig: Rig) -> None:
        stored(rig, request(), has_usage=False)
        assert self.status(rig) == "llm-proxy; fwd=miss"
        stored(rig, request(), expires_s=1.0)
        assert self.status(rig) == "llm-proxy; fwd=stale"

    def test_what_went_nowhere(self, rig: Rig) -> None:
        assert self.status(rig, control="only-if-cached") == "llm-proxy"
