"""Whose budget and turn a call takes."""

from __future__ import annotations

import pytest

from llm_proxy.engine.asked import asked_by, caller_name
from llm_proxy.engine.fingerprint import payer_of, tenant_of
from llm_proxy.holders import Holder
from llm_proxy.types import ChatRequest


class TestPayer:
    KEYS = frozenset({"one", "two"})

    @pytest.mark.parametrize(
        "more", [{}, {"openai-organization": "x"}, {"openai-project": "x"}, {"x-api-key": "invented"}]
    )
    def test_of_a_proxy_with_keys_it_is_the_key(self, more: dict[str, str]) -> None:
        mine = payer_of(ChatRequest({}, b"", headers={"authorization": "Bearer one", **more}), "api_key", self.KEYS)
        assert mine == payer_of(ChatRequest({}, b"", headers={"authorization": "Bearer one"}), "api_key", self.KEYS)
        assert mine != payer_of(ChatRequest({}, b"", headers={"authorization": "Bearer two"}), "api_key", self.KEYS)

    def test_else_it_is_the_tenant(self) -> None:
        call = ChatRequest({}, b"", headers={"authorization": "Bearer other", "x-team": "a"})
        assert payer_of(call, "api_key", self.KEYS) == tenant_of(call, "api_key")
        keyed = ChatRequest({}, b"", headers={"authorization": "Bearer one", "x-team": "a"})
        assert payer_of(keyed, "header:x-team", self.KEYS) == "header:a"


class TestHolder:
    """Of an issued key it is the key's tenant, whatever the rule and whatever its caller says."""

    ANNA = Holder("12345678", "anna", "research")

    def call(self, **headers: str) -> ChatRequest:
        return ChatRequest({"user": "u"}, b"", headers={"authorization": "Bearer lp-x", **headers}, holder=self.ANNA)

    @pytest.mark.parametrize(
        ("rule", "tenant"),
        [
            ("api_key", "tenant:research"),
            ("fixed:all", "tenant:research"),
            ("user", "tenant:research user:u"),
            ("header:x-team", "tenant:research header:blue"),
        ],
    )
    def test_the_tenant(self, rule: str, tenant: str) -> None:
        call = self.call(**{"x-team": "blue", "openai-organization": "o"})
        assert tenant_of(call, rule) == tenant
        assert payer_of(call, rule, frozenset({"lp-x"})) == "tenant:research"

    def test_who_asked(self) -> None:
        assert asked_by(self.call(), keeps_questions=False)["caller"] == "12345678"
        without = ChatRequest({}, b"", headers={"authorization": "Bearer lp-x"})
        assert asked_by(without, keeps_questions=False)["caller"] == caller_name("lp-x")
        assert asked_by(ChatRequest({}, b"", headers={}), keeps_questions=False)["caller"] == ""
