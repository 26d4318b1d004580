from __future__ import annotations

import json
from itertools import combinations, product
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from llm_proxy.backends.openai_compatible import ACCOUNT_HEADERS, KEY_HEADERS
from llm_proxy.config import CacheConfig
from llm_proxy.engine.fingerprint import fingerprint, narrowed, tenant_of
from llm_proxy.types import Bypass, ChatRequest, Controls, Fingerprint

BASE: dict[str, Any] = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}]}
CALL = {"id": "t1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
TEXT = {"type": "text", "text": "hi"}


def printed(
    body: dict[str, Any] | None = None,
    *,
    settings: CacheConfig | None = None,
    destination: str = "here",
    headers: dict[str, str] | None = None,
    controls: Controls | None = None,
    **fields: Any,
) -> Fingerprint | Bypass:
    value = {**(BASE if body is None else body), **fields}
    call = ChatRequest(value, b"", headers or {}, controls=controls or Controls())
    return fingerprint(call, destination=destination, settings=settings or CacheConfig())


def key(**options: Any) -> str:
    found = printed(**options)
    assert isinstance(found, Fingerprint)
    return found.key


def scope(**options: Any) -> str:
    found = printed(**options)
    assert isinstance(found, Fingerprint)
    return found.scope


def text(**options: Any) -> str | None:
    found = printed(**options)
    assert isinstance(found, Fingerprint)
    return found.text


def said(*messages: dict[str, Any]) -> dict[str, Any]:
    return {"messages": list(messages)}


def user(content: Any, **fields: Any) -> dict[str, Any]:
    return {"role": "user", "content": content, **fields}


# Every field of OpenAI's chat completions, and some of other servers: whether it is part of what the model is asked.
MATTERS = {
    "audio": {"format": "wav", "voice": "alloy"},
    "frequency_penalty": 0.5,
    "function_call": "none",
    "functions": [{"name": "f"}],
    "logit_bias": {"50256": -100},
    "logprobs": True,
    "max_completion_tokens": 9,
    "max_tokens": 9,
    "modalities": ["text", "audio"],
    "moderation": {"model": "omni"},
    "n": 2,
    "parallel_tool_calls": False,
    "prediction": {"type": "content", "content": "x"},
    "presence_penalty": 0.5,
    "reasoning_effort": "low",
    "response_format": {"type": "json_object"},
    "seed": 7,
    "stop": ["\n"],
    "temperature": 0.5,
    "tool_choice": "required",
    "tools": [{"type": "function", "function": {"name": "f"}}],
    "top_logprobs": 2,
    "top_p": 0.5,
    "verbosity": "low",
    "web_search_options": {},
    "top_k": 40,
    "chat_template_kwargs": {"enable_thinking": False},
    "unheard_of": None,
}
DOES_NOT_MATTER = {
    "metadata": {"run": "1"},
    "prompt_cache_key": "x",
    "prompt_cache_options": {"mode": "explicit"},
    "prompt_cache_retention": "24h",
    "safety_identifier": "u1",
    "service_tier": "flex",
    "store": True,
    "stream": True,
    "stream_options": {"include_usage": True},
    "user": "u1",
}


class TestFields:
    @pytest.mark.parametrize(("name", "value"), MATTERS.items(), ids=list(MATTERS))
    def test_what_changes_the_answer_is_in_the_scope(self, name: str, value: Any) -> None:
        assert scope(**{name: value}) != scope()

    @pytest.mark.parametrize(("name", "value"), DOES_NOT_MATTER.items(), ids=list(DOES_NOT_MATTER))
    def test_what_names_caller_or_transport_is_not(self, name: str, value: Any) -> None:
        assert printed(**{name: value}) == printed()

    def test_model_counts_by_where_it_leads(self) -> None:
        assert printed(model="alias") == printed()
        assert scope(destination="there") != scope()

    @pytest.mark.parametrize(("whole", "same"), [(1, 1.0), (0, -0.0), (2**60, float(2**60))])
    def test_integral_numbers_are_equal_however_they_are_written(self, whole: int, same: float) -> None:
        assert scope(seed=whole) == scope(seed=same)
        assert scope(seed=whole) != scope(seed=whole + 0.5 if whole < 2**50 else whole + 1)

    def test_true_is_not_one(self) -> None:
        assert scope(logprobs=True) != scope(logprobs=1)
        assert scope(stop=None) != scope()


class TestMessages:
    def test_scope_has_all_but_the_last_text(self) -> None:
        assert scope(**said(user("a"))) == scope(**said(user("b")))
        assert key(**said(user("a"))) != key(**said(user("b")))
        assert scope(**said(user("x"), user("a"))) != scope(**said(user("y"), user("a")))
        assert scope(**said({"role": "system", "content": "s"}, user("a"))) != scope(**said(user("a")))
        assert scope(**said(user("a", name="ann"))) != scope(**said(user("a")))

    def test_one_text_part_is_a_string(self) -> None:
        assert printed(**said(user([TEXT]))) == printed(**said(user("hi")))

    def test_several_parts_are_not_their_sum(self) -> None:
        parts = said(user([TEXT, {"type": "text", "text": "you"}]))
        assert text(**parts) == "hi\nyou"
        assert scope(**parts) == scope(**said(user("hi\nyou")))
        assert len({key(**parts), key(**said(user("hi\nyou"))), key(**said(user("hiyou")))}) == 3

    @pytest.mark.parametrize(
        "last",
        [
            {"role": "tool", "tool_call_id": "t1", "content": "42"},
            {"role": "system", "content": "hi"},
            {"role": "assistant", "content": "hi"},
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            user([TEXT, IMAGE]),
            user([IMAGE]),
            user([{"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}}]),
            user([{"type": "file", "file": {"file_id": "f"}}]),
            user([{**TEXT, "cache_control": {"type": "ephemeral"}}]),
            user([{"type": "text", "text": 7}]),
            user(["hi"]),
            user([]),
            user(None),
            user(7),
            {"role": "user"},
            {},
        ],
    )
    def test_all_else_goes_by_its_exact_key(self, last: dict[str, Any]) -> None:
        found = printed(**said(user("before"), last))
        assert isinstance(found, Fingerprint)
        assert found.text is None
        others = [printed(**said(user("other"), last)), printed(**said(user("before"), {**last, "x": 1}))]
        assert all(isinstance(other, Fingerprint) and other.key != found.key for other in others)

    @pytest.mark.parametrize(
        "fields",
        [{"n": 2}, {"logprobs": True}, {"modalities": ["text", "audio"]}, said(user("  \n")), said(user(""))],
        ids=["n", "logprobs", "modalities", "blank", "empty"],
    )
    def test_some_answers_are_served_on_exact_keys_only(self, fields: dict[str, Any]) -> None:
        assert text(**fields) is None
        assert key(**fields) != scope(**fields)

    def test_text_only_modalities_and_one_choice_are_the_usual_case(self) -> None:
        assert text(n=1, logprobs=False, modalities=["text"]) == "hi"
        assert text(modalities=None, n=None) == "hi"

    @pytest.mark.parametrize("odd", ["\ud800", "\udfff end", "\x00", "\u2028 end"])
    def test_any_text_has_a_key(self, odd: str) -> None:
        assert text(**said(user(odd))) == odd
        assert key(**said(user(odd))) != key(**said(user("?")))
        assert scope(user=odd, settings=CacheConfig(tenant="user")) != scope(settings=CacheConfig(tenant="user"))

    def test_what_json_has_no_word_for_is_an_error(self) -> None:
        with pytest.raises(ValueError, match="JSON"):
            printed(seed=float("inf"))


class TestBypass:
    @pytest.mark.parametrize(
        ("options", "reason"),
        [
            ({"settings": CacheConfig(enabled=False)}, "disabled"),
            ({"controls": Controls(no_store=True)}, "no-store"),
            ({"messages": []}, "no-messages"),
            ({"messages": "hi"}, "no-messages"),
            ({"messages": ["hi"]}, "no-messages"),
            ({"temperature": 1.01}, "temperature"),
            ({"temperature": 2}, "temperature"),
            ({"temperature": 0.1, "settings": CacheConfig(max_temperature=0)}, "temperature"),
        ],
    )
    def test_reasons(self, options: dict[str, Any], reason: str) -> None:
        assert printed(**options) == Bypass(reason)

    @pytest.mark.parametrize("temperature", [None, 0, 1, 1.0, "hot", True])
    def test_other_temperatures_are_cached(self, temperature: Any) -> None:
        assert isinstance(printed(temperature=temperature), Fingerprint)

    def test_an_unset_temperature_counts_as_allowed(self) -> None:
        assert isinstance(printed(settings=CacheConfig(max_temperature=0)), Fingerprint)


class TestTenants:
    def tenant(self, rule: str, headers: dict[str, str] | None = None, **fields: Any) -> str:
        return tenant_of(ChatRequest({**BASE, **fields}, b"", headers or {}), rule)

    def test_keys_are_hashed(self) -> None:
        one = self.tenant("api_key", {"authorization": "Bearer sk-1"})
        azure = self.tenant("api_key", {"api-key": "sk-1"})
        assert len({one, azure, self.tenant("api_key"), self.tenant("api_key", {"authorization": "Bearer sk-2"})}) == 4
        assert "sk-1" not in one + azure

    @pytest.mark.parametrize(("one", "other"), list(combinations([*KEY_HEADERS, *ACCOUNT_HEADERS], 2)))
    def test_every_header_that_says_who_asks_counts(self, one: str, other: str) -> None:
        values = list(product(("", "a", "b"), repeat=2))
        assert len({self.tenant("api_key", {one: first, other: second}) for first, second in values}) == len(values)

    def test_a_bearer_token_is_one_however_it_is_written(self) -> None:
        written = ("Bearer sk-1", "bearer  sk-1", " BEARER sk-1 ")
        assert len({self.tenant("api_key", {"authorization": value}) for value in written}) == 1

    def test_other_rules(self) -> None:
        assert self.tenant("user", user="u1") == "user:u1"
        assert self.tenant("user") == self.tenant("user", user=None) == "user:"
        assert self.tenant("header:X-Team", {"x-team": "blue"}) == "header:blue"
        assert self.tenant("header:X-Team") == "header:"
        assert self.tenant("fixed:all", {"authorization": "Bearer sk-1"}) == "fixed:all"

    def test_one_tenant_is_never_served_anothers_answer(self) -> None:
        keys = {
            key(headers={"authorization": "Bearer a"}),
            key(headers={"authorization": "Bearer b"}),
            key(headers={"api-key": "a"}),
            key(settings=CacheConfig(tenant="fixed:x")),
            key(settings=CacheConfig(tenant="fixed:y")),
            key(settings=CacheConfig(tenant="user"), user="x"),
            key(settings=CacheConfig(tenant="header:h"), headers={"h": "x"}),
        }
        assert len(keys) == 7
        assert key(settings=CacheConfig(tenant="fixed:x"), headers={"authorization": "1"}) in keys


def test_a_long_text_is_never_matched_by_its_beginning_alone() -> None:
    assert narrowed("s", "abcdef", 6) == narrowed("s", "abcdef", 99) == "s"
    assert narrowed("s", "abcdef", 3) == narrowed("s", "xyzdef", 3) != "s"
    assert narrowed("s", "abcdef", 3) != narrowed("s", "abcdeg", 3)
    assert narrowed("s", "abcdef", 3) != narrowed("t", "abcdef", 3)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.dictionaries(st.sampled_from(sorted(MATTERS)) | st.text(min_size=1), JSON, max_size=5).filter(
    lambda fields: not fields.keys() & {"model", "messages", "temperature", *DOES_NOT_MATTER}
)


def shuffled(value: Any) -> Any:
    """The same JSON with the keys of every object the other way round."""
    if isinstance(value, dict):
        return {name: shuffled(value[name]) for name in reversed(value)}
    return [shuffled(item) for item in value] if isinstance(value, list) else value


class TestMemory:
    """Bodies that came again as the same object are not read again."""

    @staticmethod
    def asked(body: dict[str, Any], raw: bytes = b"", **options: Any) -> Fingerprint | Bypass:
        request = ChatRequest(body=body, raw=raw or json.dumps(body).encode(), headers=options.pop("headers", {}))
        return fingerprint(request, destination=options.pop("destination", "d"), settings=CacheConfig(**options))

    def test_the_same_object_has_the_same_print(self) -> None:
        body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
        assert self.asked(body) is self.asked(body)
        assert self.asked(body) == self.asked(json.loads(json.dumps(body)))

    def test_not_for_another_caller_or_place(self) -> None:
        body = {"model": "m", "messages": [{"role": "user", "content": "hi"}, {"role": "user", "content": "and"}]}
        prints = [
            self.asked(body),
            self.asked(body, headers={"authorization": "Bearer other"}),
            self.asked(body, destination="e"),
            self.asked(body, tenant="fixed:one"),
        ]
        assert len({found.key for found in prints if isinstance(found, Fingerprint)}) == 4
        similar = self.asked(body, context="similar")
        assert isinstance(similar, Fingerprint)
        assert similar.turns == ("hi",)
        assert self.asked(body, max_temperature=0.5) is not None
        assert isinstance(self.asked({**body, "temperature": 2}, max_temperature=0.5), Bypass)

    def test_long_bodies_are_not_kept_and_others_not_for_ever(self) -> None:
        body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
        assert self.asked(body, raw=b" " * 20_000) is not self.asked(body, raw=b" " * 20_000)
        first = self.asked(body)
        for number in range(300):
            self.asked({"model": "m", "messages": [{"role": "user", "content": str(number)}]})
        assert self.asked(body) == first


@given(fields=FIELDS, content=st.text())
def test_order_of_keys_never_matters(fields: dict[str, Any], content: str) -> None:
    body = {**BASE, **fields, **said(user("before", extra=fields), user(content))}
    assert printed(body) == printed(shuffled(body)) == printed(json.loads(json.dumps(body)))


@given(fields=FIELDS, name=st.sampled_from(sorted(MATTERS)), value=JSON)
def test_any_other_value_is_another_question(fields: dict[str, Any], name: str, value: Any) -> None:
    had = fields.get(name, ...)
    assume(had is ... or json.dumps(had, sort_keys=True) != json.dumps(value, sort_keys=True))
    assume(type(had) not in (int, float) or type(value) not in (int, float) or had != value)
    assume(name != "temperature" or type(value) not in (int, float) or value <= 1.0)  # else it bypasses the cache
    assert key(**fields) != key(**{**fields, name: value})


class TestSimilarContext:
    SIMILAR = CacheConfig(context="similar")

    @staticmethod
    def conversation(first: Any = "Oslo?", answer: str = "Warm things.", last: str = "And in winter?") -> Any:
        roles = ("system", "user", "assistant", "user")
        contents = ("Be brief.", first, answer, last)
        return [{"role": role, "content": content} for role, content in zip(roles, contents, strict=True)]

    def printed(self, messages: Any, settings: CacheConfig | None = None) -> Fingerprint:
        found = printed(messages=messages, settings=settings or self.SIMILAR)
        assert isinstance(found, Fingerprint)
        return found

    def test_what_the_user_said_before_is_left_open(self) -> None:
        one, other = (self.printed(self.conversation(first)) for first in ("Oslo?", "And Oslo?"))
        assert (one.scope, one.turns, other.turns) == (other.scope, ("Oslo?",), ("And Oslo?",))
        assert one.key != other.key

    def test_all_else_is_not(self) -> None:
        one = self.printed(self.conversation())
        assert one.scope != self.printed(self.conversation(answer="Cold things.")).scope
        assert one.scope != self.printed([{"role": "user", "content": "Oslo?"}, *self.conversation()]).scope
        system, *others = self.conversation()
        assert one.scope != self.printed([{**system, "content": "Be long."}, *others]).scope
        assert one.scope != self.printed(others).scope

    def test_the_key_is_that_of_the_exact_mode(self) -> None:
        messages = self.conversation()
        exact = self.printed(messages, CacheConfig())
        assert (exact.turns, exact.key) == ((), self.printed(messages).key)
        assert exact.scope != self.printed(messages).scope
        assert exact.scope != self.printed(self.conversation("And Oslo?"), CacheConfig()).scope

    def test_a_first_question_has_the_same_scope_in_both(self) -> None:
        messages = self.conversation()[:2]
        assert self.printed(messages) == self.printed(messages, CacheConfig())

    def test_parts_of_text_count_and_images_do_not(self) -> None:
        parts = [TEXT, {"type": "text", "text": "there"}]
        assert self.printed(self.conversation(parts)).turns == ("hi\nthere",)
        with_image = self.printed(self.conversation([TEXT, IMAGE]))
        assert with_image.turns == ()
        assert with_image.scope != self.printed(self.conversation([IMAGE])).scope

    def test_messages_of_no_known_form_are_compared_as_they_are(self) -> None:
        found = self.printed(["odd", *self.conversation()])
        assert found.turns == ("Oslo?",)
        assert found.scope != self.printed(self.conversation()).scope
