"""The engine with calls of the other APIs: where their answers are found, and what is for chat completions only."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from llm_proxy.backends.delays import AT_LEAST
from llm_proxy.cache.judge import ModelJudge
from llm_proxy.config import CacheConfig
from llm_proxy.engine.asking import chatting, is_plain, says
from llm_proxy.engine.effects import Aside, Compute, Effect, Fetch, Forward, Launch
from llm_proxy.engine.fingerprint import fingerprint
from llm_proxy.types import API_PATHS, Bypass, ChatRequest, Fingerprint
from llm_proxy.wire.apis import parse_call
from tests.apis_kit import TEXT, message, response, sse, streamed_response
from tests.engine.attempts_kit import Attempting
from tests.engine.attempts_kit import rig as attempting_rig
from tests.engine.cascade_kit import rig as cascading_rig
from tests.engine.flow_kit import Course
from tests.engine.test_shadow import answered, checked, drive, served
from tests.fakes import Found, Rig, body_of, entry, head, weighed

FUNCTION = {"type": "function", "name": "f", "parameters": {}}


def call(api: str = "responses", *, endpoint: str = "https://api.openai.com/v1", **fields: Any) -> ChatRequest:
    given = {"prompt": "hi"} if api == "completions" else {"input": "hi"}
    body = {"model": "gpt-4o-mini", **given, **fields}
    url = endpoint and endpoint + API_PATHS[api]
    return parse_call(json.dumps(body).encode(), api=api, headers={"authorization": "Bearer k"}, endpoint=url)


def printed(request: ChatRequest, **settings: Any) -> Fingerprint:
    found = fingerprint(request, destination="here", settings=CacheConfig(**settings))
    assert isinstance(found, Fingerprint)
    return found


class TestFingerprint:
    def test_the_last_text_of_a_response_is_left_open(self) -> None:
        one, other = printed(call()), printed(call(input=[{"role": "user", "content": "ho"}]))
        assert (one.text, other.text, one.scope) == ("hi", "ho", other.scope)
        assert one.key != other.key

    def test_the_forms_of_an_input_are_one_question(self) -> None:
        parts = [{"type": "input_text", "text": "hi"}]
        forms = ["hi", [{"role": "user", "content": "hi"}], [{"type": "message", "role": "user", "content": parts}]]
        assert len({printed(call(input=form)).key for form in forms}) == 1

    @pytest.mark.parametrize(
        "fields",
        [
            {"instructions": "x"}, {"temperature": 0.5}, {"reasoning": {"effort": "low"}}, {"store": False},
            {"text": {"format": {"type": "json_object"}}}, {"tools": [FUNCTION]}, {"max_output_tokens": 9},
            {"input": [{"role": "assistant", "content": "no"}, {"role": "user", "content": "hi"}]},
        ],
    )  # fmt: skip
    def test_what_changes_a_response_is_in_its_scope(self, fields: dict[str, Any]) -> None:
        assert printed(call(**fields)).scope != printed(call()).scope

    @pytest.mark.parametrize(
        "fields", [{"metadata": {"a": "b"}}, {"user": "ann"}, {"stream": True}, {"service_tier": "flex"}]
    )
    def test_what_does_not_is_not(self, fields: dict[str, Any]) -> None:
        assert printed(call(**fields)) == printed(call())

    @pytest.mark.parametrize(
        "fields",
        [
            {"include": ["message.output_text.logprobs"]},
            {"top_logprobs": 2},
            {"input": [{"type": "function_call_output", "call_id": "c", "output": "7"}]},
            {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "data:,"}]}]},
        ],
    )
    def test_some_are_for_exact_keys_only(self, fields: dict[str, Any]) -> None:
        assert printed(call(**fields)).text is None

    def test_earlier_texts_may_be_worded_differently_where_that_is_allowed(self) -> None:
        earlier = [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}]
        found = printed(call(input=[*earlier, {"role": "user", "content": "hi"}]), context="similar")
        other = printed(
            call(input=[{"role": "user", "content": "uno"}, *earlier[1:], {"role": "user", "content": "hi"}])
        )
        assert found.turns == ("one",)
        assert found.scope not in (other.scope, printed(call(), context="similar").scope)

    @pytest.mark.parametrize("api", ["completions", "embeddings"])
    def test_the_others_are_for_the_very_same_request(self, api: str) -> None:
        found = printed(call(api))
        assert (found.text, found.key) == (None, found.scope)
        assert printed(call(api, user="ann", stream=True)) == found
        for fields in ({"dimensions": 8}, {"encoding_format": "base64"}, {"suffix": "x"}, {"best_of": 2}):
            assert printed(call(api, **fields)).key != found.key

    def test_apis_never_meet(self) -> None:
        body = {"model": "m", "input": "hi", "prompt": "hi", "messages": [{"role": "user", "content": "hi"}]}
        raw = json.dumps(body).encode()
        calls = [parse_call(raw, api=api, headers={}) for api in API_PATHS if api != "responses"]
        del body["prompt"]
        calls.append(parse_call(json.dumps(body).encode(), api="responses", headers={}))
        found = [printed(one) for one in calls]
        assert len({one.key for one in found}) == len({one.scope for one in found}) == len(API_PATHS)

    def test_one_body_read_for_two_apis_is_two_questions(self) -> None:
        embedded = call("embeddings")
        assert printed(replace(embedded, api="responses")).key != printed(embedded).key

    def test_why_it_stays_out_is_said(self) -> None:
        settings = CacheConfig(max_temperature=0.5)
        for fields, reason in (({"background": True}, "background"), ({"temperature": 1}, "temperature")):
            found = fingerprint(call(**fields), destination="here", settings=settings)
            assert found == Bypass(reason)


class TestFlow:
    @pytest.mark.parametrize("api", ["responses", "completions", "embeddings"])
    def test_it_goes_to_its_own_place(self, api: str) -> None:
        made = Rig({"cache": {"semantic": False}, "backends": {"own": {"base_url": "https://own.test/v1"}}})
        course = Course(made, call(api, endpoint=""))
        course.board()
        assert course.expect(Launch).outgoing.url == "https://own.test/v1" + API_PATHS[api]

    def test_a_settled_response_is_found_again(self) -> None:
        made = Rig({"cache": {"semantic": False}})
        course = Course(made, call())
        ticket = course.board().ticket
        course.launch(head())
        assert ticket.recorder is not None
        ticket.recorder.feed(body_of(response({"model": "m"})))
        ticket.recorder.end()
        drive(ticket.settle(ticket), lambda effect: effect.call())  # type: ignore[union-attr]
        streamed = Course(made, call(stream=True)).answer
        assert streamed.body.startswith(b"event: response.created\n")
        (stored,) = made.cache.entries.values()
        assert (stored.text, stored.has_usage) == ("hi", True)

    @pytest.mark.parametrize(("model", "detail"), [("cut", "incomplete"), ("fails", "error"), ("refuses", "refusal")])
    def test_what_may_not_be_stored_is_not(self, model: str, detail: str) -> None:
        made = Rig({"cache": {"semantic": False}})
        course = Course(made, call(stream=True))
        ticket = course.board().ticket
        course.launch(head(content_type="text/event-stream"))
        assert ticket.recorder is not None
        for event in streamed_response(response({"model": model})):
            ticket.recorder.feed(sse(event, event["type"]))
        drive(ticket.settle(ticket), lambda effect: effect.call())  # type: ignore[union-attr]
        assert (made.cache.entries, made.event.outcome.detail) == ({}, detail)

    def test_a_damaged_entry_is_asked_for_again(self) -> None:
        made = Rig({"cache": {"semantic": False}})
        key = made.dispatcher.resolve(call()).identity
        found = fingerprint(call(), destination=key, settings=made.config.cache)
        assert isinstance(found, Fingerprint)
        made.cache.entries[found.key] = entry(found.key, completion=b"{")
        course = Course(made, call())
        course.board()
        course.expect(Launch)
        assert made.troubles.counts == {"cache": 1}


class TestForChatOnly:
    def test_cascades(self) -> None:
        course = Course(cascading_rig(), call(model="auto", endpoint=""))
        course.board()
        asking = course.expect(Launch).asking
        assert asking is not None
        assert isinstance(next(asking), Forward)  # a cascade would hold the answer back
        asking.close()

    def test_rivals(self) -> None:
        made = attempting_rig({"hedge": True})
        for number in range(AT_LEAST):
            Attempting(made, call(model="main/m", input=str(number))).answers()
        assert Attempting(made, call(model="main/m", input="late")).expect(Forward)

    def test_mending(self) -> None:
        made = Attempting(attempting_rig({"can_prefill": "prefix"}), call(model="main/m", stream=True))
        answer = made.begins(b"event: response.created\ndata: {}\n\n")
        assert made.head is answer

    def test_a_judge_is_asked_by_chat(self) -> None:
        body = {"model": "judge", "messages": [{"role": "user", "content": "same?"}]}
        asked = chatting(call(endpoint="https://x.test/v1"), body)
        assert (asked.endpoint, asked.api, asked.messages) == (
            "https://x.test/v1/chat/completions", "chat", body["messages"],
        )  # fmt: skip
        assert asked.headers == {"authorization": "Bearer k"}


class TestChecking:
    """Semantic hits of responses are asked upstream as well, as those of chat completions are."""

    def checked(self, said: str, **fields: Any) -> tuple[Rig, Fetch]:
        own = {"base_url": "https://own.test/v1", "api_key": "k", "prices": {"gpt-4o-mini": PRICE}}
        made = Rig({"backends": {"own": own}, "cache": {"check_share": 1.0}}, chance=0.0)
        cached = body_of(response({"model": "m"}, output=[message(text=said)]))
        course = served(made, call(endpoint="", **fields), completion=cached)
        fresh = response({"model": "gpt-4o-mini"})
        (asked,) = checked(course, answered(fresh))
        return made, asked

    @pytest.mark.parametrize(("said", "is_same"), [(TEXT, True), ("no", False)])
    def test_what_both_say_is_compared(self, said: str, is_same: bool) -> None:
        made, asked = self.checked(said, stream=True, metadata={"trace": "1"})
        assert asked.outgoing.url == "https://own.test/v1/responses"
        sent = json.loads(asked.outgoing.body)
        assert sent == {"model": "gpt-4o-mini", "input": "hi", "store": False}, "it leaves nothing upstream"
        assert [(source, found) for _, source, found in made.cache.learnt] == [("shadow", is_same)]
        assert [event.is_same for event in made.checks] == [is_same]
        assert made.troubles.counts == {}

    @pytest.mark.parametrize(("store", "kept"), [({}, 0), ({"store": True}, 0), ({"store": False}, 1)])
    def test_what_upstream_does_not_know_is_kept_for_nobody_who_could_go_on_from_it(
        self, store: dict[str, bool], kept: int
    ) -> None:
        made, _ = self.checked("no", **store)
        assert len(made.cache.entries) == 1 + kept

    def test_what_may_have_effects_is_not_asked_again(self) -> None:
        assert is_plain(call())
        assert not is_plain(call(tools=[FUNCTION]))
        assert not is_plain(call("completions"))
        assert is_plain(chatting(call(), {"model": "judge", "messages": [{"role": "user", "content": "same?"}]}))


class TestExploring:
    """A response that was asked for because of an entry's evidence tells of that entry, as a completion does."""

    @pytest.mark.parametrize(("said", "is_same"), [(TEXT, True), ("no", False)])
    def test_what_both_say_is_compared(self, said: str, is_same: bool) -> None:
        made = Rig({"backends": {"own": {"base_url": "https://own.test/v1"}}})
        self.settled(made, weighed("d" * 64, 0.95), said)
        assert [found for *_, found in made.cache.learnt] == [is_same]

    def test_a_model_is_asked_by_chat(self) -> None:
        own = {"base_url": "https://own.test/v1", "api_key": "k", "prices": {"judge": PRICE, "gpt-4o-mini": PRICE}}
        made = Rig({"backends": {"own": own}}, judge=ModelJudge("judge"))
        *_, beside = self.settled(made, weighed("d" * 64, 0.95, ask=0.2), "no")
        assert isinstance(beside, Aside)
        urls = []

        def perform(effect: Effect) -> Any:
            if isinstance(effect, Compute):
                return effect.call()
            assert isinstance(effect, Fetch)
            urls.append(effect.outgoing.url)
            raise ConnectionError

        drive(beside.flow, perform)
        beside.ended()
        assert urls == ["https://own.test/v1/chat/completions"]

    def settled(self, made: Rig, doubt: Any, said: str) -> list[Effect]:
        cached = body_of(response({"model": "m"}, output=[message(text=said)]))
        made.cache.found = Found(None, 0.96, "evidence", entry("d" * 64, completion=cached), doubt)
        course = Course(made, call(endpoint=""))
        ticket = course.board().ticket
        course.search()
        course.launch(head())
        assert ticket.recorder is not None
        ticket.recorder.feed(body_of(response({"model": "m"})))
        ticket.recorder.end()
        effects: list[Effect] = []

        def perform(effect: Effect) -> Any:
            effects.append(effect)
            return None if isinstance(effect, Aside) else effect.call()  # type: ignore[union-attr]

        drive(ticket.settle(ticket), perform)
        return effects

    def test_a_call_says_nothing(self) -> None:
        assert says(response({"model": "calls"})) is None
        assert says(response({"model": "thinks"})) == TEXT


PRICE = {"input_usd_per_mtok": 1.0, "output_usd_per_mtok": 1.0}
